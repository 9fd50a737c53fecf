"""The record of a run: what happens to tasks, in the order of the commits, with the payload that says what they take."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import msgspec
import pytest

from bench.chaos.limits import record
from bench.chaos.limits.terms import Rate, Task, Terms, Use
from tests.handlers import Handler, Reply
from tests.promises.gates import WAITING
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import Api

pytestmark = pytest.mark.anyio

STORE = """
insert into sluice.tasks (id, tenant_id, queue_id, handler_id, state, priority, run_at, created_at, payload)
values (gen_random_uuid(), 1, 1, 0, 0, 0, now(), now(), '{"number": 1, "queue": "mail"}')
"""
TASK = Task(1, "mail", (Use("limit:x", "k", 3), Use("tenant")), "k", 0)


@pytest.fixture
async def database(replica: Replica, database_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database_url)
    await record.install(connection)
    yield connection
    await connection.execute("drop schema chaos cascade")
    await connection.close()


async def test_admissions_and_ends_are_recorded_with_what_the_task_takes(
    replica: Replica, handler: Handler, database: asyncpg.Connection
) -> None:
    api = Api(replica.client, replica.url)
    handler.answer(Reply(500), Reply(200))
    queue = await api.queue_to(handler.url, retry={"backoff": {"kind": "fixed", "seconds": 0}})
    task = await api.enqueue(queue, msgspec.to_builtins(TASK))
    await api.until(task["id"], "succeeded")
    events = await record.read(database)
    whats = ["stored", "admitted", "ended", "admitted", "ended", "gone"]
    assert [event.what for event in events] == whats
    assert {event.task for event in events} == {task["id"]}
    assert [event.body for event in events] == [TASK if what in ("stored", "admitted") else None for what in whats]
    assert events[4].commit == events[5].commit and len({event.commit for event in events}) == 5


async def test_whoever_commits_later_has_the_higher_number_and_waits_for_the_earlier_commit(
    database: asyncpg.Connection, database_url: str
) -> None:
    terms = {"limit:x": Terms(3, Rate(1.5, 2)), "limit:x/k": Terms(removed=True)}
    other = await asyncpg.connect(database_url)
    transaction = other.transaction()
    await transaction.start()
    await other.execute(STORE)
    await record.note(database, "changing", terms)  # which is not kept waiting by what has not come to its commit
    await other.execute("set constraints all immediate")  # as at its commit
    noted = asyncio.create_task(record.note(database, "changed", terms))

    async def waits() -> bool:
        return bool(await other.fetchval(WAITING))

    await poll(waits)
    await transaction.commit()
    await noted
    await other.close()
    events = await record.read(database)
    assert [event.what for event in events] == ["changing", "stored", "changed"]
    assert [event.body for event in events] == [terms, Task(1, "mail"), terms]
