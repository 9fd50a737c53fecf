"""The load: keep-alive connections that each send one prebuilt request after another, in a process of their own.

    python -m bench.loadgen URL --connections 64 --seconds 3 [--bulk 1000]

A raw protocol on uvloop: it must cost less than what it measures (it reaches 65,000 requests a second against the
minimal handler). Answers other than 2xx are counted as errors. With --bulk each request is a batch of so many tasks.
"""

import argparse
import asyncio
import time
from typing import cast
from urllib.parse import urlsplit

import uvloop

from bench.figures import quantile
from bench.processes import say

BODY = b'{"payload": {"to": "ada@example.com", "template": "welcome", "n": 1, "note": "%s"}}' % (b"x" * 100)


def bulk_body(tasks: int, keys: int = 0, first: int = 0) -> bytes:
    """With `keys`, the tasks have the keys k0, k1 and so on, in turns; `first` is the number of the first task."""
    numbers = range(first, first + tasks)
    bodies = [b'%s, "key": "k%d"}' % (BODY[:-1], n % keys) for n in numbers] if keys else [BODY] * tasks
    return b'{"tasks": [%s]}' % b", ".join(bodies)


def request(url: str, body: bytes = BODY) -> bytes:
    parts = urlsplit(url)
    return (
        f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body


class Tally:
    def __init__(self) -> None:
        self.running = True
        self.latencies: list[float] = []
        self.errors = 0
        self.first_error = ""
        self.broken = 0


class Client(asyncio.Protocol):
    """`created`: how many tasks each answer must say were created, if it answers for several."""

    def __init__(self, request: bytes, tally: Tally, created: int = 0) -> None:
        self.request = request
        self.created = created
        self.tally = tally
        self.buffer = b""
        self.sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.send()

    def send(self) -> None:
        self.sent = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        buffer = self.buffer + data if self.buffer else data
        end = buffer.find(b"\r\n\r\n")
        if end < 0 or len(buffer) < end + 4 + content_length(buffer, end):
            self.buffer = buffer
            return
        self.buffer = b""
        tally = self.tally
        if buffer[9:10] == b"2" and buffer.count(b'"status":201') == self.created:
            tally.latencies.append(time.perf_counter() - self.sent)
        else:
            tally.errors += 1
            tally.first_error = tally.first_error or buffer[:600].decode(errors="replace")
        if tally.running:
            self.send()
        else:
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.tally.broken += self.tally.running


def content_length(buffer: bytes, end: int) -> int:
    at = buffer.find(b"ontent-length: ", 0, end)
    if at < 0:
        at = buffer.find(b"ontent-Length: ", 0, end)
    return int(buffer[at + 15 : buffer.find(b"\r", at)]) if at >= 0 else 0


async def load(
    url: str, bulk: int, connections: int, warm_seconds: float, seconds: float
) -> dict[str, float | int | str]:
    parts = urlsplit(url)
    assert parts.hostname is not None and parts.port is not None
    tally = Tally()
    sent = request(url, bulk_body(bulk) if bulk else BODY)
    loop = asyncio.get_running_loop()
    for _ in range(connections):
        await loop.create_connection(lambda: Client(sent, tally, bulk), parts.hostname, parts.port)
    await asyncio.sleep(warm_seconds)
    tally.latencies.clear()
    begun = time.perf_counter()
    await asyncio.sleep(seconds)
    took = time.perf_counter() - begun
    latencies = sorted(tally.latencies)
    tally.running = False
    await asyncio.sleep(0.2)
    return {
        "per_second": len(latencies) / took,
        "p50_ms": quantile(latencies, 0.50) * 1000,
        "p99_ms": quantile(latencies, 0.99) * 1000,
        "errors": tally.errors,
        "broken": tally.broken,
        "first_error": tally.first_error,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--warm-seconds", type=float, default=0.3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--bulk", type=int, default=0, metavar="TASKS")
    given = parser.parse_args()
    say(event="loaded", **uvloop.run(load(given.url, given.bulk, given.connections, given.warm_seconds, given.seconds)))
