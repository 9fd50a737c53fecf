"""A claim that rides along with outcomes: the slots that these free are its own, no more, and everybody else's promises stay."""

import asyncio
import random
from datetime import timedelta
from uuid import uuid4

import pytest

from app.domain.callers import Caller
from app.runtime.core import Core
from app.store import tasks
from app.store.tasks import AttemptEnd, Claim, Claimed, LaneWant
from tests.cores import claim, enqueue
from tests.promises import records
from tests.promises.flows import Flows, keys_of, uses
from tests.promises.records import lose_leases
from tests.promises.test_limits import LEVELS, NAMES, Level, lanes, limit_queue, limited_lanes

__all__ = ["lanes"]

pytestmark = pytest.mark.anyio


async def settle_and_claim(
    core: Core, done: list[Claimed], lane: int, want: int, kind: str = "succeeded"
) -> tuple[set[str], Claim]:
    """The verdicts on the outcomes, and the claim."""
    verdicts, (found,) = await tasks.settle_and_claim(
        core.db,
        [AttemptEnd(task.task_id, task.token, kind, "succeeded") for task in done],
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


@pytest.fixture
def flows(cores: list[Core], caller: Caller) -> Flows:
    return Flows(cores, caller)


async def test_it_takes_the_slots_of_keys_and_of_a_named_limit_that_the_outcomes_free(flows: Flows) -> None:
    queue = await flows.queue("mail")
    await flows.limit("queue_key", owner=queue, max_concurrency=1)
    await flows.limit(name="db", max_concurrency=2)
    await flows.enqueue(queue, ["a", "a", "b", "b", "c", "c"], limits=uses("db"))
    held = (await flows.claim(queue)).tasks
    assert len({task.options.key for task in held}) == 2
    for left in (2, 2, 2, 2, 1, 0):
        verdicts, found = await settle_and_claim(flows.core, held[:1], queue, 9)
        held = held[1:] + found.tasks
        assert (verdicts, len(held)) == ({"applied"}, left)
        assert len({task.options.key for task in held}) == left


async def test_it_takes_again_what_it_gives_back(flows: Flows) -> None:
    """The same task, by the same transaction: the hold of its next run must outlive the signal that the last one has ended."""
    queue = await flows.queue("mail")
    await flows.limit("queue_key", owner=queue, max_concurrency=1)
    await flows.enqueue(queue, ["a"] * 2)
    held = (await flows.claim(queue)).tasks
    for _ in range(3):
        verdicts, found = await settle_and_claim(flows.core, held, queue, 9, "refund")
        assert (verdicts, [task.task_id for task in found.tasks]) == ({"applied"}, [held[0].task_id])
        held = found.tasks
        assert not (await flows.claim(queue)).tasks


async def test_what_it_cannot_use_is_handed_on_to_the_lanes_that_can(flows: Flows) -> None:
    one, two = await flows.queue("one"), await flows.queue("two")
    await flows.limit(name="db", max_concurrency=1)
    await flows.enqueue(one, [None], limits=uses("db"))
    await flows.enqueue(two, ["k"], limits=uses("db"))
    held = (await flows.claim(one)).tasks
    assert (await flows.claim(two)).verdict == "full"
    verdicts, found = await settle_and_claim(flows.core, held, one, 9)
    assert (verdicts, found.tasks) == ({"applied"}, [])
    assert (two, 0) in found.opened
    assert keys_of(await flows.claim(two)) == ["k"]


async def test_outcomes_are_written_while_another_claim_has_the_gate_and_what_they_free_is_found_later(
    flows: Flows,
) -> None:
    queue = await flows.queue("mail")
    await flows.limit("queue_key", owner=queue, max_concurrency=1)
    await flows.enqueue(queue, ["a"] * 2)
    held = (await flows.claim(queue)).tasks
    assert (await flows.claim(queue)).verdict == "full"
    async with flows.cores[1].db.begin(flows.caller.tenant_id) as connection:
        await connection.fetch("select * from sluice.fold_flows_v1($1)", flows.caller.tenant_id)
        verdicts, found = await settle_and_claim(flows.core, held, queue, 9)
        assert (verdicts, found.verdict, found.tasks) == ({"applied"}, "busy", [])
    assert keys_of(await flows.claim(queue)) == ["a"]


async def test_many_that_settle_and_claim_never_exceed_a_limit_of_flows_and_leave_nothing_behind(flows: Flows) -> None:
    """Nobody sweeps here: a single lost signal would leave a task for ever."""
    queues = [await flows.queue(name) for name in ("one", "two", "three")]
    for queue in queues[:2]:
        await flows.limit("queue_key", owner=queue, max_concurrency=2)
    await flows.limit(name="db", max_concurrency=5)
    dice = random.Random(5)
    names: dict[str, set[str]] = {}
    for _ in range(24):
        queue, key, limited = dice.choice(queues), dice.choice(["a", "b", None]), dice.random() < 0.6
        for task_id in await flows.enqueue(queue, [key] * 8, limits=uses("db") if limited else ()):
            own = {f"{queue} {key}"} if key and queue in queues[:2] else set[str]()
            names[task_id] = own | ({"db"} if limited else set())
    left = len(names)

    async def claimer(number: int) -> None:
        nonlocal left
        core, held, chance = flows.cores[number % 3], list[Claimed](), random.Random(number)
        while left > 0:
            queue = queues[(number + chance.randrange(2)) % 3]
            if held:
                kind = "refund" if chance.random() < 0.2 else "succeeded"
                verdicts, found = await settle_and_claim(core, held, queue, 1 + number % 4, kind)
                assert verdicts == {"applied"}
                left -= len(held) if kind == "succeeded" else 0
            else:
                found = await claim(core, queue, 1 + number % 4)
            held = found.tasks

    async with asyncio.timeout(30):
        await asyncio.gather(*(claimer(number) for number in range(8)))
    every = await records.attempts(flows.core.db)
    for name in set().union(*names.values()):
        found = [attempt for attempt in every if name in names[attempt.task_id]]
        assert records.most_at_once(found) <= (5 if name == "db" else 2), name
    assert await flows.core.db.fetchval("select count(*) from sluice.tasks") == 0
