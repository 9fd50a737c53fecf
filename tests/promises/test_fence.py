"""P2: a holder that lost its lease can change nothing; its late outcome is recorded as stale."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from app.domain.callers import Caller
from app.domain.conditions import ANY
from app.domain.handlers import HandlerDefinition
from app.domain.queues import QueueDefinition
from app.runtime.core import Core
from app.service import handlers, queues
from app.store import queues as store
from app.store import tasks
from app.store.tasks import AttemptEnd, Claimed, LaneWant
from tests.cores import claim, claim_lanes, enqueue
from tests.promises import records
from tests.promises.records import lose_leases
from tests.support import poll

pytestmark = pytest.mark.anyio

KINDS = ("succeeded", "retry", "dead", "refund")
LIVE = (
    "select t::text from sluice.tasks t where id = $1 union all select t::text from sluice.task_history t where id = $1"
)


@pytest.fixture
async def queue_id(core: Core, caller: Caller) -> int:
    await handlers.put(core, caller, "hook", HandlerDefinition("https://example.com/hook"), None, ANY)
    await queues.put(core, caller, "mail", QueueDefinition(handler="hook"), ANY)
    row = await store.find(core.db, caller.tenant_id, "mail")
    assert row is not None
    return row.id


def outcome(task: Claimed, kind: str, *, status: int = 299, delay_seconds: float = 0.0) -> AttemptEnd:
    name = {"succeeded": "succeeded", "refund": "released", "hold": "held"}.get(kind, "failed")
    reason = "fatal_status" if kind == "dead" else None
    excerpt = f"said with {status}"
    return AttemptEnd(task.task_id, task.token, kind, name, reason, delay_seconds, status, excerpt=excerpt)


async def settle(core: Core, *outcomes: AttemptEnd) -> list[str]:
    verdicts = await tasks.settle(core.db, outcomes)
    return [verdicts.get(one.token, "not answered") for one in outcomes]


async def claimed(core: Core, queue_id: int, count: int = 1) -> list[Claimed]:
    found = (await claim(core, queue_id, count)).tasks
    assert len(found) == count
    return found


async def lost_and_retaken(core: Core, queue_id: int) -> tuple[Claimed, Claimed]:
    """One task under a lease that was lost, and under the lease of its next holder."""
    (zombie,) = await claimed(core, queue_id)
    await lose_leases(core.db, [zombie.task_id])
    assert [reaped.task_id for reaped in (await tasks.reap(core.db, 10)).reaped] == [zombie.task_id]
    (holder,) = await claimed(core, queue_id)
    assert holder.task_id == zombie.task_id and holder.token != zombie.token
    return zombie, holder


@pytest.mark.parametrize("kind", KINDS)
async def test_a_late_settle_cannot_touch_a_retaken_task(core: Core, caller: Caller, queue_id: int, kind: str) -> None:
    (task_id,) = await enqueue(core, caller, "mail")
    zombie, holder = await lost_and_retaken(core, queue_id)
    before = await core.db.fetchval(LIVE, task_id)
    assert await settle(core, outcome(zombie, kind, status=201)) == ["stale"]
    assert await core.db.fetchval(LIVE, task_id) == before
    first, second = await records.attempts(core.db, task_id)
    assert (first.outcome, first.status, first.excerpt, first.counted) == ("stale", 201, "said with 201", True)
    assert (second.outcome, second.token) == (None, holder.token)
    assert await tasks.renew(core.db, [(task_id, zombie.token)], 30) == set()
    assert await tasks.renew(core.db, [(task_id, holder.token)], 30) == {holder.token}
    assert await settle(core, outcome(holder, "succeeded")) == ["applied"]
    assert await records.outcomes(core.db, task_id) == ["stale", "succeeded"]


@pytest.mark.parametrize("winner", KINDS)
@pytest.mark.parametrize("first", ["zombie", "winner"])
async def test_a_zombie_in_the_group_of_the_winner_is_not_told_that_it_won(
    core: Core, caller: Caller, queue_id: int, winner: str, first: str
) -> None:
    for kind in KINDS:
        (task_id,) = await enqueue(core, caller, "mail")
        zombie, holder = await lost_and_retaken(core, queue_id)
        group = [outcome(zombie, kind, status=201), outcome(holder, winner, status=202)]
        verdicts = ["stale", "applied"]
        if first == "winner":
            group.reverse()
            verdicts.reverse()
        assert await settle(core, *group) == verdicts
        late, won = await records.attempts(core.db, task_id)
        assert (late.outcome, late.status) == ("stale", 201)
        assert (won.outcome, won.status) == (group[verdicts.index("applied")].outcome, 202)
        await core.db.fetch("delete from sluice.tasks")


async def nothing(core: Core, caller: Caller, queue_id: int, task_id: str) -> None:
    """The repeat comes at once."""


async def claimed_again(core: Core, caller: Caller, queue_id: int, task_id: str) -> None:
    if await core.db.fetchval("select 1 from sluice.tasks where id = $1", task_id):
        await claimed(core, queue_id)


async def ended_since(core: Core, caller: Caller, queue_id: int, task_id: str) -> None:
    if await core.db.fetchval("select 1 from sluice.tasks where id = $1", task_id):
        (task,) = await claimed(core, queue_id)
        assert await settle(core, outcome(task, "succeeded")) == ["applied"]


async def cancelled_since(core: Core, caller: Caller, queue_id: int, task_id: str) -> None:
    await claimed_again(core, caller, queue_id, task_id)
    await tasks.cancel(core.db, caller.tenant_id, [task_id], "requested")


async def redriven_since(core: Core, caller: Caller, queue_id: int, task_id: str) -> None:
    await tasks.cancel(core.db, caller.tenant_id, [task_id], "requested")
    if await tasks.retry(core.db, caller.tenant_id, task_id) == "moved":
        await claimed(core, queue_id)


Since = Callable[[Core, Caller, int, str], Awaitable[None]]


@pytest.mark.parametrize("since", [nothing, claimed_again, ended_since, cancelled_since, redriven_since])
async def test_a_repeat_of_an_applied_settle_is_answered_as_one_and_writes_nothing(
    core: Core, caller: Caller, queue_id: int, since: Since
) -> None:
    for kind in KINDS:
        (task_id,) = await enqueue(core, caller, "mail")
        (task,) = await claimed(core, queue_id)
        assert await settle(core, outcome(task, kind)) == ["applied"]
        await since(core, caller, queue_id, task_id)
        before = await records.written(core.db)
        assert await settle(core, outcome(task, kind)) == ["repeat"], kind
        assert await settle(core, outcome(task, "dead", status=555)) == ["repeat"], f"{kind}, contradicted"
        assert await records.written(core.db) == before, kind
        await core.db.fetch("delete from sluice.tasks")


async def test_a_hold_told_twice_lasts_as_long_as_it_was_told_first(core: Core, caller: Caller, queue_id: int) -> None:
    (task_id,) = await enqueue(core, caller, "mail")
    (task,) = await claimed(core, queue_id)
    hold = outcome(task, "hold", delay_seconds=600)
    assert await settle(core, hold) == ["applied"]
    assert await tasks.extend_lease(core.db, task_id, task.token, 60, None), "its holder's own word may shorten it"
    before = await records.written(core.db)
    assert await settle(core, hold) == ["repeat"]
    assert await records.written(core.db) == before
    await lose_leases(core.db)
    assert await settle(core, outcome(task, "succeeded")) == ["stale"]


async def test_a_cancel_revokes_the_lease_at_once(core: Core, caller: Caller, queue_id: int) -> None:
    (task_id,) = await enqueue(core, caller, "mail")
    (task,) = await claimed(core, queue_id)
    (cancelled,) = await tasks.cancel(core.db, caller.tenant_id, [task_id], "requested")
    assert cancelled.owner == core.replica.id, "the holder can be told"
    assert await tasks.renew(core.db, [(task_id, task.token)], 30) == set()
    assert await settle(core, outcome(task, "retry", status=503)) == ["stale"]
    (attempt,) = await records.attempts(core.db, task_id)
    assert (attempt.outcome, attempt.status, attempt.counted) == ("stale", 503, False)
    assert await core.db.fetchval("select state from sluice.task_history where id = $1", task_id) == 5


async def test_a_lost_claim_that_is_released_late_touches_no_later_holder(
    core: Core, caller: Caller, queue_id: int
) -> None:
    (task_id,) = await enqueue(core, caller, "mail")
    await claimed(core, queue_id)
    lost_claim = str(await core.db.fetchval("select lease_claim from sluice.tasks"))
    await lose_leases(core.db)
    await tasks.reap(core.db, 10)
    (holder,) = await claimed(core, queue_id)
    assert await tasks.release_claim(core.db, lost_claim) == []
    assert await tasks.renew(core.db, [(task_id, holder.token)], 30) == {holder.token}


async def test_a_renewal_never_shortens_and_never_revives(core: Core, caller: Caller, queue_id: int) -> None:
    (task_id,) = await enqueue(core, caller, "mail")
    (task,) = await claimed(core, queue_id)
    until = "select lease_expires_at from sluice.tasks where id = $1"
    granted = await core.db.fetchval(until, task_id)
    assert await tasks.renew(core.db, [(task_id, task.token)], 5) == {task.token}
    assert await core.db.fetchval(until, task_id) == granted
    assert await tasks.renew(core.db, [(task_id, task.token)], 60) == {task.token}
    assert await core.db.fetchval(until, task_id) > granted
    await lose_leases(core.db)
    lost = await core.db.fetchval(until, task_id)
    assert await tasks.renew(core.db, [(task_id, task.token)], 60) == set()
    assert await core.db.fetchval(until, task_id) == lost, "not reaped yet, and lost all the same"
    assert await settle(core, outcome(task, "succeeded")) == ["stale"]


@asynccontextmanager
async def held_row(url: str, task_id: str) -> AsyncIterator["asyncpg.Connection[Any]"]:
    """The connection of somebody whose transaction holds the row of the task."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.fetch("select 1 from sluice.tasks where id = $1 for update", task_id)
            yield connection
    finally:
        await connection.close()


