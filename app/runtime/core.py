"""What every verb works with: the caller, and the parts of this Sluice it needs."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from app.delivery.kinds import Delivery
from app.domain.errors import Refusal
from app.domain.fair_cache import FairCache
from app.domain.ids import IdMaker
from app.domain.turns import Turns
from app.runtime.counting import StatsBuffer
from app.runtime.reckoning import Reckoning
from app.runtime.schemas import SchemaChecker
from app.runtime.waiters import TaskWaiters
from app.store.clock import Clock
from app.store.db import Database
from app.store.queues import QueueRow
from app.store.tasks import Entry, Outcome
from app.store.vault import Vault
from app.telemetry.metrics import Metrics
from app.telemetry.tracing import Tracing

if TYPE_CHECKING:
    from app.runtime.claiming import Claiming
    from app.runtime.desk import LeaseDesk
    from app.runtime.groups import Lane
    from app.service.firing import Definitions
    from app.service.tasks import Admitted

MAX_WAITS = 2000
"""Requests at this replica that wait, each for up to a minute, for tasks to pull or for the end of a task."""
MAX_WAITS_OF_TENANT = 1000

SCOPES = ("use", "manage", "operate")
STRANGERS: Final = None
"""In the place of a tenant, for what is asked before it is known whose a key or a token is."""


@dataclass(frozen=True, slots=True)
class Caller:
    tenant_id: int
    tenant: str
    scope: str

    def require(self, scope: str) -> None:
        """Raises Refusal (forbidden) unless the caller's scope reaches `scope`."""
        if SCOPES.index(self.scope) < SCOPES.index(scope):
            raise Refusal("forbidden", f"this needs a key with scope {scope}; this key has scope {self.scope}")


def _ignore(*_: object) -> None:
    """Nobody listens: an API replica without an engine, or a service used by itself in a test."""


class Slot(NamedTuple):
    """Whose limits a lease counts against."""

    tenant_id: int
    handler_id: int
    """0 for a task that a worker pulled."""
    queue_id: int


@dataclass(slots=True)
class Signals:
    """Hints that travel up to the engine; main connects them. Losing one costs at most a poll interval."""

    lane_ready: Callable[[int, int], None] = _ignore
    """(queue id, lane's handler id): tasks became ready, or a slot came free."""
    freed: Callable[[Slot], None] = _ignore
    """A slot of a limit may have come free."""
    stir: Callable[[], None] = _ignore
    """A change (resume, enable, a higher limit) may have opened any lane."""
    due_at: Callable[[float], None] = _ignore
    """Unix seconds by the database's clock at which a task becomes due or expires."""
    batch_moved: Callable[[], None] = _ignore
    """A task of a batch has ended, or was added: there is something to fold."""
    lease_ends: Callable[[float], None] = _ignore
    """Unix seconds by the database's clock at which a lease runs out before the reaper would look again."""
    look_at: Callable[[float], None] = _ignore
    """Unix seconds by the database's clock at which a schedule is due."""
    batch_completed: Callable[[], None] = _ignore
    """A batch has completed: if it is the run of a schedule, its end is to be written."""
    batch_cancelled: Callable[[], None] = _ignore
    """A batch was marked as cancelled: its unfinished tasks are to be swept."""
    revoked: Callable[[str, str], None] = _ignore
    """(task id, id of the replica that holds it): the lease is gone, the call must end."""


@dataclass(frozen=True, slots=True)
class Replica:
    id: str
    """A random UUID of this process."""
    name: str
    """Host name and short id, for people."""


@dataclass(slots=True)
class KeyCache:
    """Keys found good a moment ago, and those being asked about: each is asked about once at a time."""

    callers: dict[str, tuple[float, Caller]] = field(default_factory=dict, repr=False)
    """By token: until when (monotonic seconds) it is taken as good without asking, and for whom."""
    questions: "dict[str, asyncio.Task[Caller]]" = field(default_factory=dict, repr=False)


MAX_QUEUE_BYTES = 64 * 1024**2
"""Of all tenants; their schemas are what weighs."""


@dataclass(slots=True)
class Core:
    db: Database
    clock: Clock
    vault: Vault
    webhooks: Delivery
    metrics: Metrics
    tracing: Tracing
    replica: Replica
    public_url: str
    max_payload_bytes: int
    schedule_grace_seconds: float = 60.0
    max_definitions: int = 10_000
    """Of each kind, for each tenant."""
    signals: Signals = field(default_factory=Signals)
    ids: IdMaker = field(default_factory=IdMaker)
    keys: KeyCache = field(default_factory=KeyCache)
    stats: StatsBuffer = field(default_factory=StatsBuffer)
    waiters: TaskWaiters = field(default_factory=TaskWaiters)
    waits: Turns = field(
        default_factory=lambda: Turns(
            "waiting for tasks or results", places=MAX_WAITS, share=MAX_WAITS_OF_TENANT, max_waiting=0
        )
    )
    schemas: SchemaChecker = field(default_factory=SchemaChecker)
    reckoning: Reckoning = field(default_factory=Reckoning)
    handler_tests: Turns = field(
        default_factory=lambda: Turns("tests of handlers", places=64, share=16, max_waiting=16)
    )
    queue_cache: FairCache[str, QueueRow] = field(default_factory=lambda: FairCache(max_weight=MAX_QUEUE_BYTES))
    """By name."""
    enqueueing: "Lane[Entry, Admitted]" = None  # type: ignore[assignment]  # main makes the lanes, which need db and metrics
    settling: "Lane[Outcome, str]" = None  # type: ignore[assignment]
    claiming: "Claiming" = None  # type: ignore[assignment]
    desk: "LeaseDesk" = None  # type: ignore[assignment]
    overdue: set[tuple[str, str]] = field(default_factory=set)
    """Schedules, by tenant and name, that were overdue when they were last looked at."""
    engine_lives: bool = True
    """Whether this replica, or one that it has last seen, promotes, claims and delivers."""
    schedules: "Definitions" = None  # type: ignore[assignment]
