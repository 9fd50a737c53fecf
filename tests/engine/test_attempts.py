"""An attempt ends once, however it ends, and whatever is called back later changes nothing."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from app.delivery.webhook.transport import Transport
from app.domain.callers import Caller
from app.domain.conditions import ANY
from app.domain.handlers import HandlerDefinition
from app.domain.queues import QueueDefinition
from app.engine.held import Held
from app.engine.holdings import Holdings
from app.runtime.core import Core
from app.service import handlers, queues
from app.store import queues as store
from app.store.tasks import AttemptEnd
from tests.cores import claim, enqueue
from tests.delivery.servers import Peer, serve

pytestmark = pytest.mark.anyio

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Handler:
    """Answers when it may, and knows whether its calls were closed."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.called = asyncio.Event()
        self.closed = asyncio.Event()

    async def __call__(self, peer: Peer) -> None:
        await peer.read()
        self.called.set()
        if self.may_answer.is_set():
            await peer.send(OK)
        await peer.gone()
        self.closed.set()


@pytest.fixture
def ended() -> list[Held]:
    return []


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture
async def hold(
    core: Core, caller: Caller, handler: Handler, ended: list[Held]
) -> Callable[[str, int], Awaitable[Holdings]]:
    async def holding(url: str, count: int) -> Holdings:
        await handlers.put(core, caller, "h", HandlerDefinition(url), None, ANY)
        await queues.put(core, caller, "mail", QueueDefinition(handler="h"), ANY)
        await enqueue(core, caller, "mail", count)
        row = await store.find(core.db, caller.tenant_id, "mail")
        assert row is not None
        holdings = Holdings(core, lease_seconds=30.0, ended=ended.append)
        await holdings.start((row.id, 0), await claim(core, row.id, count), asyncio.get_running_loop().time())
        return holdings

    return holding


async def states(core: Core) -> list[tuple[Any, ...]]:
    rows = await core.db.fetch(
        "select state, last_outcome from sluice.tasks union all select state, last_outcome from sluice.task_history"
    )
    return [tuple(row) for row in rows]


async def test_a_revoked_attempt_ends_its_call_and_writes_no_outcome(
    core: Core, handler: Handler, hold: Callable[[str, int], Awaitable[Holdings]], ended: list[Held]
) -> None:
    async with serve(handler) as server, asyncio.timeout(20):
        holdings = await hold(server.url, 1)
        await handler.called.wait()
        (attempt,) = holdings._attempts.values()
        holdings.revoke(attempt.held.task.task_id)
        assert (holdings.count, len(ended)) == (0, 1)
        await handler.closed.wait()
    assert await states(core) == [(1, None)]


async def test_a_lease_that_somebody_calls_revoked_is_checked_before_its_call_is_cut(
    core: Core, handler: Handler, hold: Callable[[str, int], Awaitable[Holdings]], ended: list[Held]
) -> None:
    """Every role of the database can send a notification."""
    async with serve(handler) as server, asyncio.timeout(20):
        holdings = await hold(server.url, 2)
        await handler.called.wait()
        revoked, kept = (attempt.held.task.task_id for attempt in holdings._attempts.values())
        await core.db.fetch("update sluice.tasks set lease_token = gen_random_uuid() where id = $1", revoked)
        holdings.suspect([revoked, kept])
        await holdings.renew()
        assert [attempt.held.task.task_id for attempt in holdings._attempts.values()] == [kept]
        holdings.revoke(kept)


async def test_an_attempt_cut_while_its_outcome_is_written_ends_once(
    core: Core, handler: Handler, hold: Callable[[str, int], Awaitable[Holdings]], ended: list[Held]
) -> None:
    written = asyncio.Event()
    write = core.settling._write

    async def slow(outcomes: Any) -> Any:
        holdings.revoke(outcomes[0].task_id)
        verdicts = await write(outcomes)
        written.set()
        return verdicts

    core.settling._write = slow
    handler.may_answer.set()
    async with serve(handler) as server, asyncio.timeout(20):
        holdings = await hold(server.url, 1)
        await written.wait()
        await core.settling.drained()
        assert (holdings.count, len(ended)) == (0, 1)
    assert (await states(core))[0][1] == "succeeded"
    assert core.metrics.queue("default", "mail").outcomes == {"cancelled": 1}


async def test_a_fault_while_settling_ends_the_attempt_and_leaves_the_lease(
    core: Core, handler: Handler, hold: Callable[[str, int], Awaitable[Holdings]], ended: list[Held]
) -> None:
    async def broken(outcomes: Sequence[AttemptEnd]) -> list[str]:
        raise RuntimeError("broken")

    core.settling._write = broken
    handler.may_answer.set()
    async with serve(handler) as server, asyncio.timeout(20):
        holdings = await hold(server.url, 3)
        await holdings._empty.wait()
        assert (holdings.count, len(ended)) == (0, 3)
    assert core.metrics.queue("default", "mail").outcomes == {"lease_expired": 3}
    assert await states(core) == [(1, None)] * 3


async def test_a_fault_while_a_connection_is_opened_ends_the_attempt_and_leaves_the_lease(
    core: Core,
    hold: Callable[[str, int], Awaitable[Holdings]],
    ended: list[Held],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(*_: object) -> None:
        raise ValueError("broken")

    monkeypatch.setattr(Transport, "_connect", broken)
    async with asyncio.timeout(20):
        holdings = await hold("http://127.0.0.1:9/", 2)
        await holdings._empty.wait()
    assert (holdings.count, len(ended)) == (0, 2)
    assert core.metrics.queue("default", "mail").outcomes == {"lease_expired": 2}
    assert await states(core) == [(1, None)] * 2


async def test_a_drain_gives_back_what_is_still_called(
    core: Core, handler: Handler, hold: Callable[[str, int], Awaitable[Holdings]], ended: list[Held]
) -> None:
    async with serve(handler) as server, asyncio.timeout(20):
        holdings = await hold(server.url, 2)
        await handler.called.wait()
        hurried = asyncio.Event()
        hurried.set()
        assert await holdings.drain(10.0, hurried) == 2
        assert (holdings.count, len(ended)) == (0, 2)
    assert {outcome for _, outcome in await states(core)} == {"failed"}


async def test_a_drain_waits_for_outcomes_on_their_way(
    core: Core, handler: Handler, hold: Callable[[str, int], Awaitable[Holdings]], ended: list[Held]
) -> None:
    writing, may_write = asyncio.Event(), asyncio.Event()
    write = core.settling._write

    async def held_up(outcomes: Any) -> Any:
        writing.set()
        await may_write.wait()
        return await write(outcomes)

    core.settling._write = held_up
    handler.may_answer.set()
    async with serve(handler) as server, asyncio.timeout(20):
        holdings = await hold(server.url, 1)
        await writing.wait()
        hurried = asyncio.Event()
        hurried.set()
        drain = asyncio.create_task(holdings.drain(10.0, hurried))
        await asyncio.wait((drain,), timeout=0.05)
        assert not drain.done()
        may_write.set()
        assert await drain == 0
    assert {outcome for _, outcome in await states(core)} == {"succeeded"}
