"""Cron as Debian reads it: cronsim parses the expression; when it fires around clock changes is decided here.

An expression is a set of local wall-clock times. If neither its minute nor its hour begins with `*`, `dst` decides what happens
to local times that a zone skips or repeats. Other expressions fire whenever the wall clock matches, so they follow elapsed time,
as in Debian.
"""

import re
from calendar import isleap
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Literal

from cronsim import CronSim, CronSimError
from cronsim.cronsim import RANGES, SYMBOLIC_DAYS, SYMBOLIC_MONTHS

from app.domain.schedules.cron_problems import FIELDS, NEVER, number_of, wrong_count, wrong_field
from app.domain.schedules.zones import DAY, Segment, day_segments

Dst = Literal["once", "skip", "twice"]

ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
MAX_EXPRESSION = 500
UNIT_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": DAY, "week": 7 * DAY}
MAX_INTERVAL_SECONDS = 3660 * DAY
LONGEST_GAP_DAYS = 36_600
"""A search gives up after a century: 29 February on a given weekday recurs within 40 years."""
_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
_FIRST_DAY = date(2, 1, 1).toordinal() - _EPOCH_ORDINAL
LAST_DAY = date(9998, 12, 31).toordinal() - _EPOCH_ORDINAL
_INTERVAL = re.compile(r"every\s+(?:(\d{1,9})\s+)?(second|minute|hour|day|week)(s?)", re.IGNORECASE | re.ASCII)
_LAST_NAMED = re.compile(r"\b(" + "|".join(SYMBOLIC_DAYS) + r")L\b", re.IGNORECASE)
_STEPPED_RANGE = re.compile(r"(\w+)-(\w+)/0*[1-9]\d*", re.ASCII)
_NAMES = {"month": ["", *SYMBOLIC_MONTHS], "day-of-week": SYMBOLIC_DAYS}
_KINDS_OF_YEAR = (*range(2001, 2012), *range(2012, 2037, 4))
"""Years of both lengths, starting on each day of the week: what matches in none of them never matches."""
_ANY_MOMENT = datetime(2000, 1, 1)  # cronsim needs one, but only its fields are used


class CronError(ValueError):
    """Raised for an invalid expression; the message is for its author."""


