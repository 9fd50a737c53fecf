"""Bodies of schedules: JSON becomes a `ScheduleDefinition`, or a refusal that names every violation."""

from datetime import datetime
from typing import Any, TypeVar

import msgspec

from app.domain.bodies import faults, field_errors, sound_part, with_more
from app.domain.errors import FieldError, Refusal, invalid, invalid_field, pointer
from app.domain.followups import OnComplete, validate_on_complete
from app.domain.ijson import parse_ijson
from app.domain.instants import parse_instant, read_instant
from app.domain.payloads import check_payload
from app.domain.schedules.cron import MAX_INTERVAL_SECONDS, CronError, parse_cron, parse_interval
from app.domain.schedules.definitions import PreviewBody, ScheduleBody, ScheduleDefinition, ScheduleOptions
from app.domain.schedules.times import EPOCH, LATEST, times_after
from app.domain.schedules.zones import zone_problem
from app.domain.tasks import Enqueue, TaskBody, validate_task

MIN_EVERY_SECONDS = 1
_TIMING = ("cron", "every_seconds", "at")
_BODY = msgspec.json.Decoder(ScheduleBody)
_PREVIEW = msgspec.json.Decoder(PreviewBody)
Body = TypeVar("Body", bound=ScheduleBody)
_STAND_INS = {"queue": "q", "cron": "@daily", "every_seconds": 60, "at": "2000-01-01T00:00:00Z"}
"""For fields with a fault, while the rules of the others are checked."""


def parse_schedule(body: bytes, max_payload_bytes: int) -> ScheduleDefinition:
    """Parse a definition. Raises Refusal: malformed, invalid (with every violation), too_large (the payload)."""
    definition, _ = _parsed(body, _BODY, max_payload_bytes)
    return definition


def parse_preview(body: bytes, max_payload_bytes: int) -> tuple[ScheduleDefinition, int, datetime | None]:
    """Parse a preview: the definition, how many times to return, and after which instant. Raises as parse_schedule."""
    definition, given = _parsed(body, _PREVIEW, max_payload_bytes)
    errors: list[FieldError] = []
    after = read_instant(given.after, "/after", errors)
    if errors:
        raise invalid(errors)
    return definition, given.count, after


def _parsed(
    body: bytes, decoder: "msgspec.json.Decoder[Body]", max_payload_bytes: int
) -> tuple[ScheduleDefinition, Body]:
    value = parse_ijson(body)
    try:
        given = decoder.decode(body)
    except msgspec.ValidationError as error:
        found = faults(value, decoder.type)
        raise invalid(with_more(found, _other_errors(value, found, decoder.type)) or field_errors(str(error))) from None
    check_payload(given.payload, max_payload_bytes)
    definition = _validated(given, max_payload_bytes)
    _refuse_empty(definition)
    return definition, given


def _other_errors(value: Any, found: list[FieldError], kind: type[ScheduleBody]) -> tuple[FieldError, ...]:
    """Return the rules that the fields without a fault break."""
    plain = {"payload": msgspec.Raw(b"null"), "on_complete": None}
    sound = sound_part(value, found, kind, plain, _STAND_INS)
    try:
        if sound is not None:
            _validated(sound, 0)
    except Refusal as refusal:
        return refusal.errors
    return ()


def _validated(body: ScheduleBody, max_payload_bytes: int) -> ScheduleDefinition:
    """Check what no type can say. Raises Refusal (invalid)."""
    task, errors = _task_of(body)
    errors += _timing_errors(body)
    instants: dict[str, Any] = {
        name: _usable_instant(name, getattr(body, name), errors) for name in ("at", "start_at", "end_at")
    }
    errors += _order_errors(**instants)
    on_complete: OnComplete | None = None
    if body.on_complete is not None:
        try:
            on_complete = validate_on_complete(body.on_complete, max_payload_bytes)
        except Refusal as refusal:
            errors += refusal.errors
    if errors or task is None:
        raise invalid(errors)
    return ScheduleDefinition(
        queue=body.queue,
        payload=task.payload,
        headers=task.headers,
        tags=task.tags,
        target=task.target,
        limits=task.limits,
        on_complete=on_complete,
        **instants,
        **{name: getattr(body, name) for name in ScheduleOptions.__struct_fields__},
    )


def _task_of(body: ScheduleBody) -> tuple[Enqueue | None, list[FieldError]]:
    """Return the task that each run starts with, validated as an enqueue of it would be."""
    shared = {
        name: getattr(body, name) for name in TaskBody.__struct_fields__ if name in ScheduleBody.__struct_fields__
    }
    try:
        return validate_task(TaskBody(**shared)), []
    except Refusal as refusal:
        return None, list(refusal.errors)


def _timing_errors(body: ScheduleBody) -> list[FieldError]:
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


def _usable_instant(name: str, text: str | None, errors: list[FieldError]) -> datetime | None:
    instant = None if text is None else parse_instant(text)
    if text is not None and (instant is None or not EPOCH <= instant <= LATEST):
        detail = f"expected an RFC 3339 instant with an offset, from {EPOCH.year} to {LATEST.year}"
        errors.append(FieldError(pointer(name), detail))
        return None
    return instant


def _order_errors(*, at: datetime | None, start_at: datetime | None, end_at: datetime | None) -> list[FieldError]:
    if start_at is not None and end_at is not None and end_at <= start_at:
        return [FieldError("/end_at", "must be after start_at")]
    if at is not None and ((start_at is not None and at < start_at) or (end_at is not None and at > end_at)):
        return [FieldError("/at", "is outside start_at and end_at, so the schedule would never fire")]
    return []


def _refuse_empty(definition: ScheduleDefinition) -> None:
    if definition.start_at is None or definition.end_at is None:
        return
    if next(times_after(definition, EPOCH), None) is None:
        raise invalid_field("/end_at", "no time falls between start_at and end_at, so the schedule would never fire")
