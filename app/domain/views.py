"""Tasks and attempts as the API shows them."""

import base64
from collections.abc import Sequence
from operator import attrgetter
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from app.domain.bodies import ANY_JSON, AnyJson, ContentHidden
from app.domain.callbacks import Callback
from app.domain.ids import Uuid
from app.domain.instants import Instant, instant_text
from app.domain.limits import LimitUseShown, shown_uses
from app.domain.names import Name
from app.domain.options import OPTIONS, Options
from app.domain.payloads import JSON
from app.domain.targets import TaskTarget
from app.domain.tasks import Outcome, Reason, State
from app.domain.waiting import WaitingFacts, WaitingFor, first_blocker


class LeaseView(Struct):
    expires_at: Instant


class WaitingOn(Struct):
    limit: Annotated[str | None, Meta(description="A named limit.")]
    key: str | None
    until: Annotated[
        Instant | None, Meta(description="When it is looked at again at the latest; null: when room comes.")
    ]


class TaskView(Struct, kw_only=True):
    """A task."""

    id: Uuid
    queue: Name
    handler: str | None
    type: str | None
    state: State
    reason: Reason | None
    priority: int
    payload: Annotated[
        msgspec.Raw | UnsetType, Meta(description=ANY_JSON + " Absent in lists without `include=payload`.")
    ] = UNSET
    payload_base64: Annotated[str | UnsetType, Meta(description="Instead of `payload`, if it came as base64.")] = UNSET
    content_hidden: ContentHidden = UNSET
    content_type: Annotated[str, Meta(description="What the payload is delivered as.")]
    encrypted: Annotated[
        Literal[True] | UnsetType, Meta(description="Payload, result and excerpts are encrypted in the database.")
    ] = UNSET
    content_lost: Annotated[
        Literal[True] | UnsetType,
        Meta(description="They cannot be decrypted, because they were changed there, or moved from another task."),
    ] = UNSET
    headers: dict[str, str]
    tags: Sequence[str]
    target: TaskTarget | None = None
    correlation_id: str | None
    idempotency_key: str | None
    unique_key: str | None
    created_at: Instant
    run_at: Instant
    started_at: Instant | None
    ended_at: Instant | None
    expires_at: Instant | None
    attempt: int
    max_attempts: int
    timeout_seconds: float | None
    last_error: str | None = None
    result: AnyJson = None
    result_encoding: Literal["base64"] | UnsetType = UNSET
    result_truncated: bool = False
    progress: AnyJson = None
    lease: LeaseView | None = None
    replica: str | None = None
    schedule: str | None = None
    scheduled_for: Instant | None = None
    batch: str | None = None
    parent: str | None = None
    key: str | None
    limits: Annotated[
        Sequence[LimitUseShown], Meta(description="What it takes itself, beside what its queue and handler do.")
    ]
    callbacks: Annotated[
        dict[str, Callback | None] | None,
        Meta(description="The task's own, by state, which replace the queue's; null for a state: none is enqueued."),
    ] = None
    waiting_for: Annotated[WaitingFor | None, Meta(description="Only for unfinished tasks.")] = None
    waiting_on: Annotated[
        WaitingOn | None, Meta(description="The limit, key and instant that `waiting_for` speaks of.")
    ] = None


def waiting(facts: WaitingFacts | None) -> dict[str, Any]:
    """Return the fields of a TaskView that say what the task waits for. None: it does not wait."""
    code = None if facts is None else first_blocker(facts)
    on = None
    if facts is not None and code is WaitingFor.HANDLER_PARKED:
        on = WaitingOn(None, None, instant_text(facts.parked_until))
    elif facts is not None and facts.parked is not None and code is facts.parked.code:
        on = WaitingOn(facts.parked.limit, facts.parked.key, instant_text(facts.parked.until))
    return {"waiting_for": code, "waiting_on": on}


class LeasedTaskView(TaskView, kw_only=True):
    """A task for its present holder."""

    cursor: Annotated[str | None, Meta(description="For a continuation, the `next` of the page before it.")]
    schedule_timezone: Annotated[
        str | None, Meta(description="For a schedule's run, the time zone of the definition that fired.")
    ]
    scheduled_for_local: Annotated[str | None, Meta(description="`scheduled_for` in that time zone, with its offset.")]
    lease_token: Annotated[str, Meta(description="The only credential of this lease; send it as `Sluice-Lease-Token`.")]
    lease_expires_at: Instant


_CARRIED = tuple(
    field.name
    for field in msgspec.structs.fields(TaskView)
    if field.name in OPTIONS and field.name not in ("timeout_seconds", "scheduled_for", "content_type", "limits")
)
_CARRIED_OF = attrgetter(*_CARRIED)


def carried(options: Options) -> dict[str, Any]:
    """Return the fields of a TaskView that show options. `timeout_seconds` shows the effective one instead, `scheduled_for` is
    text, and `content_type` is shown with the payload."""
    found = dict(zip(_CARRIED, _CARRIED_OF(options), strict=True))
    found["limits"] = shown_uses(options.limits)
    return found


def shown_payload(payload: bytes | None, options: Options) -> dict[str, Any]:
    """Return the fields of a TaskView that show the payload, in the form in which it came, and its type. None: it is left out."""
    shown: dict[str, Any] = {"content_type": options.content_type or JSON}
    if payload is not None and options.binary:
        shown["payload_base64"] = base64.b64encode(payload).decode()
    elif payload is not None:
        shown["payload"] = msgspec.Raw(payload)
    return shown


class AttemptView(Struct):
    """One claim of a task."""

    number: int
    counted: bool
    replica: str | None
    started_at: Instant
    ended_at: Instant | None
    outcome: Annotated[Outcome | None, Meta(description="null while the attempt is running.")]
    status: int | None
    error: str | None
    excerpt: str | None
    trace_id: str | None
    content_hidden: ContentHidden = UNSET


def shown_result(result: bytes | None, result_format: str | None) -> tuple[Any, Literal["base64"] | None]:
    """Return (`result`, `result_encoding`) as JSON values."""
    match result_format:
        case None:
            return None, None
        case "json":
            return msgspec.Raw(result or b"null"), None
        case "text":
            return (result or b"").decode("utf-8", "ignore"), None
        case _:
            return base64.b64encode(result or b"").decode(), "base64"