@dataclass(frozen=True, slots=True)
class Cron:
    """What an expression matches in local time; the tuples are ascending."""

    expression: str
    """Five or six fields, with aliases replaced."""
    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    months: frozenset[int]
    fixed: bool
    """Whether `dst` applies: neither minute nor hour begins with `*`."""
    days: CronSim = field(compare=False)
    _years: dict[tuple[int, bool], int] = field(default_factory=dict, compare=False, repr=False)

    def days_of(self, year: int) -> int:
        """Return a bit per matching day, the lowest for 1 January. Only 14 kinds of year exist, by length and first weekday."""
        first = date(year, 1, 1)
        kind = first.weekday(), isleap(year)
        found = self._years.get(kind)
        if found is None:
            days = (first + timedelta(n) for n in range(365 + kind[1]))
            found = sum(1 << n for n, day in enumerate(days) if day.month in self.months and self.days.match_day(day))
            self._years[kind] = found
        return found

    def matches(self, day: int) -> bool:
        """Return whether a day matches; days are counted from 1970-01-01, as everywhere here."""
        year, begin = _year_of(day)
        return bool(self.days_of(year) >> (day - begin) & 1)

    def next_day(self, day: int) -> int | None:
        """Return the first matching day from `day` on; None if a century has none."""
        end = min(day + LONGEST_GAP_DAYS, LAST_DAY)
        while day <= end:
            year, begin = _year_of(day)
            left = self.days_of(year) >> (day - begin)
            if left:
                found = day + (left & -left).bit_length() - 1
                return found if found <= end else None
            day = begin + 365 + isleap(year)
        return None

    def local_times(self, low: int, high: int) -> Iterator[int]:
        """Yield matching wall-clock times in [low, high), in seconds from 1970-01-01 00:00 local time."""
        for day in range(low // DAY, (high - 1) // DAY + 1):
            if self.matches(day):
                yield from self._times_of_day(day * DAY, low, high)

    def _times_of_day(self, midnight: int, low: int, high: int) -> Iterator[int]:
        for hour in self.hours:
            start = midnight + hour * 3600
            if start + 3600 <= low:
                continue
            for minute in self.minutes:
                at = start + minute * 60
                if at + 60 <= low:
                    continue
                if at >= high:
                    return
                for second in self.seconds:
                    if low <= at + second < high:
                        yield at + second


def parse_interval(text: str) -> int | None:
    """Return the seconds of `every 15 minutes`; None if the text is not an interval. Raises CronError for `every 0 hours`."""
    match = _INTERVAL.fullmatch(text.strip())
    if match is None:
        return None
    seconds = int(match[1] or 1) * UNIT_SECONDS[match[2].lower()]
    if not 1 <= seconds <= MAX_INTERVAL_SECONDS:
        raise CronError(f"an interval must be 1 to {MAX_INTERVAL_SECONDS} seconds")
    return seconds


@lru_cache(maxsize=4096)
def parse_cron(text: str, *, seconds: bool = False) -> Cron:
    """Raises CronError."""
    if len(text) > MAX_EXPRESSION:
        raise CronError(f"is longer than {MAX_EXPRESSION} characters")
    if not text.isascii() or not text.replace("\t", " ").isprintable():
        raise CronError("must be printable ASCII")
    fields = ALIASES.get(text.strip().lower(), text).split()
    if len(fields) != 5 and not (seconds and len(fields) == 6):
        raise CronError(wrong_count(fields, seconds=seconds))
    fields[-1] = _LAST_NAMED.sub(lambda match: f"{SYMBOLIC_DAYS.index(match[1].upper())}L", fields[-1])
    fields = [
        ",".join(_without_step_of_one(term, _NAMES.get(name, [])) for term in text.split(","))
        for name, text in zip(FIELDS[-len(fields) :], fields, strict=True)
    ]
    sim = _parsed(fields)
    cron = Cron(
        expression=" ".join(fields),
        seconds=tuple(sorted(sim.seconds)),
        minutes=tuple(sorted(sim.minutes)),
        hours=tuple(sorted(sim.hours)),
        months=frozenset(sim.months),
        fixed=not fields[-5].startswith("*") and not fields[-4].startswith("*"),
        days=sim,
    )
    if not any(map(cron.days_of, _KINDS_OF_YEAR)):
        raise CronError(NEVER)
    return cron


def _parsed(fields: list[str]) -> CronSim:
    try:
        return CronSim(" ".join(fields), _ANY_MOMENT)
    except CronSimError:
        for name, text in zip(FIELDS[-len(fields) :], fields, strict=True):
            if not _is_sound(name, text):
                raise CronError(wrong_field(name, text, _NAMES.get(name, []))) from None
        raise CronError(NEVER) from None  # every field is valid, so it is a date that never occurs, such as 30 February


def _without_step_of_one(term: str, names: list[str]) -> str:
    """Drop the step of a range of one value; cronsim would read `5-5/10` as `5/10`, which runs to the end of the field."""
    match = _STEPPED_RANGE.fullmatch(term)
    alone = match is not None and number_of(match[1], names) == number_of(match[2], names) is not None
    return match[1] if match is not None and alone else term


def _is_sound(name: str, text: str) -> bool:
    try:
        CronSim(" ".join(text if other == name else "*" for other in FIELDS), _ANY_MOMENT)
    except CronSimError:
        return False
    return True


def _year_of(day: int) -> tuple[int, int]:
    """Return the year of a day, and that year's first day."""
    year = date.fromordinal(day + _EPOCH_ORDINAL).year
    return year, date(year, 1, 1).toordinal() - _EPOCH_ORDINAL


def explained(cron: Cron) -> str:
    """Explain in plain English, using cronsim. A step larger than its range matches the first value only, and reads so."""
    fields = [
        ",".join(_without_wide_step(term, range_) for term in text.split(","))
        for text, range_ in zip(cron.expression.upper().split(), RANGES[-len(cron.expression.split()) :], strict=True)
    ]
    return CronSim(" ".join(fields), _ANY_MOMENT).explain()


def _without_wide_step(term: str, values: range) -> str:
    base, _, step = term.partition("/")
    return str(values[0]) if base == "*" and step and int(step) >= len(values) else term


def cron_times(cron: Cron, zone: str, dst: Dst, first: int) -> Iterator[int]:
    """Yield when `cron` fires from the Unix second `first` on, ascending. Ends if a century has no time."""
    day, last = max(first // DAY, _FIRST_DAY), first // DAY
    while day - last <= LONGEST_GAP_DAYS and day < LAST_DAY:
        local = cron.next_day(day - 1)  # a UTC day overlaps the local days from the one before to the one after
        if local is None:
            return
        if local > day + 1:
            day = local - 1
            continue
        for time in _times_in(cron, day_segments(zone, day), dst, max(day * DAY, first), (day + 1) * DAY):
            last = day
            yield time
        day += 1


def _times_in(cron: Cron, segments: tuple[Segment, ...], dst: Dst, low: int, high: int) -> Iterator[int]:
    """Yield times in [low, high); the segments reach further back, to know which local times have already occurred."""
    reached = segments[0].start + segments[0].offset  # by the wall clock, up to here
    for start, end, offset in segments:
        begin = max(start, low) + offset
        if cron.fixed:
            resumed = start + offset
            if dst != "skip" and resumed > reached and low <= start < high and _any(cron, reached, resumed):
                yield start
                begin = max(begin, resumed + 1)  # a time at the same instant merges with it
            if dst != "twice":
                begin = max(begin, reached)
        for local in cron.local_times(begin, min(end, high) + offset):
            yield local - offset
        reached = max(reached, end + offset)


def _any(cron: Cron, low: int, high: int) -> bool:
    return next(cron.local_times(low, high), None) is not None
