"""While a transaction holds back the vacuum, claims do not step over all that was taken before, and miss nothing for long."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

import asyncpg
import pytest

from app.domain.callers import Caller
from app.engine.lanes import LATE_COMMIT, Lanes
from app.runtime.core import Core
from app.store import tasks
from app.store.tasks import Claim, LaneWant
from tests.cores import claim_lanes
from tests.promises.test_limits import lanes, settle

__all__ = ["lanes"]
pytestmark = pytest.mark.anyio

TAKEN = 150_000
INSERT = """
insert into sluice.tasks (id, tenant_id, queue_id, state, priority, run_at, created_at, payload)
select gen_random_uuid(), $1, $2, 0, $4, clock_timestamp() - $5::interval + n * interval '1 microsecond', clock_timestamp(), 'null'
from generate_series(1, $3) n
"""


async def insert(core: Core, caller: Caller, queue_id: int, count: int, age: str, priority: int = 0) -> None:
    await core.db.fetch(
        INSERT.replace("$5::interval", f"interval '{age}'"), caller.tenant_id, queue_id, count, priority
    )


@asynccontextmanager
async def held_snapshot(url: str) -> AsyncIterator[None]:
    """An idle transaction that sees the database as it is now, so that nothing dead is removed."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction(isolation="repeatable_read"):
            await connection.execute("select 1 from sluice.tasks limit 1")
            yield
    finally:
        await connection.close()


async def churned(core: Core, caller: Caller, queue_id: int) -> None:
    """Many tasks come and go."""
    await insert(core, caller, queue_id, TAKEN, "2 minutes")
    await core.db.fetch("delete from sluice.tasks")


async def counted(core: Core, want: LaneWant) -> tuple[int, Claim]:
    """A claim, and how many entries of indexes it went through, dead ones too."""
    read = "select sum(idx_tup_read) from pg_stat_all_indexes where schemaname = 'sluice' and relname = 'tasks'"
    before = await core.db.fetchval(read)
    (claim,) = await claim_lanes(core, [want])
    await core.db.fetchval("select pg_stat_force_next_flush()")  # of the same connection: no other is in use
    return int(await core.db.fetchval(read) - before), claim


@pytest.mark.ci
async def test_claims_start_where_the_last_one_ended_once_a_scan_was_slow(
    core: Core, caller: Caller, lanes: list[int], database_url: str
) -> None:
    async with held_snapshot(database_url):
        await churned(core, caller, lanes[0])
        await insert(core, caller, lanes[0], 200, "1 minute")
        slow, quick = [], []
        for _ in range(5):
            read, found = await counted(core, LaneWant(lanes[0], 0, 10))
            slow.append(read)
            assert found.priority == 0 and found.since is not None and len(found.tasks) == 10
            read, after = await counted(core, LaneWant(lanes[0], 0, 10, found.priority, found.since))
            quick.append(read)
            assert after.since is not None and after.since >= found.since and len(after.tasks) == 10
            await settle(core, found.tasks + after.tasks)
    assert min(slow) > TAKEN and max(quick) < TAKEN / 100, (slow, quick)


@pytest.mark.ci
async def test_of_several_lanes_that_are_claimed_together_only_the_slow_ones_get_a_place(
    core: Core, caller: Caller, lanes: list[int], database_url: str
) -> None:
    async with held_snapshot(database_url):
        await churned(core, caller, lanes[0])
        for lane in lanes[:2]:
            await insert(core, caller, lane, 50, "1 minute")
        slow, quick = [], []
        for _ in range(5):
            first, second = await claim_lanes(core, [LaneWant(lane, 0, 10) for lane in lanes[:2]])
            assert len(first.tasks) == len(second.tasks) == 10
            slow.append(first.since is not None)
            quick.append(second.since is None)
            await settle(core, first.tasks + second.tasks)
    assert all(slow) and any(quick), "on a busy machine any scan may be slow"


async def test_a_claim_that_starts_at_a_place_takes_all_that_comes_after_it_in_order(
    core: Core, caller: Caller, lanes: list[int]
) -> None:
    """Lower priorities too, from their first task on; what comes before it waits for the next poll, which says where it is."""
    lane = lanes[0]
    for priority, age in ((5, "1 minute"), (0, "3 minutes"), (0, "1 minute"), (-3, "2 minutes")):
        await insert(core, caller, lane, 2, age, priority)
    since: datetime = await core.db.fetchval("select clock_timestamp() - interval '2 minutes'")
    (found,) = await claim_lanes(core, [LaneWant(lane, 0, 9, 0, since)])
    order = "select id::text from sluice.tasks where state = 1 order by priority desc, run_at, id"
    assert [task.task_id for task in found.tasks] == [row[0] for row in await core.db.fetch(order)]
    assert (found.verdict, len(found.tasks)) == ("empty", 4)
    for expected in (5, 0):
        (ready,) = await tasks.ready_lanes(core.db, tasks.FIRST_LANE, 10)
        assert ready.priority == expected
        (found,) = await claim_lanes(core, [LaneWant(lane, 0, 2, ready.priority, ready.run_at)])
        assert len(found.tasks) == 2
    assert await tasks.ready_lanes(core.db, tasks.FIRST_LANE, 10) == []


async def test_a_poll_moves_the_start_of_claims_back_and_a_start_ends(core: Core) -> None:
    lanes, key, now = Lanes(), (1, 0), core.clock.now()
    lanes.introduce({1}, {1: 1})
    lanes.hint(key)
    (lane,) = lanes.waiting(1, 1)
    lanes.first_at(key, 3, now)
    assert lanes.want(lane, 5, 0.0) == LaneWant(1, 0, 5), "no scan was slow"
    lanes.scanned(lane, 0, now, 99.0)
    assert lanes.want(lane, 5, 99.0) == LaneWant(1, 0, 5), "one may be chance"
    lanes.scanned(lane, 0, now, 100.0)
    assert lanes.want(lane, 5, 105.0) == LaneWant(1, 0, 5, 0, now - LATE_COMMIT)
    lanes.first_at(key, 3, now)
    moved = lanes.want(lane, 5, 105.0)
    assert moved == LaneWant(1, 0, 5, 3, now - LATE_COMMIT)
    for priority, run_at in ((0, now), (3, now + LATE_COMMIT)):
        lanes.first_at(key, priority, run_at)
        assert lanes.want(lane, 5, 105.0) == moved, "new ones may have come before it since the poll"
    lanes.scanned(lane, None, None, 106.0)
    assert lanes.want(lane, 5, 107.0) == moved
    assert lanes.want(lane, 5, 111.0) == LaneWant(1, 0, 5)
    lanes.scanned(lane, 0, now, 112.0)
    assert lanes.want(lane, 5, 113.0) == LaneWant(1, 0, 5, 0, now - LATE_COMMIT), "still slow"
