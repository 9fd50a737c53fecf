"""How tenants and their lanes share the room of a replica."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from app.engine import dispatcher
from app.engine.attempts import Attempt
from app.runtime.catalogue import TargetCache
from app.store import tasks
from app.store.failures import Unavailable
from app.store.handlers import Target
from app.store.queues import Policy
from app.store.tasks import Claim
from tests.handlers import Handler, Received, Reply
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import Api, good

pytestmark = pytest.mark.anyio

StartReplica = Callable[..., Awaitable[Replica]]
StartHandler = Callable[[], Awaitable[Handler]]
Tenant = Callable[..., Awaitable[Api]]


@pytest.fixture
async def hanging(start_handler: StartHandler) -> Handler:
    """A handler that does not answer."""
    handler = await start_handler()
    handler.script(Reply(until=asyncio.Event()))
    return handler


async def fill(api: Api, queue: str, count: int) -> list[str]:
    return await api.bulk(queue, [{"payload": None}] * count)


async def hang(api: Api, handler: Handler, queues: int, tasks: int) -> list[str]:
    """So many queues, each with tasks that never end, until they have all they get; the ids of the last one's."""
    before, ids = handler.open_calls, []
    name = await api.handler(handler.url, timeout_seconds=3600)
    for _ in range(queues):
        ids = await fill(api, await api.queue(name), tasks)
    await settled(handler, before)
    return ids


async def settled(handler: Handler, before: int) -> None:
    """Until a queue has what it gets; it may be nothing."""
    seen, same = before, 0

    def steady() -> bool:
        nonlocal seen, same
        same = same + 1 if handler.open_calls == seen else 0
        seen = handler.open_calls
        return same >= 15

    await poll(steady)


async def test_a_tenant_whose_handlers_hang_leaves_room_for_another(
    start_guarded: StartReplica, tenant: Tenant, hanging: Handler, handler: Handler
) -> None:
    replica = await start_guarded(max_in_flight=80)
    waiting = await hang(await tenant(replica, "a"), hanging, 12, 30)
    assert 60 <= hanging.open_calls <= 70
    other = await tenant(replica, "b")
    await fill(other, await other.queue_to(handler.url), 100)
    await handler.received(100)
    api = await tenant(replica, "a")
    await api.until(waiting[-1], "ready", waiting_for="replicas_busy")


@pytest.mark.ci
async def test_tenants_that_come_one_after_another_all_find_room(
    start_guarded: StartReplica, tenant: Tenant, start_handler: StartHandler, handler: Handler
) -> None:
    replica = await start_guarded(max_in_flight=80)
    held = []
    for name in ("a", "b", "c", "d", "e"):
        hanging = await start_handler()
        hanging.script(Reply(until=asyncio.Event()))
        await hang(await tenant(replica, name), hanging, 12, 30)
        held.append(hanging.open_calls)
    assert min(held) >= 1, held
    last = await tenant(replica, "f")
    await fill(last, await last.queue_to(handler.url), 30)
    await handler.received(30)


async def test_a_tenant_alone_has_nearly_all_of_the_room(
    start_guarded: StartReplica, tenant: Tenant, hanging: Handler
) -> None:
    replica = await start_guarded(max_in_flight=80)
    await hang(await tenant(replica, "a"), hanging, 4, 80)
    assert hanging.open_calls >= 65


async def test_what_one_tenant_leaves_goes_to_the_one_that_holds_less(
    start_guarded: StartReplica, tenant: Tenant, start_handler: StartHandler
) -> None:
    """As calls end, both come to the same number, however much the first had."""
    replica = await start_guarded(max_in_flight=40)
    first, second = await start_handler(), await start_handler()
    one, go, ended = asyncio.Semaphore(0), asyncio.Event(), list[Received]()

    async def one_by_one(request: Received) -> Reply:
        await one.acquire()
        ended.append(request)
        return Reply()

    async def let_one_end() -> None:
        count = len(ended)
        one.release()
        await poll(lambda: len(ended) > count)

    first.script(one_by_one)
    second.script(Reply(until=go))
    a, b = await tenant(replica, "a"), await tenant(replica, "b")
    await fill(a, await a.queue_to(first.url), 300)
    await settled(first, 0)
    had = first.open_calls
    await fill(b, await b.queue_to(second.url), 300)
    await settled(second, 0)
    assert second.open_calls < had
    for _ in range(60):
        await let_one_end()
    await poll(lambda: second.open_calls >= 10 and first.open_calls - second.open_calls <= 6)
    go.set()
    for _ in range(300):
        one.release()


