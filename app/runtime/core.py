"""The parts of a replica that verbs and loops share, assembled bottom up."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.delivery.deliveries import Deliveries
from app.domain.ids import IdMaker
from app.domain.turns import Turns
from app.runtime import enqueueing, settling
from app.runtime.callbacks import teller
from app.runtime.calls import CallCounts
from app.runtime.catalogue import QueueCache, ScheduleCache
from app.runtime.claiming import Claiming
from app.runtime.compute import ComputePool
from app.runtime.counting import StatsBuffer
from app.runtime.enqueueing import Admitted, TakenKeys
from app.runtime.groups import GroupWriter
from app.runtime.known_keys import KnownKeys
from app.runtime.long_polls import LongPolls
from app.runtime.looks import Looks
from app.runtime.reaping import Reaping
from app.runtime.refusals import Refusals
from app.runtime.replica import Replica
from app.runtime.schemas import SchemaChecker
from app.runtime.signals import Signals
from app.runtime.sparklines import Sparklines
from app.runtime.viewers import MAX_VIEWERS, MAX_VIEWERS_OF_TENANT, Viewers
from app.runtime.waiters import TaskWaiters
from app.sources.kinds import Kinds
from app.store.callbacks import Told
from app.store.clock import Clock
from app.store.db import Database
from app.store.enqueues import Entry
from app.store.partitions import AUDIT_DAYS
from app.store.tasks import AttemptEnd
from app.store.vault import Vault
from app.telemetry.metrics import Metrics
from app.telemetry.tracing import Tracing

MAX_WAITS = 2000
"""How many requests may wait at this replica, each for up to a minute, for tasks to pull or for a task to end."""
MAX_WAITS_OF_TENANT = 1000
ENQUEUE_GROUP = 500
ENQUEUE_CONCURRENT = 4
SETTLE_GROUP = 500
SETTLE_CONCURRENT = 4


@dataclass(slots=True)
class Core:
    """What every verb and every loop works with."""

    db: Database
    clock: Clock
    vault: Vault
    delivery: Deliveries
    sources: Kinds
    metrics: Metrics
    tracing: Tracing
    replica: Replica
    public_url: str
    max_payload_bytes: int
    schedule_grace_seconds: float
    max_definitions: int
    """Per kind and tenant."""
    audit_days: int
    signals: Signals
    stats: StatsBuffer
    calls: CallCounts
    waiters: TaskWaiters
    called_back: Told
    queues: QueueCache
    schedules: ScheduleCache
    enqueueing: GroupWriter[Entry, Admitted]
    taken_keys: TakenKeys
    settling: GroupWriter[AttemptEnd, str]
    reaping: Reaping
    claiming: Claiming
    long_polls: LongPolls
    looks: Looks
    sparklines: Sparklines
    viewers: Viewers
    ids: IdMaker = field(default_factory=IdMaker)
    keys: KnownKeys = field(default_factory=KnownKeys)
    refusals: Refusals = field(default_factory=Refusals)
    schemas: SchemaChecker = field(default_factory=SchemaChecker)
    compute: ComputePool = field(default_factory=ComputePool)
    waits: Turns = field(
        default_factory=lambda: Turns(
            "waiting for tasks or results", places=MAX_WAITS, share=MAX_WAITS_OF_TENANT, max_waiting=0
        )
    )
    viewing: Turns = field(
        default_factory=lambda: Turns("watching events", places=MAX_VIEWERS, share=MAX_VIEWERS_OF_TENANT, max_waiting=0)
    )
    handler_tests: Turns = field(
        default_factory=lambda: Turns("tests of handlers", places=64, share=16, max_waiting=16)
    )
    server_alarms: Sequence[dict[str, Any]] = ()
    """As of the last snapshot of the fleet."""
    engine_lives: bool = True
    """Whether this replica, or another seen lately, promotes, claims and delivers."""


def build_core(
    db: Database,
    *,
    vault: Vault,
    delivery: Deliveries,
    tracing: Tracing,
    replica: Replica,
    public_url: str,
    max_payload_bytes: int,
    schedule_grace_seconds: float = 60.0,
    max_definitions: int = 10_000,
    audit_days: int = AUDIT_DAYS,
    sources: Kinds | None = None,
) -> Core:
    """Build the core. Each part gets only the parts it needs, so none knows the whole."""
    clock, signals, taken_keys = Clock(), Signals(), TakenKeys()
    metrics = Metrics(database_up=lambda: not db.outage.on)
    stats, waiters = StatsBuffer(metrics), TaskWaiters()
    called_back = teller(stats, signals)
    enqueueing_groups = GroupWriter(
        enqueueing.writer(db, taken_keys),
        max_group=ENQUEUE_GROUP,
        max_concurrent=ENQUEUE_CONCURRENT,
        wrote=_counted(metrics, "enqueue"),
    )
    reaping = Reaping(db, metrics, stats, waiters, signals, called_back)
    looks = Looks(db, clock)
    claiming = Claiming(db, clock, replica, metrics, signals, reaping)
    settling_groups = GroupWriter(
        settling.writer(db, waiters, claiming, signals, called_back),
        max_group=SETTLE_GROUP,
        max_concurrent=SETTLE_CONCURRENT,
        wrote=_counted(metrics, "settle"),
    )
    return Core(
        db=db,
        clock=clock,
        vault=vault,
        delivery=delivery,
        sources=sources or Kinds(),
        metrics=metrics,
        tracing=tracing,
        replica=replica,
        public_url=public_url,
        max_payload_bytes=max_payload_bytes,
        schedule_grace_seconds=schedule_grace_seconds,
        max_definitions=max_definitions,
        audit_days=audit_days,
        signals=signals,
        stats=stats,
        calls=CallCounts(lambda: signals.calls_counted()),
        waiters=waiters,
        called_back=called_back,
        queues=QueueCache(db),
        schedules=ScheduleCache(),
        enqueueing=enqueueing_groups,
        taken_keys=taken_keys,
        settling=settling_groups,
        reaping=reaping,
        claiming=claiming,
        long_polls=LongPolls(db, claiming, settling_groups, signals),
        looks=looks,
        sparklines=Sparklines(db, clock),
        viewers=Viewers(db, looks),
    )


def _counted(metrics: Metrics, statement: str) -> Callable[[int], None]:
    return lambda size: metrics.group_written(statement, size)
