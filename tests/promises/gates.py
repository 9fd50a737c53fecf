"""Bringing racers to the same line: a table is shut until all of them wait before it or for one another."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from app.runtime.core import Core
from tests.support import poll

WAITING = """
select count(*) from pg_locks l join pg_database d on d.oid = l.database where not l.granted and d.datname = current_database()
"""


@asynccontextmanager
async def shut(url: str, table: str, mode: str = "share row exclusive") -> AsyncIterator[None]:
    """Within the block nobody writes to the table; in mode `access exclusive` nobody reads it either."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction():
            await connection.execute(f"lock table sluice.{table} in {mode} mode")
            yield
    finally:
        await connection.close()


async def until_waiting(core: Core, count: int) -> None:
    """Until so many statements wait for a lock."""

    async def so_many() -> bool:
        return int(await core.db.fetchval(WAITING)) >= count

    await poll(so_many)
