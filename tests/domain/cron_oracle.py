"""Cron by brute force: minute by minute over the wall clock, with a matcher of its own. Slow, and easy to believe.

It knows `*`, numbers, ranges, lists and steps.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)
_BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


def times_by_hand(expression: str, zone: ZoneInfo, dst: str, start: datetime, end: datetime) -> list[datetime]:
    """Every time in [start, end), in UTC; both must be whole minutes."""
    minute, hour = expression.split()[:2]
    matches = matcher(expression)
    if minute.startswith("*") or hour.startswith("*"):
        return [instant for instant in _minutes(start, end) if matches(instant.astimezone(zone).replace(tzinfo=None))]
    # A local time may stand for an instant a day later, where a zone skipped a day.
    low, high = ((edge + pad).replace(tzinfo=None) for edge, pad in ((start, -timedelta(3)), (end, timedelta(3))))
    found = {
        instant
        for local in _minutes(low, high)
        if matches(local)
        for instant in _instants_of(local, zone, dst)
        if start <= instant < end
    }
    return sorted(found)


def _minutes(start: datetime, end: datetime) -> Iterator[datetime]:
    while start < end:
        yield start
        start += MINUTE


def _instants_of(local: datetime, zone: ZoneInfo, dst: str) -> list[datetime]:
    first, second = (local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if first.astimezone(zone).replace(tzinfo=None) == local:
        return sorted({first, second}) if dst == "twice" else [min(first, second)]
    if dst == "skip":
        return []
    instant = min(first, second)
    while instant.astimezone(zone).replace(tzinfo=None) < local:
        instant += MINUTE
    return [instant]


def matcher(expression: str) -> Callable[[datetime], bool]:
    """Whether a local time matches."""
    fields = expression.split()
    minutes, hours, days, months, weekdays = (
        _values(field, *bounds) for field, bounds in zip(fields, _BOUNDS, strict=True)
    )
    both = fields[2].startswith("*") or fields[4].startswith("*")

    def day_matches(day: date) -> bool:
        weekday = day.isoweekday()
        found = (day.day in days, weekday in weekdays or weekday % 7 in weekdays)
        return all(found) if both else any(found)

    return lambda t: t.minute in minutes and t.hour in hours and t.month in months and day_matches(t)


def _values(field: str, low: int, high: int) -> set[int]:
    values: set[int] = set()
    for term in field.split(","):
        span, _, step = term.partition("/")
        first, _, last = span.partition("-")
        if span == "*":
            first, last = str(low), str(high)
        values.update(range(int(first), int(last or (high if step else first)) + 1, int(step or 1)))
    return values
