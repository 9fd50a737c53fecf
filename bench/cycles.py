"""Tasks that are sent, received and deleted, by connections that do one request after another, in a process of their own.

    python -m bench.cycles URL --wire leases|sqs --queue NAME [--connections 16] [--seconds 3]

Each connection sends ten tasks one by one, takes up to ten in one request, and settles these one by one: 21 requests for ten
tasks, the same over both wires. Requests are not signed, so that what is measured is the server.
"""

import argparse
import asyncio
import time
from typing import Any, Protocol
from urllib.parse import urlsplit

import msgspec
import uvloop

from bench.processes import say
from bench.subject import PAYLOAD, whole_answer

TAKEN = 10
BODY = msgspec.json.encode(PAYLOAD)


def headers_of(operation: str) -> dict[str, str]:
    """Return the headers of a request to SQS. Its signature is none: it must not be checked."""
    return {
        "content-type": "application/x-amz-json-1.0",
        "x-amz-target": f"AmazonSQS.{operation}",
        "authorization": "AWS4-HMAC-SHA256 Credential=any/20260101/eu-central-1/sqs/aws4_request, SignedHeaders=host, Signature=0",
    }


class Wire(Protocol):
    """What a connection sends, as bytes of whole requests."""

    def send(self) -> bytes: ...

    def take(self) -> bytes: ...

    def taken(self, body: bytes) -> list[Any]:
        """Return what was taken."""

    def settle(self, taken: Any) -> bytes: ...


class Leases:
    def __init__(self, host: str, queue: str) -> None:
        self._host = host
        self._send = self._request(f"/queues/{queue}/tasks", b'{"payload": %s}' % BODY)
        self._take = self._request(f"/queues/{queue}/leases", b'{"max_tasks": %d, "lease_seconds": 30}' % TAKEN)

    def _request(self, path: str, body: bytes, more: str = "") -> bytes:
        head = f"POST {path} HTTP/1.1\r\nhost: {self._host}\r\ncontent-type: application/json\r\n{more}"
        return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body

    def send(self) -> bytes:
        return self._send

    def take(self) -> bytes:
        return self._take

    def taken(self, body: bytes) -> list[Any]:
        return list(msgspec.json.decode(body)["tasks"])

    def settle(self, taken: Any) -> bytes:
        return self._request(f"/tasks/{taken['id']}/complete", b"{}", f"sluice-lease-token: {taken['lease_token']}\r\n")


class Sqs:
    def __init__(self, host: str, queue: str) -> None:
        self._host = host
        self._url = f"http://{host}/123456789012/{queue}"
        self._send = self.request("SendMessage", QueueUrl=self._url, MessageBody=BODY.decode())
        self._take = self.request(
            "ReceiveMessage", QueueUrl=self._url, MaxNumberOfMessages=TAKEN, VisibilityTimeout=30, WaitTimeSeconds=0
        )

    def request(self, operation: str, **members: Any) -> bytes:
        body = msgspec.json.encode(members)
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers_of(operation).items())
        return f"POST / HTTP/1.1\r\nhost: {self._host}\r\n{lines}content-length: {len(body)}\r\n\r\n".encode() + body

    def send(self) -> bytes:
        return self._send

    def take(self) -> bytes:
        return self._take

    def taken(self, body: bytes) -> list[Any]:
        return list(msgspec.json.decode(body).get("Messages", ()))

    def settle(self, taken: Any) -> bytes:
        return self.request("DeleteMessage", QueueUrl=self._url, ReceiptHandle=taken["ReceiptHandle"])


class Connection:
    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = parts.hostname, parts.port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> bytes:
        """Return the body of the answer. Raises RuntimeError for one other than 200 or 201."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
        reader, writer = self._streams
        writer.write(request)
        head, body = await whole_answer(reader)
        if b"connection: close" in head:
            self.close()  # moto's server wants it after each answer
        if b" 20" not in head[: head.index(b"\r\n")]:
            raise RuntimeError(f"{head!r}: {body[:300]!r}")
        return body

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def cycle(url: str, wire: Wire, settled: list[float], until: float) -> None:
    connection = Connection(url)
    while time.perf_counter() < until:
        for _ in range(TAKEN):
            await connection.ask(wire.send())
        for taken in wire.taken(await connection.ask(wire.take())):
            await connection.ask(wire.settle(taken))
            settled.append(time.perf_counter())
    connection.close()


async def load(url: str, wire: str, queue: str, connections: int, warm_seconds: float, seconds: float) -> float:
    """Return tasks settled per second."""
    host, settled = urlsplit(url).netloc, list[float]()
    begun = time.perf_counter() + warm_seconds
    ended = begun + seconds
    spoken: Wire = Leases(host, queue) if wire == "leases" else Sqs(host, queue)
    await asyncio.gather(*(cycle(url, spoken, settled, ended) for _ in range(connections)))
    return sum(begun <= at < ended for at in settled) / seconds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--wire", choices=("leases", "sqs"), required=True)
    parser.add_argument("--queue", required=True)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--warm-seconds", type=float, default=0.5)
    parser.add_argument("--seconds", type=float, default=3.0)
    given = parser.parse_args()
    found = load(given.url, given.wire, given.queue, given.connections, given.warm_seconds, given.seconds)
    say(event="cycled", per_second=uvloop.run(found))
