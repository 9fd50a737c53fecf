"""IANA time zones, only from the tzdata package: replicas of one version agree, whatever their machines have installed."""

from datetime import UTC, datetime
from difflib import get_close_matches
from functools import cache, lru_cache
from importlib.resources import files
from typing import NamedTuple
from zoneinfo import ZoneInfo

DAY = 86_400
LOOK_BACK_DAYS = 2
"""Longer than any zone has ever set its clocks back: 24 hours, by crossing the date line."""
_HOUR = 3600
_SAMPLE_YEAR = 2_114_380_800
"""2037-01-01"""


class Segment(NamedTuple):
    """A span of time with one offset, in Unix seconds, `end` excluded; local time is instant + offset."""

    start: int
    end: int
    offset: int


@cache
def zone_names() -> frozenset[str]:
    return frozenset((files("tzdata") / "zones").read_text().split())


@cache
def zone_of(name: str) -> ZoneInfo:
    """Return the zone; `name` must be one of zone_names()."""
    with (files("tzdata") / "zoneinfo").joinpath(*name.split("/")).open("rb") as compiled:
        return ZoneInfo.from_file(compiled, key=name)


def local_time(instant: datetime, name: str) -> datetime | None:
    """Return the instant with the zone's offset; None for a zone that only a newer version knows."""
    return instant.astimezone(zone_of(name)) if name in zone_names() else None


def zone_problem(name: str) -> str | None:
    """Return why this is not a zone, or None if it is one."""
    if name in zone_names():
        return None
    folded = {known.casefold().rpartition("/")[2]: known for known in sorted(zone_names())}
    folded |= {known.casefold(): known for known in zone_names()}
    near = get_close_matches(name[:100].casefold().replace(" ", "_"), folded, n=1, cutoff=0.8)
    hint = f"; did you mean {folded[near[0]]}?" if near else ""
    return f"is not an IANA time zone such as Europe/Berlin or UTC{hint}"


def offset_at(zone: ZoneInfo, instant: int) -> int:
    """Return the offset at a Unix second, in seconds east of UTC."""
    offset = datetime.fromtimestamp(instant, UTC).astimezone(zone).utcoffset()
    assert offset is not None, "a ZoneInfo always has one for an aware instant"
    return offset.days * DAY + offset.seconds


@lru_cache(maxsize=8192)
def day_segments(name: str, day: int) -> tuple[Segment, ...]:
    """Return the segments of a UTC day (counted from 1970-01-01) and of LOOK_BACK_DAYS before it, ascending and adjacent.

    No zone has ever changed its offset and reverted within a day, so equal offsets at two midnights mean no change.
    """
    zone = zone_of(name)
    start, end = (day - LOOK_BACK_DAYS) * DAY, (day + 1) * DAY
    if len({offset_at(zone, midnight) for midnight in range(start, end + 1, DAY)}) == 1:
        return (Segment(start, end, offset_at(zone, start)),)
    segments: list[Segment] = []
    for hour in range(start, end, _HOUR):
        before, after = offset_at(zone, hour), offset_at(zone, hour + _HOUR)
        if before != after:
            change = _change(zone, hour, hour + _HOUR)
            segments.append(Segment(start, change, before))
            start = change
    segments.append(Segment(start, end, offset_at(zone, start)))
    return tuple(segment for segment in segments if segment.start < segment.end)


def _change(zone: ZoneInfo, low: int, high: int) -> int:
    """Return the first Unix second in (low, high] whose offset differs from that of `low`."""
    before = offset_at(zone, low)
    while high - low > 1:
        middle = (low + high) // 2
        if offset_at(zone, middle) == before:
            low = middle
        else:
            high = middle
    return high


@cache
def changes_clocks(name: str) -> bool:
    """Return whether this zone still changes its clocks, judged by a year in the future; past changes do not count."""
    zone = zone_of(name)
    weeks = range(_SAMPLE_YEAR, _SAMPLE_YEAR + 366 * DAY, 7 * DAY)
    return len({offset_at(zone, week) for week in weeks}) > 1
