"""Requests that wait hold places that tenants share; who finds none is told so at once, and what need not wait is answered."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import httpx2
import pytest

from app.domain.turns import Turns
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import Api, good, problem

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

Tenant = Callable[..., Awaitable[Api]]
PLACES, SHARE = 5, 3


@pytest.fixture
async def replica(start_guarded: Callable[..., Awaitable[Replica]]) -> Replica:
    """With room for few that wait."""
    replica = await start_guarded()
    replica.sluice.core.waits = Turns("waiting for tasks or results", places=PLACES, share=SHARE, max_waiting=0)
    return replica


def pull(api: Api, queue: str, seconds: float = 30) -> "asyncio.Task[httpx2.Response]":
    return asyncio.create_task(api.post(f"/queues/{queue}/leases", json={"wait_seconds": seconds}))


def result(api: Api, task_id: str, seconds: float = 30) -> "asyncio.Task[httpx2.Response]":
    return asyncio.create_task(api.get(f"/tasks/{task_id}", params={"wait_seconds": seconds}))


async def test_a_tenant_that_waits_everywhere_keeps_no_other_from_waiting(replica: Replica, tenant: Tenant) -> None:
    waits = replica.sluice.core.waits
    a, b = await tenant(replica, "a"), await tenant(replica, "b")
    empty, held = await a.queue(), await a.queue()
    task = await a.enqueue(held)
    crowd = [pull(a, empty), pull(a, empty), result(a, task["id"])]
    await poll(lambda: waits.taken == SHARE)
    for refused in (await pull(a, empty), await result(a, task["id"])):
        assert "already waiting for tasks or results" in problem(refused, 503, "unavailable")["detail"]

    # what need not wait is answered all the same
    assert good(await pull(a, empty, 0))["tasks"] == []
    (taken,) = good(await pull(a, held))["tasks"]
    assert good(await result(a, task["id"], 0))["state"] == "running"
    other = await b.queue()
    waiting = [pull(b, other) for _ in range(PLACES - SHARE)]
    await poll(lambda: waits.taken == PLACES)
    problem(await pull(b, other), 503, "unavailable")
    sent = await b.enqueue(other)
    await poll(lambda: any(asked.done() for asked in waiting))
    assert [good(asked.result())["tasks"][0]["id"] for asked in waiting if asked.done()] == [sent["id"]]

    # each place is free again, whether its wait had its answer or was given up
    token = {"sluice-lease-token": taken["lease_token"]}
    good(await a.post(f"/tasks/{task['id']}/complete", headers=token, json={}))
    assert good(await crowd[2])["state"] == "succeeded"
    assert good(await result(a, task["id"]))["state"] == "succeeded", "what has ended is no wait"
    for asked in (*crowd, *waiting):
        asked.cancel()
        with suppress(asyncio.CancelledError):
            await asked
    await poll(lambda: waits.taken == 0)


async def test_queues_that_wait_for_one_limit_cost_no_claim_each_for_every_slot(
    replica: Replica, tenant: Tenant
) -> None:
    """Workers wait at all of them, all have tasks, and one may run: a slot that comes free is tried for by one."""
    core = replica.sluice.core
    core.waits = Turns("waiting for tasks or results", places=100, share=100, max_waiting=0)
    a, boss = await tenant(replica, "a"), await tenant(replica, "default", "operate")
    good(await a.put("/limits", json={"max_concurrency": 1}))
    queues = [await a.queue() for _ in range(30)]

    async def work(queue: str) -> None:
        """Until it has had both tasks of its queue."""
        left = 2
        while left:
            for task in good(await a.post(f"/queues/{queue}/leases", json={"wait_seconds": 30}))["tasks"]:
                token = {"sluice-lease-token": task["lease_token"]}
                good(await a.post(f"/tasks/{task['id']}/complete", headers=token, json={}))
                left -= 1

    async def claims() -> int:
        text = (await boss.get("/metrics")).text
        found: Any = re.search(r'sluice_group_size_count\{statement="claim"\} (\d+)', text)
        return int(found[1])

    for queue in queues:
        for _ in range(2):
            await a.enqueue(queue)
    async with asyncio.timeout(60):
        await asyncio.gather(*(work(queue) for queue in queues))
    assert await claims() < 450, "each asks at once, and tries when it is let out"
