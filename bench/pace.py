"""Enqueues at a pace, in a process of its own: a given one, or the one at which the service can deliver at the same time.

    python -m bench.pace URL HANDLER_URL --seconds 60 [--rate 4000 | --find-seconds 3] [--queues 1000]

One POST a task over keep-alive connections. Without --rate, a controller follows what the handler counts, four times a
second: it offers a little more than was delivered lately while few tasks wait, and less while many do, so that the backlog
hovers at a quarter of a second's work. With --queues, {} in the URL is a number below that, in turns. Every tenth payload
has `sent_ns`, by which the handler tells the start delay. At the end it says what came of it, once the handler has had all.
"""

import argparse
import asyncio
import itertools
import time
from collections import deque
from typing import cast
from urllib.parse import urlsplit

import uvloop

from bench.loadgen import BODY, content_length, request
from bench.processes import say
from bench.subject import HandlerReports

CONNECTIONS = 64
TICK_SECONDS = 0.005
LOOK_SECONDS = 0.25
AIMED_SECONDS = 0.25
"""How much work is to wait, in seconds of it."""
MAX_GROWTH = 1.25
FIRST_RATE = 2_000.0
STAMPED = 10
DRAIN_SECONDS = 60.0


class Connection(asyncio.Protocol):
    def __init__(self, pace: "Pace") -> None:
        self.pace = pace
        self.buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0 or len(self.buffer) < end + 4 + content_length(self.buffer, end):
            return
        answer, self.buffer = self.buffer, b""
        self.pace.answered(self, answer)

    def connection_lost(self, error: Exception | None) -> None:
        self.pace.broken += self.pace.running


class Pace:
    def __init__(self, urls: list[str], rate: float | None) -> None:
        self.rate = rate or FIRST_RATE
        self.running = True
        self.sent = self.acknowledged = self.errors = self.broken = 0
        self.first_error = ""
        self._urls = itertools.cycle(urls)
        self._plain = {url: request(url) for url in urls}
        self._idle: deque[Connection] = deque()
        self._owed = 0.0

    async def connect(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None and parts.port is not None
        loop = asyncio.get_running_loop()
        for _ in range(CONNECTIONS):
            _, connection = await loop.create_connection(lambda: Connection(self), parts.hostname, parts.port)
            self._idle.append(connection)

    async def run(self) -> None:
        """Send at the rate of the moment; what no connection was free for is sent as soon as one is."""
        last = time.monotonic()
        while self.running:
            now = time.monotonic()
            self._owed = min(self._owed + self.rate * (now - last), self.rate)
            last = now
            while self._idle and self._owed >= 1:
                self._send(self._idle.popleft())
            await asyncio.sleep(TICK_SECONDS)

    def _send(self, connection: Connection) -> None:
        url = next(self._urls)
        stamped = self.sent % STAMPED == 0
        connection.transport.write(request(url, _stamped()) if stamped else self._plain[url])
        self.sent += 1
        self._owed -= 1

    def answered(self, connection: Connection, answer: bytes) -> None:
        if answer[9:12] == b"201":
            self.acknowledged += 1
        else:
            self.errors += 1
            self.first_error = self.first_error or answer[:600].decode(errors="replace")
        if self.running and self._owed >= 1:
            self._send(connection)
        else:
            self._idle.append(connection)

    async def end(self) -> None:
        """Stop sending, and wait for the answers that are still to come."""
        self.running = False
        while self.acknowledged + self.errors < self.sent:
            await asyncio.sleep(TICK_SECONDS)


def _stamped() -> bytes:
    return BODY[:-2] + b', "sent_ns": %d}}' % time.monotonic_ns()


class Watch:
    """What the handler has had, and the backlog, by time."""

    def __init__(self, pace: Pace, handler: HandlerReports) -> None:
        self.pace = pace
        self.handler = handler
        self.looks: list[tuple[float, int, int]] = []
        """Seconds, deliveries, backlog."""

    async def look(self) -> int:
        """The backlog."""
        delivered = await self.handler.count()
        backlog = max(0, self.pace.acknowledged - delivered)
        self.looks.append((time.monotonic(), delivered, backlog))
        return backlog

    async def follow(self, seconds: float, steer: bool) -> None:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(LOOK_SECONDS, left))
            backlog = await self.look()
            if steer:
                self._steer(backlog)

    def _steer(self, backlog: int) -> None:
        rate = max(self.delivered_per_second(4), 100.0)
        aimed = rate * AIMED_SECONDS
        self.pace.rate = rate * min(max(1 + (MAX_GROWTH - 1) * (aimed - backlog) / aimed, 0.6), MAX_GROWTH)

    def delivered_per_second(self, looks: int) -> float:
        (began, before, _), (ended, after, _) = self.looks[-looks - 1 if len(self.looks) > looks else 0], self.looks[-1]
        return (after - before) / (ended - began) if ended > began else 0.0


async def run(
    urls: list[str], handler_url: str, seconds: float, rate: float | None, find_seconds: float
) -> dict[str, object]:
    handler = HandlerReports(handler_url)
    pace = Pace(urls, rate)
    watch = Watch(pace, handler)
    await handler.take()
    await pace.connect(urls[0])
    sending = asyncio.create_task(pace.run())
    if rate is None:
        await watch.look()
        await watch.follow(find_seconds, steer=True)
        watch.looks.clear()
    await watch.look()
    await watch.follow(seconds, steer=rate is None)
    per_second = watch.delivered_per_second(len(watch.looks))
    backlogs = [backlog for _, _, backlog in watch.looks]
    await pace.end()
    await sending
    delivered = await _everything(handler, pace)
    delays = sorted((await handler.take())["delays_ns"])
    return {
        "per_second": per_second,
        "acknowledged": pace.acknowledged,
        "delivered": delivered,
        "errors": pace.errors + pace.broken,
        "first_error": pace.first_error,
        "backlog_max": max(backlogs),
        "backlog_thirds": [
            max(backlogs[len(backlogs) * n // 3 : len(backlogs) * (n + 1) // 3] or [0]) for n in range(3)
        ],
        "delays_ns": delays,
    }


async def _everything(handler: HandlerReports, pace: Pace) -> int:
    until = time.monotonic() + DRAIN_SECONDS
    while (delivered := await handler.count()) < pace.acknowledged and time.monotonic() < until:
        await asyncio.sleep(0.05)
    return delivered


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("handler_url")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=float)
    parser.add_argument("--find-seconds", type=float, default=3.0, help="before anything counts, for finding the rate")
    parser.add_argument("--queues", type=int, default=1)
    given = parser.parse_args()
    urls = [given.url.replace("{}", str(n)) for n in range(given.queues)]
    say(event="paced", **uvloop.run(run(urls, given.handler_url, given.seconds, given.rate, given.find_seconds)))
