"""What the gauges of /metrics show of the whole fleet: the values of the latest snapshot, without their names in metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import msgspec


class QueueSnapshot(msgspec.Struct, frozen=True, gc=False):
    """A queue in the latest snapshot. Made ten thousand at a time, and in no cycle that the collector would have to look for."""

    queue_id: int
    tenant: str
    queue: str
    tasks: Mapping[str, int]
    oldest_ready_age_seconds: float | None
    paused: bool = False
    max_depth: int | None = None


@dataclass(frozen=True, slots=True)
class ScheduleSnapshot:
    tenant: str
    schedule: str
    overdue_seconds: float
    missed: int


@dataclass(frozen=True, slots=True)
class HandlerSnapshot:
    tenant: str
    handler: str
    enabled: bool
    state: str | None
    """Of its breaker; None without one."""


@dataclass(frozen=True, slots=True)
class LimitSnapshot:
    """A limit on how many tasks run at once."""

    level: Literal["tenant", "handler", "queue", "named"]
    tenant: str
    name: str
    max_concurrency: int | None
    """None: limited by key, or by rate alone."""
    used: int
    waiting_keys: int | None = None
    """Of a named limit."""


@dataclass(frozen=True, slots=True)
class SourceSnapshot:
    tenant: str
    source: str
    lag: int | None
    oldest_age_seconds: float | None
    failing_seconds: float


@dataclass(frozen=True, slots=True)
class FleetSnapshot:
    """A whole snapshot."""

    queues: Sequence[QueueSnapshot] = ()
    schedules: Sequence[ScheduleSnapshot] = ()
    handlers: Sequence[HandlerSnapshot] = ()
    limits: Sequence[LimitSnapshot] = ()
    sources: Sequence[SourceSnapshot] = ()
    replicas: Mapping[str, int] = field(default_factory=dict)
    """By role."""
    alarms: Mapping[str, bool] = field(default_factory=dict)
    """By code."""
    connections: int | None = None
    """None before the first snapshot."""
    max_connections: int | None = None
    oldest_xmin_seconds: float | None = None
