"""Schedules in plain English."""

from datetime import datetime

from app.domain.schedules.cron import UNIT_SECONDS, Cron, explained, parse_cron, parse_interval
from app.domain.schedules.definitions import ScheduleDefinition
from app.domain.schedules.zones import changes_clocks, zone_of

_DST = {
    "once": "a local time skipped by a clock change runs right after the gap; a repeated one runs once, the first time",
    "skip": "a local time skipped by a clock change does not run; a repeated one runs once, the first time",
    "twice": "a local time skipped by a clock change runs right after the gap; a repeated one runs both times",
}
_ELAPSED = "follows elapsed time when the clocks change"


def reading(definition: ScheduleDefinition) -> str:
    """Return one or more sentences, in the zone's local time."""
    sentences = [_times(definition)]
    sentences += _bounds(definition)
    return " ".join(sentence[0].upper() + sentence[1:] + "." for sentence in sentences)


def _times(definition: ScheduleDefinition) -> str:
    zone = definition.timezone
    if definition.at is not None:
        return f"once, at {_local(definition.at, zone)}"
    interval = definition.every_seconds if definition.cron is None else parse_interval(definition.cron)
    if interval is not None:
        return f"every {_duration(interval, one=False)}, counted from {_origin(definition.phase_seconds)}"
    assert definition.cron is not None, "it has one of the three"
    cron = parse_cron(definition.cron, seconds=definition.seconds)
    return f"{explained(cron)}, {zone} time" + _clock_changes(cron, definition)


def _clock_changes(cron: Cron, definition: ScheduleDefinition) -> str:
    if not changes_clocks(definition.timezone):
        return ""
    return "; " + (_DST[definition.dst] if cron.fixed else _ELAPSED)


def _bounds(definition: ScheduleDefinition) -> list[str]:
    sentences = []
    if definition.start_at is not None:
        sentences.append(f"not before {_local(definition.start_at, definition.timezone)}")
    if definition.end_at is not None:
        sentences.append(f"not after {_local(definition.end_at, definition.timezone)}")
    if definition.max_runs is not None:
        sentences.append(f"at most {definition.max_runs} run{'s' if definition.max_runs > 1 else ''}")
    if definition.jitter_seconds:
        sentences.append(f"each starts up to {_duration(definition.jitter_seconds)} later, to spread the load")
    return sentences


def _local(instant: datetime, zone: str) -> str:
    if zone == "UTC":
        return f"{instant.replace(tzinfo=None).isoformat(sep=' ')} UTC"
    return f"{instant.astimezone(zone_of(zone)).isoformat(sep=' ')} ({zone})"


def _origin(phase: float) -> str:
    origin = "1970-01-01 00:00 UTC"
    return f"{_duration(phase)} after {origin}" if phase else origin


def _duration(seconds: float, *, one: bool = True) -> str:
    """Return a text such as `90 minutes`; `one` decides between `1 minute` and `minute`."""
    for unit in ("day", "hour", "minute", "second"):
        count = seconds / UNIT_SECONDS[unit]
        if count == int(count) or unit == "second":
            if count == 1:
                return f"1 {unit}" if one else unit
            return f"{int(count) if count == int(count) else count} {unit}s"
    raise AssertionError("seconds suit every duration")
