"""How lanes share the room of one replica."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tests.handlers import Handler, Reply
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import Api

pytestmark = pytest.mark.anyio

StartReplica = Callable[..., Awaitable[Replica]]
StartHandler = Callable[[], Awaitable[Handler]]


async def hanging(api: Api, start_handler: StartHandler, until: asyncio.Event) -> tuple[Handler, str]:
    """A handler that holds its answers, and a queue to it."""
    handler = await start_handler()
    handler.script(Reply(until=until))
    return handler, await api.queue_to(handler.url)


async def test_lanes_that_hang_leave_room_for_one_that_does_not(
    start_replica: StartReplica, start_handler: StartHandler
) -> None:
    """Each takes half of what is left, so the last of it is always there for another."""
    replica = await start_replica(max_in_flight=16)
    api = Api(replica.client, replica.url)
    until = asyncio.Event()
    held = []
    for expected in (8, 4, 2):
        handler, queue = await hanging(api, start_handler, until)
        for _ in range(20):
            await api.enqueue(queue)
        await handler.received(expected)
        held.append((handler, expected))
    quick = await start_handler()
    queue = await api.queue_to(quick.url)
    for _ in range(30):
        await api.enqueue(queue)
    await quick.received(30)
    assert [handler.most_open_calls for handler, _ in held] == [8, 4, 2]
    until.set()
    for handler, _ in held:
        await handler.received(20)


async def test_a_lane_alone_gets_half_of_the_room_and_keeps_it_busy(
    start_replica: StartReplica, handler: Handler
) -> None:
    replica = await start_replica(max_in_flight=10)
    api = Api(replica.client, replica.url)
    until = asyncio.Event()
    handler.script(Reply(until=until))
    queue = await api.queue_to(handler.url)
    for _ in range(40):
        await api.enqueue(queue)
    await poll(lambda: handler.open_calls == 5)
    until.set()
    await handler.received(40)
    assert handler.most_open_calls == 5


async def test_a_replica_holds_no_more_calls_than_it_may(
    start_replica: StartReplica, start_handler: StartHandler
) -> None:
    replica = await start_replica(max_in_flight=4)
    api = Api(replica.client, replica.url)
    until = asyncio.Event()
    handlers = []
    for _ in range(6):
        handler, queue = await hanging(api, start_handler, until)
        handlers.append(handler)
        for _ in range(4):
            await api.enqueue(queue)
    await poll(lambda: sum(handler.open_calls for handler in handlers) >= 3)
    assert replica.sluice.engine.in_flight <= 4
    until.set()
    for handler in handlers:
        await handler.received(4)
