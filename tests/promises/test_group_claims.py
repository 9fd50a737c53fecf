"""One claim over several lanes: each gets what it would alone, limits are shared within it, and none of them delays another."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import asyncpg
import pytest

from app.domain.callers import Caller
from app.runtime.core import Core
from app.service import queues
from app.store import tasks
from app.store.numbers import Lock
from app.store.tasks import Claim, LaneWant
from tests.cores import claim_lanes, enqueue
from tests.plans.plans import WatchedDatabase
from tests.promises import records
from tests.promises.gates import until_waiting
from tests.promises.test_limits import (
    CLAIMERS,
    LEVELS,
    NAMES,
    Level,
    lanes,
    limit_handler,
    limit_queue,
    limit_tenant,
    limited_lanes,
    settle,
)

__all__ = ["lanes"]
pytestmark = pytest.mark.anyio


async def fill(core: Core, caller: Caller, count: int) -> None:
    for name in NAMES:
        await enqueue(core, caller, name, count)


async def claim_each(core: Core, lanes: list[int], want: int) -> list[Claim]:
    return await claim_lanes(core, [LaneWant(lane, 0, want) for lane in lanes])


def got(claims: list[Claim]) -> list[tuple[str, int]]:
    return [(claim.verdict, len(claim.tasks)) for claim in claims]


async def test_plain_lanes_share_the_statements_of_a_claim(
    core: Core, caller: Caller, lanes: list[int], database_url: str
) -> None:
    """Starting a statement costs more than a task; only under limits has each lane some of its own."""
    await fill(core, caller, 2)
    db = await WatchedDatabase.on(database_url)

    async def statements(some: list[int]) -> int:
        """How many lock or update rows."""
        db.told()
        claims = await claim_lanes(core, [LaneWant(lane, 0, 1) for lane in some], db)
        assert got(claims) == [("ok", 1)] * len(some)
        return sum("skip locked" in told.query or told.query.startswith("update") for told in db.told())

    try:
        alone, together = await statements(lanes[:1]), await statements(lanes[1:])
        await limit_queue(core, caller, 2)
        limited = await statements([lanes[0]])
    finally:
        await db.close()
    assert (alone, together, limited) == (2, 2, 3)


async def test_each_lane_is_leased_for_as_long_as_its_own_calls_may_take(
    core: Core, caller: Caller, lanes: list[int]
) -> None:
    await fill(core, caller, 2)
    for lane, seconds in zip(lanes, (1, 7, 12), strict=True):
        await core.db.fetch("update sluice.queues set timeout_seconds = $2 where id = $1", lane, seconds)
    assert got(await claim_each(core, lanes, 2)) == [("ok", 2)] * 3
    leased = (
        "select queue_id, extract(epoch from lease_expires_at - last_started_at)::integer as seconds from sluice.tasks"
    )
    found = {(row["queue_id"], row["seconds"]) for row in await core.db.fetch(leased)}
    assert found == set(zip(lanes, (6, 12, 17), strict=True))


async def test_each_lane_gets_its_own_tasks_in_order_and_its_own_verdict(
    core: Core, caller: Caller, lanes: list[int]
) -> None:
    await enqueue(core, caller, "mail", 9)
    await enqueue(core, caller, "news", 2)
    await core.db.fetch("update sluice.tasks set priority = (hashtext(id::text) % 10)::smallint")
    order = "select id::text from sluice.tasks where queue_id = $1 order by priority desc, run_at, id"
    expected = [[row[0] for row in await core.db.fetch(order, lane)] for lane in lanes]
    await queues.pause(core, caller, "else")
    claims = await claim_lanes(
        core, [LaneWant(lanes[0], 0, 5), *(LaneWant(lane, 0, 4) for lane in lanes), LaneWant(99, 0, 1)]
    )
    assert got(claims) == [("ok", 5), ("ok", 4), ("empty", 2), ("paused", 0), ("gone", 0)]
    found = [[task.task_id for task in claim.tasks] for claim in claims]
    assert [found[0] + found[1], found[2]] == expected[:2]


@pytest.mark.parametrize(
    ("level", "expected"), [(limit_queue, [5, 9, 9]), (limit_handler, [5, 0, 9]), (limit_tenant, [5, 0, 0])]
)
async def test_lanes_of_one_claim_share_the_room_of_a_limit(
    core: Core, caller: Caller, lanes: list[int], level: Level, expected: list[int]
) -> None:
    await fill(core, caller, 20)
    await level(core, caller, 5)
    claims = await claim_each(core, lanes, 9)
    assert [len(claim.tasks) for claim in claims] == expected
    assert [claim.verdict for claim in claims] == ["ok" if count == 9 else "full" for count in expected]
    assert [claim.limited for claim in claims] == [count < 9 for count in expected]


@LEVELS
async def test_claims_of_several_lanes_at_once_get_exactly_the_limit(
    cores: list[Core], caller: Caller, lanes: list[int], level: Level
) -> None:
    limit, core = 10, cores[0]
    await level(core, caller, limit)
    shared = limited_lanes(level, lanes)
    await fill(core, caller, 100)

    async def claimer(number: int) -> list[Claim]:
        found: list[Claim] = []
        while "full" not in {claim.verdict for claim in found}:
            turned = shared[number % len(shared) :] + shared[: number % len(shared)]
            found += await claim_each(cores[number % 3], turned, 1 + number % 4)
        return found

    for _ in range(6):
        claims = await asyncio.gather(*(claimer(number) for number in range(CLAIMERS)))
        taken = [task for found in claims for claim in found for task in claim.tasks]
        assert await records.running(core.db) == limit == len(taken)
        await settle(core, taken)
    assert records.most_at_once(await records.attempts(core.db)) == limit


LOCKS = {
    "a change of the queue": (Lock.QUEUE, "queues"),
    "a change of the handler": (Lock.HANDLER, "handlers"),
    "another claim under the limit": (None, "queues"),
}


@pytest.mark.parametrize("why", LOCKS)
async def test_a_lane_that_is_busy_delays_no_other(
    core: Core, caller: Caller, lanes: list[int], database_url: str, why: str
) -> None:
    """Not for as long as a lock is held elsewhere, here until the claim has been answered."""
    await fill(core, caller, 3)
    await limit_queue(core, caller, 5)
    kind, table = LOCKS[why]
    other = await asyncpg.connect(database_url)
    try:
        async with other.transaction():
            if kind is None:
                await other.execute("select from sluice.queues where id = $1 for no key update", lanes[0])
            else:
                held = await other.fetchval(f"select id from sluice.{table} order by id limit 1")
                await other.execute("select pg_advisory_xact_lock($1::integer, $2::integer)", int(kind), held)
            claims = await asyncio.wait_for(claim_each(core, lanes, 3), 5)
    finally:
        await other.close()
    busy = [lanes[0], lanes[1]] if kind is Lock.HANDLER else [lanes[0]]
    assert got(claims) == [("busy", 0) if lane in busy else ("ok", 3) for lane in lanes]


async def test_a_change_that_waits_for_its_lock_is_not_kept_waiting_by_claims(
    core: Core, caller: Caller, lanes: list[int], database_url: str
) -> None:
    """Claims that come after it are busy until it is through."""
    await fill(core, caller, 3)
    other = await asyncpg.connect(database_url)
    try:
        flight = other.transaction()
        await flight.start()
        await other.execute("select pg_advisory_xact_lock_shared($1::integer, $2::integer)", int(Lock.QUEUE), lanes[0])
        pausing = asyncio.create_task(queues.pause(core, caller, "mail"))
        await until_waiting(core, 1)
        assert got(await claim_each(core, lanes[:2], 1)) == [("busy", 0), ("ok", 1)]
        assert not pausing.done()
        await flight.commit()
        await pausing
    finally:
        await other.close()
    assert got(await claim_each(core, lanes[:2], 1)) == [("paused", 0), ("ok", 1)]


async def test_a_claim_of_several_lanes_without_an_answer_is_released_as_a_whole(
    core: Core, caller: Caller, lanes: list[int]
) -> None:
    await fill(core, caller, 3)
    claim_id = str(uuid4())

    async def lost(seconds: float) -> list[Claim]:
        return await tasks.claim(
            core.db,
            [LaneWant(lane, 0, 2) for lane in lanes],
            owner=core.replica.id,
            replica=core.replica.name,
            claim_id=claim_id,
            not_after=core.clock.now() + timedelta(seconds=seconds),
            lease_seconds=30,
        )

    assert got(await lost(-1)) == [("late", 0)] * 3
    assert got(await lost(30)) == [("ok", 2)] * 3
    assert sorted(await tasks.release_claim(core.db, claim_id)) == sorted(lanes)
    assert await records.running(core.db) == 0
    assert [claim.tasks[0].attempt for claim in await claim_each(core, lanes, 1)] == [1, 1, 1]
