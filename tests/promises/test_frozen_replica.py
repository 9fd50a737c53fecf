"""P2 with real replicas: one freezes past its lease, another takes the task, and the first comes back with an outcome."""

import asyncio
import signal
from collections.abc import Awaitable, Callable

import pytest

from tests.handlers import Handler, Received, Reply
from tests.promises.records import lose_leases
from tests.sluices import Replica, SluiceProcess
from tests.support import poll
from tests.wire.api import Api

pytestmark = pytest.mark.anyio


async def test_a_replica_that_thaws_after_its_lease_cannot_touch_the_retaken_task(
    start_sluice: Callable[..., Awaitable[SluiceProcess]],
    start_replica: Callable[..., Awaitable[Replica]],
    handler: Handler,
) -> None:
    first, second = asyncio.Event(), asyncio.Event()
    gates = [first, second]

    def answer(request: Received) -> Reply:
        turn = min(handler.requests.index(request), 1)
        return Reply(201 + turn, body=b"zombie" if turn == 0 else b"winner", until=gates[turn])

    handler.script(answer)
    frozen = await start_sluice()
    api = Api(frozen.client, frozen.url)
    task = await api.enqueue(await api.queue_to(handler.url, max_concurrency=1))
    await handler.received(1)
    frozen.signal(signal.SIGSTOP)
    replica = await start_replica()
    await lose_leases(replica.sluice.core.db)
    api = Api(replica.client, replica.url)
    zombie, winner = await handler.received(2, task=task["id"])
    assert zombie.headers["sluice-lease-token"] != winner.headers["sluice-lease-token"]
    assert (zombie.headers["sluice-attempt"], winner.headers["sluice-attempt"]) == ("1", "2")
    first.set()
    await poll(lambda: handler.open_calls == 1)
    frozen.signal(signal.SIGCONT)

    async def recorded() -> bool:
        return bool((await api.attempts(task["id"]))[1]["outcome"] == "stale")

    await poll(recorded)
    held, late = await api.attempts(task["id"])
    assert (late["number"], late["status"], late["excerpt"], late["counted"]) == (1, 201, "zombie", True)
    assert (held["number"], held["outcome"], held["ended_at"]) == (2, None, None)
    running = await api.task(task["id"])
    assert (running["state"], running["attempt"], running["result"]) == ("running", 2, None)
    second.set()
    ended = await api.ended(task["id"])
    assert (ended["state"], ended["result"], ended["attempt"]) == ("succeeded", "winner", 2)
    assert [attempt["outcome"] for attempt in await api.attempts(task["id"])] == ["succeeded", "stale"]
    assert frozen.events("attempt_stale") or frozen.events("lease_lost"), "it knows that it lost"
