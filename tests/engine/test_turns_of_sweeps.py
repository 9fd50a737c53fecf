"""What happens by itself serves tenants in turns: whatever is due of one, and however long, another is in the first group."""

import json
from collections.abc import Awaitable, Callable
from uuid import uuid4

import pytest

from app.domain.callers import Caller
from app.domain.conditions import ANY
from app.domain.queues import QueueDefinition
from app.domain.schedules.bodies import parse_schedule
from app.engine.janitor import Janitor
from app.engine.scheduler import fire
from app.runtime.core import Core
from app.service import queues, schedules
from app.store import batches, ledger, tasks, tenants
from app.store import queues as store
from app.store import schedules as schedule_store
from tests.cores import enqueue

pytestmark = pytest.mark.anyio

MANY = 300
LIMIT = 20
SINCE = "clock_timestamp() - case when tenant_id = $1 then interval '1 hour' else interval '1 second' end"
"""All of the crowd was due long before the other."""


@pytest.fixture
async def crowd(core: Core, caller: Caller) -> Caller:
    """A tenant of which MANY are due, before the caller's."""
    async with core.db.begin(caller.tenant_id) as connection:
        tenant_id = await tenants.ensure(connection, "crowd")
    return Caller(tenant_id, "crowd", "manage")


@pytest.fixture(autouse=True)
async def _queues(core: Core, caller: Caller, crowd: Caller) -> None:
    for one in (crowd, caller):
        await queues.put(core, one, "q", QueueDefinition(), ANY)


@pytest.fixture
async def filled(core: Core, caller: Caller, crowd: Caller) -> str:
    """The id of the caller's one task, beside the tasks of the crowd."""
    await enqueue(core, crowd, "q", MANY)
    (task_id,) = await enqueue(core, caller, "q")
    return task_id


async def promoted(core: Core, crowd: Caller) -> Callable[[], Awaitable[bool]]:
    await core.db.fetch(f"update sluice.tasks set state = 2, run_at = {SINCE}", crowd.tenant_id)

    async def moves() -> bool:
        return (await tasks.promote(core.db, LIMIT)).moved > 0

    return moves


async def expired(core: Core, crowd: Caller) -> Callable[[], Awaitable[bool]]:
    await core.db.fetch(f"update sluice.tasks set expires_at = {SINCE}", crowd.tenant_id)

    async def moves() -> bool:
        return (await tasks.expire(core.db, LIMIT))[0].moved > 0

    return moves


async def reaped(core: Core, crowd: Caller) -> Callable[[], Awaitable[bool]]:
    await core.db.fetch(
        "update sluice.tasks set state = 1, lease_token = gen_random_uuid(), last_token = gen_random_uuid(), attempt = 1,"
        f" last_started_at = created_at, lease_expires_at = {SINCE}",
        crowd.tenant_id,
    )

    async def moves() -> bool:
        return len((await tasks.reap(core.db, LIMIT)).reaped) > 0

    return moves


@pytest.mark.parametrize("sweep", [promoted, expired, reaped])
async def test_due_tasks_of_one_tenant_hold_up_nobody_elses(
    core: Core,
    crowd: Caller,
    filled: str,
    sweep: Callable[..., Awaitable[Callable[[], Awaitable[bool]]]],
) -> None:
    moves = await sweep(core, crowd)
    due = "select state from sluice.tasks where id = $1"
    before = await core.db.fetchval(due, filled)
    assert await moves()
    assert await core.db.fetchval(due, filled) != before, "in the first group"
    groups = 1
    while await moves():
        groups += 1
    assert groups >= MANY // LIMIT
    left = "select count(*) from sluice.tasks where state = $1 and (expires_at <= clock_timestamp() or state <> 0)"
    assert await core.db.fetchval(left, before) == 0, "and in the end all of them"


async def test_runs_that_ended_of_one_tenant_hold_up_nobody_elses(core: Core, caller: Caller, crowd: Caller) -> None:
    await make_runs(core, caller, crowd)
    await core.db.fetch("update sluice.batches set total = 0, succeeded = 0, completed_at = clock_timestamp()")
    found = await ledger.finished(core.db, LIMIT)
    (mine,) = await core.db.fetch(
        "select b.id::text from sluice.batches b where b.tenant_id = $1 and b.run_open", caller.tenant_id
    )
    assert len(found) <= LIMIT
    assert mine[0] in {end.task_id for end in found}