async def somebody_waits(core: Core) -> None:
    waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    await poll(lambda: core.db.fetchval(waiting))


@pytest.mark.parametrize("verb", ["settle", "renew"])
async def test_a_lease_that_runs_out_while_its_holder_waits_for_the_row_is_lost(
    core: Core, caller: Caller, queue_id: int, database_url: str, verb: str
) -> None:
    (task_id,) = await enqueue(core, caller, "mail")
    (task,) = await claimed(core, queue_id)
    asked: Awaitable[Any]
    async with held_row(database_url, task_id) as other:
        if verb == "settle":
            asked = asyncio.ensure_future(settle(core, outcome(task, "succeeded")))
        else:
            asked = asyncio.ensure_future(tasks.renew(core.db, [(task_id, task.token)], 30))
        await somebody_waits(core)
        # asked in time: it ran out later than that, and before the row was free
        await other.fetch("update sluice.tasks set lease_expires_at = clock_timestamp()")
    assert await asked == (["stale"] if verb == "settle" else set())
    assert await records.running(core.db) == 1, "its slot stays taken until the reap"


@pytest.mark.parametrize("kind", [*KINDS, "hold"])
async def test_an_outcome_that_waits_for_a_change_of_its_task_is_applied(
    core: Core, caller: Caller, queue_id: int, database_url: str, kind: str
) -> None:
    """The row has moved meanwhile, and the outcome is written where it lies then."""
    (task_id,) = await enqueue(core, caller, "mail")
    (task,) = await claimed(core, queue_id)
    async with held_row(database_url, task_id) as other:
        asked = asyncio.ensure_future(settle(core, outcome(task, kind, delay_seconds=60)))
        await somebody_waits(core)
        await other.execute("update sluice.tasks set renewed_at = clock_timestamp()")
    assert await asked == ["applied"]


