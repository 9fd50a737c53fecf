"""The server against clients that stall, flood and leave: raw sockets."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from app.api.protocol import EdgeServerConfig
from app.api.server import EdgeServer
from tests.api.edge import edge
from tests.support import poll

pytestmark = pytest.mark.anyio
App = Callable[[Scope, Receive, Send], Awaitable[None]]


@pytest.fixture(params=[pytest.param(False, id="asyncio"), pytest.param(True, id="uvloop")])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param}


async def answer(send: Send, body: bytes) -> None:
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """The whole body back; a client that has gone gets nothing."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        more = message["more_body"]
    await answer(send, body)


@asynccontextmanager
async def serving(app: App, **limits: Any) -> AsyncIterator[tuple[EdgeServer, int]]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = EdgeServerConfig(app, log_config=None, access_log=False, **limits)
    server = EdgeServer(config, catch_signals=False)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await poll(lambda: server.started)
        yield server, listener.getsockname()[1]
    finally:
        server.force_exit = True
        server.stop()
        await task


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def response(self) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(5):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            return int(head[0].split()[1]), headers, await self.reader.readexactly(int(headers["content-length"]))

    async def problem(self) -> tuple[int, str]:
        status, headers, body = await self.response()
        assert headers["content-type"] == "application/problem+json"
        return status, json.loads(body)["code"]

    async def closed(self) -> bytes:
        """What still comes before the server closes."""
        async with asyncio.timeout(5):
            return await self.reader.read()


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


POST = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 5\r\n\r\n"
GET = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"


async def test_requests_and_keep_alive_work_as_ever() -> None:
    async with serving(echo) as (_, port), connected(port) as client:
        for _ in range(3):
            client.send(POST + b"abcde")
            assert (await client.response())[::2] == (200, b"abcde")
        client.send(POST + b"first" + POST + b"again" + GET)
        assert [(await client.response())[2] for _ in range(3)] == [b"first", b"again", b""]


@pytest.mark.parametrize("begun", [b"GET /", b"POST / HTTP/1.1\r\nhost: a\r\nx-long: aaaa", POST[:-2]])
async def test_a_head_that_never_ends_is_cut(begun: bytes) -> None:
    async with serving(echo, head_seconds=0.1) as (_, port), connected(port) as client:
        client.send(begun)
        assert await client.problem() == (408, "request_timeout")
        assert await client.closed() == b""


async def test_a_head_that_trickles_in_is_cut_at_one_deadline() -> None:
    async with serving(echo, head_seconds=0.3) as (_, port), connected(port) as client:

        async def trickle() -> None:
            for byte in GET[:-1] * 100:
                client.send(bytes([byte]))
                await asyncio.sleep(0.01)

        trickling = asyncio.create_task(trickle())
        assert await client.problem() == (408, "request_timeout")
        trickling.cancel()


async def test_silence_is_no_request() -> None:
    async with serving(echo, head_seconds=0.1) as (_, port), connected(port) as client:
        assert await client.closed() == b""


async def test_blank_lines_between_requests_do_not_hold_a_connection() -> None:
    async with serving(echo, head_seconds=0.2, timeout_keep_alive=60) as (_, port), connected(port) as client:
        client.send(GET)
        await client.response()
        client.send(b"\r\n\r\n")
        assert await client.closed() == b""


@pytest.mark.parametrize("head", [POST, POST.replace(b"content-length: 5", b"transfer-encoding: chunked")])
async def test_a_body_that_never_ends_is_cut(head: bytes) -> None:
    gone = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await echo(scope, receive, send)
        gone.set()

    async with serving(app, body_seconds=0.1) as (_, port), connected(port) as client:
        client.send(head + b"3\r\n")
        assert await client.problem() == (408, "request_timeout")
        assert await client.closed() == b""
        async with asyncio.timeout(5):
            await gone.wait()


async def test_many_stalled_clients_are_all_cut() -> None:
    async with serving(echo, head_seconds=0.5) as (server, port):
        clients = [Client(*await asyncio.open_connection("127.0.0.1", port)) for _ in range(200)]
        for client in clients:
            client.send(b"POST /queues/q/tasks HTTP/1.1\r\n")
        for client in clients:
            # On a busy machine the first are cut before they have said a word, and then without one.
            assert (await client.closed())[:12] in (b"HTTP/1.1 408", b"")
            client.writer.close()
        await poll(lambda: not server.server_state.connections)


async def test_a_slow_application_is_not_the_clients_fault() -> None:
    released = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await released.wait()
        await echo(scope, receive, send)

    async with serving(app, head_seconds=0.3, body_seconds=0.3) as (_, port), connected(port) as client:
        client.send(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 300000\r\n\r\n" + b"x" * 300_000)
        await client.writer.drain()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.6):
                await client.reader.read(1)
        released.set()
        assert (await client.response())[0] == 200


async def test_an_answer_may_take_longer_than_any_deadline_of_a_request() -> None:
    released = asyncio.Event()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await released.wait()
        await answer(send, b"late")

    async with serving(app, head_seconds=0.05, body_seconds=0.05) as (_, port), connected(port) as client:
        client.send(GET)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await client.reader.read(1)
        released.set()
        assert (await client.response())[2] == b"late"


