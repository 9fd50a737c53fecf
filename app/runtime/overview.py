"""Overviews of all tenants, for operators and the gauges of /metrics."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.domain.connections import Limit
from app.store import breakers, limit_uses, partitions, replicas, room, schedules, sources, stats
from app.store.breakers import HandlerOverview
from app.store.db import Database
from app.store.limit_uses import LimitOverview
from app.store.partitions import Reach
from app.store.replicas import ReplicaRow
from app.store.schedules import ScheduleHealth
from app.store.sources import SourceHealth
from app.store.stats import DatabaseHealth, QueueOverview

OPERATORS = "operators"
"""Readers over all tenants take turns like one more tenant."""
COUNT_SECONDS = 15.0
"""Counting millions of tasks takes longer than a tenant's reads may."""
MAX_SCHEDULES = 1000
"""Listed individually; above this number, only schedules that need attention."""

MAX_SOURCES = 1000
MAX_HANDLERS = 1000
MAX_LIMITS = 10_000


@dataclass(frozen=True, slots=True)
class Fleet:
    """What operators look at, over all tenants."""

    queues: Sequence[QueueOverview]
    schedules: Sequence[ScheduleHealth]
    sources: Sequence[SourceHealth]
    handlers: Sequence[HandlerOverview]
    limits: Sequence[LimitOverview]
    """Named ones."""
    replicas: Sequence[ReplicaRow]
    database: DatabaseHealth
    connections: Sequence[Limit]
    """The limits on connections that apply to this role."""
    reach: Reach


async def read_fleet(db: Database) -> Fleet:
    """Read it in one statement for each part, however much there is. Raises Unavailable, Refusal."""
    async with db.read_together(OPERATORS, COUNT_SECONDS) as reads:
        return Fleet(
            queues=await stats.overview(reads),
            schedules=await schedules.health(reads, MAX_SCHEDULES),
            sources=await sources.health(reads, MAX_SOURCES),
            handlers=await breakers.overview(reads, MAX_HANDLERS),
            limits=await limit_uses.overview(reads, MAX_LIMITS),
            replicas=await replicas.list_recent(reads),
            database=await stats.database_health(reads),
            connections=await room.read_limits(reads),
            reach=await partitions.reach(reads),
        )


def depths(row: QueueOverview) -> dict[str, int]:
    """Return how many tasks a queue holds, by state."""
    return {"scheduled": row.scheduled, "ready": row.ready, "running": row.running, "dead": row.dead}
