"""P4: leases never exceed the limit of their queue, their handler, or all queues, and no slot is leaked."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import pytest

from app.domain.callers import Caller
from app.domain.conditions import ANY
from app.domain.handlers import HandlerDefinition
from app.domain.limits import Limits
from app.domain.queues import QueueDefinition
from app.runtime.core import Core
from app.service import handlers, queues, tenant_limits
from app.store import queues as store
from app.store import tasks
from app.store.tasks import AttemptEnd, Claimed
from tests.cores import claim, enqueue
from tests.promises import records
from tests.promises.gates import shut, until_waiting
from tests.promises.records import Attempt, lose_leases
from tests.support import poll

pytestmark = pytest.mark.anyio

HOOK = "https://example.com/hook"
CLAIMERS = 16
Level = Callable[[Core, Caller, int | None], Awaitable[object]]


async def limit_queue(core: Core, caller: Caller, limit: int | None) -> None:
    await queues.put(core, caller, "mail", QueueDefinition(handler="hook", max_concurrency=limit), ANY)


async def limit_handler(core: Core, caller: Caller, limit: int | None) -> None:
    await handlers.put(core, caller, "hook", HandlerDefinition(HOOK, max_concurrency=limit), None, ANY)


async def limit_tenant(core: Core, caller: Caller, limit: int | None) -> None:
    await tenant_limits.put(core, caller, Limits(limit))


async def grant_tenant(core: Core, caller: Caller, limit: int | None) -> None:
    await tenant_limits.put_grant(core, caller, caller.tenant, limit)


LEVELS = pytest.mark.parametrize("level", [limit_queue, limit_handler, limit_tenant, grant_tenant])


@pytest.fixture
async def lanes(core: Core, caller: Caller) -> list[int]:
    """Two queues to one handler, and one to another."""
    for name in ("hook", "other"):
        await handlers.put(core, caller, name, HandlerDefinition(HOOK), None, ANY)
    for queue, handler in (("mail", "hook"), ("news", "hook"), ("else", "other")):
        await queues.put(core, caller, queue, QueueDefinition(handler=handler), ANY)
    rows = [await store.find(core.db, caller.tenant_id, name) for name in ("mail", "news", "else")]
    return [row.id for row in rows if row is not None]


def limited_lanes(level: Level, lanes: list[int]) -> list[int]:
    """Those that share the limit of this level."""
    shared: dict[Level, int] = {limit_queue: 1, limit_handler: 2}
    return lanes[: shared.get(level, 3)]


NAMES = ("mail", "news", "else")


async def settle(core: Core, done: list[Claimed], kind: str = "succeeded") -> None:
    if done:
        await tasks.settle(core.db, [AttemptEnd(task.task_id, task.token, kind, "succeeded") for task in done])


@LEVELS
async def test_sixteen_claimers_at_once_get_exactly_the_limit(
    cores: list[Core], caller: Caller, lanes: list[int], level: Level
) -> None:
    """Nobody settles while they claim, so one lease too many would stay to be counted."""
    limit, core = 10, cores[0]
    await level(core, caller, limit)
    shared = limited_lanes(level, lanes)
    for name in NAMES[: len(shared)]:
        await enqueue(core, caller, name, 200)

    async def claimer(number: int) -> list[Claimed]:
        taken: list[Claimed] = []
        while True:
            found = await claim(cores[number % 3], shared[number % len(shared)], 1 + number % 4)
            taken += found.tasks
            if found.verdict == "full":
                return taken

    for _ in range(12):
        taken = await asyncio.gather(*(claimer(number) for number in range(CLAIMERS)))
        assert await records.running(core.db) == limit == sum(map(len, taken))
        await settle(core, [task for found in taken for task in found])
    assert records.most_at_once(await records.attempts(core.db)) == limit


@dataclass(frozen=True, slots=True)
class Window:
    """From the answer of one change to the request of the next."""

    limit: int
    since: datetime
    until: datetime

    def holds(self, attempt: Attempt) -> bool:
        return self.since < attempt.started_at < self.until


@asynccontextmanager
async def busy_claimers(cores: list[Core], lanes: list[int]) -> AsyncIterator[None]:
    """Sixteen that claim, hold for a moment and give back, until the block ends."""
    dice = random.Random(4)
    ending = asyncio.Event()

    async def claimer(number: int) -> None:
        core, lane = cores[number % 3], lanes[number % len(lanes)]
        while not ending.is_set():
            found = await claim(core, lane, dice.randrange(1, 5))
            await asyncio.sleep(0)
            await settle(core, found.tasks, "refund")

    claimers = [asyncio.create_task(claimer(number)) for number in range(CLAIMERS)]
    try:
        yield
    finally:
        ending.set()
        await asyncio.gather(*claimers)


async def more_started(core: Core, since: datetime, count: int) -> None:
    async def so_many() -> bool:
        return await records.started(core.db, since) >= count

    await poll(so_many)


@LEVELS
async def test_a_limit_changed_while_running_holds_from_its_answer_on(
    cores: list[Core], caller: Caller, lanes: list[int], level: Level
) -> None:
    core = cores[0]
    shared = limited_lanes(level, lanes)
    for name in NAMES[: len(shared)]:
        await enqueue(core, caller, name, 100)
    windows: list[Window] = []
    async with busy_claimers(cores, shared):
        for limit in (None, 3, 9, 2, None, 1, 5):
            await level(core, caller, limit)
            since = await records.now(core.db)
            await more_started(core, since, 12)
            if limit is not None:
                windows.append(Window(limit, since, await records.now(core.db)))
    found = await records.attempts(core.db)
    reached = {}
    for window in windows:
        counts = [count for _, count in records.at_each_start(found, window.holds)]
        assert max(counts) <= window.limit, f"{max(counts)} running under a limit of {window.limit}"
        reached[window.limit] = max(counts)
    assert reached[9] > 5 and reached[5] > 2, f"a higher limit is used: {reached}"


async def pause(core: Core, caller: Caller) -> Callable[[], Awaitable[object]]:
    await queues.pause(core, caller, "mail")
    return lambda: queues.resume(core, caller, "mail")


async def disable(core: Core, caller: Caller) -> Callable[[], Awaitable[object]]:
    await handlers.disable(core, caller, "hook")
    return lambda: handlers.enable(core, caller, "hook")


@pytest.mark.parametrize("shut", [pause, disable])
async def test_nothing_starts_between_the_answer_of_a_pause_and_the_resume(
    cores: list[Core], caller: Caller, lanes: list[int], shut: Callable[..., Awaitable[Callable[[], Awaitable[object]]]]
) -> None:
    core = cores[0]
    await enqueue(core, caller, "mail", 100)
    windows: list[Window] = []
    async with busy_claimers(cores, lanes[:1]):
        for _ in range(6):
            await more_started(core, await records.now(core.db), 10)
            reopen = await shut(core, caller)
            since = await records.now(core.db)
            for _ in range(5):
                assert (await claim(cores[1], lanes[0], 1)).verdict in ("paused", "disabled")
            windows.append(Window(0, since, await records.now(core.db)))
            await reopen()
    found = await records.attempts(core.db)
    assert [one for window in windows for one in found if window.holds(one)] == []
    assert len(found) > 60


async def pause_only(core: Core, caller: Caller) -> None:
    await queues.pause(core, caller, "mail")


async def disable_only(core: Core, caller: Caller) -> None:
    await handlers.disable(core, caller, "hook")


CHANGES = [
    *(partial(level, limit=2) for level in (limit_queue, limit_handler, limit_tenant, grant_tenant)),
    pause_only,
    disable_only,
]


@pytest.mark.parametrize("change", CHANGES, ids=["queue", "handler", "tenant", "grant", "pause", "disable"])
async def test_a_claim_in_flight_is_admitted_before_the_answer_of_a_change_or_not_at_all(
    cores: list[Core], caller: Caller, lanes: list[int], database_url: str, change: Callable[..., Awaitable[object]]
) -> None:
    """The claim has read what holds, and is kept from granting until the change has been asked for."""
    core = cores[0]
    await enqueue(core, caller, "mail", 10)

    async def answered_at() -> datetime:
        await change(core, caller)
        return await records.now(core.db)

    async with shut(database_url, "tasks", "access exclusive"):
        claiming = asyncio.create_task(claim(cores[1], lanes[0], 5))
        await until_waiting(core, 1)
        changing = asyncio.create_task(answered_at())
        waiting = asyncio.create_task(until_waiting(core, 2))
        await asyncio.wait([changing, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
    await claiming
    answered = await changing
    assert [attempt for attempt in await records.attempts(core.db) if attempt.started_at > answered] == []
    assert (await claim(cores[1], lanes[0], 5)).tasks == []


async def test_no_slot_leaks_however_a_lease_ends(cores: list[Core], caller: Caller, lanes: list[int]) -> None:
    """Settled, retried, dead, refunded, cancelled, reaped, released by its claim, or ended twice: the limit is there again."""
    core, limit = cores[0], 4
    await limit_queue(core, caller, limit)
    await limit_handler(core, caller, limit)
    await limit_tenant(core, caller, limit)

    async def free_at_once(taken: list[Claimed]) -> None:
        """Not only by the late settle, which changes nothing."""
        assert await records.running(core.db) == 0
        await settle(core, taken)

    async def settled(kind: str, taken: list[Claimed]) -> None:
        await settle(core, taken, kind)
        await settle(cores[1], taken, kind)

    async def cancelled(taken: list[Claimed]) -> None:
        await tasks.cancel(core.db, caller.tenant_id, [task.task_id for task in taken], "requested")
        await free_at_once(taken)

    async def reaped(taken: list[Claimed]) -> None:
        await lose_leases(core.db)
        assert (await claim(core, lanes[0], 9)).verdict == "full", "taken until the reap"
        assert len((await tasks.reap(core.db, 100)).reaped) == limit
        await free_at_once(taken)

    async def released(taken: list[Claimed]) -> None:
        claims = await core.db.fetch("select distinct lease_claim from sluice.tasks where state = 1")
        for (claim_id,) in claims:
            await tasks.release_claim(core.db, str(claim_id))
        await free_at_once(taken)

    async def expired_then_cancelled(taken: list[Claimed]) -> None:
        await lose_leases(core.db)
        await cancelled(taken)
        await tasks.reap(core.db, 100)

    ends: list[Callable[[list[Claimed]], Awaitable[None]]] = [
        *(partial(settled, kind) for kind in ("succeeded", "retry", "dead", "refund")),
        cancelled,
        reaped,
        released,
        expired_then_cancelled,
    ]
    await enqueue(core, caller, "mail", 8 * len(ends))
    for end in ends * 2:
        first = await claim(core, lanes[0], 3)
        second = await claim(cores[1], lanes[0], 9)
        assert (first.verdict, second.verdict) == ("ok", "full")
        assert len(first.tasks + second.tasks) == limit
        await end(first.tasks + second.tasks)
        assert await records.running(core.db) == 0


async def test_the_lowest_of_three_limits_counts(core: Core, caller: Caller, lanes: list[int]) -> None:
    for name in NAMES:
        await enqueue(core, caller, name, 20)
    await limit_queue(core, caller, 3)
    await limit_handler(core, caller, 5)
    await limit_tenant(core, caller, 7)
    got = [len((await claim(core, lane, 20)).tasks) for lane in lanes]
    assert got == [3, 2, 2]
