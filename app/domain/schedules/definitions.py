"""Schedule definitions as stored and shown. Each has exactly one of `cron`, `every_seconds` and `at`."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import msgspec

from app.domain.conditions import etag_of
from app.domain.followups import OnComplete
from app.domain.instants import format_instant
from app.domain.schedules.cron import Dst

Overlap = Literal["skip", "buffer_one", "buffer_all", "cancel_other", "allow_all"]
CatchUpMode = Literal["none", "latest", "all"]


@dataclass(frozen=True, slots=True)
class CatchUp:
    """What happens to times that are found late. Those older than the window are missed; None: no window."""

    window_seconds: float | None = None
    mode: CatchUpMode = "latest"


@dataclass(frozen=True, slots=True)
class ScheduleDefinition:
    queue: str
    payload: bytes
    """The JSON bytes exactly as in the request."""
    cron: str | None = None
    every_seconds: float | None = None
    phase_seconds: float = 0.0
    at: datetime | None = None
    seconds: bool = False
    """Whether `cron` may have six fields, the first for seconds."""
    timezone: str = "UTC"
    type: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    priority: int = 0
    retry: dict[str, Any] | None = None
    """Partial, merged over the queue's."""
    timeout_seconds: float | None = None
    handler: str | None = None
    dst: Dst = "once"
    overlap: Overlap = "skip"
    catch_up: CatchUp = CatchUp()
    jitter_seconds: float = 0.0
    start_at: datetime | None = None
    end_at: datetime | None = None
    max_runs: int | None = None
    pause_after_failures: int | None = None
    on_complete: OnComplete | None = None


def schedule_to_dict(definition: ScheduleDefinition) -> dict[str, Any]:
    """Return the complete definition as JSON values, payloads as raw JSON (for msgspec; the json module cannot encode it)."""
    shown = _shown(definition)
    shown["payload"] = msgspec.Raw(definition.payload)
    if definition.on_complete is not None:
        shown["on_complete"]["payload"] = msgspec.Raw(definition.on_complete.payload)
    return shown


def schedule_etag(definition: ScheduleDefinition) -> str:
    return etag_of(_shown(definition))


def _shown(definition: ScheduleDefinition) -> dict[str, Any]:
    """Return the same as schedule_to_dict, but payloads as text."""
    complete = definition.on_complete
    return {
        "queue": definition.queue,
        "cron": definition.cron,
        "every_seconds": definition.every_seconds,
        "phase_seconds": definition.phase_seconds,
        "at": _instant(definition.at),
        "seconds": definition.seconds,
        "timezone": definition.timezone,
        "payload": definition.payload.decode(),
        "type": definition.type,
        "headers": dict(definition.headers),
        "tags": list(definition.tags),
        "priority": definition.priority,
        "retry": definition.retry,
        "timeout_seconds": definition.timeout_seconds,
        "handler": definition.handler,
        "dst": definition.dst,
        "overlap": definition.overlap,
        "catch_up": {"window_seconds": definition.catch_up.window_seconds, "mode": definition.catch_up.mode},
        "jitter_seconds": definition.jitter_seconds,
        "start_at": _instant(definition.start_at),
        "end_at": _instant(definition.end_at),
        "max_runs": definition.max_runs,
        "pause_after_failures": definition.pause_after_failures,
        "on_complete": None if complete is None else {"queue": complete.queue, "payload": complete.payload.decode()},
    }


def _instant(instant: datetime | None) -> str | None:
    return None if instant is None else format_instant(instant)
