"""Firing by itself: what two replicas do at the same moment, what one schedule may not do to others, and what it costs."""

import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app.domain.callers import Caller
from app.domain.conditions import ANY
from app.domain.queues import QueueDefinition
from app.domain.schedules.bodies import parse_schedule
from app.engine import scheduler
from app.engine.finisher import finish
from app.engine.scheduler import fire
from app.runtime.core import Core
from app.service import queues, schedules
from app.store import batches, ledger
from app.store import schedules as store

pytestmark = pytest.mark.anyio

MANY = 2000
IDLE = 10_000
RAN = "select outcome, count(*) as count from sluice.schedule_runs group by 1"


@pytest.fixture(autouse=True)
async def _queue(core: Core, caller: Caller) -> None:
    await queues.put(core, caller, "mail", QueueDefinition(handler=None), ANY)


async def put(core: Core, caller: Caller, name: str, **fields: Any) -> None:
    given = {"queue": "mail", "payload": None, "cron": "0 0 1 1 *", **fields}
    await schedules.put(core, caller, name, parse_schedule(json.dumps(given).encode(), 1000), ANY)


async def copy(core: Core, name: str, count: int) -> None:
    """As many schedules with the definition of this one."""
    await core.db.fetch(
        """
        insert into sluice.schedules (tenant_id, name, queue_id, definition, payload, priority, etag, next_nominal_at, look_at)
        select tenant_id, 'copy-' || n, queue_id, definition, payload, priority, etag, next_nominal_at, look_at
        from sluice.schedules, generate_series(1, $2) n where name = $1
        """,
        name,
        count,
    )


async def make_due(core: Core) -> None:
    await core.db.fetch(
        "update sluice.schedules set next_nominal_at = date_trunc('second', clock_timestamp()),"
        " look_at = date_trunc('second', clock_timestamp()), seq = seq + 1"
    )


async def end_runs(core: Core) -> None:
    """Every running run's task succeeds, as settle and fold leave it."""
    await core.db.fetch(
        "with gone as (delete from sluice.tasks where options ? 'schedule' returning tenant_id, batch_id)"
        " insert into sluice.batch_deltas (tenant_id, batch_id, succeeded) select tenant_id, batch_id, 1 from gone"
    )
    await batches.fold(core.db, 1000)


async def outcomes(core: Core) -> dict[str, int]:
    return {row["outcome"]: row["count"] for row in await core.db.fetch(RAN)}


async def triggered(core: Core, caller: Caller, count: int, **fields: Any) -> None:
    await put(core, caller, "s", overlap="buffer_all", **fields)
    for _ in range(count):
        await schedules.trigger(core, caller, "s", None, None)


