"""All of one tenant at one instant: what its overview shows."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from app.domain.breakers import State
from app.store.db import Reader
from app.store.replicas import SHOWN_SECONDS, ReplicaRow
from app.store.statements import sql
from app.store.stats import DatabaseHealth, QueueOverview


class MinuteLook(msgspec.Struct, frozen=True, array_like=True):
    """What happened to a queue in one minute; `wait` and `run` are trimmed histograms of seconds."""

    at: int
    """Unix seconds."""
    enqueued: int
    started: int
    succeeded: int
    dead: int
    cancelled: int
    retried: int
    wait: list[int]
    run: list[int]


class QueueLook(QueueOverview, frozen=True, array_like=True):
    paused_at: datetime | None
    worker_asked_at: datetime | None
    minutes: list[MinuteLook]
    deaths: list[tuple[int, int]]
    """Minutes in which tasks died, and how many; dead_lately is their sum."""


class ScheduleLook(msgspec.Struct, frozen=True, array_like=True):
    """A schedule that is due next, late, or has missed times."""

    tenant: str
    name: str
    paused: bool
    overdue_seconds: float
    missed: int
    next_nominal_at: datetime | None
    queue: str


class BatchLook(msgspec.Struct, frozen=True, array_like=True):
    """A batch under way, counted as of its last fold."""

    id: str
    queue: str
    total: int
    succeeded: int
    dead: int
    cancelled: int
    sealed: bool
    created_at: datetime


class HandlerLook(msgspec.Struct, frozen=True, array_like=True):
    """A handler with a limit of its own or a breaker, or that is parked or disabled."""

    name: str
    enabled: bool
    breaker: State | None
    max_concurrency: int | None
    """In force now; 0 while its breaker is open."""
    parked_seconds: float
    running: int


class LimitLook(msgspec.Struct, frozen=True, array_like=True):
    """A named limit."""

    name: str
    max_concurrency: int | None
    used: int
    """Over all keys."""
    paused: bool


class SourceLook(msgspec.Struct, frozen=True, array_like=True):
    """A source that fails."""

    tenant: str
    name: str
    paused: bool
    failing_seconds: float
    last_error: str | None
    queue: str


@dataclass(frozen=True, slots=True)
class TenantLook:
    now: datetime
    tenant: str
    queues: list[QueueLook]
    schedules: list[ScheduleLook]
    batches: list[BatchLook]
    handlers: list[HandlerLook]
    limits: list[LimitLook]
    sources: list[SourceLook]
    replicas: list[ReplicaRow]
    longest_lapsed_seconds: float | None
    """How long ago the first lease expired that nobody has reaped."""
    longest_due_seconds: float | None
    """How long ago the first task was due that nobody has made ready."""
    database: DatabaseHealth | None


_LOOK = sql("look_at_tenant", database=sql("show_database"))
_QUEUES = msgspec.json.Decoder(list[QueueLook])
_SCHEDULES = msgspec.json.Decoder(list[ScheduleLook])
_BATCHES = msgspec.json.Decoder(list[BatchLook])
_HANDLERS = msgspec.json.Decoder(list[HandlerLook])
_LIMITS = msgspec.json.Decoder(list[LimitLook])
_SOURCES = msgspec.json.Decoder(list[SourceLook])
_REPLICAS = msgspec.json.Decoder(
    list[tuple[str, str, str, str, datetime, datetime, bool, bool, float, int, int, int, int]]
)
_DATABASE: msgspec.json.Decoder[Any] = msgspec.json.Decoder(DatabaseHealth)


async def look(db: Reader, tenant_id: int, since: datetime, deaths_since: datetime, *, database: bool) -> TenantLook:
    """Look at a tenant, with the minutes of its queues from `since` on, and their deaths from `deaths_since` on, which is not
    later; with `database`, also at the database."""
    (row,) = await db.fetch(_LOOK, tenant_id, since, SHOWN_SECONDS, database, deaths_since)
    return TenantLook(
        now=row["now"],
        tenant=row["tenant"],
        queues=_QUEUES.decode(row["queues"]),
        schedules=_SCHEDULES.decode(row["schedules"]),
        batches=_BATCHES.decode(row["batches"]),
        handlers=_HANDLERS.decode(row["handlers"]),
        limits=_LIMITS.decode(row["limits"]),
        sources=_SOURCES.decode(row["sources"]),
        replicas=[ReplicaRow(*fields) for fields in _REPLICAS.decode(row["replicas"])],
        longest_lapsed_seconds=row["longest_lapsed"],
        longest_due_seconds=row["longest_due"],
        database=None if row["database"] is None else _DATABASE.decode(row["database"]),
    )
