"""Each end of a task calls back once, whatever is killed while tasks end."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.handlers import Handler, Received, Reply
from tests.promises.records import lose_leases
from tests.sluices import Replica, SluiceProcess
from tests.support import poll
from tests.wire.api import AT_ONCE, Api

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

TASKS = 600
KILLED_AT = (100, 300)
"""After how many calls a replica is killed, or the connections of all are."""
ENDS = """
select h.id::text as task, (array['succeeded', 'dead', 'cancelled'])[h.state - 2] as state
from sluice.task_history h join sluice.queues q on q.id = h.queue_id where q.name = $1
"""
CALLS = """
select parent_id::text as task, convert_from(payload, 'UTF8')::json ->> 'state' as state
from sluice.tasks t join sluice.queues q on q.id = t.queue_id where q.name = $1
"""
CUT = (
    "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
    " and query like 'select * from sluice.%'"
)


async def test_each_end_calls_back_once_though_replicas_and_connections_are_killed(
    start_sluice: Callable[..., Awaitable[SluiceProcess]],
    start_replica: Callable[..., Awaitable[Replica]],
    handler: Handler,
) -> None:
    def answer(request: Received) -> Reply:
        return Reply(*((200, {}), (400, {"sluice-retry": "no"}), (500, {}))[request.json % 3])

    handler.script(answer)
    doomed = await start_sluice(SLUICE_LEASE_SECONDS="5")
    survivor = await start_replica(lease_seconds=5)
    api, db = Api(survivor.client, survivor.url), survivor.sluice.core.db
    called = await api.queue()
    callbacks = {state: {"queue": called} for state in ("succeeded", "dead", "cancelled")}
    queue = await api.queue_to(handler.url, callbacks=callbacks, retry={"max_attempts": 2, **AT_ONCE})
    ids = await api.bulk(queue, [{"payload": n} for n in range(TASKS)])
    await handler.received(KILLED_AT[0])
    await doomed.kill()
    await lose_leases(db)
    await handler.received(KILLED_AT[1])
    await db.fetch(CUT)
    for task_id in ids[-20:]:
        await poll(lambda task_id=task_id: _cancelled(api, task_id))  # type: ignore[misc]

    async def all_ended() -> bool:
        return len(await db.fetch(ENDS, queue)) == TASKS

    await poll(all_ended, 60)
    ends, calls = await db.fetch(ENDS, queue), await db.fetch(CALLS, called)
    assert sorted(map(tuple, calls)) == sorted(map(tuple, ends))


async def _cancelled(api: Api, task_id: str) -> Any:
    """Whether it has ended, by this cancel or before; the connection may have been cut."""
    return (await api.cancel(task_id)).status_code in (200, 409)