async def test_a_finisher_that_comes_late_starts_no_second_run(
    core: Core, caller: Caller, start_core: Callable[[], Awaitable[Core]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has read that a run has ended; before it reads on, another writes that end and starts what waited."""
    other = await start_core()
    await triggered(core, caller, 3)
    await end_runs(core)
    finished = ledger.finished

    async def finished_and_overtaken(db: Any, limit: int) -> list[ledger.Finished]:
        found = await finished(db, limit)
        monkeypatch.setattr(ledger, "finished", finished)
        assert await finish(other, limit) == 1
        return found

    monkeypatch.setattr(ledger, "finished", finished_and_overtaken)
    await finish(core, 100)
    assert await outcomes(core) == {"ran_ok": 1, "running": 1, "waiting": 1}


async def test_a_start_that_begins_to_wait_while_a_run_ends_is_not_forgotten(
    core: Core, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    await triggered(core, caller, 1)
    await end_runs(core)
    first_waiting = ledger.first_waiting

    async def read_and_overtaken(reader: Any, ids: Any) -> dict[int, ledger.WaitingStart]:
        found = await first_waiting(reader, ids)
        monkeypatch.setattr(ledger, "first_waiting", first_waiting)
        await schedules.trigger(core, caller, "s", None, None)
        return found

    monkeypatch.setattr(ledger, "first_waiting", read_and_overtaken)
    while await finish(core, 100):
        pass
    assert await outcomes(core) == {"ran_ok": 1, "running": 1}


async def test_failures_are_counted_once_whoever_finishes(
    core: Core, caller: Caller, start_core: Callable[[], Awaitable[Core]], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = await start_core()
    await triggered(core, caller, 1, pause_after_failures=2)
    await end_runs(core)
    await core.db.fetch("update sluice.batches set dead = 1, succeeded = 0")
    finished = ledger.finished

    async def finished_and_overtaken(db: Any, limit: int) -> list[ledger.Finished]:
        found = await finished(db, limit)
        monkeypatch.setattr(ledger, "finished", finished)
        await finish(other, limit)
        return found

    monkeypatch.setattr(ledger, "finished", finished_and_overtaken)
    await finish(core, 100)
    [row] = await core.db.fetch("select failures, paused from sluice.schedules")
    assert (row["failures"], row["paused"]) == (1, False)


async def test_what_failed_often_enough_pauses_though_a_success_is_written_with_it(core: Core, caller: Caller) -> None:
    await put(core, caller, "s", overlap="allow_all", pause_after_failures=2)
    for _ in range(3):
        await schedules.trigger(core, caller, "s", None, None)
    await end_runs(core)
    await core.db.fetch(
        """
        update sluice.batches b set dead = 1, succeeded = 0
        where id <> (select id from sluice.batches order by completed_at desc, id desc limit 1)
        """
    )
    await core.db.fetch(
        "update sluice.batches set completed_at = completed_at + case when dead = 0 then interval '1 hour' else '0' end"
    )
    await finish(core, 100)
    assert await core.db.fetchval("select paused from sluice.schedules")


async def test_a_schedule_that_cannot_be_written_or_read_stops_no_other(core: Core, caller: Caller) -> None:
    for name in ("clashes", "unreadable", "good-1", "good-2"):
        await put(core, caller, name)
    await make_due(core)
    await core.db.fetch("update sluice.schedules set definition = '{}', version = 2 where name = 'unreadable'")
    await core.db.fetch(  # its time is in the ledger already, as after a clock that went backwards
        """
        insert into sluice.schedule_runs (id, schedule_id, nominal_at, nominal_until, count, cause, extra, outcome, kept_until)
        select gen_random_uuid(), id, next_nominal_at, next_nominal_at, 1, 'cron', false, 'missed', 'infinity'
        from sluice.schedules where name = 'clashes'
        """
    )
    await fire(core, 500)
    assert await outcomes(core) == {"missed": 1, "running": 2}
    found, *_ = await fire(core, 500)
    assert found == 0  # this replica leaves them alone for a while
    assert len(core.schedules.resting) == 2


async def test_after_a_clock_that_went_back_an_edit_begins_after_what_is_in_the_ledger(
    core: Core, caller: Caller
) -> None:
    await put(core, caller, "s", cron="* * * * *")
    ahead = "date_trunc('minute', clock_timestamp()) + interval '5 minutes'"
    await core.db.fetch(
        f"""
        insert into sluice.schedule_runs (id, schedule_id, nominal_at, nominal_until, count, cause, extra, outcome, kept_until)
        select gen_random_uuid(), id, {ahead}, {ahead}, 1, 'cron', false, 'missed', 'infinity' from sluice.schedules
        """
    )
    await put(core, caller, "s", cron="* * * * *", payload=2)
    assert await core.db.fetchval(f"select next_nominal_at > {ahead} from sluice.schedules")


@pytest.mark.ci
async def test_two_thousand_schedules_that_are_due_in_one_second_are_fired_in_moments(
    core: Core, caller: Caller
) -> None:
    """About a second from cold on two busy cores; the margin is tenfold."""
    await put(core, caller, "s")
    await copy(core, "s", MANY - 1)
    await core.db.fetch("analyze sluice.schedules")
    await make_due(core)
    begun, fired = time.monotonic(), 0
    while fired < MANY:
        found, *_ = await fire(core, 500)
        assert found
        fired += found
    took = time.monotonic() - begun
    print(f"{MANY} schedules fired in {took:.3f} s")
    assert await outcomes(core) == {"running": MANY}
    assert took < 10, took


async def test_firing_goes_first_while_more_is_due_than_one_pass_takes_but_not_for_ever(
    core: Core, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler, "FIRE_LIMIT", 4)
    await put(core, caller, "s")
    await copy(core, "s", 9)
    await make_due(core)
    firing = scheduler.Scheduler(core)
    assert not firing.goes_first
    await firing.tick()
    assert firing.goes_first
    with monkeypatch.context() as patched:
        patched.setattr(scheduler, "FIRST_SECONDS", 0)
        assert not firing.goes_first
    while await outcomes(core) != {"running": 10}:
        await firing.tick()
    await firing.tick()
    assert not firing.goes_first


async def test_a_look_reads_what_is_due_and_not_all_there_are(core: Core, caller: Caller) -> None:
    await put(core, caller, "s")
    await copy(core, "s", IDLE - 1)
    await core.db.fetch("update sluice.schedules set look_at = clock_timestamp() where id % 1000 = 0")
    await core.db.fetch("analyze sluice.schedules")

    async def read(sql: str, *args: Any) -> float:
        """Rows that a statement went through in any table."""
        [row] = await core.db.fetch("explain (analyze, format json) " + sql, *args)
        return _most(json.loads(row[0])[0]["Plan"])

    ids = await store.due(core.db, 500)
    assert len(ids) == IDLE // 1000
    assert await read(store._DUE, 500) <= IDLE // 1000
    assert await read(store._NEXT_LOOK) <= 1
    assert await read(store._STATES, ids) <= 2 * len(ids)


def _most(plan: dict[str, Any]) -> float:
    own: float = (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
    return max(own, *map(_most, plan.get("Plans", ())), 0.0)