@asynccontextmanager
async def one_task_unwritten(url: str, task_id: str) -> AsyncIterator[None]:
    """What is written to this task is dropped meanwhile."""
    connection = await asyncpg.connect(url)
    await connection.execute(
        "create function public.drop_write() returns trigger language plpgsql as $$ begin return null; end $$;"
        "create trigger drop_write before update on sluice.tasks for each row"
        f" when (old.id = '{task_id}') execute function public.drop_write()"
    )
    try:
        yield
    finally:
        await connection.execute("drop function public.drop_write() cascade")
        await connection.close()


async def test_a_claim_that_could_not_write_all_it_took_takes_nothing(
    core: Core, caller: Caller, queue_id: int, database_url: str
) -> None:
    """Its answer is cut into lanes by their counts, so one task less would go to another lane's handler."""
    await queues.put(core, caller, "news", QueueDefinition(handler="hook"), ANY)
    news = await store.find(core.db, caller.tenant_id, "news")
    assert news is not None
    lanes = [LaneWant(queue_id, 0, 2), LaneWant(news.id, 0, 2)]
    first, _ = await enqueue(core, caller, "mail", 2)
    await enqueue(core, caller, "news", 2)
    async with one_task_unwritten(database_url, first):
        with pytest.raises(asyncpg.RaiseError, match="leased 3 of 4 tasks"):
            await claim_lanes(core, lanes)
    assert await records.running(core.db) == 0
    assert [len(found.tasks) for found in await claim_lanes(core, lanes)] == [2, 2]


