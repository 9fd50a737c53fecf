"""When cron fires, against a search minute by minute over every zone."""

import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import islice, pairwise, takewhile
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.cli.daylight_saving import AROUND, CHANGES, WILD, Change, times_around
from app.domain.schedules.cron import CronError, Dst, parse_cron
from app.domain.schedules.definitions import ScheduleDefinition
from app.domain.schedules.times import times_after
from app.domain.schedules.zones import LOOK_BACK_DAYS, day_segments, offset_at, zone_names, zone_of
from tests.domain.cron_oracle import matcher, times_by_hand

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DSTS = get_args(Dst)


def cron(expression: str, zone: str = "UTC", **fields: Any) -> ScheduleDefinition:
    return ScheduleDefinition("any", b"null", cron=expression, timezone=zone, **fields)


def times_in(definition: ScheduleDefinition, start: datetime, end: datetime) -> list[datetime]:
    """Those in [start, end)."""
    return list(takewhile(lambda at: at < end, times_after(definition, start - SECOND)))


@cache
def changes_of(zone: str, year: int) -> tuple[datetime, ...]:
    """The instants at which a zone's offset changes in a year, to the minute before."""
    days = [datetime(year, 1, 1, tzinfo=UTC) + DAY * day for day in range(367)]
    found = []
    for low, high in pairwise(days):
        if low.astimezone(zone_of(zone)).utcoffset() != high.astimezone(zone_of(zone)).utcoffset():
            while high - low > timedelta(minutes=1):
                middle = low + (high - low) // 2
                same = low.astimezone(zone_of(zone)).utcoffset() == middle.astimezone(zone_of(zone)).utcoffset()
                low, high = (middle, high) if same else (low, middle)
            found.append(low.replace(second=0, microsecond=0))
    return tuple(found)


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    spans = st.tuples(number, number).map(lambda ends: f"{min(ends)}-{max(ends)}")
    steps = st.integers(1, high + 2)
    stepped = st.tuples(st.one_of(st.just("*"), spans), steps).map(lambda parts: f"{parts[0]}/{parts[1]}")
    terms = st.lists(st.one_of(number.map(str), spans, stepped), min_size=1, max_size=3).map(",".join)
    return st.one_of(st.just("*"), number.map(str), terms)


clocks = st.tuples(field(0, 59), st.one_of(field(0, 23), field(0, 3)))
dates = st.one_of(st.just("* * *"), st.tuples(field(1, 31), field(1, 12), field(0, 7)).map(" ".join))
expressions = st.tuples(clocks.map(" ".join), dates).map(" ".join)


@st.composite
def windows(draw: st.DrawFn, zones: st.SearchStrategy[str]) -> tuple[str, datetime, datetime]:
    """A zone and two days of it, around a change of its clocks where the year has one."""
    zone, year = draw(zones), draw(st.integers(1975, 2060))
    changes = changes_of(zone, year)
    anywhere = st.integers(0, 365 * 1440).map(lambda m: datetime(year, 1, 1, tzinfo=UTC) + timedelta(minutes=m))
    near = draw(st.sampled_from(changes) if changes else anywhere)
    start = near - timedelta(minutes=draw(st.integers(0, 2 * 1440)))
    return zone, start, start + 2 * DAY


def may_fire(expression: str) -> bool:
    try:
        parse_cron(expression)
    except CronError:
        return False
    return True


@pytest.mark.ci
@given(expressions.filter(may_fire), windows(st.sampled_from(sorted(zone_names()))), st.sampled_from(DSTS))
def test_cron_fires_as_the_wall_clock_says_in_every_zone(
    expression: str, window: tuple[str, datetime, datetime], dst: Dst
) -> None:
    zone, start, end = window
    found = times_in(cron(expression, zone, dst=dst), start, end)
    assert found == times_by_hand(expression, zone_of(zone), dst, start, end)


@settings(max_examples=15)
@given(st.tuples(field(25, 31), field(1, 12), field(0, 7)).map(" ".join))
def test_exactly_what_matches_no_day_of_28_years_is_refused(days: str) -> None:
    matches = matcher(f"0 0 {days}")
    start = datetime(2000, 1, 1)  # days of the week come back to the days of the month after 28 years
    assert may_fire(f"0 0 {days}") == any(matches(start + day * DAY) for day in range(28 * 366))


def zones_with_changes(zones: Iterable[str]) -> Iterator[tuple[str, datetime]]:
    seen: set[tuple[Any, ...]] = set()
    for zone in zones:
        for change in changes_of(zone, 2026):
            offsets = tuple((change + DAY * side).astimezone(zone_of(zone)).utcoffset() for side in (-1, 1))
            if (change, offsets) not in seen:  # aliases of one zone change alike
                seen.add((change, offsets))
                yield zone, change


