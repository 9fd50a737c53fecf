"""Bodies of schedules: JSON becomes a `ScheduleDefinition`, or a refusal that names every violation."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, get_args

import msgspec

from app.domain.bodies import faults, field_errors, with_more
from app.domain.errors import FieldError, Refusal, invalid, invalid_field, pointer
from app.domain.followups import OnComplete
from app.domain.ijson import parse_ijson
from app.domain.instants import parse_instant
from app.domain.names import NAME_RULE, is_name
from app.domain.schedules.cron import MAX_INTERVAL_SECONDS, CronError, Dst, parse_cron, parse_interval
from app.domain.schedules.definitions import CatchUp, CatchUpMode, Overlap, ScheduleDefinition
from app.domain.schedules.times import EPOCH, LATEST, times_after
from app.domain.schedules.zones import zone_problem
from app.domain.tasks import TaskBody, check_payload, validate_task

MIN_EVERY_SECONDS = 1
MAX_WINDOW_SECONDS = 3660 * 86_400
MAX_JITTER_SECONDS = 86_400
MAX_RUNS = 1_000_000_000
MAX_FAILURES = 1_000_000
_TIMING = ("cron", "every_seconds", "at")


class _OnCompleteBody(msgspec.Struct, forbid_unknown_fields=True):
    queue: str
    payload: Any


class _CatchUpBody(msgspec.Struct, forbid_unknown_fields=True):
    window_seconds: float | None = None
    mode: CatchUpMode = "latest"


class _Body(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A definition as in its JSON: types are checked, rules are not yet. Payloads are taken from the bytes."""

    queue: str
    payload: Any
    cron: str | None = None
    every_seconds: float | None = None
    phase_seconds: float = 0.0
    at: str | None = None
    seconds: bool = False
    timezone: str = "UTC"
    type: str | None = None
    headers: dict[str, str] | None = None
    tags: list[str] | None = None
    priority: int = 0
    retry: dict[str, Any] | None = None
    timeout_seconds: float | None = None
    handler: str | None = None
    dst: Dst = "once"
    overlap: Overlap = "skip"
    catch_up: _CatchUpBody = msgspec.field(default_factory=_CatchUpBody)
    jitter_seconds: float = 0.0
    start_at: str | None = None
    end_at: str | None = None
    max_runs: int | None = None
    pause_after_failures: int | None = None
    on_complete: _OnCompleteBody | None = None


_SPANS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_CHOICES: dict[str, tuple[str, ...]] = {
    "/dst": get_args(Dst),
    "/overlap": get_args(Overlap),
    "/catch_up/mode": get_args(CatchUpMode),
}
_FIELDS = {field.name: field for field in msgspec.structs.fields(_Body)}


def parse_schedule(body: bytes, max_payload_bytes: int) -> ScheduleDefinition:
    """Parse a definition. Raises Refusal: malformed, invalid (with every violation), too_large (the payload)."""
    value = parse_ijson(body)
    if not isinstance(value, dict):
        raise invalid_field("", "expected an object")
    definition = _decoded(value)
    spans = _SPANS.decode(body)
    check_payload(spans["payload"], max_payload_bytes)
    task, errors = _task_of(definition, spans["payload"])
    errors += _timing_errors(definition)
    errors += _bound_errors(definition)
    on_complete = None
    if definition.on_complete is not None:
        on_complete, found = _on_complete(definition.on_complete, spans["on_complete"], max_payload_bytes)
        errors += found
    if errors:
        raise invalid(errors)
    parsed = ScheduleDefinition(
        queue=definition.queue,
        payload=task.payload,
        cron=definition.cron,
        every_seconds=definition.every_seconds,
        phase_seconds=definition.phase_seconds,
        at=_instant(definition.at),
        seconds=definition.seconds,
        timezone=definition.timezone,
        type=task.type,
        headers=task.headers,
        tags=task.tags,
        priority=task.priority,
        retry=task.retry,
        timeout_seconds=task.timeout_seconds,
        handler=task.handler,
        dst=definition.dst,
        overlap=definition.overlap,
        catch_up=CatchUp(definition.catch_up.window_seconds, definition.catch_up.mode),
        jitter_seconds=definition.jitter_seconds,
        start_at=_instant(definition.start_at),
        end_at=_instant(definition.end_at),
        max_runs=definition.max_runs,
        pause_after_failures=definition.pause_after_failures,
        on_complete=on_complete,
    )
    _refuse_empty(parsed)
    return parsed


def _decoded(value: Mapping[str, Any]) -> _Body:
    errors = [FieldError(pointer(name), "unknown field") for name in value if name not in _FIELDS]
    given: dict[str, Any] = {}
    for name, field in _FIELDS.items():
        if name in value:
            try:
                given[name] = msgspec.convert(value[name], field.type)
            except msgspec.ValidationError as error:
                errors += [_placed(found, pointer(name)) for found in field_errors(str(error))]
        elif field.required:
            errors.append(FieldError(pointer(name), _missing(name)))
    if errors:
        raise invalid(errors)
    return _Body(**given)


def _placed(error: FieldError, where: str) -> FieldError:
    """Return the error with its pointer into the whole body; for an enumeration, list the choices."""
    choices = _CHOICES.get(where + error.pointer)
    detail = error.detail if choices is None else "expected one of " + ", ".join(choices)
    return FieldError(where + error.pointer, detail)


def _missing(name: str) -> str:
    return "is required (null is a valid payload)" if name == "payload" else "is required"


