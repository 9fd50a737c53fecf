"""P3: the tasks of a replica that is killed run again within lease and one reap interval, without anybody's help."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from tests.handlers import Handler, Received, Reply
from tests.promises.records import lose_leases
from tests.sluices import Replica, SluiceProcess
from tests.wire.api import Api

pytestmark = pytest.mark.anyio

LEASE_SECONDS = 5.0
REAP_SECONDS = 1.0
SLACK_SECONDS = 1.0
"""For a busy machine: the way from the reap to the handler."""
LONGEST_LEASE = "select extract(epoch from max(lease_expires_at) - clock_timestamp()) from sluice.tasks"


@pytest.mark.parametrize(
    "waits", [pytest.param(True, marks=pytest.mark.ci), False], ids=["waiting for the lease", "the lease made to end"]
)
async def test_the_tasks_of_a_killed_replica_run_again_within_lease_and_reap_interval(
    start_sluice: Callable[..., Awaitable[SluiceProcess]],
    start_replica: Callable[..., Awaitable[Replica]],
    handler: Handler,
    waits: bool,
) -> None:
    """However long their timeout is. Their slots are not lost: the limit is what these three take."""
    doomed = await start_sluice(SLUICE_LEASE_SECONDS=str(LEASE_SECONDS))
    api = Api(doomed.client, doomed.url)
    hanging = Reply(until=asyncio.Event())

    def answer(request: Received) -> Reply:
        return hanging if request.json < 3 and request.headers["sluice-attempt"] == "1" else Reply(body=b"again")

    handler.script(answer)
    queue = await api.queue_to(handler.url, timeout_seconds=600, max_concurrency=3)
    held = [await api.enqueue(queue, number) for number in range(3)]
    await handler.received(3)
    replica = await start_replica(lease_seconds=LEASE_SECONDS)
    api = Api(replica.client, replica.url)
    waiting = [await api.enqueue(queue, number) for number in range(3, 5)]
    await doomed.kill()
    killed_at = time.monotonic()
    lease_seconds = LEASE_SECONDS
    if not waits:
        assert await replica.sluice.core.db.fetchval(LONGEST_LEASE) <= LEASE_SECONDS
        await lose_leases(replica.sluice.core.db)
        lease_seconds = time.monotonic() - killed_at
    again = [(await handler.received(2, LEASE_SECONDS + 10, task=task["id"]))[1] for task in held]
    latest = max(request.at for request in again) - killed_at
    assert latest <= lease_seconds + REAP_SECONDS + SLACK_SECONDS
    for task in held:
        ended = await api.ended(task["id"])
        assert (ended["state"], ended["attempt"], ended["result"]) == ("succeeded", 2, "again")
        assert [attempt["outcome"] for attempt in await api.attempts(task["id"])] == ["succeeded", "lease_expired"]
    for task in waiting:
        assert (await handler.received(1, task=task["id"]))[0].at > killed_at
