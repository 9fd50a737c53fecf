"""Replicas of this release on the schema of the next one, which replicas of the next release run on beside them.

There is no release before this one. So what the next one may do to the schema while this one runs is done here by hand: a column
in every table, a table and a function that this release does not know, options of tasks that it does not know, and the number of
the next schema. `ended_v1` returns rows of a table, so a migration that adds a column to that table replaces it, too.
"""

import re
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from app.store.migrations import SCHEMA_VERSION
from tests.handlers import Handler, Reply
from tests.sluices import Replica
from tests.wire.api import AT_ONCE, Api, good

pytestmark = pytest.mark.anyio

EXPAND = f"""
do $$
declare one regclass;
begin
  for one in select c.oid from pg_class c
    where relnamespace = 'sluice'::regnamespace and relkind in ('r', 'p') and not relispartition
  loop
    execute format('alter table %s add column of_the_next_release integer default 1', one);
  end loop;
end $$;
create table sluice.of_the_next_release (id integer primary key);
create function sluice.next_release_v1() returns integer language sql as 'select 1';
update sluice.meta set schema_version = {SCHEMA_VERSION + 1}, digest = 'of the next release';
"""


async def migrate_to_the_next_release(connection: asyncpg.Connection) -> None:
    ended = await connection.fetchval("select pg_get_functiondef('sluice.ended_v1'::regproc)")
    async with connection.transaction():
        await connection.execute(EXPAND)
        await connection.execute(re.sub(r";\s*END\s*$", ", 1;\nEND", ended))


async def uses_everything(replica: Replica, handler: Handler) -> None:
    """A retried task, one that dies and is redriven, a batch, a schedule, a pull worker."""
    api = Api(replica.client, replica.url)
    queue = await api.queue_to(handler.url, retry=AT_ONCE)
    handler.answer(Reply(500), Reply(200))
    await api.until((await api.enqueue(queue, tags=["a"], idempotency_key="a"))["id"], "succeeded")

    handler.answer(Reply(400, {"sluice-retry": "no"}), Reply(200))
    dead = await api.enqueue(queue)
    await api.until(dead["id"], "dead")
    assert good(await api.post(f"/queues/{queue}/redrive", json={}))["moved"] == 1
    await api.until(dead["id"], "succeeded")

    tasks = [{"payload": number} for number in range(3)]
    created = good(
        await api.post(
            "/batches", json={"queue": queue, "tasks": tasks, "on_complete": {"queue": queue, "payload": 0}}
        ),
        201,
    )
    for task in good(await api.get(f"/tasks?batch={created['id']}"))["items"]:
        await api.until(task["id"], "succeeded")

    schedule = {"queue": queue, "every_seconds": 3600, "payload": 1}
    good(await api.put(f"/schedules/{queue}", json=schedule), 201)
    run = (await api.post(f"/schedules/{queue}/trigger")).raise_for_status().json()
    await api.until(run["task_id"], "succeeded")

    pulled = await api.queue()
    await api.enqueue(pulled)
    (lease,) = good(await api.post(f"/queues/{pulled}/leases", json={"wait_seconds": 5}))["tasks"]
    token = {"sluice-lease-token": lease["lease_token"]}
    good(await api.post(f"/tasks/{lease['id']}/renew", json={"seconds": 30}, headers=token))
    good(await api.post(f"/tasks/{lease['id']}/complete", json={"result": 1}, headers=token))
    assert (await api.until(lease["id"], "succeeded"))["result"] == 1


@pytest.mark.ci
async def test_a_replica_works_on_while_and_after_the_next_release_has_migrated(
    empty_database_url: str, start_replica: Callable[..., Awaitable[Replica]], handler: Handler
) -> None:
    before = await start_replica(database_url=empty_database_url)
    await uses_everything(before, handler)
    connection = await asyncpg.connect(empty_database_url)
    await migrate_to_the_next_release(connection)
    await uses_everything(before, handler)

    after = await start_replica(database_url=empty_database_url)  # one that starts now, say because it crashed
    await uses_everything(after, handler)
    assert good(await after.client.get("/health/ready"))

    unknown = """update sluice.tasks set options = options || '{"of_the_next_release": {"a": 1}}' where id = $1"""
    api = Api(after.client, after.url)
    task = await api.enqueue(await api.queue_to(handler.url), delay_seconds=600, tags=["a"])
    await connection.execute(unknown, task["id"])
    good(await api.post(f"/tasks/{task['id']}/retry"))
    await api.until(task["id"], "succeeded")
    await connection.close()
