"""What a task writes on its way: an index more on a hot table costs every task, and shows nowhere else."""

import json
from datetime import timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from app.domain.callers import Caller
from app.domain.conditions import ANY
from app.domain.queues import QueueDefinition
from app.runtime.core import Core
from app.service import queues
from app.store import queues as store
from app.store import task_lists, tasks
from app.store.connecting import connect
from app.store.enqueues import Entry
from app.store.task_lists import TaskQuery
from app.store.tasks import AttemptEnd, Claimed, LaneWant
from tests.cores import enqueue
from tests.promises.records import lose_leases

pytestmark = pytest.mark.anyio
GROUP = 100


async def lane(core: Core, caller: Caller, name: str) -> int:
    """The id of a new queue for workers."""
    await queues.put(core, caller, name, QueueDefinition(), ANY)
    row = await store.find(core.db, caller.tenant_id, name)
    assert row is not None
    return row.id


async def pull(core: Core, queue_id: int, want: int) -> list[Claimed]:
    (found,) = await tasks.claim(
        core.db,
        [LaneWant(queue_id, 0, want)],
        owner=None,
        replica="worker",
        claim_id=str(uuid4()),
        not_after=core.clock.now() + timedelta(seconds=30),
        lease_seconds=30,
        pull=True,
    )
    return found.tasks


async def records(connection: "asyncpg.Connection[Any]", call: str, *args: object) -> float:
    """WAL records that a function writes, per task."""
    plan = await connection.fetchval(f"explain (analyze, wal, format json) select * from sluice.{call}", *args)
    return float(json.loads(plan)[0]["Plan"]["WAL Records"]) / GROUP


async def test_a_task_writes_few_rows_and_index_entries_on_its_way(
    core: Core, caller: Caller, database_url: str
) -> None:
    queue_id = await lane(core, caller, "mail")
    connection = await connect(database_url)
    ids = [core.ids.uuid7(int(core.clock.seconds() * 1000)) for _ in range(GROUP)]
    entries = [Entry(task_id, queue_id, 1, 0, b"null", None, None) for task_id in ids]
    # the row; by id, as waiting, as ready
    assert await records(connection, "enqueue_v1($1, $2)", str(uuid4()), entries) < 4.5
    await connection.execute("begin")
    # its lock, the row, another lock if it goes to another page; by id, as running
    arguments = ([LaneWant(queue_id, 0, GROUP)], str(uuid4()), core.clock.now() + timedelta(seconds=30))
    assert await records(connection, "claim_v1($1, null, 'r', $2, $3, 30, true)", *arguments) < 5.5
    await connection.execute("rollback")
    held = await pull(core, queue_id, GROUP)
    ends = [AttemptEnd(task.task_id, task.token, "succeeded", "succeeded") for task in held]
    # its lock, the row that goes, the row of history; by id, by queue
    assert await records(connection, "settle_v1($1)", ends) < 5.5
    await connection.close()


async def test_a_page_of_a_queue_shows_running_tasks_among_those_that_wait(core: Core, caller: Caller) -> None:
    """They are in different indexes."""
    queue_id = await lane(core, caller, "mail")
    await lane(core, caller, "news")
    ids = [task_id for _ in range(4) for task_id in await enqueue(core, caller, "mail", 3)]
    await enqueue(core, caller, "news", 3)
    for task_id in ids[::2]:
        await core.db.fetch("update sluice.tasks set priority = 9 where id = $1", task_id)
    pulled = await pull(core, queue_id, 6)
    assert sorted(task.task_id for task in pulled) == sorted(ids[::2])
    reads, shown, position = core.db.reads(caller.tenant_id), [], None
    for _ in range(20):
        page = await task_lists.list_page(
            reads, core.vault, TaskQuery(caller.tenant_id, [queue_id], position, 5, False)
        )
        shown += [(task.id, task.state) for task in page.items]
        position = page.position
        if position is None:
            break
    states = {task_id: "running" if task_id in ids[::2] else "ready" for task_id in ids}
    assert shown == sorted(states.items(), reverse=True)


async def test_tokens_of_one_claim_differ_and_are_not_those_of_another(core: Core, caller: Caller) -> None:
    queue_id = await lane(core, caller, "mail")
    await enqueue(core, caller, "mail", 50)
    seen: set[str] = set()
    for _ in range(2):
        pulled = await pull(core, queue_id, 50)
        seen.update(task.token for task in pulled)
        await lose_leases(core.db)
        assert len((await tasks.reap(core.db, 500)).reaped) == 50
    assert len(seen) == 100


async def test_a_reap_takes_from_every_queue_and_from_one_tenant_no_more_than_its_share(
    core: Core, caller: Caller
) -> None:
    """Leases are found by jumping from queue to queue."""
    lanes = [await lane(core, caller, f"queue{n}") for n in range(5)]
    for n, queue_id in enumerate(lanes):
        await enqueue(core, caller, f"queue{n}", 4)
        await pull(core, queue_id, 4)
    assert (await tasks.reap(core.db, 500)).reaped == []
    other = await core.db.fetchval("insert into sluice.tenants (name) values ('other') returning id")
    await core.db.fetch("update sluice.tasks set tenant_id = $1 where queue_id = $2", other, lanes[4])
    await core.db.fetch("update sluice.queues set tenant_id = $1 where id = $2", other, lanes[4])
    await lose_leases(core.db)
    first = (await tasks.reap(core.db, 8)).reaped
    assert [len([r for r in first if r.tenant_id == tenant]) for tenant in (caller.tenant_id, other)] == [4, 4]
    assert len((await tasks.reap(core.db, 6, caller.tenant_id)).reaped) == 6
    rest = await tasks.reap(core.db, 500)
    assert sorted(r.queue_id for r in first + rest.reaped).count(lanes[4]) == 4
    assert len(rest.reaped) == 6 and rest.next_seconds is None
