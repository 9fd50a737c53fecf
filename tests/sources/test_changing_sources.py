"""A source that is changed, paused and moved from replica to replica while messages flow: each is one task."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.redis_server import RedisServer
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import Api, good

pytestmark = [pytest.mark.long, pytest.mark.anyio]

ENTRIES = 150


async def test_each_entry_is_one_task_however_often_its_source_is_changed_meanwhile(
    redis: RedisServer, start_replica: Callable[..., Awaitable[Replica]]
) -> None:
    one, two = [await start_replica(drain_grace_seconds=0) for _ in range(2)]
    api, other = Api(one.client, one.url), Api(two.client, two.url)
    good(await api.put("/queues/in", json={"max_depth": 40}), 201)
    given: dict[str, Any] = {"kind": "redis_stream", "queue": "in", "url": redis.url, "stream": "s", "group": "g"}
    given |= {"claim_idle_seconds": 1, "max_outstanding": 100}
    good(await api.put("/sources/s", json=given), 201)
    stop = asyncio.Event()

    async def work() -> None:
        """End tasks, so that there is room for others."""
        while not stop.is_set():
            for task in good(await other.post("/queues/in/leases", json={"max_tasks": 50}))["tasks"]:
                token = {"sluice-lease-token": task["lease_token"]}
                good(await other.post(f"/tasks/{task['id']}/complete", headers=token))
            await asyncio.sleep(0.01)

    async def disturb() -> None:
        for n in range(1000):
            if stop.is_set():
                return
            good(await api.put("/sources/s", json={**given, "priority": n % 3, "max_outstanding": 20 + n % 7}))
            await asyncio.sleep(0.3)
            good(await other.post("/sources/s/pause"))
            good(await api.post("/sources/s/resume"))
            await asyncio.sleep(0.2)

    async def bring() -> None:
        for n in range(ENTRIES):
            await redis.ask("XADD", "s", "*", "body", str(n))
            if n % 50 == 0:
                await asyncio.sleep(0.05)

    async def all_ended() -> bool:
        tasks = await api.pages("/tasks", queue="in", state="succeeded", limit=200)
        return len(tasks) >= ENTRIES

    async with asyncio.TaskGroup() as group:
        for busy in (work, disturb, bring):
            group.create_task(busy())
        try:
            await poll(all_ended, 60)
        finally:
            stop.set()
    tasks = await api.pages("/tasks", queue="in", include="payload", limit=200)
    assert sorted(task["payload"] for task in tasks) == list(range(ENTRIES))

    async def all_acknowledged() -> bool:
        return bool((await redis.ask("XPENDING", "s", "g"))[0] == 0)

    await poll(all_acknowledged, 20)
    with contextlib.suppress(AssertionError):
        await poll(lambda: _counted(api), 5)
    shown = good(await api.get("/sources/s"))
    assert shown["enqueued"] == ENTRIES and shown["invalid"] == 0, shown


async def _counted(api: Api) -> bool:
    return bool(good(await api.get("/sources/s"))["enqueued"] == ENTRIES)
