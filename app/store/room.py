"""What bounds the sessions of this role in this database, and how many there are."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from app.domain.connections import Limit
from app.store.db import Reader, connected, translated
from app.store.numbers import Lock

# Of sessions of others an unprivileged role sees the database and the user, and nothing else; background processes have no user.
# reserved_connections came with 16. A superuser is held to max_connections alone.
_LIMITS = """
with r as (select oid, rolname, rolconnlimit, rolsuper from pg_roles where rolname = current_user),
d as (select oid, datname, datconnlimit from pg_database where datname = current_database()),
session as (
  select a.usesysid = r.oid as own_role, a.datid = d.oid as own_database
  from pg_stat_activity a, r, d where a.usesysid is not null and a.datid is not null and a.pid <> pg_backend_pid())
select r.rolname as role, d.datname as database, r.rolsuper as super, r.rolconnlimit as role_max, d.datconnlimit as database_max,
       current_setting('max_connections')::integer as max_connections,
       current_setting('superuser_reserved_connections')::integer
         + coalesce(current_setting('reserved_connections', true), '0')::integer as reserved,
       (select count(*) from session) as used,
       (select count(*) from session where own_role) as used_by_role,
       (select count(*) from session where own_database) as used_in_database
from r, d
"""


def _limits_of(row: Any) -> list[Limit]:
    """Every bound that holds for this role in this database; the sessions of the asking connection itself not counted."""
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
    """What bounds a replica that starts; on a connection of its own, which does not count. Until the block ends nobody else
    measures, so that two that start at once do not both take what is left. Raises Unavailable."""
    async with translated(), connected(dsn) as connection:
        await connection.fetch("select pg_advisory_lock($1)", Lock.ROOM)
        yield await read_limits(connection)
