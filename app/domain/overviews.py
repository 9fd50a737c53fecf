"""The overview of a tenant, and series by minute, as the API shows them."""

from typing import Annotated, Any, NamedTuple

from msgspec import UNSET, Meta, Struct, UnsetType

from app.domain.ids import Uuid
from app.domain.instants import Instant
from app.domain.names import Name
from app.domain.verdicts import Verdict

Alarm = dict[str, Any]
Share = Annotated[
    float | None, Meta(description="Of attempts that ended lately: how many succeeded; null if none did end.")
]


class Counts(Struct):
    scheduled: int
    ready: int
    running: int
    dead: int


class PerMinute(Struct):
    """Averages over the last five full minutes and the current one."""

    enqueued: float
    started: float
    succeeded: float
    dead: float
    cancelled: float
    retried: Annotated[float, Meta(description="Attempts that failed and whose task waits for the next one.")]


class Quantiles(Struct):
    p50: float | None
    p95: float | None


class QueueSeen(Struct):
    queue: Name
    paused: bool
    paused_at: Instant | None
    handler: Name | None
    handler_enabled: bool | None
    disabled_reason: str | None
    worker_asked_at: Annotated[Instant | None, Meta(description="When a worker last asked for tasks; null: none yet.")]
    tasks: Counts
    oldest_ready_age_seconds: float | None
    per_minute: PerMinute
    success_share: Share
    wait_seconds: Quantiles
    run_seconds: Quantiles
    dead_lately: Annotated[int, Meta(description="Tasks that died in the last 15 minutes.")]
    max_concurrency: int | None
    max_depth: int | None


class ScheduleSeen(Struct):
    schedule: Name
    queue: Name
    paused: bool
    next_at: Annotated[Instant | None, Meta(description="The next nominal time.")]
    late_seconds: float
    missed: Annotated[int, Meta(description="How many of its times were missed, in all.")]


class BatchSeen(Struct):
    batch: Uuid
    queue: Name
    sealed: bool
    created_at: Instant
    total: int
    succeeded: int
    dead: int
    cancelled: int
    percent: float | None


class LimitSeen(Struct):
    level: Annotated[str, Meta(description="tenant, handler or named; those of queues are with the queue.")]
    name: str
    max: int | None
    used: int
    paused: bool = False


class HandlerSeen(Struct):
    """A handler with a limit of its own or a breaker, or that is parked or disabled."""

    handler: Name
    enabled: bool
    breaker: str | None
    parked_seconds: float
    running: int
    max_concurrency: Annotated[int | None, Meta(description="In force now; 0 while its breaker is open.")]


class ReplicaSeen(Struct):
    replica: str
    roles: str
    version: str
    started_at: Instant
    seen_at: Instant
    silent: bool
    draining: bool
    deaf: Annotated[bool, Meta(description="It receives no NOTIFY and learns of changes by polling.")]
    in_flight: int
    max_in_flight: int
    database_connections: int


class DatabaseSeen(Struct):
    server_version: str
    schema_version: int
    size_bytes: int
    connections: int
    max_connections: int
    oldest_xmin_age_seconds: float | None
    answer_seconds: float


class Verdicts(Struct):
    flow: Annotated[Verdict, Meta(description="Does what is ready start?")]
    execution: Annotated[Verdict, Meta(description="Does what starts succeed?")]
    liveness: Annotated[Verdict, Meta(description="Are replicas, their loops and the database there?")]


class Overview(Struct):
    tenant: Name
    as_of: Instant
    verdicts: Verdicts
    alarms: Annotated[list[Alarm], Meta(description="What needs attention, the most severe first.")]
    totals: Annotated[Counts, Meta(description="Over all queues.")]
    per_minute: PerMinute
    queues: list[QueueSeen]
    schedules: Annotated[list[ScheduleSeen], Meta(description="Those due next, late, or with missed times.")]
    batches: Annotated[list[BatchSeen], Meta(description="Up to 50 under way, the newest first.")]
    limits: list[LimitSeen]
    handlers: list[HandlerSeen]
    replicas: Annotated[list[ReplicaSeen] | UnsetType, Meta(description="With scope operate.")] = UNSET
    database: Annotated[DatabaseSeen | UnsetType, Meta(description="With scope operate.")] = UNSET


class Event(NamedTuple):
    """One event for those who watch."""

    kind: str
    """overview, alarm or task; heartbeat and drain have no data."""
    data: bytes = b""
    """JSON."""
    id: str = ""


class Point(Struct):
    """What happened in the minute that begins at `at`."""

    at: Instant
    enqueued: int
    started: int
    succeeded: int
    dead: int
    cancelled: int
    retried: int
    wait_p50: float | None
    wait_p95: float | None
    run_p50: float | None
    run_p95: float | None
    ready: Annotated[int | None, Meta(description="Early in that minute; null: not recorded.")]
    running: Annotated[int | None, Meta(description="Early in that minute; null: not recorded.")]


class Series(Struct):
    queue: Annotated[str | None, Meta(description="null: all queues of the tenant.")]
    as_of: Instant
    points: Annotated[list[Point], Meta(description="One per minute, oldest first; the last is the current minute.")]
