"""A claim that rides along with outcomes: the slots that these free are its own, no more, and everybody else's promises stay."""

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest

from app.domain.callers import Caller
from app.runtime.core import Core
from app.store import tasks
from app.store.tasks import AttemptEnd, Claim, Claimed, LaneWant
from tests.cores import claim, enqueue
from tests.promises import records
from tests.promises.records import lose_leases
from tests.promises.test_limits import LEVELS, NAMES, Level, lanes, limit_queue, limited_lanes

__all__ = ["lanes"]

pytestmark = pytest.mark.anyio


async def settle_and_claim(core: Core, done: list[Claimed], lane: int, want: int) -> tuple[set[str], Claim]:
    """The verdicts on the outcomes, and the claim."""
    verdicts, (found,) = await tasks.settle_and_claim(
        core.db,
        [AttemptEnd(task.task_id, task.token, "succeeded", "succeeded") for task in done],
        [LaneWant(lane, 0, want)],
        owner=core.replica.id,
        replica=core.replica.name,
        claim_id=str(uuid4()),
        not_after=core.clock.now() + timedelta(seconds=30),
        lease_seconds=30,
    )
    return set(verdicts.values()), found


@LEVELS
async def test_it_gets_exactly_the_slots_that_the_outcomes_free(
    core: Core, caller: Caller, lanes: list[int], level: Level
) -> None:
    await level(core, caller, 5)
    await enqueue(core, caller, "mail", 20)
    held = (await claim(core, lanes[0], 9)).tasks
    assert len(held) == 5
    for ended in (3, 1, 5):
        verdicts, found = await settle_and_claim(core, held[:ended], lanes[0], 9)
        assert (verdicts, found.verdict, len(found.tasks)) == ({"applied"}, "full", ended)
        held = held[ended:] + found.tasks
        assert await records.running(core.db) == 5
    assert records.most_at_once(await records.attempts(core.db)) == 5


async def test_outcomes_that_are_not_applied_free_nothing(core: Core, caller: Caller, lanes: list[int]) -> None:
    await limit_queue(core, caller, 2)
    await enqueue(core, caller, "mail", 10)
    first = (await claim(core, lanes[0], 9)).tasks
    _, second = await settle_and_claim(core, first, lanes[0], 9)
    repeated = await settle_and_claim(core, first, lanes[0], 9)
    assert (repeated[0], repeated[1].verdict, repeated[1].tasks) == ({"repeat"}, "full", [])
    await lose_leases(core.db)
    late = await settle_and_claim(core, second.tasks, lanes[0], 9)
    assert (late[0], late[1].tasks) == ({"stale"}, [])


@LEVELS
async def test_sixteen_at_once_that_settle_and_claim_never_exceed_the_limit(
    cores: list[Core], caller: Caller, lanes: list[int], level: Level
) -> None:
    await level(cores[0], caller, 10)
    shared = limited_lanes(level, lanes)
    for name in NAMES[: len(shared)]:
        await enqueue(cores[0], caller, name, 150)
    left = 150 * len(shared)

    async def claimer(number: int) -> None:
        nonlocal left
        core, lane, held = cores[number % 3], shared[number % len(shared)], list[Claimed]()
        while left > 0:
            if held:
                verdicts, found = await settle_and_claim(core, held, lane, 1 + number % 4)
                assert verdicts == {"applied"}
                left -= len(held)
            else:
                found = await claim(core, lane, 1 + number % 4)
                if found.verdict == "empty" and not found.tasks:
                    return
            held = found.tasks

    async with asyncio.timeout(30):
        await asyncio.gather(*(claimer(number) for number in range(16)))
    assert left == 0
    assert records.most_at_once(await records.attempts(cores[0].db)) == 10
