"""Daily partitions of history and monthly ones of the audit: created ahead of time, dropped when they have passed.

Creation covers today up to the longest retention of any queue plus a week, so that a week without the daily job breaks nothing.
It uses CREATE TABLE LIKE and ATTACH (ensure_partitions_v1), which wait for no reader. Any serving role may call it, because the
function runs as the owner of the tables.

Dropping handles one day at a time on a connection of its own. Only the owner of the tables can do it, because DETACH CONCURRENTLY
cannot run in a function; where replicas use a lesser role, `sluice migrate` drops:
1. One replica at a time, by a session advisory lock that is tried but never waited for.
2. A day has passed when it ended an hour ago, so that a statement that began before midnight still finds its partition.
3. An unfinished detach (its replica died, or a reader outlasted lock_timeout) is finished first, because a pending detach
blocks all others of its table.
4. DETACH CONCURRENTLY takes no lock that inserts or reads of history wait for. DROP then removes a table that nobody sees.
5. Whatever waits longer than lock_timeout is left to the next run. A table that is detached but not dropped is found by name.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import asyncpg

from app.domain.queues import QueueDefinition
from app.domain.sources import KEY_SECONDS
from app.store.connecting import connected
from app.store.db import Database, Reader
from app.store.failures import PartitionMissing, translated
from app.store.numbers import Lock
from app.store.statements import call, sql

Written = TypeVar("Written")

MARGIN_DAYS = 7
CHUNK_DAYS = 14
"""Days per transaction, which holds a lock for each index of each partition that it creates."""
LOCK_TIMEOUT_MS = 2000
AUDIT_DAYS = 400
"""How long rows of the audit are kept, unless a setting says otherwise."""

_LONGEST = sql("find_longest_retention")
_REACH = sql("count_days_ahead")
_MAY_DROP = sql("check_ownership")
_ENSURE = call("ensure_partitions_v1", 1)
_TRY_LOCK = sql("try_session_lock")
_PASSED = sql("find_passed_days")


async def ensure(db: Reader, days: int) -> int:
    """Create partitions for today and each of the next `days` days; return how many were created."""
    made = 0
    for upto in [*range(CHUNK_DAYS, days, CHUNK_DAYS), days]:
        made += int(await db.fetchval(_ENSURE, upto))
    return made


async def ensure_for(db: Reader, definition: QueueDefinition) -> None:
    """Create the partitions that a queue definition needs; called before the definition is written."""
    kept = definition.retention
    days = max(kept.succeeded_days, kept.cancelled_days, kept.dead_days, definition.idempotency_seconds / 86_400)
    await ensure(db, _horizon(days))


async def ensure_for_sources(db: Reader) -> None:
    """Create the partitions that the keys of messages need; called before the first source is written."""
    await ensure(db, _horizon(KEY_SECONDS / 86_400))


async def ensure_ahead(db: Reader) -> int:
    """Create the partitions that all queues need, as the daily job does; return how many were created."""
    return await ensure(db, _horizon(float(await db.fetchval(_LONGEST, KEY_SECONDS / 86_400))))


async def with_days(db: Reader, write: Callable[[], Awaitable[Written]]) -> Written:
    """Return the result of `write`, which moves tasks to history. If a partition is missing (they are created a week ahead, but a
    database restored from an old backup lacks them), nothing was written: the partitions are created, and it is called again."""
    try:
        return await write()
    except PartitionMissing:
        await ensure_ahead(db)
        return await write()


@dataclass(frozen=True, slots=True)
class Reach:
    """How far history reaches, in days from today."""

    ahead: int
    needed: int
    """The longest retention of a task that ends today."""
    left_over: int
    """Expired days that were not dropped."""


async def reach(db: Reader) -> Reach:
    needed = _horizon(float(await db.fetchval(_LONGEST, KEY_SECONDS / 86_400)))
    (row,) = await db.fetch(_REACH, needed)
    return Reach(row["ahead"], needed - MARGIN_DAYS, row["left_over"])


async def drop_expired(db: Database, *, audit_days: int = AUDIT_DAYS) -> int:
    """Drop expired days of history, and months of the audit that ended `audit_days` ago, if this role may; return how many tables
    were dropped. Raises Unavailable."""
    async with translated(), connected(db.direct_dsn, lock_timeout=str(LOCK_TIMEOUT_MS)) as connection:
        if not await connection.fetchval(_MAY_DROP):
            return 0
        if not await connection.fetchval(_TRY_LOCK, Lock.DROP_PARTITIONS):
            return 0
        dropped = 0
        for row in await connection.fetch(_PASSED, audit_days):
            # another session's snapshot, or a reader of that day: the next run tries again
            with suppress(asyncpg.LockNotAvailableError, asyncpg.ObjectNotInPrerequisiteStateError):
                await _drop(connection, row["parent"], row["name"], row["attached"], row["pending"])
                dropped += 1
        return dropped


async def _drop(connection: asyncpg.Connection, parent: str, name: str, attached: bool, pending: bool) -> None:
    if pending:
        await connection.execute(f"alter table sluice.{parent} detach partition sluice.{name} finalize")
    elif attached:
        await connection.execute(f"alter table sluice.{parent} detach partition sluice.{name} concurrently")
    await connection.execute(f"drop table sluice.{name}")


def _horizon(days: float) -> int:
    return int(days) + 1 + MARGIN_DAYS