@pytest.mark.ci
async def test_lanes_that_hang_leave_room_for_one_of_the_same_tenant_that_does_not(
    start_replica: StartReplica, hanging: Handler, handler: Handler
) -> None:
    replica = await start_replica(max_in_flight=80)
    api = Api(replica.client, replica.url)
    await hang(api, hanging, 6, 80)
    await fill(api, await api.queue_to(handler.url), 60)
    await handler.received(60)
    assert hanging.open_calls > 60, "and they still hang"


async def test_tasks_with_handlers_of_their_own_are_lanes_as_queues_are(
    start_replica: StartReplica, hanging: Handler, handler: Handler
) -> None:
    replica = await start_replica(max_in_flight=40)
    api = Api(replica.client, replica.url)
    queue = await api.queue_to(handler.url)
    own = await api.handler(hanging.url)
    await api.bulk(queue, [{"payload": None, "handler": own}] * 60)
    await settled(hanging, 0)
    await fill(api, queue, 30)
    await handler.received(30)
    assert 20 <= hanging.open_calls < 35


@pytest.mark.parametrize("replicas", [1, 3])
async def test_a_replica_holds_no_more_calls_than_it_may(
    start_replica: StartReplica, start_handler: StartHandler, replicas: int
) -> None:
    started = [await start_replica(max_in_flight=4) for _ in range(replicas)]
    api = Api(started[0].client, started[0].url)
    until = asyncio.Event()
    handlers = []
    for _ in range(6):
        handler = await start_handler()
        handler.script(Reply(until=until))
        await fill(api, await api.queue_to(handler.url), 4)
        handlers.append(handler)
    await poll(lambda: sum(handler.open_calls for handler in handlers) >= 3 * replicas)
    assert all(replica.sluice.engine.in_flight <= 4 for replica in started)
    until.set()
    await received_all(handlers, 4)


async def received_all(handlers: Sequence[Handler], count: int) -> None:
    for handler in handlers:
        await handler.received(count)


async def test_few_calls_start_while_something_else_goes_first(
    start_replica: StartReplica, hanging: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "YIELD_SECONDS", 60)
    replica = await start_replica()
    first = True
    replica.sluice.engine._dispatcher.yields = lambda: first
    api = Api(replica.client, replica.url)
    await fill(api, await api.queue_to(hanging.url), 3 * dispatcher.YIELDING_CLAIM)
    await settled(hanging, 0)
    assert 0 < hanging.open_calls <= dispatcher.YIELDING_CLAIM
    first = False
    replica.sluice.engine._dispatcher.wake()
    await poll(lambda: hanging.open_calls == 3 * dispatcher.YIELDING_CLAIM)


@pytest.mark.ci
async def test_a_limit_that_many_lanes_wait_for_costs_no_claim_for_each_of_them(
    start_replica: StartReplica, handler: Handler
) -> None:
    """A slot that comes free lets one lane out, not all of them."""
    replica = await start_replica()
    api = Api(replica.client, replica.url)
    good(await api.put("/limits", json={"max_concurrency": 1}))
    name = await api.handler(handler.url)
    queues = [await api.queue(name) for _ in range(60)]
    for queue in queues:
        await fill(api, queue, 2)
    await handler.received(120, 30)
    metrics = (await api.get("/metrics")).text
    found = re.search(r'sluice_group_size_count\{statement="claim"\} (\d+)', metrics)
    assert found is not None
    claims = int(found[1])
    assert claims < 500, "each lane met the limit once, and then each call let one out"


