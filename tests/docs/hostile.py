"""What the internet sends to an endpoint that anybody can reach, and how an endpoint has to take it."""

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx2

from app.delivery.webhook.signing import sign

NOW = "{now}"
LIMIT_SECONDS = 20.0
STAMPS = ("", "abc", "-1", "1e9", "1.5", "nan", "9" * 5_000, "\u00b2", "\u0661\u0662", "0x10", "1_0", "+5", NOW)
SIGNATURES = (
    "",
    ",",
    "v1",
    "v1,",
    "v1,####",
    "v1," + "A" * 44,
    "v1a," + "A" * 88,
    "\u00ff\u00fe v1,\u00ff",
    "v1,A " * 900,
)
LENGTHS = ("abc", "-1", "-0", "+2", "1_0", "2, 3", "0x2", "\u0662", "9" * 30, "9" * 5_000, "")
METHODS = ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "FOO", "get")
PATHS = ("/.env", "/wp-login.php?x=1", "//", "/%00", "/" + "a" * 8_000, "http://other/", "*")
GARBAGE = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)),  # TLS
    b"\x00" * 1_000,
    b"\r\n\r\n\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"POST / HTTP/9.9\r\n\r\n",
    b"POST /\r\n\r\n",
    b"POST / HTTP/1.1\r\nno colon\r\n: no name\r\nbad name: 1\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 200_000 + b"\r\n\r\n",
    b"POST / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 500 + b"\r\n",
)


def unsigned() -> Iterator[bytes]:
    """Whole requests in good form. Nobody signed them, so they are refused, each with an answer."""
    yield _post({}, b"")
    yield _post({}, b"{}")
    yield _post({}, b"\xff\xfe" * 500)
    yield _post({}, b"[" * 100_000)
    for stamp in STAMPS:
        for signature in SIGNATURES:
            yield _post({"webhook-id": "x", "webhook-timestamp": stamp, "webhook-signature": signature}, b"{}")
    for absent in ("webhook-id", "webhook-timestamp", "webhook-signature"):
        given = {"webhook-id": "x", "webhook-timestamp": NOW, "webhook-signature": "v1," + "A" * 44}
        yield _post({name: value for name, value in given.items() if name != absent}, b"{}")
    yield _post(
        {"webhook-id": "\u00ff" * 100, "webhook-timestamp": NOW, "webhook-signature": "v1," + "A" * 44}, b"\xff"
    )
    yield _post({"sluice-queue": "nosuch", "sluice-cursor": "x", "sluice-attempt": "x"}, b"null")


def odd() -> Iterator[bytes]:
    """Requests that may be answered or not, with any fault, so long as nothing breaks."""
    for length in LENGTHS:
        yield _head("POST", "/", {"content-length": length}) + b"{}"
    yield _head("POST", "/", {}) + b"{}"
    yield _head("POST", "/", {"content-length": "2", "Content-Length": "3"}) + b"{}"
    yield _head("POST", "/", {"transfer-encoding": "chunked"}) + b"2\r\n{}\r\n0\r\n\r\n"
    yield _head("POST", "/", {"transfer-encoding": "chunked"}) + b"zz\r\n"
    yield _head("POST", "/", {"transfer-encoding": "gzip, chunked", "content-length": "2"}) + b"{}"
    yield _head("POST", "/", {"content-length": "2", "expect": "100-continue"}) + b"{}"
    for method in METHODS:
        yield _head(method, "/", {"content-length": "0"})
    for path in PATHS:
        yield _head("POST", path, {"content-length": "2"}) + b"{}"
    yield from GARBAGE


async def endures(url: str) -> None:
    """Send all of it. Fails unless what is in good form and unsigned is refused with 4xx, and all else leaves the endpoint well.

    Connections that were left half open on the way stay so to the end.
    """
    with contextlib.ExitStack() as left_open:
        for beginning in (
            b"",
            b"POST / HTTP/1.1\r\nhost: x\r\nconte",
            _head("POST", "/", {"content-length": "900"}) + b"{",
        ):
            left_open.enter_context(_connected(url)).sendall(beginning)
        for request in unsigned():
            status = await _status(url, request)
            assert 400 <= status <= 499, f"{status} to {request[:300]!r}"
        for request in odd():
            with contextlib.suppress(ConnectionError):
                await _status(url, request, whole=False)
        for part in (b"", b"POST / HT", _head("POST", "/", {"content-length": "900"}) + b"{" * 100):
            with _connected(url) as gone:
                gone.sendall(part)
                gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closed by a reset
        await _refuses_what_is_too_large(url)


async def delivered(url: str, secret: str, body: bytes, **headers: str) -> httpx2.Response:
    """What the endpoint answers to a delivery, as Sluice would sign it."""
    now = int(time.time())
    given = {
        "webhook-id": "task-1",
        "webhook-timestamp": str(now),
        "webhook-signature": sign((secret,), headers.get("webhook_id", "task-1"), now, body),
        "content-type": "application/json",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    async with httpx2.AsyncClient(trust_env=False, timeout=LIMIT_SECONDS) as client:
        return await client.post(url, content=body, headers=given)


async def _refuses_what_is_too_large(url: str) -> None:
    """By its length alone, at once: none of the body is sent."""
    status = await _status(url, _head("POST", "/", {"content-length": str(10**7 + 1)}))
    assert status in (400, 401, 413), status


async def _status(url: str, request: bytes, *, whole: bool = True) -> int:
    """The status of the answer; ConnectionError if the connection was closed instead."""
    reader, writer = await asyncio.open_connection(*_where(url))
    try:
        writer.write(request)
        if not whole:
            writer.write_eof()
        async with asyncio.timeout(LIMIT_SECONDS):
            line = await reader.readline()
        if not line.startswith(b"HTTP/"):
            raise ConnectionError(f"{line!r} to {request[:300]!r}")
        return int(line.split()[1])
    finally:
        writer.close()


def _post(headers: dict[str, str], body: bytes) -> bytes:
    return _head("POST", "/", {"content-length": str(len(body)), **headers}) + body


def _head(method: str, path: str, headers: dict[str, str]) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: x"]
    lines += [f"{name}: {value.replace(NOW, str(int(time.time())))}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def _connected(url: str) -> socket.socket:
    return socket.create_connection(_where(url), timeout=LIMIT_SECONDS)


def _where(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname is not None and parts.port is not None
    return parts.hostname, parts.port
