"""No transaction spans a network wait: whatever a handler does, the database has nothing of ours open."""

import asyncio

import pytest

from tests.handlers import Handler, Reply
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import Api, good

pytestmark = pytest.mark.anyio

OPEN = """
select state, query from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
  and (xact_start is not null or state like 'idle in transaction%')
"""


async def nothing_is_open(replica: Replica) -> None:
    """Within moments, whatever loops ask meanwhile: every connection is back in its pool and in no transaction."""
    db = replica.sluice.core.db
    await poll(lambda: db.checked_out == 0)

    async def no_transaction() -> bool:
        return await db.fetch(OPEN) == []

    await poll(no_transaction)


async def test_while_handlers_hang_no_connection_is_checked_out(replica: Replica, handler: Handler) -> None:
    api, until = Api(replica.client, replica.url), asyncio.Event()
    handler.script(Reply(until=until))
    queue = await api.queue_to(handler.url, max_concurrency=20)
    for _ in range(20):
        await api.enqueue(queue)
    await poll(lambda: handler.open_calls == 20)
    await nothing_is_open(replica)
    assert handler.open_calls == 20
    until.set()
    await poll(lambda: handler.open_calls == 0)


async def test_while_a_handler_is_tried_no_connection_is_checked_out(replica: Replica, handler: Handler) -> None:
    api, until = Api(replica.client, replica.url), asyncio.Event()
    handler.script(Reply(until=until))
    name = await api.handler(handler.url)
    trying = asyncio.create_task(api.post(f"/handlers/{name}/test"))
    await poll(lambda: handler.open_calls == 1)
    await nothing_is_open(replica)
    until.set()
    good(await trying)