async def test_a_lane_at_its_limit_waits_for_some_slots_but_not_for_all(
    start_replica: StartReplica, start_handler: StartHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of eight slots of a tenant, two make a claim at once; one alone waits for another, here for a minute."""
    monkeypatch.setattr(dispatcher, "SLOTS_SECONDS", 60)
    handler = await start_handler()
    gates = [asyncio.Event() for _ in range(11)]
    left = iter(gates)
    handler.script(lambda request: Reply(until=next(left)))
    replica = await start_replica()
    api = Api(replica.client, replica.url)
    good(await api.put("/limits", json={"max_concurrency": 8}))
    queue = await api.queue(await api.handler(handler.url, timeout_seconds=3600))
    await fill(api, queue, 11)
    await poll(lambda: handler.open_calls == 8)
    gates[0].set()
    await settled(handler, 8)
    assert handler.open_calls == 7
    gates[1].set()
    await handler.received(10)
    assert handler.open_calls == 8
    for gate in gates:
        gate.set()
    await handler.received(11)


async def test_lanes_that_one_poll_finds_all_drain_without_the_next_poll(
    start_replica: StartReplica, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "POLL_SECONDS", 60)
    monkeypatch.setattr(dispatcher, "MAX_LANES", 4)
    replica = await start_replica()
    api = Api(replica.client, replica.url)
    name = await api.handler(handler.url)
    good(await api.post(f"/handlers/{name}/disable"))
    for _ in range(60):
        await fill(api, await api.queue(name), 3)
    good(await api.post(f"/handlers/{name}/enable"))
    assert len({request.headers["webhook-id"] for request in await handler.received(180)}) == 180


@pytest.mark.parametrize(("queues", "each"), [(32, 1), (1, 100)])
async def test_calls_of_one_claim_start_together_up_to_a_number(
    start_replica: StartReplica, handler: Handler, monkeypatch: pytest.MonkeyPatch, queues: int, each: int
) -> None:
    """However many lanes they are of: answers are read in between, and not after each."""
    turns: list[int] = []
    began = False

    def start(self: Attempt, *args: Any) -> None:
        nonlocal began
        if not began:
            turns.append(0)
            asyncio.get_running_loop().call_soon(turn_ended)
        began = True
        turns[-1] += 1
        really(self, *args)

    def turn_ended() -> None:
        nonlocal began
        began = False

    really = Attempt.start
    monkeypatch.setattr(Attempt, "start", start)
    replica = await start_replica()
    api = Api(replica.client, replica.url)
    name = await api.handler(handler.url)
    filled = [await api.queue(name) for _ in range(queues)]
    for queue in filled:
        await fill(api, queue, 1)
    await handler.received(queues)  # so that the definitions need not be read in between
    good(await api.post(f"/handlers/{name}/disable"))
    for queue in filled:
        await fill(api, queue, each)
    turns.clear()
    good(await api.post(f"/handlers/{name}/enable"))
    await handler.received(queues * each + queues)
    assert 16 < max(turns) <= 32


async def test_a_lane_continues_after_its_calls_could_not_be_started(
    start_replica: StartReplica, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they need to know of queue and handler could not be read; their tasks are given back."""
    replica = await start_replica()
    targets = replica.sluice.engine._holdings._targets
    read, failures = type(targets).of, iter([Unavailable("gone")])

    async def of(self: TargetCache, queue_id: int, claim: Claim) -> tuple[Policy, Target]:
        for failure in failures:
            raise failure
        return await read(self, queue_id, claim)

    monkeypatch.setattr(TargetCache, "of", of)
    api = Api(replica.client, replica.url)
    queue = await api.queue_to(handler.url)
    await fill(api, queue, 3)
    await handler.received(3)
    await fill(api, queue, 3)
    await handler.received(6)


async def test_claims_of_a_lane_at_its_limit_ride_along_with_outcomes(
    start_replica: StartReplica, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which saves a round trip and a commit each, and leaves no slot empty in between."""
    alone, along = 0, 0
    claim, settle_and_claim = tasks.claim, tasks.settle_and_claim

    async def claiming(*args: Any, **kwargs: Any) -> list[Claim]:
        nonlocal alone
        claims = await claim(*args, **kwargs)
        alone += sum(len(claim.tasks) for claim in claims)
        return claims

    async def riding(*args: Any, **kwargs: Any) -> tuple[dict[str, str], list[Claim]]:
        nonlocal along
        verdicts, claims = await settle_and_claim(*args, **kwargs)
        along += sum(len(claim.tasks) for claim in claims)
        return verdicts, claims

    monkeypatch.setattr(tasks, "claim", claiming)
    monkeypatch.setattr(tasks, "settle_and_claim", riding)
    replica = await start_replica()
    api = Api(replica.client, replica.url)
    queue = await api.queue_to(handler.url, max_concurrency=8)
    good(await api.post(f"/queues/{queue}/pause"))
    await fill(api, queue, 200)
    good(await api.post(f"/queues/{queue}/resume"))
    await handler.received(200)
    assert along > 2 * alone
    assert handler.most_open_calls <= 8


async def test_lanes_that_share_a_limit_take_turns_although_one_of_them_rides(
    start_replica: StartReplica, handler: Handler
) -> None:
    replica = await start_replica()
    api = Api(replica.client, replica.url)
    name = await api.handler(handler.url, max_concurrency=4)
    good(await api.post(f"/handlers/{name}/disable"))
    busy, other = await api.queue(name, max_concurrency=4), await api.queue(name)
    await fill(api, busy, 600)
    await fill(api, other, 60)
    good(await api.post(f"/handlers/{name}/enable"))

    def left() -> bool:
        return sum(request.headers["sluice-queue"] == other for request in handler.requests) == 60

    await poll(left, 20)
    assert len(handler.requests) < 500
    assert handler.most_open_calls <= 4


class Rides:
    """Claims that ride along; their answers are held back while `go` is not set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go, self.answered = asyncio.Event(), asyncio.Event()
        self.go.set()
        ride = tasks.settle_and_claim

        async def riding(*args: Any, **kwargs: Any) -> tuple[dict[str, str], list[Claim]]:
            answer = await ride(*args, **kwargs)
            self.answered.set()
            await self.go.wait()
            return answer

        monkeypatch.setattr(tasks, "settle_and_claim", riding)


async def riding(api: Api, handler: Handler, rides: Rides, ends: list[asyncio.Event]) -> None:
    """A lane with one slot, whose second task is claimed with the outcome of the first."""
    handler.script(lambda request: Reply(until=ends[int(request.json)]))
    queue = await api.queue(await api.handler(handler.url, timeout_seconds=3600), max_concurrency=1)
    good(await api.post(f"/queues/{queue}/tasks/bulk", json={"tasks": [{"payload": 0}, {"payload": 1}]}))
    await handler.received(1)
    rides.go.clear()
    ends[0].set()
    await rides.answered.wait()


async def test_lanes_that_had_to_wait_for_a_claim_that_rides_go_on_once_it_is_answered(
    start_replica: StartReplica, handler: Handler, start_handler: StartHandler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "POLL_SECONDS", 60)
    replica, rides, other = await start_replica(), Rides(monkeypatch), await start_handler()
    api = Api(replica.client, replica.url)
    limited, plain = await api.queue_to(other.url, max_concurrency=5), await api.queue_to(other.url)
    await api.enqueue(limited)
    await other.received(1)
    await riding(api, handler, rides, [asyncio.Event(), asyncio.Event()])
    await api.enqueue(limited)
    await api.enqueue(plain)
    await other.received(2)
    assert other.requests[1].headers["sluice-queue"] == plain, "the lane under a limit waits, though it was first"
    rides.go.set()
    await handler.received(2)
    await other.received(3)


async def test_a_lease_is_counted_from_before_its_claim_was_sent(
    start_replica: StartReplica, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From its answer on, a call would go on after the lease has been lost, for as long as the answer was on its way."""
    began = 0.0

    def noted(claim: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def claiming(*args: Any, **kwargs: Any) -> Any:
            nonlocal began
            began = time.monotonic()
            return await claim(*args, **kwargs)

        return claiming

    def counted_from() -> float:
        [attempt] = replica.sluice.engine._dispatcher._holdings._attempts.values()
        return attempt.held.lease_until - attempt.held.lease_seconds

    monkeypatch.setattr(tasks, "claim", noted(tasks.claim))
    monkeypatch.setattr(tasks, "settle_and_claim", noted(tasks.settle_and_claim))
    replica, ends = await start_replica(), [asyncio.Event(), asyncio.Event()]
    api, rides = Api(replica.client, replica.url), Rides(monkeypatch)
    handler.script(lambda request: Reply(until=ends[int(request.json)]))
    queue = await api.queue(await api.handler(handler.url), max_concurrency=1)
    await api.bulk(queue, [{"payload": 0}, {"payload": 1}])
    await handler.received(1)
    assert 0 < counted_from() <= began
    ends[0].set()
    await handler.received(2)
    assert rides.answered.is_set()
    assert 0 < counted_from() <= began
    ends[1].set()


async def test_stopping_waits_for_a_claim_that_rides(
    start_replica: StartReplica, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its calls are started, so that the drain waits for them, or gives back their tasks."""
    replica, rides, ends = await start_replica(), Rides(monkeypatch), [asyncio.Event(), asyncio.Event()]
    await riding(Api(replica.client, replica.url), handler, rides, ends)
    stopping = asyncio.create_task(replica.sluice.engine._dispatcher.stop())
    await asyncio.wait((stopping,), timeout=0.05)
    assert not stopping.done()
    rides.go.set()
    await stopping
    assert replica.sluice.engine.in_flight == 1
    ends[1].set()
    await handler.received(2)
