"""Lanes without limits wait a little behind a claim of such lanes, so that they share the next one."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from app.engine import claims as engine_claims
from app.engine import dispatcher
from app.store import tasks
from app.store.db import Reader
from app.store.tasks import Claim, LaneWant
from tests.handlers import Handler
from tests.sluices import Replica
from tests.wire.api import Api

pytestmark = pytest.mark.anyio

LONG = 60.0


class Claims:
    """How many lanes each claim has; while `go` is not set, the answer to the next one is held back."""

    def __init__(self) -> None:
        self.lanes: list[int] = []
        self.go, self.held = asyncio.Event(), asyncio.Event()
        self.go.set()

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        claim = tasks.claim

        async def claiming(db: Reader, lanes: Sequence[LaneWant], *args: Any, **kwargs: Any) -> list[Claim]:
            self.lanes.append(len(lanes))
            claims = await claim(db, lanes, *args, **kwargs)
            if not self.go.is_set() and not self.held.is_set():
                self.held.set()
                await self.go.wait()
            return claims

        monkeypatch.setattr(tasks, "claim", claiming)


@pytest.fixture
def claims(monkeypatch: pytest.MonkeyPatch) -> Claims:
    """The claims of a replica that starts later. It polls once: a round of polls ends in forgetting which lanes are limited."""
    claims = Claims()
    claims.watch(monkeypatch)
    monkeypatch.setattr(dispatcher, "POLL_SECONDS", LONG)
    return claims


@pytest.fixture
async def replica(claims: Claims, start_replica: Callable[..., Awaitable[Replica]]) -> Replica:
    return await start_replica()


@pytest.fixture
def api(replica: Replica) -> Api:
    return Api(replica.client, replica.url)


@pytest.fixture
def patience(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lanes that wait behind a claim do so for long."""
    monkeypatch.setattr(dispatcher, "PATIENCE_SECONDS", LONG)


async def used_queues(api: Api, handler: Handler, count: int, **options: Any) -> list[str]:
    """So many queues, each of which has delivered a task."""
    name, before = await api.handler(handler.url), len(handler.requests)
    queues = [await api.queue(name, **options) for _ in range(count)]
    await ready(api, queues)
    await handler.received(before + count)
    return queues


async def ready(api: Api, queues: Sequence[str]) -> None:
    for queue in queues:
        await api.enqueue(queue)


async def held(claims: Claims, api: Api, queue: str) -> None:
    """Hold back the answer to the claim of a new task."""
    claims.go.clear()
    await api.enqueue(queue)
    await claims.held.wait()
    claims.lanes.clear()


async def overtakes(claims: Claims, api: Api, handler: Handler, first: str, others: Sequence[str]) -> bool:
    """Return whether tasks of the other queues are delivered while a claim of the first one is not answered."""
    before = len(handler.requests)
    await held(claims, api, first)
    await ready(api, others)
    await handler.received(before + len(others))
    overtaken = not claims.go.is_set()
    claims.go.set()
    await handler.received(before + len(others) + 1)
    return overtaken


@pytest.mark.usefixtures("patience")
async def test_lanes_that_become_ready_during_a_claim_share_the_next_one(
    claims: Claims, api: Api, handler: Handler
) -> None:
    first, *others = await used_queues(api, handler, 6)
    await held(claims, api, first)
    await ready(api, others)
    assert claims.lanes == []
    claims.go.set()
    await handler.received(12)
    assert claims.lanes[0] >= 5


async def test_lanes_do_not_wait_for_a_claim_that_takes_long(claims: Claims, api: Api, handler: Handler) -> None:
    first, other = await used_queues(api, handler, 2)
    assert await overtakes(claims, api, handler, first, [other])


@pytest.mark.usefixtures("patience")
async def test_lanes_that_fill_a_claim_do_not_wait_for_another(
    claims: Claims, api: Api, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "MAX_LANES", 4)
    first, *others = await used_queues(api, handler, 5)
    assert await overtakes(claims, api, handler, first, others)


@pytest.mark.usefixtures("patience")
async def test_lanes_under_limits_do_not_wait_for_a_claim_of_others(claims: Claims, api: Api, handler: Handler) -> None:
    """They have a claim of their own anyway, and slots that stay empty meanwhile."""
    [first] = await used_queues(api, handler, 1)
    limited = await used_queues(api, handler, 1, max_concurrency=5)
    assert await overtakes(claims, api, handler, first, limited)


async def ready_at_once(replica: Replica, claims: Claims, api: Api, queues: Sequence[str]) -> None:
    """Tasks of all these queues, in one turn of the dispatcher; the answer to its first claim is held back."""
    dispatching = replica.sluice.engine._dispatcher
    dispatching.stopping = True
    await ready(api, queues)
    claims.lanes.clear()
    claims.go.clear()
    dispatching.stopping = False
    dispatching.wake()
    await claims.held.wait()


@pytest.mark.usefixtures("patience")
async def test_lanes_that_are_ready_at_once_do_not_wait_for_each_other(
    replica: Replica, claims: Claims, api: Api, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If one claim cannot take all of them, for another reason than their number, several go at once."""
    queues = await used_queues(api, handler, 2)
    monkeypatch.setattr(engine_claims, "MAX_LANES", 1)
    await ready_at_once(replica, claims, api, queues)
    await handler.received(3)
    assert claims.lanes == [1, 1] and not claims.go.is_set()
    claims.go.set()
    await handler.received(4)


@pytest.mark.usefixtures("patience")
async def test_the_rest_of_a_claim_with_all_its_lanes_waits_as_well(
    replica: Replica, claims: Claims, api: Api, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    queues = await used_queues(api, handler, 5)
    monkeypatch.setattr(engine_claims, "MAX_LANES", 3)
    monkeypatch.setattr(dispatcher, "MAX_LANES", 3)
    await ready_at_once(replica, claims, api, queues)
    assert claims.lanes == [3]
    claims.go.set()
    await handler.received(10)
    assert claims.lanes[1] >= 2