async def test_due_schedules_of_one_tenant_hold_up_nobody_elses(core: Core, caller: Caller, crowd: Caller) -> None:
    await make_schedules(core, caller, crowd)
    due = await schedule_store.due(core.db, LIMIT)
    (mine,) = await core.db.fetch("select id from sluice.schedules where tenant_id = $1", caller.tenant_id)
    assert mine[0] in due
    assert len(set(due)) == LIMIT, "and the page is full"
    assert (await schedule_store.next_look_seconds(core.db) or 0) < -3000
    await core.db.fetch("update sluice.schedules set look_at = null where tenant_id = $1", crowd.tenant_id)
    assert await schedule_store.due(core.db, LIMIT) == [mine[0]]
    await core.db.fetch("update sluice.schedules set look_at = null")
    assert await schedule_store.due(core.db, LIMIT) == []
    assert await schedule_store.next_look_seconds(core.db) is None


async def make_schedules(core: Core, caller: Caller, crowd: Caller) -> None:
    """One of the caller's, many of the crowd's, all of them due."""
    for one in (caller, crowd):
        given = {"queue": "q", "payload": None, "cron": "0 0 1 1 *"}
        await schedules.put(core, one, "yearly", parse_schedule(json.dumps(given).encode(), 1000), ANY)
    await core.db.fetch(
        """
        insert into sluice.schedules (tenant_id, name, queue_id, definition, payload, priority, etag, next_nominal_at, look_at)
        select tenant_id, 'copy-' || n, queue_id, definition, payload, priority, etag, next_nominal_at, look_at
        from sluice.schedules, generate_series(1, $2) n where tenant_id = $1
        """,
        crowd.tenant_id,
        MANY,
    )
    await core.db.fetch(f"update sluice.schedules set look_at = {SINCE}, next_nominal_at = {SINCE}", crowd.tenant_id)


async def make_runs(core: Core, caller: Caller, crowd: Caller) -> None:
    await make_schedules(core, caller, crowd)
    while (await schedule_store.next_look_seconds(core.db) or 0) <= 0:
        assert (await fire(core, 500)).written


async def make_batches(core: Core, caller: Caller, crowd: Caller) -> str:
    """One of the caller's, and older ones of the crowd's; all are looked at by the folder. The id of the caller's."""
    batch_id = ""
    for one, count in ((crowd, MANY), (caller, 1)):
        row = await store.find(core.db, one.tenant_id, "q")
        assert row is not None
        for _ in range(count):
            batch_id = core.ids.uuid7(int(core.clock.seconds() * 1000))
            await batches.create(core.db, one.tenant_id, batch_id, (row.id, row.version), sealed=True, completion=None)
    return batch_id


async def test_batches_to_be_folded_of_one_tenant_hold_up_nobody_elses(
    core: Core, caller: Caller, crowd: Caller
) -> None:
    mine = await make_batches(core, caller, crowd)
    folded = await batches.fold(core.db, LIMIT)
    assert mine in folded.completed and folded.more
    total = folded.batches
    while folded.more:
        folded = await batches.fold(core.db, LIMIT)
        total += folded.batches
    assert total == MANY + 1
    assert await core.db.fetchval("select count(*) from sluice.batch_deltas") == 0


async def test_a_large_batch_that_is_cancelled_holds_up_nobody_elses(
    core: Core, caller: Caller, crowd: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.runtime.cancelling.CHUNK", LIMIT)
    monkeypatch.setattr("app.engine.janitor.SWEEP_SECONDS", 0)
    large, mine = str(uuid4()), str(uuid4())
    for one, batch_id, count in ((crowd, large, MANY), (caller, mine, 1)):
        row = await store.find(core.db, one.tenant_id, "q")
        assert row is not None
        await batches.create(core.db, one.tenant_id, batch_id, (row.id, row.version), sealed=False, completion=None)
        ids = await enqueue(core, one, "q", count)
        await core.db.fetch("update sluice.tasks set batch_id = $1 where id = any($2)", batch_id, ids)
        await batches.close(core.db, one.tenant_id, batch_id, "requested")
    left, janitor = "select count(*) from sluice.tasks where batch_id = $1", Janitor(core)
    assert await janitor.sweep() == 0
    assert await core.db.fetchval(left, mine) == 0
    assert await core.db.fetchval(left, large) == MANY - LIMIT
    while await janitor.sweep() == 0:
        pass
    assert await core.db.fetchval(left, large) == 0
    assert await batches.unswept(core.db) == []
