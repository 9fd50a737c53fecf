"""A slow handler starves nobody: while one drips bytes at its full concurrency, another queue's tasks start as soon as ever."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from statistics import median

import pytest

from tests.handlers import Handler
from tests.sluices import SluiceProcess
from tests.support import poll
from tests.wire.api import Api

pytestmark = pytest.mark.anyio

ROUNDS = 5
TASKS = 40
CONCURRENCY = 50
DRIP_SECONDS = 0.1


class Dripper:
    """A handler that answers a byte at a time, for as long as it is asked to."""

    def __init__(self) -> None:
        self.url = ""
        self.open_calls = 0
        self.dripping = asyncio.Event()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["Dripper"]:
        server = await asyncio.start_server(self._drip, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/drip"
        self.dripping.set()
        try:
            yield self
        finally:
            self.dripping.clear()
            server.close()

    async def _drip(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open_calls += 1
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")
            while self.dripping.is_set():
                writer.write(b".")
                await writer.drain()
                await asyncio.sleep(DRIP_SECONDS)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open_calls -= 1
            writer.close()


async def p95_start_delay(api: Api, queue: str, handler: Handler) -> float:
    """Seconds from the POST to the handler's call, one task at a time."""
    delays = []
    for _ in range(TASKS):
        sent = time.monotonic()
        task = await api.enqueue(queue)
        (request,) = await handler.received(1, task=task["id"])
        delays.append(request.at - sent)
    return sorted(delays)[int(TASKS * 0.95) - 1]


@pytest.mark.ci
async def test_a_handler_that_drips_bytes_delays_no_other_queue(
    start_sluice: Callable[..., Awaitable[SluiceProcess]], handler: Handler
) -> None:
    process = await start_sluice()
    api = Api(process.client, process.url)
    quick = await api.queue_to(handler.url)
    async with Dripper().serving() as dripper:
        slow = await api.queue_to(dripper.url, max_concurrency=CONCURRENCY)
        await p95_start_delay(api, quick, handler)
        excesses = []
        for _ in range(ROUNDS):
            baseline = await p95_start_delay(api, quick, handler)
            dripper.dripping.set()
            await asyncio.gather(*(api.enqueue(slow) for _ in range(CONCURRENCY + 10)))
            await poll(lambda: dripper.open_calls == CONCURRENCY)
            beside = await p95_start_delay(api, quick, handler)
            assert dripper.open_calls == CONCURRENCY
            excesses.append(beside - (1.5 * baseline + 0.010))
            dripper.dripping.clear()
            await poll(lambda: dripper.open_calls == 0)
    assert median(excesses) <= 0, f"later than 1.5 times the baseline and 10 ms, in seconds, by round: {excesses}"