async def test_a_late_outcome_that_waits_for_its_task_until_that_has_ended_is_recorded(
    core: Core, caller: Caller, queue_id: int, database_url: str
) -> None:
    """It looks the row up, waits for it, and finds it in history."""
    (task_id,) = await enqueue(core, caller, "mail")
    (zombie,) = await claimed(core, queue_id)
    await lose_leases(core.db, [task_id])
    await tasks.reap(core.db, 10)
    async with held_row(database_url, task_id) as other:
        assert await tasks.cancel(other, caller.tenant_id, [task_id], "requested")
        asked = asyncio.ensure_future(settle(core, outcome(zombie, "succeeded", status=211)))
        await somebody_waits(core)
    assert await asked == ["stale"]
    (late,) = await records.attempts(core.db, task_id)
    assert (late.outcome, late.status, late.excerpt) == ("stale", 211, "said with 211")


async def test_of_settle_cancel_and_reap_one_wins_and_the_record_says_which(
    cores: list[Core], caller: Caller, queue_id: int
) -> None:
    """All of them race for every task, from three replicas; half of the leases have run out."""
    dice = random.Random(20)
    core = cores[0]
    await enqueue(core, caller, "mail", 80)
    taken = await claimed(core, queue_id, 80)
    expired = {task.task_id for task in taken[::2]}
    await lose_leases(core.db, list(expired))
    applied: dict[str, str] = {}
    cancelled: set[str] = set()
    reaped: set[str] = set()
    renewed: set[str] = set()

    async def try_settle(task: Claimed) -> None:
        (applied[task.task_id],) = await settle(dice.choice(cores), outcome(task, "succeeded", status=211))

    async def try_cancel(task: Claimed) -> None:
        found = await tasks.cancel(dice.choice(cores).db, caller.tenant_id, [task.task_id], "requested")
        cancelled.update(one.task_id for one in found)

    async def try_renew(task: Claimed) -> None:
        if await tasks.renew(dice.choice(cores).db, [(task.task_id, task.token)], 30):
            renewed.add(task.task_id)

    async def try_reap(_: Claimed) -> None:
        reaped.update(one.task_id for one in (await tasks.reap(dice.choice(cores).db, 3)).reaped)

    moves = list(itertools.product((try_settle, try_cancel, try_renew, try_reap), taken))
    dice.shuffle(moves)
    await asyncio.gather(*(move(task) for move, task in moves))
    assert await core.db.fetchval("select count(*) from sluice.tasks") == 0
    ended = {str(row["id"]): row["state"] for row in await core.db.fetch("select id, state from sluice.task_history")}
    for attempt in await records.attempts(core.db):
        task_id = attempt.task_id
        if applied[task_id] == "applied":
            assert task_id not in expired | cancelled | reaped
            assert (attempt.outcome, ended[task_id]) == ("succeeded", 3)
        else:
            assert applied[task_id] == "stale" and task_id in cancelled
            assert (attempt.outcome, attempt.status, ended[task_id]) == ("stale", 211, 5)
    assert not renewed & expired and not reaped - expired
    winners = set(applied.values())
    assert winners == {"applied", "stale"}, "the race had both ends"
