"""Loops that work for all tenants: a crowd of one tenant is in nobody else's way by more than a few of its own."""

import json
from typing import Any

import pytest

from app.domain.callers import Caller
from app.domain.conditions import ANY
from app.domain.keys import Grant
from app.domain.queues import QueueDefinition
from app.domain.schedules.bodies import parse_schedule
from app.engine import scheduler
from app.engine.janitor import Janitor
from app.engine.scheduler import fire
from app.runtime import schedule_changes
from app.runtime.core import Core
from app.service import keys, queues, schedules
from app.store import batches, ledger, tenants
from app.store import schedules as store

pytestmark = pytest.mark.anyio

CROWD = 3_000


@pytest.fixture
async def a(core: Core, caller: Caller) -> Caller:
    await queues.put(core, caller, "mail", QueueDefinition(handler=None), ANY)
    return caller


@pytest.fixture
async def b(core: Core, a: Caller) -> Caller:
    await keys.create(core.db, "b", Grant("operate"))
    other = Caller(await tenants.id_of(core.db, "b"), "b", "operate")
    await queues.put(core, other, "mail", QueueDefinition(handler=None), ANY)
    return other


async def put(core: Core, caller: Caller, name: str, **fields: Any) -> int:
    given = {"queue": "mail", "payload": None, "cron": "* * * * *", **fields}
    await schedules.put(core, caller, name, parse_schedule(json.dumps(given).encode(), 1000), ANY)
    return int(
        await core.db.fetchval(
            "select id from sluice.schedules where tenant_id = $1 and name = $2", caller.tenant_id, name
        )
    )


async def overdue(core: Core, schedule_id: int, seconds: int) -> None:
    await core.db.fetch(
        "update sluice.schedules set seq = seq + 1,"
        " next_nominal_at = date_trunc('minute', clock_timestamp()) - make_interval(secs => $2),"
        " look_at = clock_timestamp() - make_interval(secs => $2) where id = $1",
        schedule_id,
        seconds,
    )


async def crowd(core: Core, schedule_id: int) -> None:
    """As many schedules as this one, as overdue as it is."""
    await core.db.fetch(
        """
        insert into sluice.schedules (tenant_id, name, queue_id, definition, payload, priority, etag, next_nominal_at, look_at)
        select tenant_id, 'copy-' || n, queue_id, definition, payload, priority, etag, next_nominal_at, look_at
        from sluice.schedules, generate_series(2, $2) n where id = $1
        """,
        schedule_id,
        CROWD,
    )


async def test_a_schedule_is_among_the_first_however_many_of_another_tenant_were_due_before(
    core: Core, a: Caller, b: Caller
) -> None:
    crowding = await put(core, a, "s")
    await overdue(core, crowding, 100)
    await crowd(core, crowding)
    alone = await put(core, b, "s")
    await overdue(core, alone, 60)
    assert alone in (await store.due(core.db, 500))[:2]
    assert len(set(await store.due(core.db, 500))) == 500
    await fire(core, 500)
    runs = "select count(*) from sluice.schedule_runs where schedule_id = $1"
    assert await core.db.fetchval(runs, alone) >= 1


async def test_what_is_decided_does_not_wait_for_schedules_with_many_times(
    core: Core, a: Caller, b: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "WRITE_SECONDS", 0)
    ids = [await put(core, a, "s"), await put(core, b, "s"), await put(core, a, "t")]
    for schedule_id in ids:
        await overdue(core, schedule_id, 60)
    groups: list[list[int]] = []
    write = schedule_changes.write

    async def noted(core: Core, changes: Any) -> int:
        groups.append([change.state.id for change in changes])
        return await write(core, changes)

    monkeypatch.setattr(scheduler, "write", noted)
    await scheduler._fire(core, ids)
    assert groups[:3] == [[schedule_id] for schedule_id in ids]


async def ended_batches(core: Core, caller: Caller, count: int) -> None:
    await core.db.fetch(
        """
        with made as (
          insert into sluice.batches (id, tenant_id, queue_id, sealed, run_open, completed_at, total, succeeded)
          select ('00000000-0000-7000-8000-' || lpad((q.tenant_id * 100000 + n)::text, 12, '0'))::uuid, $1, q.id, true, true,
                 clock_timestamp(), 1, 1
          from sluice.queues q, generate_series(1, $2) n where q.tenant_id = $1 returning id)
        insert into sluice.schedule_runs
          (id, schedule_id, nominal_at, nominal_until, count, cause, extra, outcome, task_id, fired_at, kept_until)
        select gen_random_uuid(), s.id, now(), now(), 1, 'trigger', true, 'running', made.id, now(), now() + interval '1 d'
        from made, sluice.schedules s where s.tenant_id = $1
        """,
        caller.tenant_id,
        count,
    )


async def test_the_end_of_a_run_waits_for_no_crowd_of_another_tenant(core: Core, a: Caller, b: Caller) -> None:
    await put(core, a, "s")
    alone = await put(core, b, "s")
    await ended_batches(core, a, CROWD)
    await ended_batches(core, b, 1)
    found = await ledger.finished(core.db, 200)
    assert len(found) == 200 and sum(end.schedule_id == alone for end in found) == 1


async def cancelled_batches(core: Core, caller: Caller, count: int) -> list[str]:
    rows = await core.db.fetch(
        """
        insert into sluice.batches (id, tenant_id, queue_id, sealed, cancelled_at, cancel_reason)
        select ('00000000-0000-7000-8000-' || lpad((t.id * 100000 + n)::text, 12, '0'))::uuid, t.id, q.id, true,
               clock_timestamp(), 'requested'
        from sluice.tenants t, sluice.queues q, generate_series(1, $2) n where t.id = $1 and q.tenant_id = t.id
        returning id::text
        """,
        caller.tenant_id,
        count,
    )
    return [row[0] for row in rows]


async def test_batches_are_swept_in_turns_by_tenant_and_for_a_moment_each(
    core: Core, a: Caller, b: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cancelled_batches(core, a, 200)
    [alone] = await cancelled_batches(core, b, 1)
    assert alone in (await batches.unswept(core.db))[:2]
    swept: list[str] = []

    async def never_done(db: Any, batch_id: str, limit: int, **_: Any) -> batches.Swept:
        swept.append(batch_id)
        return batches.Swept(False, [])

    monkeypatch.setattr(batches, "sweep", never_done)
    monkeypatch.setattr("app.engine.janitor.SWEEP_SECONDS", 0)
    assert await Janitor(core).sweep() == 0
    assert alone in swept[:2] and len(swept) == 100
