"""Schedule definitions as given, as kept and as shown. Each has exactly one of `cron`, `every_seconds` and `at`."""

from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, structs

from app.domain.bodies import ANY_JSON, ContentHidden
from app.domain.conditions import etag_of
from app.domain.followups import OnComplete, OnCompleteBody
from app.domain.handlers import TimeoutSeconds
from app.domain.instants import Instant, instant_text
from app.domain.limits import KeyText, LimitUse, LimitUseShown, Uses
from app.domain.names import Name
from app.domain.retries import Retry
from app.domain.schedules.cron import Dst
from app.domain.targets import TargetBody, TaskTarget
from app.domain.tasks import Label, Priority, Tags

Overlap = Literal["skip", "buffer_one", "buffer_all", "cancel_other", "allow_all"]
CatchUpMode = Literal["none", "latest", "all"]
MAX_WINDOW_SECONDS = 3660 * 86_400
MAX_JITTER_SECONDS = 86_400
MAX_RUNS = 1_000_000_000
MAX_FAILURES = 1_000_000
MAX_PREVIEW = 1000
_WINDOW_RULE = f"expected seconds above 0, at most {MAX_WINDOW_SECONDS}, or null for any age"
_JITTER_RULE = f"expected seconds from 0 to {MAX_JITTER_SECONDS}"


def _count(most: int) -> Meta:
    return Meta(ge=1, le=most, extra={"rule": f"expected an integer from 1 to {most}, or null for no limit"})


class CatchUp(Struct, frozen=True, forbid_unknown_fields=True):
    """What happens to times that are found late."""

    window_seconds: Annotated[
        Annotated[float, Meta(gt=0, le=MAX_WINDOW_SECONDS, extra={"rule": _WINDOW_RULE})] | None,
        Meta(description="Times older than this are missed; null: however old."),
    ] = None
    mode: Annotated[CatchUpMode, Meta(description="Which of the times that are found late run.")] = "latest"


class ScheduleOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is the same in a definition however it is written."""

    cron: Annotated[
        str | None, Meta(description="Five fields as Debian reads them, `@daily` …, or `every 15 minutes`.")
    ] = None
    every_seconds: float | None = None
    phase_seconds: Annotated[float, Meta(description="Times are epoch + n x every + phase.")] = 0.0
    seconds: Annotated[bool, Meta(description="`cron` may have six fields, the first one seconds.")] = False
    timezone: Annotated[str, Meta(description="An IANA zone.")] = "UTC"
    type: Label | None = None
    priority: Priority = 0
    retry: Retry | None = None
    timeout_seconds: TimeoutSeconds | None = None
    handler: Name | None = None
    key: Annotated[KeyText | None, Meta(description="Of the tasks that it starts.")] = None
    dst: Dst = "once"
    overlap: Overlap = "skip"
    catch_up: CatchUp = CatchUp()
    jitter_seconds: Annotated[float, Meta(ge=0, le=MAX_JITTER_SECONDS, extra={"rule": _JITTER_RULE})] = 0.0
    max_runs: Annotated[int, _count(MAX_RUNS)] | None = None
    pause_after_failures: Annotated[
        Annotated[int, _count(MAX_FAILURES)] | None, Meta(description="So many failed runs in a row pause it.")
    ] = None


class ScheduleDefinition(ScheduleOptions, frozen=True):
    queue: str
    payload: bytes
    """The JSON bytes exactly as in the request."""
    headers: dict[str, str] = {}
    tags: tuple[str, ...] = ()
    target: TaskTarget | None = None
    limits: tuple[LimitUse, ...] = ()
    at: datetime | None = None
    start_at: datetime | None = None
    end_at: datetime | None = None
    on_complete: OnComplete | None = None


class ScheduleBody(ScheduleOptions, frozen=True, kw_only=True):
    """Exactly one of `cron`, `every_seconds` and `at`."""

    queue: Name
    payload: Annotated[msgspec.Raw, Meta(description=ANY_JSON)]
    headers: dict[str, str] | None = {}
    tags: Tags | None = []
    target: TargetBody | None = None
    limits: Annotated[Uses | None, Meta(description="Named limits that the tasks take that it starts.")] = []
    at: Instant | None = None
    start_at: Instant | None = None
    end_at: Instant | None = None
    on_complete: OnCompleteBody | None = None


def _null() -> msgspec.Raw:
    return msgspec.Raw(b"null")


class PreviewBody(ScheduleBody, frozen=True, kw_only=True):
    """A definition that is not saved; it needs no queue and no payload."""

    queue: Name = "preview"
    payload: Annotated[msgspec.Raw, Meta(description=ANY_JSON)] = msgspec.field(default_factory=_null)
    count: Annotated[int, Meta(ge=1, le=MAX_PREVIEW)] = 10
    after: Instant | None = None


class ScheduledTime(Struct):
    at: Instant
    local: Annotated[str, Meta(description="In the schedule's zone, with its offset.")]


class Preview(Struct):
    times: list[ScheduledTime]
    reading: Annotated[str, Meta(description="The definition in plain English.")]


class ScheduleView(ScheduleOptions, frozen=True, kw_only=True):
    """A schedule."""

    id: Name
    queue: Name
    payload: Annotated[msgspec.Raw, Meta(description=ANY_JSON)]
    content_hidden: ContentHidden = UNSET
    headers: dict[str, str]
    tags: tuple[str, ...]
    target: TaskTarget | None
    limits: tuple[LimitUseShown, ...]
    at: Instant | None
    start_at: Instant | None
    end_at: Instant | None
    on_complete: OnCompleteBody | None
    paused: bool
    paused_at: Instant | None
    paused_reason: str | None
    next_nominal_at: Annotated[Instant | None, Meta(description="The first time that is not in the ledger yet.")]
    created_at: Instant
    updated_at: Instant
    owner: Annotated[
        str | UnsetType, Meta(description="Of the file of definitions that manages it, if it has one.")
    ] = UNSET
    times: Annotated[list[ScheduledTime], Meta(description="The next five.")]
    reading: str


def schedule_to_dict(definition: ScheduleDefinition) -> dict[str, Any]:
    """Return the complete definition as JSON values, payloads as raw JSON (for msgspec; the json module cannot encode it)."""
    complete = definition.on_complete
    return structs.asdict(definition) | {
        "payload": msgspec.Raw(definition.payload),
        "target": msgspec.to_builtins(definition.target),
        "limits": [structs.asdict(use) for use in definition.limits],
        "at": instant_text(definition.at),
        "start_at": instant_text(definition.start_at),
        "end_at": instant_text(definition.end_at),
        "catch_up": structs.asdict(definition.catch_up),
        "on_complete": complete and _on_complete(complete, msgspec.Raw(complete.payload)),
    }


def _on_complete(complete: OnComplete, payload: Any) -> dict[str, Any]:
    named = {} if complete.type is None else {"type": complete.type}
    return {"queue": complete.queue, "payload": payload} | named


def schedule_etag(definition: ScheduleDefinition, key: bytes = b"") -> str:
    shown, complete = schedule_to_dict(definition), definition.on_complete
    texts: dict[str, Any] = {"payload": definition.payload.decode(), "on_complete": None}
    if complete is not None:
        texts["on_complete"] = _on_complete(complete, complete.payload.decode())
    return etag_of(shown | texts, key)
