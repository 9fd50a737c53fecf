"""Why something does not move: the shapes of the answers, and the evidence that they are made from.

Which blockers hold is decided by app/domain/waiting.py. why_waiting.py, why_past.py and why_schedules.py put them in words; nothing
there reads a clock or a database.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import quote

from msgspec import UNSET, Meta, Struct, UnsetType

from app.domain.bodies import AnyJson
from app.domain.breakers import Health
from app.domain.callers import Actor
from app.domain.ids import Uuid
from app.domain.instants import Instant, format_instant
from app.domain.names import Name
from app.domain.tasks import Reason, State
from app.domain.waiting import WaitingFor

MAX_AHEAD = 10_000
"""How far the tasks are counted that come first."""


class HoldingTask(Struct):
    """A task that holds a place."""

    task: Uuid
    queue: Name
    started_at: Instant | UnsetType = UNSET
    replica: Annotated[str | UnsetType, Meta(description="Absent for a task that a worker holds.")] = UNSET
    lease_expires_at: Instant | UnsetType = UNSET


class FullLimit(Struct):
    """The limit that is full."""

    name: str
    key: str | UnsetType = UNSET
    used: int | UnsetType = UNSET
    max: int | UnsetType = UNSET


class NextStep(Struct):
    """What can be done. With a method, it is a request that does it."""

    text: str
    method: Literal["POST", "PUT", "PATCH"] | UnsetType = UNSET
    path: str | UnsetType = UNSET
    body: dict[str, Any] | UnsetType = UNSET


class Blocker(Struct):
    """One thing that keeps a task from starting."""

    code: WaitingFor
    detail: str
    since: Instant | UnsetType = UNSET
    until: Annotated[Instant | UnsetType, Meta(description="When it ends by itself.")] = UNSET
    limit: FullLimit | UnsetType = UNSET
    holders: Annotated[
        Sequence[HoldingTask] | UnsetType,
        Meta(description="Up to 20 of those that hold the limit, the longest running first."),
    ] = UNSET
    next: Annotated[NextStep | UnsetType, Meta(description="What would remove it.")] = UNSET


@dataclass(frozen=True, slots=True)
class Definitions:
    """The definitions that an action would replace, complete, as JSON values; None if none is to be replaced."""

    queue: dict[str, Any] | None = None
    handler: dict[str, Any] | None = None
    """Also None if it has headers, which nobody can read to send them again."""
    tenant: dict[str, Any] | None = None
    granted: int | None = None
    limit: dict[str, Any] | None = None
    key: dict[str, Any] | None = None
    """What is set for the one key."""


@dataclass(frozen=True, slots=True)
class Bucket:
    """The limit, under a key or not, that a flow is parked on."""

    held: int = 0
    max: int | None = None
    burst: float | None = None
    paused_at: datetime | None = None
    of_queue: bool = False
    """It is what a queue says of each of its keys."""
    keyed: bool = False
    key_paused: bool = False


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known beside the facts, at the same instant or a moment later."""

    now: datetime
    task_id: str | None = None
    """None: a queue is asked about."""
    priority: int = 0
    last_error: str | None = None
    ahead: int = 0
    top: int | None = None
    """The highest priority among those that come first."""
    starts_per_second: float = 0.0
    """Of the queue, lately."""
    engine_seen_at: datetime | None = None
    worker_asked_at: datetime | None = None
    health: Health | None = None
    bucket: Bucket = Bucket()
    first: HoldingTask | None = None
    """The oldest unfinished task of an ordered key."""
    holders: Mapping[WaitingFor, Sequence[HoldingTask]] = field(default_factory=dict)
    definitions: Definitions = Definitions()


def at_of(instant: datetime | None) -> str | UnsetType:
    return UNSET if instant is None else format_instant(instant)


def path_of(*parts: str) -> str:
    return "".join("/" + quote(part, safe="") for part in parts)


def post(text: str, *path: str, body: dict[str, Any] | UnsetType = UNSET) -> NextStep:
    return NextStep(text, "POST", path_of(*path), body)


class RunningOut(Struct):
    """Who has a running task."""

    started_at: Instant
    lease_expires_at: Annotated[
        Instant, Meta(description="Its task runs again from then on, unless the lease is renewed.")
    ]
    replica: Annotated[str | UnsetType, Meta(description="Absent if a worker has it.")] = UNSET
    renewed_at: Annotated[Instant | UnsetType, Meta(description="Absent if the lease was not renewed.")] = UNSET
    progress: AnyJson | UnsetType = UNSET


class ByHand(Struct):
    """Who did it, as the audit has it."""

    actor: Actor
    key: Annotated[str | UnsetType, Meta(description="The id of the API key; absent without one.")]
    at: Instant
    request_id: str | UnsetType = UNSET


class WhyTask(Struct, kw_only=True):
    """Why a task does not start, who has it, or how it ended. What does not apply is absent."""

    task: Uuid
    state: State
    verdict: Annotated[str, Meta(description="One sentence.")]
    blockers: Annotated[
        list[Blocker],
        Meta(description="All that hold, in the order in which a claim meets them; the first is `waiting_for`."),
    ] = []
    ahead: Annotated[
        int | UnsetType,
        Meta(description=f"Ready tasks of its lane, or of its key, that come first; {MAX_AHEAD:,}: or more."),
    ] = UNSET
    starts_about: Annotated[
        Instant | UnsetType, Meta(description="If all goes on as it does. Absent if nothing tells.")
    ] = UNSET
    running: RunningOut | UnsetType = UNSET
    reason: Reason | UnsetType = UNSET
    ended_at: Instant | UnsetType = UNSET
    by: Annotated[ByHand | UnsetType, Meta(description="Whose hand ended it, if it was somebody's.")] = UNSET
    attempts: Annotated[list[str] | UnsetType, Meta(description="Of an ended task: a line each, the newest first.")] = (
        UNSET
    )
    actions: Annotated[list[NextStep] | UnsetType, Meta(description="What can be done now.")] = UNSET
    content_hidden: Annotated[
        Literal[True] | UnsetType, Meta(description="The key does not read content: errors and progress are left out.")
    ] = UNSET
    as_of: Instant


class WhyQueue(Struct, kw_only=True):
    """Why a queue does not move. What does not apply is absent."""

    queue: Name
    verdict: Annotated[str, Meta(description="One sentence.")]
    blockers: Annotated[
        list[Blocker],
        Meta(description="What holds for the task that comes first, in the order in which a claim meets it."),
    ] = []
    ready: Annotated[int, Meta(description="Counted to 1,000,000.")]
    running: int
    first: Annotated[Uuid | UnsetType, Meta(description="The task that comes first.")] = UNSET
    next_run_at: Annotated[Instant | UnsetType, Meta(description="When a scheduled task is due, if none is ready.")] = (
        UNSET
    )
    starts_per_minute: Annotated[float, Meta(description="Over the last five minutes.")]
    drains_about: Annotated[
        Instant | UnsetType,
        Meta(description="When nothing is ready any more, if all goes on as it does. Absent if it would not drain."),
    ] = UNSET
    as_of: Instant
