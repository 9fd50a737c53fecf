"""A schedule's times. They are nominal: what happens to each (run, skipped, missed …) is decided in firing."""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import takewhile

from app.domain.instants import format_instant
from app.domain.schedules.cron import cron_times, parse_cron, parse_interval
from app.domain.schedules.definitions import ScheduleDefinition

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(9998, 12, 31, tzinfo=UTC)
"""No schedule fires later: Python's calendar ends with the year 9999."""
MICROSECOND = timedelta(microseconds=1)
_SECOND = 1_000_000


def times_after(definition: ScheduleDefinition, after: datetime) -> Iterator[datetime]:
    """Yield the nominal times strictly after `after`, in UTC, ascending; `start_at` and `end_at` are included."""
    first = _micros(after) + 1
    if definition.start_at is not None:
        first = max(first, _micros(definition.start_at))
    times = _times_from(definition, first)
    end_at = definition.end_at
    return times if end_at is None else takewhile(lambda time: time <= end_at, times)


def grid_until(definition: ScheduleDefinition, first: datetime, until: datetime) -> tuple[datetime, int] | None:
    """Return the last nominal time in [first, until] and their number without iterating: for intervals only, else None. `first`
    is a nominal time, not after `until`."""
    interval = _interval_seconds(definition) if definition.at is None else None
    if interval is None:
        return None
    until = min(until, LATEST if definition.end_at is None else definition.end_at)
    every = timedelta(microseconds=round(interval * _SECOND))
    further = max(0, (until - first) // every)
    return first + further * every, further + 1


def _times_from(definition: ScheduleDefinition, first: int) -> Iterator[datetime]:
    """Yield nominal times from `first` on, in microseconds since the epoch."""
    if definition.at is not None:
        return iter(() if _micros(definition.at) < first else (definition.at,))
    interval = _interval_seconds(definition)
    if interval is not None:
        return _grid(round(interval * _SECOND), round(definition.phase_seconds * _SECOND), first)
    assert definition.cron is not None, "it has one of the three"
    cron = parse_cron(definition.cron, seconds=definition.seconds)
    seconds = cron_times(cron, definition.timezone, definition.dst, -(-first // _SECOND))
    return (datetime.fromtimestamp(second, UTC) for second in seconds)


def _interval_seconds(definition: ScheduleDefinition) -> float | None:
    return definition.every_seconds if definition.cron is None else parse_interval(definition.cron)


def _grid(every: int, phase: int, first: int) -> Iterator[datetime]:
    """Yield epoch + n x every + phase, all in microseconds."""
    last = _micros(LATEST)
    time = phase - (phase - first) // every * every
    while time <= last:
        yield EPOCH + timedelta(microseconds=time)
        time += every


def _micros(instant: datetime) -> int:
    return (instant - EPOCH) // MICROSECOND


def jitter_of(definition: ScheduleDefinition, key: str, nominal: datetime) -> float:
    """Return the delay of this time in [0, jitter_seconds); every replica computes the same one."""
    if not definition.jitter_seconds:
        return 0.0
    digest = hashlib.sha256(f"{key}\x00{format_instant(nominal)}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48 * definition.jitter_seconds
