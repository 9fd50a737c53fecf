"""A breaker and an adaptive limit are limits: exact over all replicas, and from the commit of a change on."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from app.domain.breakers import Adaptive, Breaker
from app.domain.callers import Caller
from app.domain.conditions import ANY
from app.domain.handlers import HandlerDefinition
from app.domain.histograms import BUCKETS
from app.domain.queues import QueueDefinition
from app.runtime import breakers as runtime
from app.runtime.core import Core
from app.service import breakers, handlers, queues
from app.store import breakers as store
from app.store import handlers as handler_rows
from app.store import queues as queue_rows
from app.store import tasks
from app.store.breakers import Calls, HandlerHealth
from app.store.numbers import Lock
from app.store.tasks import AttemptEnd, Claim, Claimed
from tests.cores import claim, enqueue
from tests.promises.gates import until_waiting

pytestmark = pytest.mark.anyio

HOOK = "https://example.com/hook"
CLAIMERS = 12
Change = Callable[[Core, Caller, HandlerHealth], Coroutine[Any, Any, None]]
QUICK = Breaker(min_calls=4, open_seconds=0.1)


@pytest.fixture
async def queue_id(core: Core, caller: Caller) -> int:
    """A queue whose handler has a breaker."""
    await handlers.put(core, caller, "hook", HandlerDefinition(HOOK, breaker=QUICK), None, ANY)
    await queues.put(core, caller, "mail", QueueDefinition(handler="hook"), ANY)
    row = await queue_rows.find(core.db, caller.tenant_id, "mail")
    assert row is not None
    return row.id


async def found(core: Core, caller: Caller) -> HandlerHealth:
    handler_id = await handler_rows.id_of(core.db, caller.tenant_id, "hook")
    assert handler_id is not None
    health = await store.read(core.db, handler_id)
    assert health is not None
    return health


async def half_open(core: Core, caller: Caller) -> HandlerHealth:
    """Let the calls fail, and its time pass."""
    health = await found(core, caller)
    calls = Calls(health.handler_id, health.health.period, 9, 9, 0, False, [0] * BUCKETS)
    await store.add_calls(core.db, [calls])
    await runtime.advanced(core, health.handler_id)
    assert (await found(core, caller)).health.state == "open"
    await asyncio.sleep(QUICK.open_seconds)
    await runtime.advanced(core, health.handler_id)
    return await found(core, caller)


async def settle(core: Core, task: Claimed, kind: str, outcome: str) -> None:
    verdicts = await tasks.settle(core.db, [AttemptEnd(task.task_id, task.token, kind, outcome)])
    assert list(verdicts.values()) == ["applied"]


async def test_of_all_that_claim_while_it_is_half_open_one_gets_one_task(
    cores: list[Core], core: Core, caller: Caller, queue_id: int
) -> None:
    await enqueue(core, caller, "mail", 50)
    assert (await half_open(core, caller)).health.state == "half_open"

    async def claims(n: int) -> list[Claim]:
        return [await claim(cores[n % 3], queue_id, 20) for _ in range(5)]

    every = [one for each in await asyncio.gather(*map(claims, range(CLAIMERS))) for one in each]
    (probe,) = [one for one in every if one.tasks]
    assert len(probe.tasks) == 1 and probe.half_open and probe.period == 2
    assert {one.verdict for one in every} <= {"ok", "full", "busy"}
    await runtime.probed(core, (await found(core, caller)).handler_id, 2, ok=False)
    await settle(core, probe.tasks[0], "refund", "failed")
    after = await claim(core, queue_id, 20)
    assert (after.verdict, after.tasks) == ("breaker_open", []), "the slot of a failed probe lets nothing in"
    assert (await found(core, caller)).health.open_seconds == 0.2


async def open_by_hand(core: Core, caller: Caller, health: HandlerHealth) -> None:
    await breakers.set_breaker(core, caller, "hook", to_open=True)


async def open_by_calls(core: Core, caller: Caller, health: HandlerHealth) -> None:
    await runtime.advanced(core, health.handler_id)


async def park(core: Core, caller: Caller, health: HandlerHealth) -> None:
    await handler_rows.park(core.db, health.handler_id, 60)


@pytest.mark.parametrize(
    ("change", "verdict"), [(open_by_hand, "breaker_open"), (open_by_calls, "breaker_open"), (park, "parked")]
)
async def test_nothing_is_admitted_after_a_change_however_long_a_claim_takes(
    core: Core, caller: Caller, queue_id: int, change: Change, verdict: str
) -> None:
    await enqueue(core, caller, "mail", 9)
    health = await found(core, caller)
    await store.add_calls(core.db, [Calls(health.handler_id, 0, 9, 9, 0, False, [0] * BUCKETS)])
    async with core.db.transaction() as in_flight:
        await in_flight.fetch("select pg_advisory_xact_lock_shared($1, $2)", Lock.HANDLER, health.handler_id)
        opening = asyncio.create_task(change(core, caller, health))
        await until_waiting(core, 1)
        assert not opening.done()
        assert (await claim(core, queue_id, 1)).verdict == "busy", "what waits for its lock goes first"
    await opening
    assert (await claim(core, queue_id, 1)).verdict == verdict


async def test_calls_of_an_earlier_period_neither_open_it_again_nor_pass_for_the_probe(
    core: Core, caller: Caller, queue_id: int
) -> None:
    before = await half_open(core, caller)
    failed = [Calls(before.handler_id, period, 99, 99, 0, False, [0] * BUCKETS) for period in (0, 1)]
    await runtime.probed(core, before.handler_id, before.health.period - 1, ok=True)
    assert (await found(core, caller)).health == before.health
    await runtime.probed(core, before.handler_id, before.health.period, ok=True)
    await store.add_calls(core.db, failed)
    await runtime.advanced(core, before.handler_id)
    shown = await found(core, caller)
    assert (shown.health.state, shown.seen.calls, shown.calls) == ("closed", 0, 207)


async def test_of_several_replicas_that_see_the_same_one_lowers_the_limit_once(
    cores: list[Core], core: Core, caller: Caller, queue_id: int
) -> None:
    definition = HandlerDefinition(HOOK, adaptive=Adaptive(min=2), max_concurrency=10)
    await handlers.put(core, caller, "hook", definition, None, ANY)
    await enqueue(core, caller, "mail", 20)
    health = await found(core, caller)
    await core.db.fetch(
        "insert into sluice.handler_calls values ($1, floor(extract(epoch from clock_timestamp()))::bigint - 1, 0, 5, 1, 1, "
        "false, '{}')",
        health.handler_id,
    )
    await asyncio.gather(*(runtime.advanced(one, health.handler_id) for one in cores * 3))
    assert (await found(core, caller)).health.limit == 7
    taken = await asyncio.gather(*(claim(cores[n % 3], queue_id, 20) for n in range(CLAIMERS)))
    assert sum(len(one.tasks) for one in taken) == 7


async def test_push_backs_in_a_row_are_counted_until_an_attempt_counts_or_the_task_is_retried(
    core: Core, caller: Caller, queue_id: int
) -> None:
    await enqueue(core, caller, "mail")
    streaks = []
    for kind, outcome in (
        ("refund", "pushed_back"),
        ("refund", "released"),
        ("refund", "pushed_back"),
        ("retry", "failed"),
        ("refund", "pushed_back"),
        ("dead", "pushed_back"),
    ):
        (task,) = (await claim(core, queue_id, 1)).tasks
        pushed = task.options.pushed_back
        streaks.append((task.attempt, pushed and (pushed.times, pushed.attempt)))
        await settle(core, task, kind, outcome)
    assert streaks == [(1, None), (1, (1, 1)), (1, (1, 1)), (1, (2, 1)), (2, (2, 1)), (2, (1, 2))]
    assert await tasks.retry(core.db, caller.tenant_id, task.task_id) == "moved"
    (task,) = (await claim(core, queue_id, 1)).tasks
    assert (task.attempt, task.options.pushed_back) == (1, None)
