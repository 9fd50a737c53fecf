"""The limits on sessions of this role in this database, and how many there are."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from app.domain.connections import Limit
from app.store.connecting import connected
from app.store.db import Reader
from app.store.failures import translated
from app.store.numbers import Lock
from app.store.statements import sql

_LIMITS = sql("read_limits")
_MEASURE_ALONE = sql("lock_session")


def _limits_of(row: Any) -> list[Limit]:
    """Return every limit that applies to this role in this database, not counting the asking session."""
    free = row["max_connections"] - row["reserved"]
    reserved = f", of which {row['reserved']} are reserved" if row["reserved"] else ""
    limits = [Limit(free, row["used"], f"raise the server's max_connections (now {row['max_connections']}{reserved})")]
    if not row["super"] and row["role_max"] >= 0:
        words = f"raise the connection limit of role {row['role']} (now {row['role_max']})"
        limits.append(Limit(row["role_max"], row["used_by_role"], words))
    if not row["super"] and row["database_max"] >= 0:
        words = f"raise the connection limit of database {row['database']} (now {row['database_max']})"
        limits.append(Limit(row["database_max"], row["used_in_database"], words))
    return limits


async def read_limits(reader: Reader) -> list[Limit]:
    [row] = await reader.fetch(_LIMITS)
    return _limits_of(row)


@asynccontextmanager
async def measured(dsn: str) -> AsyncIterator[list[Limit]]:
    """Yield the limits for a starting replica, on a dedicated connection that does not count. Until the block ends nobody else
    measures, so that two replicas starting at once do not both take what is left. Raises Unavailable."""
    async with translated(), connected(dsn) as connection:
        await connection.fetch(_MEASURE_ALONE, Lock.ROOM)
        yield await read_limits(connection)
