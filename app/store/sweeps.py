"""Purge and redrive: statements over many tasks of a queue, a chunk each."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from app.store.callbacks import Told, decoded, untold
from app.store.db import Reader
from app.store.statements import call, sql

FIRST = "00000000-0000-0000-0000-000000000000"
"""Before every id."""
_PURGE = call("purge_v1", 5)
_REDRIVE = call("redrive_v1", 11)
_COUNT_DEAD = sql("count_dead_tasks")
_CLOCK = sql("read_clock")


@dataclass(frozen=True, slots=True)
class DeadTasks:
    """Filters of a queue's dead tasks; None matches everything."""

    queue_id: int
    ended_before: datetime
    reason: str | None = None
    type: str | None = None
    tag: str | None = None
    handler_ids: Sequence[int] | None = None
    correlation_id: str | None = None
    ended_from: datetime | None = None
    ended_to: datetime | None = None


@dataclass(frozen=True, slots=True)
class Redriven:
    seen: int
    last_id: str
    moved: int
    lanes: list[int]


async def now(db: Reader) -> datetime:
    found: datetime = await db.fetchval(_CLOCK)
    return found


async def purge(
    db: Reader, queue_id: int, before: datetime, after: str, limit: int, *, wait: bool, told: Told = untold
) -> tuple[int, str]:
    """Return how many were cancelled, and the last id searched. `told` hears of their callbacks."""
    [row] = await db.fetch(_PURGE, queue_id, before, after, limit, wait)
    if row["callbacks"] is not None:
        told(decoded(row["callbacks"]))
    return row["purged"], str(row["last_id"])


async def redrive(db: Reader, dead: DeadTasks, after: str, limit: int) -> Redriven:
    [row] = await db.fetch(
        _REDRIVE,
        dead.queue_id,
        dead.reason,
        dead.type,
        dead.tag,
        dead.handler_ids,
        dead.correlation_id,
        dead.ended_from,
        dead.ended_to,
        dead.ended_before,
        after,
        limit,
    )
    return Redriven(row["seen"], str(row["last_id"]), row["moved"], list(row["lanes"]))


async def count_dead(db: Reader, dead: DeadTasks) -> int:
    count: int = await db.fetchval(
        _COUNT_DEAD,
        dead.queue_id,
        dead.reason,
        dead.type,
        dead.tag,
        dead.handler_ids,
        dead.correlation_id,
        dead.ended_from,
        dead.ended_to,
        dead.ended_before,
    )
    return count