def head_of(headers: bytes) -> bytes:
    return b"GET / HTTP/1.1\r\nhost: localhost\r\n" + headers + b"\r\n"


@pytest.mark.parametrize(
    "flood",
    [
        head_of(b"".join(b"x-%d: 1\r\n" % n for n in range(101))),
        head_of(b"x: " + b"a" * 70_000 + b"\r\n"),
        head_of(b"".join(b"x-%d: %s\r\n" % (n, b"a" * 3000) for n in range(30))),
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n",
        head_of(b"x" * 70_000 + b": 1\r\n"),
        b"GET / HTTP/1.1\r\nx: " + b"a" * 200_000,
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx: " + b"a" * 200_000,
        b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1;" + b"a" * 200_000,
    ],
    ids=[
        "many",
        "long value",
        "long together",
        "long url",
        "long name",
        "endless value",
        "endless trailer",
        "endless extension",
    ],
)
async def test_a_flood_of_headers_is_refused(flood: bytes) -> None:
    async with serving(echo) as (_, port), connected(port) as client:
        client.send(flood)
        assert await client.problem() == (431, "headers_too_large")


async def test_a_head_within_the_limits_passes() -> None:
    async with serving(echo) as (_, port), connected(port) as client:
        client.send(head_of(b"".join(b"x-%d: %s\r\n" % (n, b"a" * 600) for n in range(99))))
        assert (await client.response())[0] == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"NONSENSE\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost a\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: a\x00b\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nabcdef",
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: -5\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_what_is_no_request_is_a_problem_too(request_bytes: bytes) -> None:
    async with serving(echo) as (_, port), connected(port) as client:
        client.send(request_bytes)
        assert await client.problem() == (400, "malformed")
        assert await client.closed() == b""


async def test_a_broken_request_is_not_answered_in_place_of_the_one_before() -> None:
    released = asyncio.Event()

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        await released.wait()
        await answer(send, b"first")

    async with serving(app) as (_, port), connected(port) as client:
        client.send(GET + b"NONSENSE\r\n\r\n")
        assert await client.closed() == b""
        released.set()


async def test_connections_beyond_the_limit_are_told_so() -> None:
    async with serving(echo, max_connections=2) as (server, port):
        async with connected(port), connected(port), connected(port) as third:
            assert await third.problem() == (503, "unavailable")
            await third.closed()
        await poll(lambda: not server.server_state.connections)
        async with connected(port) as client:
            client.send(GET)
            assert (await client.response())[0] == 200


async def test_a_refused_body_leaves_the_connection_usable() -> None:
    async with serving(edge(max_payload_bytes=10)) as (_, port), connected(port) as client:
        head = b"POST /queues/q/tasks HTTP/1.1\r\nhost: a\r\nauthorization: Bearer slk_use\r\ncontent-type: application/json\r\n"
        client.send(head + b"content-length: 300000\r\n\r\n")
        assert await client.problem() == (413, "too_large")
        client.send(b" " * 300_000 + b"GET /health/live HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await client.response())[2] == b'{"status":"ok"}'


async def test_a_client_that_leaves_in_mid_body_is_forgotten() -> None:
    async with serving(edge()) as (server, port):
        async with connected(port) as client:
            client.send(
                b"POST /queues/q/tasks HTTP/1.1\r\nhost: a\r\nauthorization: Bearer slk_use\r\n"
                b"content-type: application/json\r\ncontent-length: 100\r\n\r\n{"
            )
            await poll(lambda: server.server_state.tasks)
        await poll(lambda: not server.server_state.tasks)


async def test_a_request_without_a_host_is_malformed() -> None:
    async with serving(edge()) as (_, port), connected(port) as client:
        client.send(b"GET /health/live HTTP/1.1\r\n\r\n")
        assert await client.problem() == (400, "malformed")


async def test_head_has_no_body() -> None:
    async with serving(edge()) as (_, port), connected(port) as client:
        client.send(b"HEAD /health/live HTTP/1.1\r\nhost: a\r\n\r\n" + b"GET /health/live HTTP/1.1\r\nhost: a\r\n\r\n")
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert b"200 OK" in head and b"content-length: 15" in head
        assert (await client.response())[2] == b'{"status":"ok"}'


# Signals


async def test_the_first_signal_asks_for_a_drain_and_the_second_skips_it() -> None:
    async with serving(echo) as (server, port), connected(port) as client:
        server.handle_exit(signal.SIGTERM, None)
        async with asyncio.timeout(5):
            await server.draining.wait()
        assert not server.hurried.is_set()
        client.send(GET)
        assert (await client.response())[0] == 200
        assert not server.should_exit
        server.handle_exit(signal.SIGINT, None)
        async with asyncio.timeout(5):
            await server.hurried.wait()
        assert server.should_exit


async def test_a_real_signal_drains_and_leaves_no_trace() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    server = EdgeServer(EdgeServerConfig(echo, log_config=None, access_log=False))
    task = asyncio.create_task(server.serve(sockets=[listener]))
    await poll(lambda: server.started)
    os.kill(os.getpid(), signal.SIGTERM)
    async with asyncio.timeout(5):
        await server.draining.wait()
        assert not task.done()
        server.stop()
        await task
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
