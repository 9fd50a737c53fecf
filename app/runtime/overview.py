"""Overviews of all tenants, for operators and the gauges of /metrics."""

from app.store import breakers, limit_uses, schedules, stats
from app.store.breakers import GuardedHandler
from app.store.db import Database, Reader
from app.store.limit_uses import LimitOverview
from app.store.schedules import ScheduleHealth
from app.store.stats import QueueOverview

OPERATORS = "operators"
"""Readers over all tenants take turns like one more tenant."""
COUNT_SECONDS = 15.0
"""Counting millions of tasks takes longer than a tenant's reads may."""
MAX_SCHEDULES = 1000
"""Listed individually; above this number, only schedules that need attention."""

MAX_HANDLERS = 1000
MAX_LIMITS = 10_000


def reads_of_operators(db: Database) -> Reader:
    return db.reads(OPERATORS, COUNT_SECONDS)


async def all_queues(db: Database) -> list[QueueOverview]:
    return await stats.overview(reads_of_operators(db))


async def all_schedules(db: Database) -> list[ScheduleHealth]:
    return await schedules.health(reads_of_operators(db), MAX_SCHEDULES)


async def guarded_handlers(db: Database) -> list[GuardedHandler]:
    """Return handlers with a breaker or an adaptive limit, and those that are parked."""
    return await breakers.guarded(reads_of_operators(db), MAX_HANDLERS)


async def named_limits(db: Database) -> list[LimitOverview]:
    return await limit_uses.overview(reads_of_operators(db), MAX_LIMITS)


def depths(row: QueueOverview) -> dict[str, int]:
    """Return how many tasks a queue holds, by state."""
    return {"scheduled": row.scheduled, "ready": row.ready, "running": row.running, "dead": row.dead}
