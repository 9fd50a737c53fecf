"""A batch is cancelled whole, also when the replica that was asked to is killed right after it has marked it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import httpx2
import pytest

from tests.handlers import Handler, Reply
from tests.sluices import Replica, SluiceProcess
from tests.support import poll
from tests.wire.api import Api, good

pytestmark = pytest.mark.anyio


@pytest.mark.ci
async def test_another_replica_cancels_what_a_killed_one_has_only_marked(
    database_url: str,
    start_sluice: Callable[..., Awaitable[SluiceProcess]],
    start_replica: Callable[..., Awaitable[Replica]],
    handler: Handler,
) -> None:
    """Somebody else holds the rows of all its tasks, so the doomed one gets no further than the mark."""
    doomed = await start_sluice(SLUICE_LEASE_SECONDS="60")
    api = Api(doomed.client, doomed.url)
    handler.script(lambda request: Reply() if request.json == "end" else Reply(until=asyncio.Event()))
    queue, sums = await api.queue_to(handler.url, max_concurrency=2), await api.queue_to(handler.url)
    given = {
        "queue": queue,
        "tasks": [{"payload": n} for n in range(700)],
        "on_complete": {"queue": sums, "payload": "end"},
    }
    batch = good(await api.post("/batches", json=given), 201)
    await handler.received(2)
    holder = await asyncpg.connect(database_url)
    holding = holder.transaction()
    await holding.start()
    await holder.execute("select id from sluice.tasks where batch_id = $1 for update", batch["id"])
    asking = asyncio.create_task(doomed.client.post(f"/batches/{batch['id']}/cancel"))

    async def marked() -> bool:
        return bool(await holder.fetchval("select cancelled_at from sluice.batches where id = $1", batch["id"]))

    await poll(marked)
    await doomed.kill()
    with contextlib.suppress(httpx2.HTTPError):
        await asking
    await holding.rollback()
    assert await holder.fetchval("select count(*) from sluice.tasks where batch_id = $1", batch["id"]) == 700
    await holder.close()

    replica = await start_replica()
    api = Api(replica.client, replica.url)

    async def completed() -> dict[str, Any] | None:
        found = good(await api.get(f"/batches/{batch['id']}"))
        return found if found["completed_at"] else None

    done = await poll(completed)
    assert done is not None and done["counts"]["cancelled"] == done["total"] == 700
    # a slot that the sweep frees may be taken by another task of the batch before its turn comes
    last = await poll(lambda: next((request for request in handler.requests if request.json == "end"), None))
    assert last is not None and last.headers["sluice-batch"] == batch["id"]
    assert (await api.ended(last.task))["state"] == "succeeded"
    assert [request.json for request in handler.requests].count("end") == 1
