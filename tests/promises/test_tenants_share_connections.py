"""A tenant whose statements hang holds up itself alone: another's tasks are enqueued, claimed, delivered, read and changed."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import asyncpg
import httpx2
import pytest

from app.domain.keys import Grant
from app.service import keys
from app.store.numbers import named
from tests.handlers import Handler
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import Api, good, problem

pytestmark = pytest.mark.anyio

CROWD = 30
BOOTSTRAP = "slk_" + "b" * 32


@dataclass
class Tenant:
    api: Api
    queue: str
    task: str


@dataclass
class World:
    replica: Replica
    crowd: Tenant
    """Whose clients hang."""
    other: Tenant


@pytest.fixture
async def world(
    start_replica: Callable[..., Awaitable[Replica]], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[World]:
    monkeypatch.setattr("app.store.db.READ_SECONDS", 0.5)
    replica = await start_replica(bootstrap_key="slk_" + "b" * 32)
    async with AsyncExitStack() as stack:

        async def tenant(name: str) -> Tenant:
            token = (await keys.create(replica.sluice.core.db, name, Grant("manage"))).token
            client = httpx2.AsyncClient(
                base_url=replica.url,
                trust_env=False,
                timeout=30,
                headers={"authorization": f"Bearer {token}"},
                limits=httpx2.Limits(max_connections=2 * CROWD),
            )
            api = Api(await stack.enter_async_context(client), replica.url)
            queue = await api.queue()
            definition = {"queue": queue, "payload": 1, "cron": "0 0 1 1 *"}
            good(await api.put("/schedules/yearly", json=definition), 201)
            return Tenant(api, queue, (await api.enqueue(queue))["id"])

        yield World(replica, await tenant("crowd"), await tenant("other"))


@asynccontextmanager
async def held(url: str, sql: str, *args: object) -> AsyncIterator[asyncpg.Connection]:
    """What this statement locks stays locked."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.fetch(sql, *args)
            yield connection
    finally:
        await connection.close()


async def stuck(connection: asyncpg.Connection) -> None:
    """Until statements wait for what this connection holds."""
    sql = "select count(*) from pg_stat_activity where pg_backend_pid() = any(pg_blocking_pids(pid))"

    async def waiting() -> bool:
        return await connection.fetchval(sql) > 0

    await poll(waiting)


def hanging(ask: Callable[[int], Awaitable[httpx2.Response]]) -> list[asyncio.Task[httpx2.Response]]:
    """A crowd that asks again whenever it is told to: what waits for a lock or for its turn is answered 503 after a while."""

    async def asking(number: int) -> httpx2.Response:
        while (reply := await ask(number)).status_code == 503:
            problem(reply, 503, "unavailable")
        return reply

    return [asyncio.create_task(asking(number)) for number in range(CROWD)]


async def goes_on(tenant: Tenant, handler: Handler) -> None:
    """Whatever keeps tasks moving, and what a caller reads and changes."""
    push = await tenant.api.queue_to(handler.url)
    made = await asyncio.gather(*(tenant.api.enqueue(push, n) for n in range(12)))
    await asyncio.gather(*(handler.received(task=task["id"]) for task in made))
    await asyncio.gather(*(tenant.api.until(task["id"], "succeeded") for task in made))
    [leased] = good(await tenant.api.post(f"/queues/{tenant.queue}/leases", json={}))["tasks"]
    token = {"sluice-lease-token": leased["lease_token"]}
    good(await tenant.api.post(f"/tasks/{leased['id']}/renew", json={"seconds": 30}, headers=token))
    good(await tenant.api.post(f"/tasks/{leased['id']}/complete", json={"result": 1}, headers=token))
    assert len(await tenant.api.pages("/tasks")) == 13
    good(await tenant.api.cancel((await tenant.api.enqueue(tenant.queue))["id"]))
    good(await tenant.api.put(f"/queues/{tenant.queue}", json={"max_depth": 9}))


async def test_a_crowd_whose_reads_hang_holds_up_itself_alone(
    world: World, handler: Handler, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.store.db.TURN_SECONDS", 1.5)
    async with held(database_url, "lock table sluice.schedule_runs in access exclusive mode") as holder:
        crowd = [asyncio.create_task(world.crowd.api.get("/schedules/yearly/history")) for _ in range(CROWD)]
        await stuck(holder)
        await goes_on(world.other, handler)
        replies = await asyncio.gather(*crowd)
    details = {problem(reply, 503, "unavailable")["detail"] for reply in replies}
    assert any("took longer than 0.5 seconds" in detail for detail in details), details
    assert any("reading" in detail for detail in details), details


async def test_a_crowd_whose_changes_hang_holds_up_itself_alone(
    world: World, handler: Handler, database_url: str
) -> None:
    lock = "select from sluice.tasks where id = $1 for update"
    async with held(database_url, lock, world.crowd.task) as holder:
        crowd = hanging(lambda _: world.crowd.api.cancel(world.crowd.task))
        await stuck(holder)
        await goes_on(world.other, handler)
        assert not any(reply.done() for reply in crowd)
        await stuck(holder)
    assert {reply.status_code for reply in await asyncio.gather(*crowd)} == {200}


async def test_a_crowd_whose_pulls_meet_a_lock_is_answered_and_holds_up_nobody(
    world: World, handler: Handler, database_url: str
) -> None:
    """A claim waits for no lock, so no pull hangs."""
    lock = named("select pg_advisory_xact_lock(:lock_tenant, tenant_id::integer) from sluice.queues where name = $1")
    path = f"/queues/{world.crowd.queue}/leases"
    async with held(database_url, lock, world.crowd.queue):
        crowd = [asyncio.create_task(world.crowd.api.post(path, json={})) for _ in range(CROWD)]
        await goes_on(world.other, handler)
        replies = await asyncio.gather(*crowd)
    assert [good(reply)["tasks"] for reply in replies] == [[]] * CROWD
    assert len(good(await world.crowd.api.post(path, json={}))["tasks"]) == 1


async def test_a_crowd_whose_definitions_hang_holds_up_itself_alone(
    world: World, handler: Handler, database_url: str
) -> None:
    lock = named("select pg_advisory_xact_lock(:lock_queue, id::integer) from sluice.queues where name = $1")
    async with held(database_url, lock, world.crowd.queue) as holder:
        path = f"/queues/{world.crowd.queue}"
        crowd = hanging(lambda n: world.crowd.api.put(path, json={"max_depth": n + 1}))
        await stuck(holder)
        await goes_on(world.other, handler)
        assert not any(reply.done() for reply in crowd)
        await stuck(holder)
    assert {reply.status_code for reply in await asyncio.gather(*crowd)} == {200}