ODD_ZONES = (
    *("Africa/Casablanca", "America/New_York", "America/St_Johns", "Antarctica/Troll", "Asia/Beirut", "Asia/Gaza"),
    *("Atlantic/Azores", "Australia/Lord_Howe", "Europe/Berlin", "Europe/Dublin", "Pacific/Chatham"),
)
"""By half an hour or two, at midnight, at noon, backwards, around Ramadan."""


@pytest.mark.parametrize("dst", DSTS)
@pytest.mark.parametrize(
    "zones", [ODD_ZONES, pytest.param(sorted(zone_names()), marks=pytest.mark.ci)], ids=["odd zones", "all zones"]
)
def test_every_change_of_clocks_this_year_is_met_as_the_wall_clock_says(zones: Sequence[str], dst: Dst) -> None:
    changes = list(zones_with_changes(zones))
    assert len(changes) >= 2 * len(ODD_ZONES) - 2
    for zone, change in changes:
        for expression in ("0,15,30 0-3,22-23 * * *", "*/20 * * * *"):
            found = times_in(cron(expression, zone, dst=dst), change - DAY, change + DAY)
            assert found == times_by_hand(expression, zone_of(zone), dst, change - DAY, change + DAY), (zone, change)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: f"{change.zone}-{change.at:%Y-%m-%d}")
def test_the_page_about_daylight_saving_says_what_the_wall_clock_says(change: Change) -> None:
    cases = [(change.fixed, dst, AROUND["fixed"]) for dst in DSTS]
    cases += [(expression, dst, AROUND["wild"]) for expression in WILD for dst in DSTS]
    for expression, dst, width in cases:
        start, end = change.at - width + timedelta(minutes=1), change.at + width
        by_hand = times_by_hand(expression, zone_of(change.zone), dst, start, end)
        found = [at.astimezone(UTC) for at in times_around(change, expression, dst, width)]
        assert found == by_hand, (expression, dst)


def test_offsets_change_where_the_page_about_daylight_saving_says() -> None:
    for change in CHANGES:
        at = int(change.at.timestamp())
        assert offset_at(zone_of(change.zone), at - 1) != offset_at(zone_of(change.zone), at), change


