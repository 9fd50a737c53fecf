"""What is done to many tasks of a queue at once, a chunk a statement: purge and redrive."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from app.store.db import Reader

FIRST = "00000000-0000-0000-0000-000000000000"
"""Before every id."""


@dataclass(frozen=True, slots=True)
class DeadTasks:
    """Which dead tasks of a queue; None leaves a field open."""

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
    found: datetime = await db.fetchval("select clock_timestamp()")
    return found


async def purge(db: Reader, queue_id: int, before: datetime, after: str, limit: int, *, wait: bool) -> tuple[int, str]:
    """How many were cancelled, and the last id looked at."""
    [row] = await db.fetch("select * from sluice.purge_v1($1, $2, $3, $4, $5)", queue_id, before, after, limit, wait)
    return row["purged"], str(row["last_id"])


async def redrive(db: Reader, dead: DeadTasks, after: str, limit: int) -> Redriven:
    [row] = await db.fetch(
        "select * from sluice.redrive_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
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
        """
        select count(*) from sluice.task_history t join sluice.queues q on q.id = t.queue_id
        where t.queue_id = $1 and t.state = 4 and t.kept_until > statement_timestamp() and t.ended_at < $9
          and ($2::text is null or t.reason = $2) and ($3::text is null or t.type = $3)
          and ($4::text is null or $4 = any(t.tags)) and ($6::text is null or t.correlation_id = $6)
          and ($5::bigint[] is null or coalesce(nullif(t.handler_id, 0), t.lease_handler_id, q.handler_id) = any($5))
          and ($7::timestamptz is null or t.ended_at >= $7) and ($8::timestamptz is null or t.ended_at < $8)
        """,
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
