"""What the contract says becomes of tasks, small enough to be read at once. It knows no clock: what lies ahead stays ahead
until somebody lets time pass."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

UNFINISHED = ("scheduled", "ready", "running")
MAX_ATTEMPTS = 3

Fate = Literal["held", "settled", "lost", "cancelled"]


@dataclass
class Attempt:
    number: int
    outcome: str | None = None
    counted: bool = True


@dataclass
class Queue:
    name: str
    backoff_seconds: float
    handler: str | None = None
    limit: int | None = None
    depth: int | None = None
    paused: bool = False

    @property
    def definition(self) -> dict[str, Any]:
        backoff = {"kind": "fixed", "seconds": self.backoff_seconds}
        given = {
            "handler": self.handler,
            "max_concurrency": self.limit,
            "max_depth": self.depth,
            "retry": {"max_attempts": MAX_ATTEMPTS, "backoff": backoff},
        }
        return {name: value for name, value in given.items() if value is not None}


@dataclass(eq=False)
class Task:
    id: str
    queue: Queue
    state: str
    priority: int
    run_at: datetime
    """As the service tells it: the model says when it may change, not to which instant."""
    max_attempts: int = MAX_ATTEMPTS
    expiry: Literal["none", "ahead", "passed"] = "none"
    reason: str | None = None
    attempt: int = 0
    attempts: list[Attempt] = field(default_factory=list)
    leases: "list[Lease]" = field(default_factory=list)
    answers: tuple[str, ...] = ()
    """What its handler answers, attempt by attempt, the last again and again."""

    @property
    def order(self) -> tuple[int, datetime, str]:
        return -self.priority, self.run_at, self.id

    @property
    def waiting_for(self) -> str | None:
        if self.state == "scheduled":
            failed = self.attempt > 0 and self.attempts[-1].outcome == "failed"
            return "retry_backoff" if failed else "run_at"
        if self.state == "ready":
            return "queue_paused" if self.queue.paused else "worker"
        return None

    @property
    def lease(self) -> "Lease":
        return self.leases[-1]

    def starts(self, token: str) -> "Lease":
        self.state, self.attempt = "running", self.attempt + 1
        self.attempts.append(Attempt(len(self.attempts) + 1))
        lease = Lease(token, self, self.attempts[-1])
        self.leases.append(lease)
        return lease

    def succeeds(self) -> None:
        self._leaves("succeeded", "settled")
        self.state = "succeeded"

    def stops(self, reason: str) -> None:
        self._leaves("failed", "settled")
        self._dies(reason)

    def fails(self, delay_seconds: float) -> None:
        self._leaves("failed", "settled")
        if self.attempt >= self.max_attempts:
            self._dies("attempts_exhausted")
        else:
            self._waits("scheduled" if delay_seconds > 0 else "ready")

    def goes_back(self, outcome: str) -> None:
        """Released, or refused for good by its handler: as if it had not been tried."""
        self._leaves(outcome, "settled", counted=False)
        self._waits("ready")

    def lapses(self) -> None:
        self._leaves("lease_expired", "lost")
        if self.attempt >= self.max_attempts:
            self._dies("attempts_exhausted")
        else:
            self._waits("ready")

    def is_cancelled(self) -> bool:
        """Whether it was still to be cancelled, or had been."""
        if self.state == "running":
            self._leaves("cancelled", "cancelled", counted=False)
        if self.state in UNFINISHED:
            self.state, self.reason = "cancelled", "requested"
        return self.state == "cancelled"

    def is_retried(self) -> str | None:
        """The code it is refused with, if it is."""
        if self.state == "running":
            return "task_not_editable"
        if self.state == "succeeded":
            return "task_ended"
        if self.state in ("dead", "cancelled"):
            self.attempt = 0
        self.state, self.reason = "ready", None
        if self.expiry == "passed":
            self.expiry = "none"
        return None

    def is_due(self) -> None:
        self.state = "ready"

    def expires(self) -> None:
        self.expiry = "passed"
        if self.state in ("scheduled", "ready"):
            self._dies("expired")

    def _leaves(self, outcome: str, fate: Fate, *, counted: bool = True) -> None:
        self.attempts[-1].outcome, self.attempts[-1].counted = outcome, counted
        self.attempt -= not counted
        self.lease.fate = fate

    def _waits(self, state: str) -> None:
        self.state = state
        if self.expiry == "passed":
            self._dies("expired")

    def _dies(self, reason: str) -> None:
        self.state, self.reason = "dead", reason


@dataclass(eq=False)
class Lease:
    token: str
    task: Task
    attempt: Attempt
    fate: Fate = "held"

    def speaks_late(self) -> None:
        """An outcome under a lease that is lost or was cancelled: on record, and nothing else."""
        self.attempt.outcome = "stale"


@dataclass
class Model:
    queues: dict[str, Queue] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    limit: int | None = None
    """The tenant's, over all queues."""
    keys: dict[tuple[str, str], tuple[object, Task]] = field(default_factory=dict)

    def all(self, *states: str) -> list[Task]:
        return [task for task in self.tasks.values() if task.state in states]

    def of(self, queue: Queue, *states: str) -> list[Task]:
        return [task for task in self.all(*states) if task.queue is queue]

    @property
    def leases(self) -> list[Lease]:
        return [lease for task in self.tasks.values() for lease in task.leases]

    def is_deep(self, queue: Queue) -> bool:
        return queue.depth is not None and len(self.of(queue, "scheduled", "ready")) >= queue.depth

    def room(self, queue: Queue) -> int:
        """How many more may start."""
        running = self.all("running")
        rooms = [1000]
        if self.limit is not None:
            rooms.append(self.limit - len(running))
        if queue.limit is not None:
            rooms.append(queue.limit - sum(task.queue is queue for task in running))
        return max(0, min(rooms))

    def next_up(self, queue: Queue) -> list[Task]:
        """Those a claim gives, in its order, if it wants enough."""
        if queue.paused:
            return []
        return sorted(self.of(queue, "ready"), key=lambda task: task.order)[: self.room(queue)]
