"""What an operator grants a tenant at most: the tenant's own limit cannot exceed or remove it, whichever way it is set."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.handlers import Handler, Reply
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import Api, good, own_limits, problem

pytestmark = pytest.mark.anyio

Tenant = Callable[..., Awaitable[Api]]


@pytest.fixture
async def replica(start_guarded: Callable[..., Awaitable[Replica]]) -> Replica:
    return await start_guarded()


@pytest.fixture
async def boss(replica: Replica, tenant: Tenant) -> Api:
    return await tenant(replica, "default", "operate")


@pytest.fixture
async def acme(replica: Replica, tenant: Tenant) -> Api:
    return await tenant(replica, "acme")


async def grant(boss: Api, most: int | None, tenant: str = "acme") -> None:
    reply = await boss.put(f"/tenants/{tenant}/limits", json={"max_concurrency": most})
    assert (
        good(reply) == {"tenant": tenant, "max_concurrency": most} == good(await boss.get(f"/tenants/{tenant}/limits"))
    )


async def test_a_tenant_runs_no_more_than_an_operator_grants_it(boss: Api, acme: Api, handler: Handler) -> None:
    until = asyncio.Event()
    handler.script(Reply(until=until))
    await grant(boss, 2)
    name = await acme.handler(handler.url)
    for queue in [await acme.queue(name) for _ in range(2)]:
        tasks = [await acme.enqueue(queue) for _ in range(4)]
    await poll(lambda: handler.open_calls == 2)
    assert await own_limits(acme) == {"max_concurrency": None, "granted_max_concurrency": 2}
    problem(await acme.put("/limits", json={"max_concurrency": 3}), 422, "invalid", "/max_concurrency")
    assert good(await acme.put("/limits", json={})) == {
        "max_concurrency": None,
        "rate": None,
        "granted_max_concurrency": 2,
    }
    await acme.until(tasks[-1]["id"], "ready", waiting_for="global_limit")
    assert handler.open_calls == 2
    [alarm] = [a for a in good(await boss.get("/status"))["alarms"] if a["code"] == "global_limit"]
    assert "PUT /tenants/acme/limits" in alarm["message"]

    await grant(boss, 5)
    await poll(lambda: handler.open_calls == 5)
    until.set()
    for task in tasks:
        assert (await acme.ended(task["id"]))["state"] == "succeeded"
    assert handler.most_open_calls == 5


async def test_the_lesser_of_the_two_limits_counts(boss: Api, acme: Api, handler: Handler) -> None:
    until = asyncio.Event()
    handler.script(Reply(until=until))
    await grant(boss, 4)
    good(await acme.put("/limits", json={"max_concurrency": 3}))
    queue = await acme.queue_to(handler.url)
    for _ in range(8):
        await acme.enqueue(queue)
    await poll(lambda: handler.open_calls == 3)
    good(await acme.put("/limits", json={"max_concurrency": 4}))
    await poll(lambda: handler.open_calls == 4)
    await grant(boss, 1)
    assert await own_limits(acme) == {"max_concurrency": 4, "granted_max_concurrency": 1}
    await grant(boss, None)
    assert await own_limits(acme) == {"max_concurrency": 4}
    until.set()
    await handler.received(8)
    assert handler.most_open_calls == 4


async def test_definitions_cannot_widen_it(boss: Api, acme: Api) -> None:
    await grant(boss, 10)
    for route in ("plan", "apply"):
        body = {"queues": {"q": {}}, "limits": {"max_concurrency": 11}}
        problem(await acme.post(f"/definitions/{route}", json=body), 422, "invalid", "/limits/max_concurrency")
    assert good(await acme.get("/queues"))["items"] == [], "nothing was applied"
    good(await acme.post("/definitions/apply", json={"limits": {"max_concurrency": 10}}))
    await grant(boss, 5)
    good(await acme.post("/definitions/apply", json={"queues": {"q": {}}, "limits": {"max_concurrency": 10}}))
    good(await acme.post("/definitions/apply", json={"limits": {}}))
    assert await own_limits(acme) == {"max_concurrency": None, "granted_max_concurrency": 5}


async def test_only_an_operator_may_grant_and_only_to_a_tenant_that_is_there(boss: Api, acme: Api) -> None:
    for path in ("/tenants/acme/limits", "/tenants/default/limits", "/tenants/nobody/limits"):
        problem(await acme.get(path), 403, "forbidden")
        problem(await acme.put(path, json={"max_concurrency": 1000}), 403, "forbidden")
    problem(await boss.get("/tenants/nobody/limits"), 404, "tenant_not_found")
    problem(await boss.put("/tenants/nobody/limits", json={}), 404, "tenant_not_found")
    for value in (0, -1, "5", 10**30):
        reply = await boss.put("/tenants/acme/limits", json={"max_concurrency": value})
        problem(reply, 422, "invalid", "/max_concurrency")


async def test_workers_are_granted_no_more_either(boss: Api, acme: Api) -> None:
    await grant(boss, 2)
    queue = await acme.queue()
    for _ in range(4):
        await acme.enqueue(queue)
    taken = good(await acme.post(f"/queues/{queue}/leases", json={"max_tasks": 4}))["tasks"]
    assert len(taken) == 2
    assert good(await acme.post(f"/queues/{queue}/leases", json={"max_tasks": 4}))["tasks"] == []
