"""P4 over the wire: three replicas together never have more calls under way than a limit allows, and use what it allows."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from tests.handlers import Handler, Received, Reply
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import AT_ONCE, Api, good

pytestmark = pytest.mark.anyio

StartHandler = Callable[[], Awaitable[Handler]]


class Turnstile:
    """Holds every call until it is let go, and counts those inside by queue."""

    def __init__(self) -> None:
        self.inside: list[tuple[str, asyncio.Event]] = []
        self.arrivals: list[tuple[str, Counter[str]]] = []
        """The queue of each call, and who was inside once it was."""
        self.gone: Counter[str] = Counter()
        self._most: Counter[str] = Counter()

    def counts(self) -> Counter[str]:
        return Counter(queue for queue, _ in self.inside)

    async def hold(self, request: Received) -> Reply:
        queue, go = request.headers["sluice-queue"], asyncio.Event()
        self.inside.append((queue, go))
        self.arrivals.append((queue, self.counts()))
        await go.wait()
        return Reply()

    def let_go(self, queue: str | None = None) -> None:
        """The one that waits longest (of the queue)."""
        found = next(call for call in self.inside if queue in (None, call[0]))
        self.inside.remove(found)
        self.gone[found[0]] += 1
        found[1].set()

    async def holds(self, count: int) -> None:
        await poll(lambda: len(self.inside) == count)


def apis(replicas: list[Replica]) -> list[Api]:
    return [Api(replica.client, replica.url) for replica in replicas]


async def fill(sluices: list[Api], queue: str, count: int) -> list[str]:
    """The ids of new tasks, enqueued at all replicas in turn."""
    return [(await sluices[number % len(sluices)].enqueue(queue, number))["id"] for number in range(count)]


async def put_limit(api: Api, limit: int | None) -> None:
    good(await api.put("/limits", json={"max_concurrency": limit}))


async def test_calls_under_way_never_exceed_the_limits_of_queue_handler_and_tenant(
    replicas: list[Replica], start_handler: StartHandler
) -> None:
    sluices = apis(replicas)
    api, turnstile = sluices[0], Turnstile()
    shared, other = await start_handler(), await start_handler()
    shared.script(turnstile.hold)
    other.script(turnstile.hold)
    name = await api.handler(shared.url, max_concurrency=3)
    small, open_ = await api.queue(name, max_concurrency=2), await api.queue(name)
    third = await api.queue_to(other.url)
    await put_limit(api, 5)
    for queue in (small, open_, third):
        await fill(sluices, queue, 8)
    for _ in range(24):
        left = {queue: 8 - turnstile.gone[queue] for queue in (small, open_, third)}
        await turnstile.holds(min(5, left[third] + min(3, left[open_] + min(2, left[small]))))
        turnstile.let_go()
    assert max(inside.total() for _, inside in turnstile.arrivals) == 5
    assert max(inside[small] for _, inside in turnstile.arrivals) == 2
    assert max(inside[small] + inside[open_] for _, inside in turnstile.arrivals) == 3


async def test_a_limit_lowered_while_calls_are_under_way_admits_nothing_above_it(
    replicas: list[Replica], handler: Handler
) -> None:
    sluices = apis(replicas)
    turnstile = Turnstile()
    handler.script(turnstile.hold)
    queue = await sluices[0].queue_to(handler.url, max_concurrency=4)
    definition = good(await sluices[0].get(f"/queues/{queue}"))
    await fill(sluices, queue, 12)
    await turnstile.holds(4)
    good(await sluices[1].put(f"/queues/{queue}", json={"handler": definition["handler"], "max_concurrency": 2}))
    before = len(turnstile.arrivals)
    for _ in range(3):
        turnstile.let_go()
    await turnstile.holds(2)
    assert [inside.total() for _, inside in turnstile.arrivals[before:]] == [2], "one came in, when one was left"
    good(await sluices[2].put(f"/queues/{queue}", json={"handler": definition["handler"], "max_concurrency": 6}))
    await turnstile.holds(6)
    while turnstile.gone.total() < 12:
        await poll(lambda: turnstile.inside)
        turnstile.let_go()
    assert max(inside.total() for _, inside in turnstile.arrivals) == 6


async def test_a_paused_queue_starts_nothing_while_others_go_on(replicas: list[Replica], handler: Handler) -> None:
    sluices = apis(replicas)
    turnstile = Turnstile()
    handler.script(turnstile.hold)
    name = await sluices[0].handler(handler.url, max_concurrency=2)
    paused, other = await sluices[0].queue(name), await sluices[0].queue(name)
    await fill(sluices, paused, 6)
    await turnstile.holds(2)
    good(await sluices[1].post(f"/queues/{paused}/pause"))
    await fill(sluices, other, 6)
    for _ in range(8):
        await turnstile.holds(min(2, 8 - turnstile.gone.total()))
        turnstile.let_go()
    assert turnstile.gone == {paused: 2, other: 6}
    good(await sluices[2].post(f"/queues/{paused}/resume"))
    for _ in range(4):
        await poll(lambda: turnstile.inside)
        turnstile.let_go()
    assert turnstile.gone == {paused: 6, other: 6}


async def test_a_cancelled_or_refunded_call_gives_its_slot_back_at_once(
    replicas: list[Replica], handler: Handler
) -> None:
    sluices = apis(replicas)
    until = asyncio.Event()
    name = await sluices[0].handler(handler.url)
    queue = await sluices[0].queue(name, max_concurrency=1, retry=AT_ONCE)
    handler.answer(Reply(until=until), Reply(410))
    ids = await fill(sluices, queue, 4)
    first = (await handler.received(1))[0].task
    good(await sluices[1].cancel(first))
    second = (await handler.received(2))[1].task

    async def disabled() -> bool:
        return not good(await sluices[2].get(f"/handlers/{name}"))["enabled"]

    await poll(disabled)
    good(await sluices[0].post(f"/handlers/{name}/enable"))
    for task_id in ids:
        assert (await sluices[0].ended(task_id))["state"] == ("cancelled" if task_id == first else "succeeded")
    # the aborted call may overlap the next one at the handler (it is not promised otherwise); no other two do
    assert handler.most_open_calls <= 2
    again = [request for request in handler.requests if request.task == second]
    assert [request.headers["sluice-attempt"] for request in again] == ["1", "1"], "the refunded attempt does not count"
    until.set()
