"""What the in-memory service keeps: queues, tasks, attempts and batches, and how it shows them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

UNFINISHED = ("scheduled", "ready", "running")
STATES = ("scheduled", "ready", "running", "succeeded", "dead", "cancelled")
Json = Any
"""A JSON value, decoded."""


@dataclass
class Attempt:
    number: int
    started_at: datetime
    counted: bool = True
    ended_at: datetime | None = None
    outcome: str | None = None
    error: str | None = None

    def line(self) -> str:
        """Return it in a line, as `why` tells of it."""
        parts = f"{self.number}: {self.outcome or 'running'} at {shown(self.started_at)}"
        return f"{parts}: {self.error}" if self.error else parts


@dataclass
class Task:
    """A task. Its payload is kept as the JSON text it came in."""

    id: str
    number: int
    queue: str
    payload: str
    fields: Mapping[str, Any]
    """Fields of the enqueue that it only carries, such as `type`, `key` and `tags`."""
    created_at: datetime
    run_at: datetime
    expires_at: datetime | None
    retry: "Retry"
    state: str = "ready"
    """`ready` also stands for `scheduled`: which of both it is depends on the clock."""
    reason: str | None = None
    attempt: int = 0
    attempts: list[Attempt] = field(default_factory=list)
    started_at: datetime | None = None
    ended_at: datetime | None = None
    last_error: str | None = None
    result: Json = None
    result_encoding: str | None = None
    result_truncated: bool = False
    progress: Json = None
    lease: tuple[str, datetime] | None = None
    """The token of its lease, and when it ends."""
    batch: str | None = None
    root: str | None = None
    parent: str | None = None
    cursor: str | None = None
    trace: Mapping[str, str | None] = field(default_factory=dict)
    """`traceparent` and `tracestate` of its enqueue."""
    completes: str | None = None
    """The batch whose `on_complete` it is."""

    def state_at(self, now: datetime) -> str:
        return "scheduled" if self.state == "ready" and self.run_at > now else self.state

    @property
    def unfinished(self) -> bool:
        return self.state in UNFINISHED

    def end(self, state: str, now: datetime, reason: str | None = None) -> None:
        self.state, self.reason, self.ended_at, self.lease = state, reason, now, None

    def turn(self) -> tuple[int, datetime, int]:
        """Return what it is ordered by among those that are due: higher priorities first, then who has waited longest."""
        return -int(self.fields.get("priority", 0)), self.run_at, self.number


@dataclass(frozen=True)
class Retry:
    """A complete retry policy."""

    max_attempts: int = 25
    retry_after_max_seconds: float = 3600
    backoff: Mapping[str, Any] = field(default_factory=lambda: {"kind": "exponential"})

    def merged(self, partial: Mapping[str, Any] | None) -> "Retry":
        given = {name: value for name, value in (partial or {}).items() if value is not None}
        return Retry(**{**self.__dict__, **given})

    def delay_seconds(self, attempt: int) -> float:
        """Return the longest that the backoff after this attempt can be. The service draws a jitter; this one does not, so that a
        test that moves the clock this far always finds the task due."""
        backoff = self.backoff
        kind = backoff.get("kind") or ("exponential" if "seconds" not in backoff else "")
        seconds = backoff.get("seconds")
        if kind == "exponential":
            delay = float(backoff.get("min_seconds", 1)) * float(backoff.get("factor", 2)) ** (attempt - 1)
            return min(float(backoff.get("max_seconds", 3600)), delay)
        steps: Sequence[float] = seconds if isinstance(seconds, list) else [float(seconds or 0)]
        return float(steps[min(attempt, len(steps)) - 1])


@dataclass
class Completion:
    """What is enqueued when a batch completes. `payload` is JSON."""

    queue: str
    payload: str
    type: str | None = None
    task: str | None = None
    """The id of its task, once it has been enqueued."""


@dataclass
class Batch:
    id: str
    queue: str
    sealed: bool
    created_at: datetime
    tasks: list[Task] = field(default_factory=list)
    on_complete: list["Completion"] = field(default_factory=list)
    cancelled_at: datetime | None = None
    completed_at: datetime | None = None

    @property
    def over(self) -> bool:
        # from the newest on, because tasks mostly end in their order
        return self.sealed and not any(task.unfinished for task in reversed(self.tasks))


def shown(instant: datetime) -> str:
    """Return an instant as RFC 3339 in UTC."""
    return instant.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def or_null(instant: datetime | None) -> str | None:
    return None if instant is None else shown(instant)


def read_instant(text: str) -> datetime:
    """Return the instant; raises ValueError if the text is none, or has no offset."""
    instant = datetime.fromisoformat(text.replace("Z", "+00:00"))
    if instant.tzinfo is None:
        raise ValueError("an instant has an offset, such as Z")
    return instant


def after(now: datetime, seconds: float) -> datetime:
    return now + timedelta(seconds=seconds)


def counts(tasks: Sequence[Task], now: datetime) -> dict[str, int]:
    found = Counter(task.state_at(now) for task in tasks)
    return {state: found[state] for state in STATES}