@given(st.sampled_from(sorted(zone_names())), st.integers(-40_000, 60_000))
def test_segments_of_a_day_have_the_offsets_of_the_zone(name: str, day: int) -> None:
    segments = day_segments(name, day)
    assert (segments[0].start, segments[-1].end) == ((day - LOOK_BACK_DAYS) * 86_400, (day + 1) * 86_400)
    assert all(one.end == other.start and one.offset != other.offset for one, other in pairwise(segments))
    for start, end, offset in segments:
        assert {offset_at(zone_of(name), at) for at in (start, (start + end) // 2, end - 1)} == {offset}


@pytest.mark.parametrize(
    ("expression", "zone", "after", "expected"),
    [
        ("0 0 29 2 *", "UTC", "2026-01-01T00:00:00", ["2028-02-29T00:00:00", "2032-02-29T00:00:00"]),
        ("0 0 29 2 *", "UTC", "2096-03-01T00:00:00", ["2104-02-29T00:00:00", "2108-02-29T00:00:00"]),
        ("0 12 29 2 */7", "UTC", "2026-01-01T00:00:00", ["2032-02-29T12:00:00", "2060-02-29T12:00:00"]),
        ("0 0 L * *", "UTC", "2026-01-31T00:00:00", ["2026-02-28T00:00:00", "2026-03-31T00:00:00"]),
        ("0 0 LW * *", "UTC", "2026-01-01T00:00:00", ["2026-01-30T00:00:00", "2026-02-27T00:00:00"]),
        ("0 0 * * 5L", "UTC", "2026-01-01T00:00:00", ["2026-01-30T00:00:00", "2026-02-27T00:00:00"]),
        ("0 0 * * fril", "UTC", "2026-01-01T00:00:00", ["2026-01-30T00:00:00", "2026-02-27T00:00:00"]),
        ("0 0 * * fri#2", "UTC", "2026-01-01T00:00:00", ["2026-01-09T00:00:00", "2026-02-13T00:00:00"]),
        ("0 0 * * 0", "UTC", "2026-01-01T00:00:00", ["2026-01-04T00:00:00", "2026-01-11T00:00:00"]),
        ("0 0 * * 7", "UTC", "2026-01-01T00:00:00", ["2026-01-04T00:00:00", "2026-01-11T00:00:00"]),
        ("0 0 * * Sat-7", "UTC", "2026-01-01T00:00:00", ["2026-01-03T00:00:00", "2026-01-04T00:00:00"]),
        ("0 0-0/5 * * 1-Mon/2", "UTC", "2026-01-01T00:00:00", ["2026-01-05T00:00:00", "2026-01-12T00:00:00"]),
        ("0 0 13 * 5", "UTC", "2026-01-10T00:00:00", ["2026-01-13T00:00:00", "2026-01-16T00:00:00"]),
        ("0 0 1-7 * */7", "UTC", "2026-01-01T00:00:00", ["2026-01-04T00:00:00", "2026-02-01T00:00:00"]),
        ("0 0 * JAN,jul mon", "UTC", "2026-01-26T00:00:00", ["2026-07-06T00:00:00", "2026-07-13T00:00:00"]),
        ("@hourly", "UTC", "2026-01-01T00:00:00", ["2026-01-01T01:00:00", "2026-01-01T02:00:00"]),
        ("@daily", "UTC", "2026-01-01T00:00:00", ["2026-01-02T00:00:00", "2026-01-03T00:00:00"]),
        (" @Midnight ", "UTC", "2026-01-01T00:00:00", ["2026-01-02T00:00:00", "2026-01-03T00:00:00"]),
        ("@weekly", "UTC", "2026-01-01T00:00:00", ["2026-01-04T00:00:00", "2026-01-11T00:00:00"]),
        ("@monthly", "UTC", "2026-01-01T00:00:00", ["2026-02-01T00:00:00", "2026-03-01T00:00:00"]),
        ("@yearly", "UTC", "2026-01-01T00:00:00", ["2027-01-01T00:00:00", "2028-01-01T00:00:00"]),
        ("@annually", "UTC", "2026-01-01T00:00:00", ["2027-01-01T00:00:00", "2028-01-01T00:00:00"]),
        ("every 15 minutes", "UTC", "2026-01-01T00:00:01", ["2026-01-01T00:15:00", "2026-01-01T00:30:00"]),
        ("Every  1 hour", "Asia/Kolkata", "2026-01-01T00:00:00", ["2026-01-01T01:00:00", "2026-01-01T02:00:00"]),
        ("every day", "UTC", "2026-01-01T00:00:00", ["2026-01-02T00:00:00", "2026-01-03T00:00:00"]),
        ("30 9 * * *", "Asia/Kolkata", "2026-01-01T00:00:00", ["2026-01-01T04:00:00", "2026-01-02T04:00:00"]),
        ("0 9 * * *", "Pacific/Kiritimati", "2026-01-01T00:00:00", ["2026-01-01T19:00:00", "2026-01-02T19:00:00"]),
    ],
)
def test_expressions_mean_what_debian_says(expression: str, zone: str, after: str, expected: list[str]) -> None:
    times = times_after(cron(expression, zone), datetime.fromisoformat(after).replace(tzinfo=UTC))
    assert [at.isoformat().removesuffix("+00:00") for at in islice(times, 2)] == expected


def test_a_sixth_field_is_the_second() -> None:
    definition = cron("*/20 59 23 * * *", seconds=True)
    assert [f"{at:%d %X}" for at in islice(times_after(definition, datetime(2026, 1, 1, tzinfo=UTC)), 4)] == [
        "01 23:59:00", "01 23:59:20", "01 23:59:40", "02 23:59:00",
    ]  # fmt: skip


def test_dst_applies_to_six_fields_too() -> None:
    start = datetime(2026, 3, 28, 12, tzinfo=UTC)
    counts = {
        dst: len(times_in(cron("* 30 2 * * *", "Europe/Berlin", seconds=True, dst=dst), start, start + DAY))
        for dst in DSTS
    }
    assert counts == {"once": 1, "skip": 0, "twice": 1}


def test_what_only_ever_falls_into_gaps_ends_instead_of_searching_for_ever() -> None:
    definition = cron("30 2 * 3 0#2", "America/New_York", dst="skip")
    assert list(times_after(definition, datetime(2026, 1, 1, tzinfo=UTC))) == []


@pytest.mark.parametrize(
    ("expression", "most_seconds"),
    [("* * * * *", 1e-3), ("30 2 * * 1-5", 1e-3), ("0 0 1 1 *", 1e-3), ("0 0 29 2 */7", 1e-2)],
)
def test_the_next_time_is_found_at_once(expression: str, most_seconds: float) -> None:
    definition = cron(expression, "America/New_York")
    best = float("inf")
    for day in range(10):
        started = time.perf_counter()
        next(times_after(definition, datetime(2026, 3, 1, tzinfo=UTC) + day * 31 * DAY))
        best = min(best, time.perf_counter() - started)
    assert best < most_seconds


def test_a_hundred_thousand_times_take_less_than_two_seconds_of_processor_time() -> None:
    started = time.process_time()
    assert sum(1 for _ in islice(times_after(cron("* * * * *", "Europe/Berlin"), EPOCH), 100_000)) == 100_000
    assert time.process_time() - started < 2
