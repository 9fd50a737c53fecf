"""What becomes of nominal times, as tables, and as properties over any schedule, moment and crowd of open runs."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise, takewhile
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from app.domain.schedules.definitions import CatchUp, CatchUpMode, Overlap, ScheduleDefinition
from app.domain.schedules.firing import (
    BUFFER_ALL,
    CATCH_UP_ALL,
    MAX_TIMES,
    DueTime,
    OverlapDecision,
    Runs,
    Start,
    TimesWithoutRun,
    apply_overlap,
    due_times,
    fires_at,
    left_over,
    may_start,
)
from app.domain.schedules.times import jitter_of, times_after

START = datetime(2026, 3, 1, tzinfo=UTC)
MINUTE, HOUR, DAY = timedelta(minutes=1), timedelta(hours=1), timedelta(days=1)
GRACE = 60.0


def every(seconds: float, **fields: Any) -> ScheduleDefinition:
    mode, window = fields.pop("mode", "latest"), fields.pop("window", None)
    return ScheduleDefinition("q", b"null", every_seconds=seconds, catch_up=CatchUp(window, mode), **fields)


def times(definition: ScheduleDefinition, first: datetime, now: datetime) -> list[datetime]:
    """The nominal times of [first, now]."""
    return list(takewhile(lambda time: time <= now, times_after(definition, first - timedelta(microseconds=1))))


def told(lines: Iterable[DueTime | TimesWithoutRun | Start]) -> dict[str, int]:
    """Outcome or cause -> how many times, in the order in which they come."""
    found: dict[str, int] = {}
    for line in lines:
        if isinstance(line, TimesWithoutRun):
            found[line.outcome] = found.get(line.outcome, 0) + line.count
        else:
            due = line.due if isinstance(line, Start) else line
            name = due.cause if not isinstance(line, Start) else f"{due.cause} {'waits' if line.waiting else 'starts'}"
            found[name] = found.get(name, 0) + 1
    return found


def after_outage(definition: ScheduleDefinition, outage: timedelta, runs: Runs = Runs()) -> dict[str, int]:  # noqa: B008
    """All that the looks after an outage come to. It began right after START; runs that start do not end."""
    first: datetime | None = next(times_after(definition, START))
    found: dict[str, int] = {}
    more = True
    while more and first is not None:
        step = due_times(definition, "t/s", first, START + outage, grace_seconds=GRACE, paused=False)
        for line, count in told(apply_overlap(step.lines, runs, definition.overlap).lines).items():
            found[line] = found.get(line, 0) + count
        first, more = step.next_nominal_at, step.more
    return found


# An outage ends on a nominal time; up to the grace it fires as if nothing had been.
@pytest.mark.parametrize(
    ("seconds", "mode", "outage", "expected"),
    [
        (10, "none", MINUTE, {"cron starts": 6}),
        (10, "latest", MINUTE, {"cron starts": 6}),
        (10, "all", MINUTE, {"cron starts": 6}),
        (60, "none", 2 * HOUR, {"missed": 118, "cron starts": 2}),
        (60, "latest", 2 * HOUR, {"superseded": 117, "catch_up starts": 1, "cron starts": 2}),
        (60, "all", 2 * HOUR, {"catch_up starts": 1, "catch_up waits": 117, "cron starts": 2}),
        (3600, "none", 3 * DAY, {"missed": 71, "cron starts": 1}),
        (3600, "latest", 3 * DAY, {"superseded": 70, "catch_up starts": 1, "cron starts": 1}),
        (3600, "all", 3 * DAY, {"catch_up starts": 1, "catch_up waits": 70, "cron starts": 1}),
        (60, "none", 3 * DAY, {"missed": 4318, "cron starts": 2}),
        (60, "latest", 3 * DAY, {"superseded": 4317, "catch_up starts": 1, "cron starts": 2}),
        (60, "all", 3 * DAY, {"missed": 3318, "catch_up starts": 1, "catch_up waits": 999, "cron starts": 2}),
        # more than one look goes through
        (1, "none", 6 * HOUR, {"missed": 21_539, "cron starts": 61}),
        (1, "latest", 6 * HOUR, {"superseded": 21_538, "catch_up starts": 1, "cron starts": 61}),
        (1, "all", 6 * HOUR, {"missed": 20_539, "catch_up starts": 1, "catch_up waits": 999, "cron starts": 61}),
        # more than a dozen looks go through
        *(
            pytest.param(1, mode, 3 * DAY, expected, marks=pytest.mark.ci)
            for mode, expected in (
                ("none", {"missed": 259_139, "cron starts": 61}),
                ("latest", {"superseded": 259_138, "catch_up starts": 1, "cron starts": 61}),
                ("all", {"missed": 258_139, "catch_up starts": 1, "catch_up waits": 999, "cron starts": 61}),
            )
        ),
    ],
)
def test_what_an_outage_comes_to_by_mode(
    seconds: int, mode: CatchUpMode, outage: timedelta, expected: dict[str, int]
) -> None:
    assert after_outage(every(seconds, mode=mode, overlap="allow_all"), outage) == expected


@pytest.mark.parametrize(
    ("window", "mode", "expected"),
    [
        (3600, "none", {"missed": 118, "cron starts": 2}),
        (3600, "latest", {"missed": 59, "superseded": 58, "catch_up starts": 1, "cron starts": 2}),
        (3600, "all", {"missed": 59, "catch_up starts": 1, "catch_up waits": 58, "cron starts": 2}),
        (90, "latest", {"missed": 118, "cron starts": 2}),
        (0, "all", {"missed": 118, "cron starts": 2}),
        (7200, "latest", {"superseded": 117, "catch_up starts": 1, "cron starts": 2}),
    ],
)
def test_times_older_than_the_window_are_missed(window: float, mode: CatchUpMode, expected: dict[str, int]) -> None:
    assert after_outage(every(60, window=window, mode=mode, overlap="allow_all"), 2 * HOUR) == expected


@pytest.mark.parametrize(
    ("overlap", "mode", "expected"),
    [
        ("skip", "none", {"missed": 118, "cron starts": 1, "skipped_overlap": 1}),
        ("skip", "latest", {"superseded": 117, "catch_up starts": 1, "skipped_overlap": 2}),
        ("skip", "all", {"catch_up starts": 1, "catch_up waits": 117, "skipped_overlap": 2}),
        ("buffer_one", "none", {"missed": 118, "cron starts": 1, "cron waits": 1}),
        ("buffer_one", "latest", {"superseded": 117, "catch_up starts": 1, "cron waits": 1, "skipped_overlap": 1}),
        ("buffer_all", "latest", {"superseded": 117, "catch_up starts": 1, "cron waits": 2}),
        ("cancel_other", "latest", {"superseded": 119, "cron starts": 1}),
        ("cancel_other", "all", {"catch_up starts": 1, "catch_up waits": 117, "superseded": 1, "cron starts": 1}),
        ("allow_all", "latest", {"superseded": 117, "catch_up starts": 1, "cron starts": 2}),
    ],
)
def test_what_two_hours_come_to_by_overlap(overlap: Overlap, mode: CatchUpMode, expected: dict[str, int]) -> None:
    assert after_outage(every(60, mode=mode, overlap=overlap), 2 * HOUR) == expected


@pytest.mark.parametrize(
    ("overlap", "runs", "expected", "cancels"),
    [
        ("skip", Runs(), {"cron starts": 1}, False),
        ("skip", Runs(running=1), {"skipped_overlap": 1}, False),
        ("skip", Runs(waiting=1), {"skipped_overlap": 1}, False),
        ("buffer_one", Runs(running=1), {"cron waits": 1}, False),
        ("buffer_one", Runs(running=1, waiting=1), {"skipped_overlap": 1}, False),
        ("buffer_all", Runs(running=1, waiting=BUFFER_ALL - 1), {"cron waits": 1}, False),
        ("buffer_all", Runs(running=1, waiting=BUFFER_ALL), {"skipped_overlap": 1}, False),
        ("cancel_other", Runs(), {"cron starts": 1}, False),
        ("cancel_other", Runs(running=1), {"cron starts": 1}, True),
        ("allow_all", Runs(running=50), {"cron starts": 1}, False),
    ],
)
def test_one_time_is_judged_against_what_runs_and_waits(
    overlap: Overlap, runs: Runs, expected: dict[str, int], cancels: bool
) -> None:
    decision = apply_overlap([DueTime(START, "cron")], runs, overlap)
    assert (told(decision.lines), decision.cancel) == (expected, cancels)


@pytest.mark.parametrize(
    ("overlap", "runs", "may"),
    [
        ("skip", Runs(), True),
        ("buffer_one", Runs(running=1), False),
        ("buffer_all", Runs(waiting=5), True),
        ("allow_all", Runs(running=5), True),
        ("allow_all", Runs(running=5, catching_up=1), False),
    ],
)
def test_a_waiting_start_goes_when_nothing_is_in_its_way(overlap: Overlap, runs: Runs, may: bool) -> None:
    assert may_start(overlap, runs) is may


@pytest.mark.parametrize(
    ("remaining", "expected", "exhausted"),
    [(None, 5, False), (9, 5, False), (5, 5, True), (3, 3, True), (0, 0, True), (-2, 0, True)],
)
def test_after_the_last_run_of_max_runs_there_are_no_times(
    remaining: int | None, expected: int, exhausted: bool
) -> None:
    decision = apply_overlap([DueTime(START + n * MINUTE, "cron") for n in range(5)], Runs(), "allow_all", remaining)
    assert (decision.runs, len(decision.lines), decision.exhausted) == (expected, expected, exhausted)


def test_what_is_skipped_does_not_count_against_max_runs() -> None:
    decision = apply_overlap([DueTime(START + n * MINUTE, "cron") for n in range(5)], Runs(), "skip", 2)
    assert told(decision.lines) == {"cron starts": 1, "skipped_overlap": 4} and not decision.exhausted


def test_a_year_of_pause_is_one_line_and_of_an_interval_it_is_not_gone_through() -> None:
    now = START + timedelta(days=365)
    for definition in (every(60), structs.replace(every(60), every_seconds=None, cron="* * * * *")):
        [line] = left_over(definition, START, now, "paused")
        assert line == TimesWithoutRun(START, now, 365 * 1440 + 1, "paused")
    step = due_times(every(1), "t/s", START, now, grace_seconds=GRACE, paused=True)
    assert step.lines == [TimesWithoutRun(START, now, 365 * 86400 + 1, "paused")] and not step.more
    assert step.next_nominal_at == now + timedelta(seconds=1)


def test_a_pause_ends_where_the_schedule_ends() -> None:
    definition = every(60, end_at=START + 90 * MINUTE)
    step = due_times(definition, "t/s", START, START + DAY, grace_seconds=GRACE, paused=True)
    assert step.lines == [TimesWithoutRun(START, START + 90 * MINUTE, 91, "paused")] and step.next_nominal_at is None


def test_a_one_shot_fires_once_and_never_again() -> None:
    definition = ScheduleDefinition("q", b"null", at=START)
    step = due_times(definition, "t/s", START, START, grace_seconds=GRACE, paused=False)
    assert step.lines == [DueTime(START, "cron")] and step.next_nominal_at is None
    late = due_times(definition, "t/s", START, START + DAY, grace_seconds=GRACE, paused=False)
    assert late.lines == [DueTime(START, "catch_up")] and late.next_nominal_at is None


def test_nothing_is_left_over_of_what_has_not_come() -> None:
    assert left_over(every(60), START + MINUTE, START, "superseded") == []
    assert left_over(every(60), None, START, "superseded") == []


definitions = st.builds(
    every,
    st.sampled_from([1, 1.5, 7, 60, 3600]),
    mode=st.sampled_from(get_args(CatchUpMode)),
    window=st.sampled_from([None, 0.0, 30.0, 600.0, 86_400.0]),
    overlap=st.sampled_from(get_args(Overlap)),
    jitter_seconds=st.sampled_from([0.0, 0.5, 30.0, 5000.0]),
    end_at=st.sampled_from([None, START + 20 * MINUTE]),
) | st.builds(
    lambda cron, zone, dst: ScheduleDefinition("q", b"null", cron=cron, timezone=zone, dst=dst),
    st.sampled_from(["* * * * *", "*/7 * * * *", "30 2 * * *", "0 */5 * * 1"]),
    st.sampled_from(["UTC", "America/New_York", "Australia/Lord_Howe"]),
    st.sampled_from(["once", "skip", "twice"]),
)
outages = st.integers(0, 8 * 3600).map(lambda seconds: timedelta(seconds=seconds))
crowds = st.builds(Runs, st.integers(0, 3), st.integers(0, 1), st.integers(0, 101))


def spans(lines: Sequence[DueTime | TimesWithoutRun | Start]) -> list[tuple[datetime, datetime, int]]:
    found = []
    for line in lines:
        if isinstance(line, TimesWithoutRun):
            found.append((line.first, line.last, line.count))
        else:
            due = line.due if isinstance(line, Start) else line
            found.append((due.nominal_at, due.nominal_at, 1))
    return found


@given(definitions, outages, crowds, st.booleans())
def test_every_time_is_in_exactly_one_line_in_order(
    definition: ScheduleDefinition, outage: timedelta, runs: Runs, paused: bool
) -> None:
    first = next(times_after(definition, START), None)
    if first is None:
        return
    now = max(first, START + outage)
    step = due_times(definition, "t/s", first, now, grace_seconds=GRACE, paused=paused)
    decision = apply_overlap(step.lines, runs, definition.overlap)
    expected = [
        time
        for time in times(definition, first, now)
        if paused or fires_at(definition, "t/s", time) <= now  # with jitter the newest may be ahead of its firing
    ]
    if step.more:  # the rest is the next plan's
        assert step.next_nominal_at is not None and len(expected) > MAX_TIMES
        expected = [time for time in expected if time < step.next_nominal_at]
    covered = spans(decision.lines)
    for (_, until, _), (begin, _, _) in pairwise(covered):
        assert until < begin
    assert sum(count for _, _, count in covered) == len(expected)
    for begin, until, count in covered:
        assert len([time for time in expected if begin <= time <= until]) == count
        assert begin in expected and until in expected
    following = next(times_after(definition, expected[-1]), None) if expected else first
    assert step.next_nominal_at == following
    assert_neighbours_differ(decision)


def assert_neighbours_differ(decision: OverlapDecision) -> None:
    """Consecutive times without a run and with one outcome share a line."""
    for line, other in pairwise(decision.lines):
        if isinstance(line, TimesWithoutRun) and isinstance(other, TimesWithoutRun):
            assert line.outcome != other.outcome


@given(definitions, outages, crowds)
def test_overlap_and_catch_up_bound_what_starts(definition: ScheduleDefinition, outage: timedelta, runs: Runs) -> None:
    first = next(times_after(definition, START), None)
    if first is None:
        return
    step = due_times(definition, "t/s", first, START + outage, grace_seconds=GRACE, paused=False)
    decision = apply_overlap(step.lines, runs, definition.overlap)
    starts = [line for line in decision.lines if isinstance(line, Start) and not line.waiting]
    waits = [line for line in decision.lines if isinstance(line, Start) and line.waiting]
    late = [line for line in starts + waits if line.due.cause == "catch_up"]
    assert len(late) <= {"none": 0, "latest": 1, "all": CATCH_UP_ALL}[definition.catch_up.mode]
    window = definition.catch_up.window_seconds
    if window is not None:
        assert all((START + outage - line.due.nominal_at).total_seconds() <= window for line in late)
    if definition.overlap in ("skip", "buffer_one", "buffer_all"):
        assert len(starts) <= (0 if runs.running else 1)
    if definition.overlap == "cancel_other":
        assert len([line for line in starts if not line.due.queued]) <= 1
    unqueued = [line for line in waits if not line.due.queued]
    room = {"buffer_one": 1, "buffer_all": BUFFER_ALL}.get(definition.overlap, 0)
    assert len(unqueued) <= max(0, room - runs.waiting)


@given(st.integers(MAX_TIMES, MAX_TIMES + 4000), st.sampled_from(get_args(CatchUpMode)))
@settings(max_examples=2)
def test_what_one_look_cannot_go_through_is_not_lost_between_looks(count: int, mode: CatchUpMode) -> None:
    definition = every(1, mode=mode, overlap="allow_all")
    found = after_outage(definition, timedelta(seconds=count))
    late = count - 61
    taken = {"none": 0, "latest": 1, "all": CATCH_UP_ALL}[mode]
    assert sum(found.values()) == count
    assert found["cron starts"] == 61
    assert found.get("catch_up starts", 0) + found.get("catch_up waits", 0) == taken
    assert found.get("missed", 0) + found.get("superseded", 0) == late - taken


@given(st.floats(0.001, 100_000), st.integers(0, 10_000))
def test_jitter_delays_but_never_past_the_next_time(jitter: float, number: int) -> None:
    definition = every(60, jitter_seconds=jitter)
    nominal = START + number * MINUTE
    assert 0 <= jitter_of(definition, "t/s", nominal) < jitter
    assert nominal <= fires_at(definition, "t/s", nominal) <= nominal + MINUTE
    assert fires_at(definition, "t/s", nominal) == fires_at(definition, "t/s", nominal)
