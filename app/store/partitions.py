"""The days of history: made ahead, dropped when they have passed.

Ahead: from today to the longest that any queue keeps a task, and a week more, so that a week without the daily job breaks
nothing. Made by CREATE TABLE LIKE and ATTACH (ensure_partitions_v1), which wait behind no reader. Every role that serves may have
them made: the function runs as the owner of the tables.

Dropped, one day at a time, on a connection of its own, and by a role that owns the tables alone, for DETACH CONCURRENTLY can be
in no function (where replicas serve with less, `sluice migrate` drops):
1. One replica at a time: a session advisory lock, tried and never waited for.
2. A day has passed when it ended an hour ago, so that a statement begun before midnight still finds its partition.
3. A detach left half done (its replica died, or a reader outlasted lock_timeout) is finished first: one pending detach
   refuses all others of that table.
4. DETACH CONCURRENTLY takes no lock that an insert or a read of history waits for. Then DROP, of a table nobody sees any more.
5. Whatever waits longer than lock_timeout is left for the next run. A table detached and not dropped is found by its name.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import asyncpg

from app.domain.queues import QueueDefinition
from app.store.connecting import connected
from app.store.db import Database, Reader
from app.store.failures import PartitionMissing, translated
from app.store.numbers import Lock
from app.store.statements import call, sql

Written = TypeVar("Written")

MARGIN_DAYS = 7
CHUNK_DAYS = 14
"""Days made in one transaction, which holds a lock for each index of each partition it makes."""
LOCK_TIMEOUT_MS = 2000

_LONGEST = sql("find_longest_retention")
_REACH = sql("count_days_ahead")
_MAY_DROP = sql("check_ownership")
_ENSURE = call("ensure_partitions_v1", 1)
_TRY_LOCK = sql("try_session_lock")
_PASSED = sql("find_passed_days")


async def ensure(db: Reader, days: int) -> int:
    """Partitions for today and each of the next `days` days; how many were made."""
    made = 0
    for upto in [*range(CHUNK_DAYS, days, CHUNK_DAYS), days]:
        made += int(await db.fetchval(_ENSURE, upto))
    return made


async def ensure_for(db: Reader, definition: QueueDefinition) -> None:
    """Room for what a queue of this definition keeps; done before the definition is written."""
    kept = definition.retention
    days = max(kept.succeeded_days, kept.cancelled_days, kept.dead_days, definition.idempotency_seconds / 86_400)
    await ensure(db, _horizon(days))


async def ensure_ahead(db: Reader) -> int:
    """The daily job: room for what any queue keeps; how many partitions were made."""
    return await ensure(db, _horizon(float(await db.fetchval(_LONGEST))))


async def with_days(db: Reader, write: Callable[[], Awaitable[Written]]) -> Written:
    """The answer of `write`, which moves tasks to history. Where history lacks the day (days are made a week ahead, but a database
    restored from an old copy has none of them) nothing was written: the days are made, and it is called once more."""
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
    """What ends today may be kept this long."""
    left_over: int
    """Days that have passed and were not dropped."""


async def reach(db: Reader) -> Reach:
    needed = _horizon(float(await db.fetchval(_LONGEST)))
    (row,) = await db.fetch(_REACH, needed)
    return Reach(row["ahead"], needed - MARGIN_DAYS, row["left_over"])


async def drop_expired(db: Database) -> int:
    """Drop the days that have passed, if this role may; how many tables went. Raises Unavailable."""
    async with translated(), connected(db.direct_dsn, lock_timeout=str(LOCK_TIMEOUT_MS)) as connection:
        if not await connection.fetchval(_MAY_DROP):
            return 0
        if not await connection.fetchval(_TRY_LOCK, Lock.DROP_PARTITIONS):
            return 0
        dropped = 0
        for row in await connection.fetch(_PASSED):
            # another session's snapshot or a reader of that day: the next run comes by again
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
