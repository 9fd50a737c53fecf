"""What limits promise while others act at the same time. The other one is a transaction of the test's own, held open."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import asyncpg
import httpx2
import pytest

from app.store.enqueues import Entry
from app.store.numbers import Lock
from tests.support import poll
from tests.wire.api import Api, fresh, good, problem

pytestmark = pytest.mark.anyio


@pytest.fixture
async def other(shared_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(shared_url)
    yield connection
    await connection.close()


async def take(connection: asyncpg.Connection, lock: Lock, table: str, name: str) -> int:
    """Take a lock of what has this name, or of its tenant; return the id of the row."""
    row = await connection.fetchrow(f"select id, tenant_id from sluice.{table} where name = $1", name)  # ours
    key = row["id"] if lock in (Lock.QUEUE, Lock.DEPTH) else row["tenant_id"]
    await connection.execute("select pg_advisory_xact_lock($1::integer, $2::integer)", int(lock), key)
    found: int = row["id"]
    return found


@asynccontextmanager
async def blocked(
    connection: asyncpg.Connection, ask: Callable[[], Awaitable[httpx2.Response]]
) -> AsyncIterator["asyncio.Future[httpx2.Response]"]:
    """Ask, and see that the answer waits for the transaction of the test; the block ends that transaction."""
    asking = asyncio.ensure_future(ask())

    async def waits() -> bool:
        assert not asking.done(), asking.result().text
        pid = connection.get_server_pid()
        return bool(
            await connection.fetchval(
                "select count(*) from pg_stat_activity where $1 = any(pg_blocking_pids(pid))", pid
            )
        )

    await poll(waits)
    yield asking
    await asking


@pytest.mark.parametrize("by", ["an enqueue", "a bulk", "a patch", "a queue", "a handler", "a schedule"])
async def test_nothing_names_a_limit_that_is_being_deleted(api: Api, other: asyncpg.Connection, by: str) -> None:
    name, queue = await api.limit(), await api.queue()
    waiting = await api.enqueue(queue, delay_seconds=600)
    uses = [{"name": name}]
    task = {"payload": 1, "limits": uses}
    asks: dict[str, tuple[Callable[[], Awaitable[httpx2.Response]], str]] = {
        "an enqueue": (lambda: api.post(f"/queues/{queue}/tasks", json=task), "/limits/0/name"),
        "a bulk": (
            lambda: api.post(f"/queues/{queue}/tasks/bulk", json={"tasks": [task], "atomic": True}),
            "/tasks/0/limits/0/name",
        ),
        "a patch": (lambda: api.client.patch(f"/tasks/{waiting['id']}", json={"limits": uses}), "/limits/0/name"),
        "a queue": (lambda: api.put(f"/queues/{queue}", json={"limits": uses}), "/limits/0/name"),
        "a handler": (
            lambda: api.put(f"/handlers/{fresh('h')}", json={"url": "https://example.com/", "limits": uses}),
            "/limits/0/name",
        ),
        "a schedule": (
            lambda: api.put(f"/schedules/{fresh('s')}", json={"queue": queue, "cron": "@daily", **task}),
            "/limits/0/name",
        ),
    }
    ask, where = asks[by]
    deleting = other.transaction()
    await deleting.start()
    limit_id = await take(other, Lock.LIMITS, "limits", name)
    await other.execute("delete from sluice.limits where id = $1", limit_id)
    async with blocked(other, ask) as asking:
        await deleting.commit()
    problem(await asking, 422, "invalid", where)


@pytest.mark.parametrize(
    ("what", "verb"),
    [("limits", "put"), ("limits", "pause"), ("limits", "delete"), ("queues", "put"), ("queues", "pause")],
)
async def test_a_key_of_what_is_being_deleted_is_not_found(
    api: Api, other: asyncpg.Connection, what: str, verb: str
) -> None:
    name = await api.limit(keyed=True) if what == "limits" else await api.queue(key={"max_concurrency": 1})
    path = f"/{what}/{name}/keys/k"
    asks: dict[str, Callable[[], Awaitable[httpx2.Response]]] = {
        "put": lambda: api.put(path, json={"max_concurrency": 1}),
        "pause": lambda: api.post(f"{path}/pause"),
        "delete": lambda: api.delete(path),
    }
    deleting = other.transaction()
    await deleting.start()
    row_id = await take(other, Lock.LIMITS if what == "limits" else Lock.QUEUE, what, name)
    if what == "limits":
        await other.execute("delete from sluice.limits where id = $1", row_id)
    else:
        await other.execute("update sluice.queues set deleted_at = clock_timestamp() where id = $1", row_id)
        await other.execute("delete from sluice.limits where owner_id = $1 and kind = 'queue_key'", row_id)
    async with blocked(other, asks[verb]) as asking:
        await deleting.commit()
    problem(await asking, 404, "limit_not_found" if what == "limits" else "queue_not_found")


async def test_a_limit_is_not_deleted_under_an_enqueue_in_flight(api: Api, other: asyncpg.Connection) -> None:
    name, queue = await api.limit(), await api.queue()
    enqueueing = other.transaction()
    await enqueueing.start()
    row = await other.fetchrow("select id, version from sluice.queues where name = $1", queue)
    options = f'{{"limits": [{{"name": "{name}"}}]}}'
    entry = Entry(str(uuid4()), row["id"], row["version"], 0, b"1", None, None, options=options)
    await other.fetchval("select sluice.enqueue_v1($1, $2::sluice.entry_v1[])", uuid4(), [entry])
    async with blocked(other, lambda: api.delete(f"/limits/{name}")) as deleting:
        await enqueueing.commit()
    problem(await deleting, 409, "limit_in_use")


@pytest.mark.parametrize("by", ["an enqueue", "a patch"])
async def test_the_depth_of_a_key_is_exact_beside_an_enqueue_in_flight(
    api: Api, other: asyncpg.Connection, by: str
) -> None:
    queue = await api.queue(key={"max_depth": 1})
    waiting = await api.enqueue(queue, key="b")
    enqueueing = other.transaction()
    await enqueueing.start()
    row = await other.fetchrow("select id, version from sluice.queues where name = $1", queue)
    entry = Entry(str(uuid4()), row["id"], row["version"], 0, b"1", None, None, options='{"key": "a"}')
    await other.fetchval("select sluice.enqueue_v1($1, $2::sluice.entry_v1[])", uuid4(), [entry])
    asks: dict[str, Callable[[], Awaitable[httpx2.Response]]] = {
        "an enqueue": lambda: api.post(f"/queues/{queue}/tasks", json={"payload": 1, "key": "a"}),
        "a patch": lambda: api.client.patch(f"/tasks/{waiting['id']}", json={"key": "a"}),
    }
    async with blocked(other, asks[by]) as asking:
        await enqueueing.commit()
    problem(await asking, 429, "key_full")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/limits/{limit}", {"max_concurrency": 1, "keyed": True}),
        ("POST", "/limits/{limit}/pause", None),
        ("PUT", "/limits/{limit}/keys/k", {"max_concurrency": 1}),
        ("POST", "/limits/{limit}/keys/k/pause", None),
        ("DELETE", "/limits/{limit}/keys/k", None),
        ("PUT", "/queues/{queue}", {"rate": {"limit": 1}}),
        ("PUT", "/queues/{queue}", {"key": {"max_concurrency": 1}}),
        ("PUT", "/queues/{queue}/keys/k", {"max_concurrency": 1}),
        ("POST", "/queues/{queue}/keys/k/pause", None),
        ("PUT", "/handlers/{handler}", {"url": "https://example.com/", "rate": {"limit": 1}}),
        ("PUT", "/limits", {"rate": {"limit": 1000}}),
    ],
)
async def test_a_change_is_answered_only_when_no_claim_admits_by_the_old_values(
    api: Api, other: asyncpg.Connection, method: str, path: str, body: Any
) -> None:
    """A claim holds the tenant's gate from before it reads limits until it has committed."""
    name, queue, handler = await api.limit(keyed=True), await api.queue(), await api.handler("https://example.com/")
    claiming = other.transaction()
    await claiming.start()
    await take(other, Lock.GATE, "limits", name)
    given = {} if body is None else {"json": body}
    url = path.format(limit=name, queue=queue, handler=handler)
    async with blocked(other, lambda: api.client.request(method, url, **given)) as changing:
        await claiming.rollback()
    assert (await changing).status_code in (200, 204), (await changing).text
    if path == "/limits":
        good(await api.put("/limits", json={}))
