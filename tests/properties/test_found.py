"""What the machine found, told one by one."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.databases import WorkerDatabase
from tests.properties.world import HOUR, World
from tests.wire.api import good, problem


@pytest.fixture
def world(database_url: str, worker_database: WorkerDatabase) -> Iterator[World]:
    with World(database_url).running() as world:
        yield world


async def leased(world: World) -> dict[str, Any]:
    api = world.apis[0]
    queue = await api.queue()
    await api.enqueue(queue)
    tasks: list[dict[str, Any]] = good(await api.post(f"/queues/{queue}/leases", json={"lease_seconds": HOUR}))["tasks"]
    return tasks[0]


async def refused(world: World, task: dict[str, Any], verb: str, code: str) -> None:
    body = {"renew": {"seconds": 60}, "fail": {"error": "x"}}.get(verb)
    headers = {"sluice-lease-token": task["lease_token"]}
    reply = await world.apis[1].post(f"/tasks/{task['id']}/{verb}", headers=headers, json=body)
    problem(reply, 409, code)


def test_a_lease_lost_before_the_cancel_stays_lost(world: World) -> None:
    async def tell() -> None:
        task = await leased(world)
        await world.let_lease_run_out(task["id"])
        await world.let_lease_be_reaped(task["id"])
        good(await world.apis[0].cancel(task["id"]))
        for verb in ("renew", "complete", "renew", "fail", "release"):
            await refused(world, task, verb, "lease_lost")

    world.do(tell())


def test_a_lease_revoked_by_a_cancel_hears_of_it_also_after_a_retry(world: World) -> None:
    async def tell() -> None:
        task = await leased(world)
        good(await world.apis[0].cancel(task["id"]))
        good(await world.apis[0].retry(task["id"]))
        for verb in ("renew", "complete", "renew", "fail", "release"):
            await refused(world, task, verb, "task_cancelled")

    world.do(tell())
