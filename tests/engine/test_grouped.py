"""Attempts that share a call: each ends once and by itself, however the call ends."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from app.delivery.webhook.webhooks import Webhooks
from app.domain.breakers import Breaker
from app.domain.callers import Caller
from app.domain.conditions import ANY
from app.domain.grouped import MAX_GROUP_BYTES
from app.domain.handlers import Grouping, HandlerDefinition
from app.domain.options import Options
from app.domain.queues import QueueDefinition
from app.engine.grouped import parcels
from app.engine.held import Held
from app.engine.holdings import Holdings
from app.runtime.core import Core
from app.service import handlers, queues
from app.store import handlers as rows
from app.store import queues as store
from app.store.tasks import Claimed
from tests.cores import claim, enqueue
from tests.handlers import Handler, Reply
from tests.support import poll

pytestmark = pytest.mark.anyio

Hold = Callable[..., Awaitable[Holdings]]


@pytest.fixture
def ended() -> list[Held]:
    return []


@pytest.fixture
async def hold(core: Core, caller: Caller, handler: Handler, ended: list[Held]) -> Hold:
    async def holding(count: int, **fields: Any) -> Holdings:
        await handlers.put(core, caller, "h", HandlerDefinition(handler.url, group=Grouping(100), **fields), None, ANY)
        await queues.put(core, caller, "mail", QueueDefinition(handler="h"), ANY)
        await enqueue(core, caller, "mail", count)
        row = await store.find(core.db, caller.tenant_id, "mail")
        assert row is not None
        holdings = Holdings(core, lease_seconds=30.0, ended=ended.append)
        await holdings.start((row.id, 0), await claim(core, row.id, count), asyncio.get_running_loop().time())
        return holdings

    return holding


async def outcomes(core: Core) -> list[Any]:
    rows = await core.db.fetch(
        "select last_outcome from sluice.tasks union all select last_outcome from sluice.task_history"
    )
    return [row[0] for row in rows]


async def test_what_another_claim_leaves_of_a_full_group_goes_on_waiting(
    core: Core, caller: Caller, handler: Handler
) -> None:
    definition = HandlerDefinition(handler.url, group=Grouping(3, 300))
    await handlers.put(core, caller, "h", definition, None, ANY)
    await queues.put(core, caller, "mail", QueueDefinition(handler="h"), ANY)
    await enqueue(core, caller, "mail", 4)
    row = await store.find(core.db, caller.tenant_id, "mail")
    assert row is not None
    async with core.db.begin(caller.tenant_id) as other:
        await other.fetch("select from sluice.tasks order by id limit 2 for update")
        found = await claim(core, row.id, 10)
        assert (found.tasks, found.verdict) == ([], "busy")
    found = await claim(core, row.id, 10)
    assert len(found.tasks) == 3
    assert (await claim(core, row.id, 10)).verdict == "forming"


async def test_a_drain_gives_back_every_task_of_a_group_and_closes_its_call(
    core: Core, handler: Handler, hold: Hold, ended: list[Held]
) -> None:
    handler.script(Reply(until=asyncio.Event()))
    holdings = await hold(3)
    await handler.received()
    hurried = asyncio.Event()
    hurried.set()
    assert await holdings.drain(10.0, hurried) == 3
    assert (holdings.count, len(ended)) == (0, 3)
    await handler.idle()
    assert await outcomes(core) == ["failed"] * 3


async def test_a_drain_lets_a_group_end_within_its_grace(
    core: Core, handler: Handler, hold: Hold, ended: list[Held]
) -> None:
    may_answer = asyncio.Event()
    handler.script(Reply(body=b"", until=may_answer))
    holdings = await hold(3)
    await handler.received()
    drain = asyncio.create_task(holdings.drain(10.0, asyncio.Event()))
    may_answer.set()
    assert await drain == 0
    assert await outcomes(core) == ["succeeded"] * 3


async def test_every_lease_of_a_group_is_renewed_and_one_that_is_lost_leaves_the_others(
    core: Core, handler: Handler, hold: Hold, ended: list[Held]
) -> None:
    may_answer = asyncio.Event()
    handler.script(Reply(body=b"", until=may_answer))
    holdings = await hold(3)
    await handler.received()
    lost = await core.db.fetchval("select id::text from sluice.tasks limit 1")
    await core.db.fetch("update sluice.tasks set lease_token = gen_random_uuid() where id = $1", lost)
    holdings.doubt()
    await holdings.renew()
    assert [held.task.task_id for held in ended] == [lost]
    may_answer.set()
    await poll(lambda: holdings.count == 0)
    assert sorted(map(str, await outcomes(core))) == ["None", "succeeded", "succeeded"]


async def test_an_attempt_cut_while_the_others_are_told_of_the_answer_is_not_told(
    core: Core, handler: Handler, hold: Hold, ended: list[Held]
) -> None:
    """The answer is told to fifty at a time."""
    handler.script(Reply(body=b""))
    holdings = await hold(60)
    last = list(holdings._attempts.values())[-1].held.task.task_id
    write = core.settling._write

    async def writing(found: Any) -> Any:
        holdings.revoke(last)
        return await write(found)

    core.settling._write = writing
    await poll(lambda: holdings.count == 0)
    assert len(ended) == 60
    assert sorted(map(str, await outcomes(core))) == ["None"] + ["succeeded"] * 59


async def test_a_fault_of_ours_ends_every_attempt_and_leaves_the_leases(
    core: Core, handler: Handler, hold: Hold, ended: list[Held], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(Webhooks, "send", broken)
    holdings = await hold(3)
    await poll(lambda: holdings.count == 0)
    assert len(ended) == 3
    assert core.metrics.queue("default", "mail").outcomes == {"lease_expired": 3}
    assert await outcomes(core) == [None] * 3


@pytest.mark.parametrize(
    ("change", "reply", "outcome"),
    [
        ("disable_gone", Reply(410), "failed"),
        ("park", Reply(503, {"retry-after": "60"}), "pushed_back"),
        ("park", Reply(200, {"retry-after": "60"}, b"no document"), "failed"),
    ],
)
async def test_a_handler_is_changed_and_its_call_counted_once_for_all(
    core: Core, handler: Handler, hold: Hold, monkeypatch: pytest.MonkeyPatch, change: str, reply: Reply, outcome: str
) -> None:
    changes: list[str] = []
    write = getattr(rows, change)

    async def counted(*arguments: Any) -> Any:
        changes.append(change)
        return await write(*arguments)

    monkeypatch.setattr(rows, change, counted)
    handler.script(reply)
    holdings = await hold(5, breaker=Breaker(), park_on_retry_after="handler")
    await poll(lambda: holdings.count == 0)
    assert changes == [change] and await outcomes(core) == [outcome] * 5
    assert sum(count.calls for count in core.calls.take()) == 1


def claimed(number: int, size: int = 4, timeout_seconds: float | None = None) -> Claimed:
    now = datetime.now(UTC)
    options = Options(timeout_seconds=timeout_seconds)
    return Claimed(str(number), "t", now, now, 1, 1, b"x" * size, options, now, None)


@pytest.mark.parametrize(
    ("tasks", "wanted"),
    [
        ([claimed(n) for n in range(7)], ["012", "345", "6"]),
        ([claimed(n, 1_500_000) for n in range(5)], ["01", "23", "4"]),
        ([claimed(0), claimed(1, MAX_GROUP_BYTES + 1), claimed(2)], ["0", "1", "2"]),
        ([claimed(n, timeout_seconds=5.0 if n % 2 else None) for n in range(7)], ["024", "135", "6"]),
    ],
    ids=["by number", "by size", "one too large for any", "by timeout"],
)
def test_a_claim_is_divided_into_groups(tasks: list[Claimed], wanted: list[str]) -> None:
    class Level:
        timeout_seconds = 30.0

    found = parcels(tasks, Level(), Level(), Grouping(3))  # type: ignore[arg-type]
    assert ["".join(task.task_id for task in parcel) for parcel in found] == wanted
