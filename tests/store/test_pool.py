"""A pool has all its places, whatever became of the connections in them: ended, cancelled, or waited for."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import asyncpg
import pytest

from app.store.connecting import CONNECT_SECONDS
from app.store.db import Database
from tests.support import poll

pytestmark = pytest.mark.anyio

PID = "select pg_backend_pid()"
OPEN = """
select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in transaction%'
"""
CONNECTED = "select count(*) from pg_stat_activity where pid = any($1)"


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    db = Database(database_url)
    await db.open()
    try:
        yield db
    finally:
        await db.close()


async def _fill(db: Database) -> set[int]:
    """Run statements on all connections at once; return their backends."""
    everywhere = asyncio.Barrier(db.connections.work)

    async def one() -> int:
        async with db.transaction() as connection:
            await everywhere.wait()
            pid: int = await connection.fetchval(PID)
            return pid

    async with asyncio.timeout(5):
        return set(await asyncio.gather(*(one() for _ in range(db.connections.work))))


async def test_a_statement_finds_the_connection_that_was_used_last(db: Database) -> None:
    await _fill(db)
    assert len({await db.fetchval(PID) for _ in range(5)}) == 1
    assert db.checked_out == 0


async def test_connections_that_ended_at_rest_are_replaced(db: Database, database_url: str) -> None:
    before = await _fill(db)
    assert len(before) == db.connections.work
    server = await asyncpg.connect(database_url)
    try:
        ended = await server.fetch("select pg_terminate_backend(pid, 5000) from unnest($1::int[]) pid", list(before))
    finally:
        await server.close()
    assert all(row[0] for row in ended)
    after = await _fill(db)
    assert len(after) == db.connections.work
    assert not after & before
    assert db.checked_out == 0


async def test_whoever_waits_gets_the_next_connection_that_comes_free(db: Database) -> None:
    await _fill(db)
    free = asyncio.Event()

    async def hold() -> None:
        async with db.transaction():
            await free.wait()

    holding = [asyncio.create_task(hold()) for _ in range(db.connections.work)]
    while db.checked_out < db.connections.work:
        await asyncio.sleep(0)
    waiting = [asyncio.create_task(db.fetchval("select 1")) for _ in range(3 * db.connections.work)]
    await asyncio.sleep(0)
    free.set()
    async with asyncio.timeout(5):
        assert await asyncio.gather(*waiting) == [1] * len(waiting)
    await asyncio.gather(*holding)
    assert db.checked_out == 0


async def test_the_connections_of_cancelled_statements_come_back(db: Database) -> None:
    await _fill(db)
    slow = [asyncio.create_task(db.fetch("select pg_sleep(10)")) for _ in range(db.connections.work)]
    while db.checked_out < db.connections.work:
        await asyncio.sleep(0)
    for statement in slow:
        statement.cancel()
    await asyncio.wait(slow)
    assert len(await _fill(db)) == db.connections.work
    assert db.checked_out == 0


async def test_connections_that_the_driver_aborted_at_rest_are_replaced(db: Database) -> None:
    """It does not take these out of its pool by itself."""
    before = await _fill(db)
    for connection in db._open:
        connection._protocol.abort()
    after = await _fill(db)
    assert len(after) == db.connections.work
    assert not after & before
    assert db.checked_out == 0


async def test_a_transaction_that_failed_leaves_nothing_open(db: Database) -> None:
    async def fail() -> None:
        async with db.transaction() as connection:
            await connection.execute("create temporary table left_behind ()")
            await connection.execute("select 1 / 0")

    with pytest.raises(asyncpg.DivisionByZeroError):
        await fail()
    assert await db.fetchval("select pg_current_xact_id_if_assigned() is null and to_regclass('left_behind') is null")
    assert db.checked_out == 0


async def test_what_a_cut_off_begin_has_opened_is_ended_before_the_next_statement(db: Database) -> None:
    """Otherwise the next statements on it would be acknowledged and never committed."""
    await _fill(db)
    stopped = await db.fetchval(PID)

    async def begin() -> None:
        async with db.transaction():
            pass

    os.kill(stopped, signal.SIGSTOP)
    try:
        cut = asyncio.create_task(begin())
        while not db.checked_out:
            await asyncio.sleep(0)
        cut.cancel()
        await asyncio.sleep(0)
    finally:
        os.kill(stopped, signal.SIGCONT)
    await asyncio.wait([cut], timeout=5)
    assert cut.cancelled()
    # one transaction for both would say the same
    assert await db.fetchval("select now()") < await db.fetchval("select now()")
    assert len(await _fill(db)) == db.connections.work
    assert await db.fetchval(OPEN) == 0


async def test_what_work_on_each_connection_leaves_open_is_rolled_back(db: Database) -> None:
    """Otherwise the next statements on it would be acknowledged and never committed."""

    async def begin(connection: asyncpg.Connection) -> None:
        await connection.execute("begin; create temporary table left_behind ()")
        raise LookupError

    with pytest.raises(LookupError):
        await db.on_each_connection(begin)
    await _fill(db)
    everywhere = [await db.fetchval("select to_regclass('pg_temp.left_behind') is null") for _ in range(3)]
    assert everywhere == [True] * 3
    assert await db.fetchval(OPEN) == 0


async def test_a_close_waits_for_no_longer_than_the_statements_in_progress(database_url: str) -> None:
    db = Database(database_url)
    await db.open()
    await _fill(db)
    statement = asyncio.create_task(db.fetchval("select 1 from pg_sleep(0.2)"))
    while not db.checked_out:
        await asyncio.sleep(0)
    async with asyncio.timeout(CONNECT_SECONDS - 1):
        await db.close()
    assert await statement == 1


async def test_a_close_that_is_interrupted_leaves_no_connection(database_url: str) -> None:
    db = Database(database_url)
    await db.open()
    backends = list(await _fill(db))
    closing = asyncio.create_task(db.close())
    await asyncio.sleep(0)  # the close begins
    await asyncio.sleep(0)  # as does that of each pool
    closing.cancel()
    await asyncio.wait([closing])
    assert closing.cancelled()
    server = await asyncpg.connect(database_url)
    try:

        async def all_gone() -> bool:
            return await server.fetchval(CONNECTED, backends) == 0

        await poll(all_gone)
    finally:
        await server.close()
