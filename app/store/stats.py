"""Counts of tasks by state, and the minute histograms that rates and percentiles come from.

Live states are counted over partial indexes, one per state; a scheduled task counts as ready from its run_at on, as it is shown.
Ended tasks are counted in history as long as they can be read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import msgspec

from app.domain.histograms import trimmed
from app.store.db import Reader
from app.store.statements import sql

KEPT_HOURS = 24


@dataclass(slots=True)
class Minute:
    """What happened to one queue in one minute; `wait` and `run` are histograms of seconds, `retried` counts attempts that failed
    and whose task waits for the next one."""

    queue_id: int
    enqueued: int
    started: int
    succeeded: int
    dead: int
    cancelled: int
    retried: int
    wait: list[int]
    run: list[int]


@dataclass(frozen=True, slots=True)
class Counts:
    now: datetime
    scheduled: int
    ready: int
    running: int
    succeeded: int
    dead: int
    cancelled: int
    oldest_ready_age_seconds: float | None


class KeyCount(msgspec.Struct, frozen=True):
    """The ready tasks of one key."""

    key: str
    ready: int
    oldest_age_seconds: float


class KeyCounts(msgspec.Struct, frozen=True):
    """The keys of a queue that have ready tasks."""

    waiting: int
    blocked: int
    """Of these, how many no claim can admit now."""
    top: list[KeyCount]
    """Those with most ready tasks."""


class QueueOverview(msgspec.Struct, frozen=True, gc=False):
    """A summary of one queue, of any tenant: the columns of show_queues, in order. Made ten thousand at a time."""

    tenant: str
    queue: str
    paused: bool
    handler: str | None
    handler_enabled: bool | None
    disabled_reason: str | None
    scheduled: int
    ready: int
    running: int
    dead: int
    oldest_ready_age_seconds: float | None
    dead_lately: int
    """Tasks that died in the last 15 minutes."""
    tenant_limit: int | None
    """The lower one of its own and the operator's."""
    tenant_grant: int | None
    worker_silent_seconds: float
    """Seconds since a worker last asked for its tasks, or since it was defined."""
    id: int
    max_concurrency: int | None
    max_depth: int | None


@dataclass(frozen=True, slots=True)
class DatabaseHealth:
    server_version: str
    schema_version: int
    size_bytes: int
    connections: int
    max_connections: int
    oldest_xmin_age_transactions: int | None
    oldest_xmin_age_seconds: float | None
    """Age of the oldest open transaction that holds a snapshot."""


_ADD = sql("add_minutes")

_COUNTS = sql("count_tasks")
_KEYS = sql("count_keys")
TOP_KEYS = 10
_TOP = msgspec.json.Decoder(list[KeyCount])

_OVERVIEW = sql("show_queues")


_HEALTH = sql("show_database")
_MINUTES = sql("list_minutes")
_SAMPLE = sql("sample_queues")
_FOLD = sql("fold_minutes")
_OF_QUEUES = sql("list_series")
_PAST = sql("list_past")
_ENQUEUED = sql("list_enqueued")
_OF_TENANT = sql("list_tenant_series")
_PRUNE = sql("prune_minutes")


async def add_minutes(db: Reader, minutes: Sequence[Minute]) -> None:
    """Add to the current minute by the database's clock. Each queue may occur once."""
    rows = sorted(minutes, key=lambda minute: minute.queue_id)
    await db.fetch(
        _ADD,
        *([getattr(row, name) for row in rows] for name in Minute.__slots__[:7]),
        *([_array(getattr(row, name)) for row in rows] for name in ("wait", "run")),
    )


def _array(histogram: Sequence[int]) -> str:
    return "{" + ",".join(map(str, trimmed(histogram))) + "}"


async def count(db: Reader, queue_id: int) -> Counts:
    (row,) = await db.fetch(_COUNTS, queue_id)
    return Counts(**row)


async def count_keys(db: Reader, queue_id: int) -> KeyCounts:
    (row,) = await db.fetch(_KEYS, queue_id, TOP_KEYS)
    return KeyCounts(row["waiting"], row["blocked"], _TOP.decode(row["top"] or "[]"))


async def read_minutes(db: Reader, queue_id: int, since: datetime) -> list[tuple[datetime, Minute]]:
    rows = await db.fetch(_MINUTES, queue_id, since)
    return [(row[0], Minute(*row[1:])) for row in rows]


async def overview(db: Reader) -> list[QueueOverview]:
    """Return every queue of every tenant, in one statement."""
    return [QueueOverview(*row) for row in await db.fetch(_OVERVIEW)]


async def database_health(db: Reader) -> DatabaseHealth:
    (row,) = await db.fetch(_HEALTH)
    return DatabaseHealth(**row)


class SeriesRow(NamedTuple):
    """A minute of a queue (None: of a whole tenant)."""

    queue: str | None
    minute: datetime
    enqueued: int
    started: int
    succeeded: int
    dead: int
    cancelled: int
    retried: int
    wait: list[int]
    run: list[int]
    ready: int | None
    running: int | None


async def series(db: Reader, queue_ids: Sequence[int], since: datetime) -> list[SeriesRow]:
    """Return the minutes of queues that have a row, from `since` on, and as queue "" those that were sampled."""
    return [SeriesRow(*row) for row in await db.fetch(_OF_QUEUES, list(queue_ids), since)]


async def past(db: Reader, tenant_id: int, since: datetime) -> list[SeriesRow]:
    """Return the minutes of a tenant from `since` on that have been summed over its queues; as queue "" those that were sampled."""
    return [SeriesRow(*row) for row in await db.fetch(_PAST, tenant_id, since)]


async def enqueued(
    db: Reader, tenant_id: int, names: Sequence[str], since: datetime, upto: datetime
) -> list[tuple[str, datetime, int]]:
    """Return how many tasks were enqueued by queue and minute, from `since` to before `upto`, where there were any."""
    return [tuple(row) for row in await db.fetch(_ENQUEUED, tenant_id, list(names), since, upto)]


async def tenant_series(db: Reader, tenant_id: int, since: datetime, upto: datetime) -> list[SeriesRow]:
    """Return the minutes of a tenant from `since` to before `upto`, and those of each of its queues from `upto` on; as queue ""
    those that were sampled."""
    return [SeriesRow(*row) for row in await db.fetch(_OF_TENANT, tenant_id, since, upto)]


async def sample(db: Reader, queues: Sequence[QueueOverview]) -> bool:
    """Record how many tasks of these queues are ready and running in this minute, unless a replica has; return whether it did."""
    rows = [(row.id, row.ready, row.running) for row in queues if row.ready or row.running]
    columns = zip(*rows, strict=True) if rows else ((), (), ())
    return bool(await db.fetchval(_SAMPLE, *columns))


async def fold_minutes(db: Reader, since: datetime, upto: datetime) -> None:
    """Sum the minutes from `since` to before `upto`, which are over, by tenant. To do so again changes nothing."""
    await db.fetch(_FOLD, since, upto)


async def prune(db: Reader) -> None:
    """Delete minutes that are no longer shown."""
    await db.fetch(_PRUNE, KEPT_HOURS)