def _task_of(body: _Body, payload: msgspec.Raw) -> tuple[Any, list[FieldError]]:
    """Return the task that each run starts with, validated as an enqueue of it would be."""
    errors = [] if is_name(body.queue) else [FieldError("/queue", f"is not a name ({NAME_RULE})")]
    task = TaskBody(
        payload=payload,
        type=body.type,
        headers=body.headers,
        tags=body.tags,
        priority=body.priority,
        retry=body.retry,
        timeout_seconds=body.timeout_seconds,
        handler=body.handler,
    )
    errors += faults(task)
    try:
        return validate_task(task), errors
    except Refusal as refusal:
        return None, with_more(errors, refusal.errors)


def _timing_errors(body: _Body) -> list[FieldError]:
    named = [name for name in _TIMING if getattr(body, name) is not None]
    if not named:
        return [FieldError("", "needs exactly one of cron, every_seconds and at")]
    if len(named) > 1:
        return [
            FieldError(pointer(name), f"cannot be combined with {named[0]}; send one of them") for name in named[1:]
        ]
    errors: list[FieldError] = []
    if body.cron is not None:
        errors += _cron_errors(body.cron, body.seconds)
    elif body.seconds:
        errors.append(FieldError("/seconds", "applies only to cron"))
    if body.every_seconds is not None:
        errors += _interval_errors(body.every_seconds, body.phase_seconds)
    elif body.phase_seconds:
        errors.append(FieldError("/phase_seconds", "applies only to every_seconds"))
    problem = zone_problem(body.timezone)
    if problem is not None:
        errors.append(FieldError("/timezone", problem))
    return errors


def _cron_errors(text: str, seconds: bool) -> list[FieldError]:
    try:
        if parse_interval(text) is None:
            parse_cron(text, seconds=seconds)
        elif seconds:
            return [FieldError("/seconds", "applies only to cron with six fields; this is an interval")]
    except CronError as error:
        return [FieldError("/cron", str(error))]
    return []


def _interval_errors(every: float, phase: float) -> list[FieldError]:
    errors: list[FieldError] = []
    if not MIN_EVERY_SECONDS <= every <= MAX_INTERVAL_SECONDS or not _is_in_milliseconds(every):
        errors.append(
            FieldError(
                "/every_seconds",
                f"expected seconds from {MIN_EVERY_SECONDS} to {MAX_INTERVAL_SECONDS}, at most three decimals",
            )
        )
    elif not 0 <= phase < every or not _is_in_milliseconds(phase):
        errors.append(
            FieldError("/phase_seconds", "expected seconds from 0, below every_seconds, at most three decimals")
        )
    return errors


def _is_in_milliseconds(seconds: float) -> bool:
    return round(seconds * 1000) / 1000 == seconds


def _bound_errors(body: _Body) -> list[FieldError]:
    errors: list[FieldError] = []
    if not 0 <= body.jitter_seconds <= MAX_JITTER_SECONDS:
        errors.append(FieldError("/jitter_seconds", f"expected seconds from 0 to {MAX_JITTER_SECONDS}"))
    window = body.catch_up.window_seconds
    if window is not None and not 0 < window <= MAX_WINDOW_SECONDS:
        where = "/catch_up/window_seconds"
        errors.append(FieldError(where, f"expected seconds above 0, at most {MAX_WINDOW_SECONDS}, or null for any age"))
    for name, most in (("max_runs", MAX_RUNS), ("pause_after_failures", MAX_FAILURES)):
        count = getattr(body, name)
        if count is not None and not 1 <= count <= most:
            errors.append(FieldError(pointer(name), f"expected an integer from 1 to {most}, or null for no limit"))
    for name in ("at", "start_at", "end_at"):
        text = getattr(body, name)
        if text is not None and not _is_usable(parse_instant(text)):
            detail = f"expected an RFC 3339 instant with an offset, from {EPOCH.year} to {LATEST.year}"
            errors.append(FieldError(pointer(name), detail))
    if not errors:
        errors += _order_errors(body)
    return errors


def _is_usable(instant: datetime | None) -> bool:
    return instant is not None and EPOCH <= instant <= LATEST


def _order_errors(body: _Body) -> list[FieldError]:
    start, end, at = _instant(body.start_at), _instant(body.end_at), _instant(body.at)
    if start is not None and end is not None and end <= start:
        return [FieldError("/end_at", "must be after start_at")]
    if at is not None and ((start is not None and at < start) or (end is not None and at > end)):
        return [FieldError("/at", "is outside start_at and end_at, so the schedule would never fire")]
    return []


def _instant(text: str | None) -> datetime | None:
    return None if text is None else parse_instant(text)


def _on_complete(
    body: _OnCompleteBody, span: msgspec.Raw, max_payload_bytes: int
) -> tuple[OnComplete, list[FieldError]]:
    payload = _SPANS.decode(span)["payload"]
    errors = [] if is_name(body.queue) else [FieldError("/on_complete/queue", f"is not a name ({NAME_RULE})")]
    try:
        check_payload(payload, max_payload_bytes)
    except Refusal as refusal:
        errors.append(FieldError("/on_complete/payload", refusal.detail))
    return OnComplete(body.queue, bytes(payload)), errors


def _refuse_empty(definition: ScheduleDefinition) -> None:
    if definition.start_at is None or definition.end_at is None:
        return
    if next(times_after(definition, EPOCH), None) is None:
        raise invalid_field("/end_at", "no time falls between start_at and end_at, so the schedule would never fire")
