"""A worker while everything else fails: no task is lost, and none runs twice while its lease holds."""

import asyncio
import os
import signal
import socket
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from app.embedded.postgres import EmbeddedPostgres
from sluice_client import Context, Sluice
from tests.embedded.processes import children_of
from tests.sdk.serving.gateway import Gateway
from tests.sluices import SluiceProcess, end, start_process
from tests.support import pg_bin, poll

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

TASKS = 120
LEASE_SECONDS = 16.0


def kill_postgres(postgres: EmbeddedPostgres) -> None:
    assert postgres.pid is not None
    for pid in (postgres.pid, *children_of(postgres.pid)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


class House:
    """A service on a port of its own with a Postgres of its own, behind a proxy: all of it can be taken away and brought back."""

    def __init__(self, postgres: EmbeddedPostgres, gateway: Gateway, port: int) -> None:
        self.postgres = postgres
        self.gateway = gateway
        self._port = port
        self.service: SluiceProcess | None = None

    async def start(self) -> None:
        url = await self.postgres.start()
        self._environment = {"SLUICE_DATABASE_URL": url, "SLUICE_PORT": str(self._port)}
        await self.start_service()

    async def start_service(self) -> None:
        self.service = await start_process("up", environment=dict(self._environment))
        await self.service.ready()

    async def kill_service(self) -> None:
        assert self.service is not None
        await self.service.kill()

    async def end(self) -> None:
        if self.service is not None:
            await end(self.service)
        await self.postgres.stop()


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    port = free_port()
    postgres = EmbeddedPostgres(tmp_path / "postgres", bin_dir=pg_bin())
    async with Gateway(port).serving() as gateway:
        house = House(postgres, gateway, port)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(house.end)
            await house.start()
            yield house


async def test_a_worker_outlives_kills_proxies_and_the_database(house: House) -> None:
    sluice = Sluice(house.gateway.url)
    runs: dict[str, list[datetime]] = defaultdict(list)

    @sluice.task(queue="work")
    async def double(n: int, *, ctx: Context) -> int:
        runs[ctx.id].append(datetime.now(UTC))
        await asyncio.sleep(0.2)
        return 2 * n

    await sluice.queues.put("work")
    refs = await sluice.dispatch_many([double.call(n) for n in range(TASKS)])
    working = asyncio.create_task(sluice.worker(queues=["work"], lease_seconds=LEASE_SECONDS).run())

    async def progressed() -> None:
        """Until some more tasks have been run, so that each fault falls among tasks."""
        before = sum(map(len, runs.values()))
        await poll(lambda: sum(map(len, runs.values())) > before + 8, 60)

    gateway, early, began = house.gateway, set[str](), time.monotonic()
    for status in (502, 504):
        await progressed()
        gateway.fall_ill(status)
        early |= set(runs)
        await poll(partial(gateway.has_answered, status, 5), 30)
        gateway.recover()
    await progressed()
    brief = time.monotonic() - began < LEASE_SECONDS / 2
    begun = time.monotonic()
    await house.kill_service()
    await house.start_service()
    longest = time.monotonic() - begun
    await progressed()
    begun = time.monotonic()
    kill_postgres(house.postgres)
    await asyncio.sleep(1)
    await house.postgres.restart()
    await progressed()
    longest = max(longest, time.monotonic() - begun)

    assert [await ref.wait(60) for ref in refs] == [2 * n for n in range(TASKS)], "no task is lost"
    for ref in refs:
        check_runs(runs[ref.id], [attempt async for attempt in sluice.tasks.attempts(ref.id)])
    again = {task for task, found in runs.items() if len(found) > 1}
    # a lease is renewed after a third, so it outlasts what is shorter than the rest of it
    assert not again or longest > LEASE_SECONDS / 2, "what was finished before a lease ended was reported"
    assert not brief or not again & early, "what was finished while the proxy was ill was reported"
    assert not working.done()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    await sluice.aclose()


def check_runs(started: list[datetime], attempts: Sequence[Mapping[str, Any]]) -> None:
    """Between two runs of a task lies the end of the lease of the first, as the service has recorded it."""
    over = [
        datetime.fromisoformat(attempt["ended_at"])
        for attempt in attempts
        if attempt["outcome"] in ("lease_expired", "released", "stale")
    ]
    for first, second in pairwise(started):
        assert any(first <= end <= second for end in over), (started, attempts)
