"""Queue statistics: what replicas count together, and what is counted in the tables."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime

import pytest

from app.domain.callers import Caller
from app.domain.conditions import ANY
from app.domain.instants import parse_instant
from app.domain.queues import QueueDefinition
from app.runtime.core import Core
from app.service import queues
from app.store import stats
from app.store.failures import Unavailable
from app.store.stats import KeyCounts
from tests.cores import enqueue

pytestmark = pytest.mark.anyio


@pytest.fixture
async def queue_id(core: Core, caller: Caller) -> int:
    await queues.put(core, caller, "mail", QueueDefinition(), ANY)
    return int(await core.db.fetchval("select id from sluice.queues"))


async def end_tasks(core: Core, queue_id: int, state: int, count: int, kept: str = "1 hour") -> None:
    await core.db.fetch(
        "insert into sluice.task_history (id, kept_until, tenant_id, queue_id, handler_id, state, ended_at, priority, run_at, "
        "created_at, payload, attempt, claims) select gen_random_uuid(), clock_timestamp() + $4::text::interval, 1, $1, 0, $2, "
        "clock_timestamp(), 0, clock_timestamp(), clock_timestamp(), '', 1, 1 from generate_series(1, $3)",
        queue_id,
        state,
        count,
        kept,
    )


async def move_minutes(core: Core, by: str) -> None:
    # in two steps, so that no minute meets the one before it, which moves later
    for step in (f"365000 days {by}", "-365000 days"):
        await core.db.fetch("update sluice.queue_minutes set minute = minute - $1::text::interval", step)


async def test_a_quiet_queue_has_zeros_and_nulls(core: Core, caller: Caller, queue_id: int) -> None:
    shown = await queues.stats(core, caller, "mail")
    as_of = parse_instant(shown.pop("as_of"))
    assert isinstance(as_of, datetime)
    nothing = {"p50": None, "p95": None, "p99": None}
    assert shown == {
        "queue": "mail",
        "counts": dict.fromkeys(("scheduled", "ready", "running", "succeeded", "dead", "cancelled"), 0),
        "oldest_ready_age_seconds": None,
        "per_minute": {"enqueued": 0, "started": 0, "ended": 0},
        "success_share": None,
        "wait_seconds": nothing,
        "run_seconds": nothing,
        "keys": KeyCounts(0, 0, []),
    }


async def test_counts_are_those_of_the_tables(core: Core, caller: Caller, queue_id: int) -> None:
    ids = await enqueue(core, caller, "mail", 9)
    later = (
        "update sluice.tasks set state = 2, run_at = clock_timestamp() + $2::text::interval where id = any($1::uuid[])"
    )
    await core.db.fetch(later, ids[:2], "1 hour")
    await core.db.fetch(later, ids[2:3], "-40 s")
    await core.db.fetch(
        "update sluice.tasks set state = 1, lease_token = gen_random_uuid() where id = any($1::uuid[])", ids[3:6]
    )
    for state, count in ((3, 7), (4, 2), (5, 1)):
        await end_tasks(core, queue_id, state, count)
    await end_tasks(core, queue_id, 3, 5, kept="0")
    shown = await queues.stats(core, caller, "mail")
    assert shown["counts"] == {"scheduled": 2, "ready": 4, "running": 3, "succeeded": 7, "dead": 2, "cancelled": 1}
    assert 40 <= shown["oldest_ready_age_seconds"] < 60, "a scheduled task whose time has come reads as ready"


async def test_replicas_count_together(
    start_core: Callable[[], Awaitable[Core]], caller: Caller, queue_id: int
) -> None:
    cores = [await start_core() for _ in range(3)]
    for n, core in enumerate(cores):
        core.stats.enqueued(queue_id, 10)
        for _ in range(10):
            core.stats.started(queue_id, 0.1)
        for _ in range(9):
            core.stats.ended(queue_id, "succeeded", 2.0**n, None)
        core.stats.ended(queue_id, "dead", 30.0, "expired")
        core.stats.ended_waiting(queue_id, "cancelled", "requested")
    await asyncio.gather(*(core.stats.flush(core.db) for core in cores))
    shown = await queues.stats(cores[0], caller, "mail")
    (row,) = await cores[0].db.fetch(
        "select sum(enqueued) e, sum(started) s, sum(succeeded) ok, sum(dead) d, sum(cancelled) c from sluice.queue_minutes"
    )
    assert tuple(row) == (30, 30, 27, 3, 3)
    assert shown["success_share"] == pytest.approx(27 / 30)
    assert shown["wait_seconds"]["p95"] == pytest.approx(0.1, rel=0.13)
    assert shown["run_seconds"]["p50"] == pytest.approx(2.0, rel=0.13)
    assert shown["run_seconds"]["p99"] == pytest.approx(30.0, rel=0.13)


async def test_rates_are_of_the_last_minutes_and_shares_of_the_last_hour(
    core: Core, caller: Caller, queue_id: int
) -> None:
    core.stats.enqueued(queue_id, 60)
    core.stats.ended(queue_id, "succeeded", 1.0, None)
    shown = await queues.stats(core, caller, "mail")
    assert 60 / 6.1 <= shown["per_minute"]["enqueued"] <= 60 / 5
    await move_minutes(core, "10 minutes")
    shown = await queues.stats(core, caller, "mail")
    assert shown["per_minute"] == {"enqueued": 0, "started": 0, "ended": 0}
    assert shown["success_share"] == 1.0
    await move_minutes(core, "1 hour")
    assert (await queues.stats(core, caller, "mail"))["success_share"] is None


async def test_what_could_not_be_flushed_is_kept(core: Core, queue_id: int, monkeypatch: pytest.MonkeyPatch) -> None:
    core.stats.enqueued(queue_id, 2)
    core.stats.started(queue_id, 1.0)

    async def away(*_: object) -> None:
        core.stats.enqueued(queue_id, 1)
        raise Unavailable("gone for a moment")

    with monkeypatch.context() as patch:
        patch.setattr("app.runtime.counting.store.add_minutes", away)
        with pytest.raises(Unavailable):
            await core.stats.flush(core.db)
    await core.stats.flush(core.db)
    await core.stats.flush(core.db)
    (row,) = await core.db.fetch("select enqueued, started, wait from sluice.queue_minutes")
    assert (row["enqueued"], row["started"], sum(row["wait"])) == (3, 1, 1)


async def test_flushes_of_many_queues_in_any_order_do_not_deadlock(
    start_core: Callable[[], Awaitable[Core]], queue_id: int
) -> None:
    cores = [await start_core() for _ in range(3)]
    for turn in range(10):
        for n, core in enumerate(cores):
            for queue in range(1, 60) if (n + turn) % 2 else range(59, 0, -1):
                core.stats.enqueued(queue, 1)
        await asyncio.gather(*(core.stats.flush(core.db) for core in cores))
    assert await cores[0].db.fetchval("select sum(enqueued) from sluice.queue_minutes") == 3 * 10 * 59


async def test_old_minutes_are_forgotten(core: Core, queue_id: int) -> None:
    core.stats.enqueued(queue_id, 1)
    await core.stats.flush(core.db)
    await stats.prune(core.db)
    assert await core.db.fetchval("select count(*) from sluice.queue_minutes") == 1
    await move_minutes(core, "25 hours")
    await stats.prune(core.db)
    assert await core.db.fetchval("select count(*) from sluice.queue_minutes") == 0
