"""SIGTERM: nothing more is claimed, calls under way end and are settled, the exit code is 0; a second signal waits no longer."""

import asyncio
import signal
from collections.abc import Awaitable, Callable

import pytest

from tests.crash.proxy import Proxy
from tests.handlers import Handler, Reply
from tests.sluices import Replica, SluiceProcess
from tests.support import poll
from tests.wire.api import Api

pytestmark = pytest.mark.anyio

StartSluice = Callable[..., Awaitable[SluiceProcess]]
StartReplica = Callable[..., Awaitable[Replica]]


async def holding_a_call(process: SluiceProcess, handler: Handler, until: asyncio.Event) -> tuple[Api, str, str]:
    """Its API, the queue, and the task whose call is under way."""
    handler.answer(Reply(until=until, body=b"in time"))
    api = Api(process.client, process.url)
    queue = await api.queue_to(handler.url)
    task = await api.enqueue(queue)
    await handler.received(1)
    return api, queue, task["id"]


async def draining(api: Api) -> None:
    async def not_ready() -> bool:
        return (await api.get("/health/ready")).status_code == 503

    await poll(not_ready)


async def test_a_drain_lets_calls_under_way_end_and_starts_no_others(
    start_sluice: StartSluice, start_replica: StartReplica, handler: Handler
) -> None:
    process, until = await start_sluice(), asyncio.Event()
    api, queue, held = await holding_a_call(process, handler, until)
    process.signal(signal.SIGTERM)
    await draining(api)
    assert (await api.get("/health/live")).status_code == 200
    later = await api.enqueue(queue)
    assert (await api.task(held))["state"] == "running"
    assert (await api.task(later["id"]))["state"] == "ready"
    until.set()
    assert await process.ended(10) == 0
    assert len(handler.requests) == 1
    replica = await start_replica()
    api = Api(replica.client, replica.url)
    ended = await api.task(held)
    assert (ended["state"], ended["result"], ended["attempt"]) == ("succeeded", "in time", 1)
    assert (await api.ended(later["id"]))["state"] == "succeeded"


@pytest.mark.ci
async def test_a_second_signal_cuts_what_is_under_way_and_gives_its_task_back(
    start_sluice: StartSluice, start_replica: StartReplica, handler: Handler
) -> None:
    process = await start_sluice(SLUICE_DRAIN_GRACE_SECONDS="600")
    api, _, held = await holding_a_call(process, handler, asyncio.Event())
    process.signal(signal.SIGTERM)
    await draining(api)
    process.signal(signal.SIGTERM)
    assert await process.ended(10) == 0
    replica = await start_replica()
    api = Api(replica.client, replica.url)
    ended = await api.ended(held)
    assert (ended["state"], ended["attempt"]) == ("succeeded", 2)
    last, cut = await api.attempts(held)
    assert (cut["outcome"], cut["counted"]) == ("failed", True)
    assert "the replica was stopped" in cut["error"]
    assert last["outcome"] == "succeeded"


@pytest.mark.ci
async def test_a_second_signal_ends_it_though_the_database_is_away(
    start_sluice: StartSluice, proxy: Proxy, handler: Handler
) -> None:
    """What cannot be settled then is left to the reap."""
    process = await start_sluice(SLUICE_DATABASE_URL=proxy.url, SLUICE_DRAIN_GRACE_SECONDS="600")
    api, _, _ = await holding_a_call(process, handler, asyncio.Event())
    proxy.cut()
    process.signal(signal.SIGTERM)
    await draining(api)
    process.signal(signal.SIGTERM)
    assert await process.ended(15) == 0
