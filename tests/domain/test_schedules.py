"""Definitions of schedules: what they may say, how they are shown, the times they name."""

import json
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from app.domain.errors import Refusal
from app.domain.followups import OnComplete
from app.domain.limits import LimitUse
from app.domain.schedules.bodies import parse_schedule
from app.domain.schedules.definitions import CatchUp, ScheduleDefinition, schedule_etag, schedule_to_dict
from app.domain.schedules.readings import reading
from app.domain.schedules.times import jitter_of, times_after
from app.domain.targets import TaskTarget

MIB = 1_048_576
NOW = datetime(2026, 11, 22, 12, 0, 0, 250_000, tzinfo=UTC)
EVERYTHING = {
    "queue": "reports",
    "cron": "30 2 1 * *",
    "every_seconds": None,
    "phase_seconds": 0.0,
    "at": None,
    "seconds": False,
    "timezone": "Europe/Berlin",
    "payload": {"a": [1]},
    "type": "report",
    "headers": {"x-a": "b"},
    "tags": ["monthly"],
    "target": {"path": "/monthly", "method": "PUT"},
    "priority": -3,
    "retry": {"max_attempts": 3},
    "timeout_seconds": 60.0,
    "handler": "printer",
    "dst": "twice",
    "overlap": "buffer_one",
    "catch_up": {"window_seconds": 3600.0, "mode": "all"},
    "jitter_seconds": 30.0,
    "start_at": "2026-01-01T00:00:00.000000Z",
    "end_at": "2027-01-01T00:00:00.000000Z",
    "max_runs": 12,
    "pause_after_failures": 3,
    "on_complete": {"queue": "summaries", "payload": None},
    "key": "acme",
    "limits": [{"name": "printers", "key": "one", "cost": 2}],
}


def parsed(**fields: Any) -> ScheduleDefinition:
    return parse_schedule(json.dumps({"queue": "work", "payload": None} | fields).encode(), MIB)


def refused(body: bytes | None = None, *, max_payload_bytes: int = MIB, **fields: Any) -> dict[str, str]:
    """The details by pointer."""
    given = {"queue": "work", "payload": None} | fields
    with pytest.raises(Refusal) as found:
        parse_schedule(json.dumps(given).encode() if body is None else body, max_payload_bytes)
    assert found.value.code == "invalid", found.value
    return {error.pointer: error.detail for error in found.value.errors}


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def first(definition: ScheduleDefinition, count: int, after: datetime = NOW) -> list[str]:
    times = islice(times_after(definition, after), count)
    return [time.replace(tzinfo=None).isoformat(timespec="auto") for time in times]


def test_a_definition_says_everything_and_is_shown_as_it_was_given() -> None:
    definition = parsed(**EVERYTHING)
    assert definition == ScheduleDefinition(
        queue="reports",
        payload=b'{"a": [1]}',
        cron="30 2 1 * *",
        timezone="Europe/Berlin",
        type="report",
        headers={"x-a": "b"},
        tags=("monthly",),
        target=TaskTarget(path="/monthly", method="PUT"),
        priority=-3,
        retry={"max_attempts": 3},
        timeout_seconds=60,
        handler="printer",
        dst="twice",
        overlap="buffer_one",
        catch_up=CatchUp(3600, "all"),
        jitter_seconds=30,
        start_at=at("2026-01-01"),
        end_at=at("2027-01-01"),
        max_runs=12,
        pause_after_failures=3,
        on_complete=OnComplete("summaries", b"null"),
        key="acme",
        limits=(LimitUse("printers", "one", 2),),
    )
    assert json.loads(msgspec.json.encode(schedule_to_dict(definition))) == EVERYTHING


@pytest.mark.parametrize(
    "timing",
    [{"cron": "@daily"}, {"every_seconds": 90.5, "phase_seconds": 2}, {"at": "2026-12-24T18:00:00+01:00"}],
)
def test_what_is_shown_is_taken_again_and_means_the_same(timing: dict[str, Any]) -> None:
    definition = parsed(**timing)
    shown = msgspec.json.encode(schedule_to_dict(definition))
    again = parse_schedule(shown, MIB)
    assert again == definition
    assert schedule_etag(again) == schedule_etag(definition)
    assert set(json.loads(shown)) == set(EVERYTHING)


def test_payloads_stay_the_bytes_of_their_spans() -> None:
    body = (
        b'{"queue":"a","on_complete":{"payload" : [ 1.0 ,2e0] ,"queue":"b"},'
        b'"payload" :  {"n": 1.00, "s":"\\u00e9"}  ,"at":"2030-01-01T00:00:00Z"}'
    )
    definition = parse_schedule(body, MIB)
    assert definition.payload == b'{"n": 1.00, "s":"\\u00e9"}'
    assert definition.on_complete == OnComplete("b", b"[ 1.0 ,2e0]")
    shown = msgspec.json.encode(schedule_to_dict(definition))
    assert b'"payload":{"n": 1.00, "s":"\\u00e9"}' in shown and b'"payload":[ 1.0 ,2e0]' in shown


def test_every_field_counts_in_the_etag() -> None:
    definition = parsed(**EVERYTHING)
    changed: dict[str, Any] = {
        "queue": "other", "payload": b'{"a":[1]}', "cron": "31 2 1 * *", "timezone": "UTC", "type": None,
        "headers": {}, "tags": (), "priority": 0, "retry": None, "timeout_seconds": None, "handler": None,
        "dst": "once", "overlap": "skip", "catch_up": CatchUp(), "jitter_seconds": 0.0, "start_at": None,
        "end_at": None, "max_runs": None, "pause_after_failures": None, "on_complete": None,
    }  # fmt: skip
    others = [replace(definition, **{name: value}) for name, value in changed.items()]
    assert len({schedule_etag(one) for one in [definition, *others]}) == len(others) + 1


@pytest.mark.parametrize(
    ("fields", "errors"),
    [
        ({}, {"": "needs exactly one of cron, every_seconds and at"}),
        ({"cron": "@daily", "at": "2030-01-01T00:00:00Z"}, {"/at": "cannot be combined with cron; send one of them"}),
        (
            {"cron": "@daily", "every_seconds": 1, "at": "2030-01-01T00:00:00Z"},
            {
                "/every_seconds": "cannot be combined with cron; send one of them",
                "/at": "cannot be combined with cron; send one of them",
            },
        ),
        (
            {"every_seconds": 60, "at": "2030-01-01T00:00:00Z"},
            {"/at": "cannot be combined with every_seconds; send one of them"},
        ),
        ({"cron": "* *"}, {"/cron": "has 2 fields, expected five (minute hour day-of-month month day-of-week)"}),
        ({"cron": "0 0 30 2 *"}, {"/cron": "never fires: no date has this day in these months"}),
        (
            {"cron": "* * * * * *"},
            {"/cron": "has six fields, expected five; set `seconds: true` if the first is seconds"},
        ),
        ({"cron": "every 0 days"}, {"/cron": "an interval must be 1 to 316224000 seconds"}),
        (
            {"cron": "every day", "seconds": True},
            {"/seconds": "applies only to cron with six fields; this is an interval"},
        ),
        ({"every_seconds": 60, "seconds": True}, {"/seconds": "applies only to cron"}),
        ({"cron": "@daily", "phase_seconds": 1}, {"/phase_seconds": "applies only to every_seconds"}),
        *(
            (
                {"every_seconds": every},
                {"/every_seconds": "expected seconds from 1 to 316224000, at most three decimals"},
            )
            for every in (0, -1, 0.999, 1.0005, 316_224_001, 1e300)
        ),
        *(
            (
                {"every_seconds": 60, "phase_seconds": phase},
                {"/phase_seconds": "expected seconds from 0, below every_seconds, at most three decimals"},
            )
            for phase in (-1, 60, 0.0001)
        ),
        ({"cron": 5}, {"/cron": "expected a string"}),
        (
            {"cron": "@daily", "timezone": "Berlin"},
            {"/timezone": "is not an IANA time zone such as Europe/Berlin or UTC; did you mean Europe/Berlin?"},
        ),
        ({"cron": "@daily", "timezone": None}, {"/timezone": "expected a string"}),
        ({"cron": "@daily", "dst": "never"}, {"/dst": "expected one of once, skip, twice"}),
        ({"cron": "@daily", "dst": None}, {"/dst": "expected one of once, skip, twice"}),
        (
            {"cron": "@daily", "overlap": "queue"},
            {"/overlap": "expected one of allow_all, buffer_all, buffer_one, cancel_other, skip"},
        ),
        ({"cron": "@daily", "catch_up": {"mode": "al"}}, {"/catch_up/mode": "expected one of all, latest, none"}),
        ({"cron": "@daily", "catch_up": {"windows": 1}}, {"/catch_up/windows": "unknown field"}),
        (
            {"cron": "@daily", "catch_up": {"window_seconds": 0}},
            {"/catch_up/window_seconds": "expected seconds above 0, at most 316224000, or null for any age"},
        ),
        ({"cron": "@daily", "jitter_seconds": -1}, {"/jitter_seconds": "expected seconds from 0 to 86400"}),
        ({"cron": "@daily", "jitter_seconds": 86_401}, {"/jitter_seconds": "expected seconds from 0 to 86400"}),
        (
            {"cron": "@daily", "max_runs": 0},
            {"/max_runs": "expected an integer from 1 to 1000000000, or null for no limit"},
        ),
        (
            {"cron": "@daily", "pause_after_failures": 0},
            {"/pause_after_failures": "expected an integer from 1 to 1000000, or null for no limit"},
        ),
        *(
            (
                {"cron": "@daily", "start_at": text},
                {"/start_at": "expected an RFC 3339 instant with an offset, from 1970 to 9998"},
            )
            for text in ("tomorrow", "2026-01-01T00:00:00", "1969-12-31T23:59:59Z", "9999-01-01T00:00:00Z")
        ),
        (
            {"cron": "@daily", "start_at": "2026-01-02T00:00:00Z", "end_at": "2026-01-02T01:00:00+01:00"},
            {"/end_at": "must be after start_at"},
        ),
        (
            {"cron": "@yearly", "start_at": "2026-01-02T00:00:00Z", "end_at": "2026-12-31T23:59:59Z"},
            {"/end_at": "no time falls between start_at and end_at, so the schedule would never fire"},
        ),
        (
            {"at": "2026-01-01T00:00:00Z", "start_at": "2026-01-02T00:00:00Z"},
            {"/at": "is outside start_at and end_at, so the schedule would never fire"},
        ),
        (
            {"at": "2026-01-02T00:00:00.000001Z", "end_at": "2026-01-02T00:00:00Z"},
            {"/at": "is outside start_at and end_at, so the schedule would never fire"},
        ),
        ({"cron": "@daily", "run_at": "x", "a/b": 1}, {"/run_at": "unknown field", "/a~1b": "unknown field"}),
        (
            {"cron": "@daily", "on_complete": {"queue": "a"}},
            {"/on_complete/payload": "is required (null is a valid payload)"},
        ),
        ({"cron": "@daily", "on_complete": {"queue": "a", "payload": 1, "x": 2}}, {"/on_complete/x": "unknown field"}),
        (
            {
                "cron": "@daily",
                "tags": ["a", "a"],
                "headers": {"Host": "x"},
                "priority": 101,
                "retry": {"max_attempts": 0},
            },
            {
                "/tags": "contains the same tag twice",
                "/headers/Host": "is reserved: Sluice sets it itself; choose another name",
                "/priority": "expected an integer from -100 to 100",
                "/retry/max_attempts": "expected an integer from 1 to 1000",
            },
        ),
    ],
)
def test_what_breaks_a_rule_is_refused_by_its_pointer(fields: dict[str, Any], errors: dict[str, str]) -> None:
    assert refused(**fields) == errors


def test_errors_of_every_part_come_together() -> None:
    found = refused(queue="Q!", cron="* *", timezone="x", priority=200, max_runs=0, handler="H!",
                    on_complete={"queue": "Z!", "payload": 1})  # fmt: skip
    assert set(found) == {"/queue", "/cron", "/timezone", "/priority", "/max_runs", "/handler", "/on_complete/queue"}


def test_queue_and_payload_are_required() -> None:
    assert refused(b'{"cron":"@daily"}') == {
        "/queue": "is required",
        "/payload": "is required (null is a valid payload)",
    }
    assert refused(b"[]") == {"": "expected an object"}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "malformed"),
        (b'{"queue":"a","queue":"b"}', "malformed"),
        (b'{"queue":"a","payload":"' + b"x" * 100 + b'","cron":"@daily"}', "too_large"),
        (b'{"queue":"a","payload":' + b"[" * 129 + b"]" * 129 + b',"cron":"@daily"}', "malformed"),
    ],
)
def test_bodies_are_judged_as_those_of_tasks(body: bytes, code: str) -> None:
    with pytest.raises(Refusal) as found:
        parse_schedule(body, 100 if code == "too_large" else MIB)
    assert found.value.code == code


def test_the_payload_of_on_complete_has_the_bounds_of_payloads() -> None:
    found = refused(cron="@daily", on_complete={"queue": "a", "payload": "x" * 50}, max_payload_bytes=40)
    assert found == {"/on_complete/payload": "the payload has 52 bytes, at most 40 are allowed"}


@given(st.dictionaries(st.sampled_from([*EVERYTHING, "x"]), st.none() | st.booleans() | st.integers() | st.floats() |
                       st.text() | st.lists(st.integers()) | st.dictionaries(st.text(), st.integers())))  # fmt: skip
def test_any_value_of_any_field_is_taken_or_refused(fields: dict[str, Any]) -> None:
    body = json.dumps({"queue": "a", "payload": 1, "cron": "@daily"} | fields).encode()
    try:
        definition = parse_schedule(body, MIB)
    except Refusal as refusal:
        codes = refusal.code
        assert codes in ("invalid", "malformed")  # the codes are all there is to judge
        return
    assert reading(definition) and len(first(definition, 2)) <= 2
    assert parse_schedule(msgspec.json.encode(schedule_to_dict(definition)), MIB) == definition


@pytest.mark.parametrize(
    ("timing", "expected"),
    [
        ({"every_seconds": 3600}, ["2026-11-22T13:00:00", "2026-11-22T14:00:00"]),
        ({"every_seconds": 3600, "phase_seconds": 600}, ["2026-11-22T12:10:00", "2026-11-22T13:10:00"]),
        ({"every_seconds": 1.5}, ["2026-11-22T12:00:01.500000", "2026-11-22T12:00:03"]),
        ({"every_seconds": 1.1, "phase_seconds": 0.1}, ["2026-11-22T12:00:00.400000", "2026-11-22T12:00:01.500000"]),
        ({"at": "2026-11-22T13:00:00.25+01:00"}, []),
        ({"at": "2026-11-22T12:00:00.250001Z"}, ["2026-11-22T12:00:00.250001"]),
        ({"cron": "* * * * * *", "seconds": True}, ["2026-11-22T12:00:01", "2026-11-22T12:00:02"]),
        ({"cron": "*/30 * * * *"}, ["2026-11-22T12:30:00", "2026-11-22T13:00:00"]),
    ],
)
def test_times_lie_strictly_after(timing: dict[str, Any], expected: list[str]) -> None:
    assert first(parsed(**timing), 2) == expected


@given(
    st.integers(1_000, 10**9),
    st.integers(0, 10**9),
    st.datetimes(datetime(1960, 1, 1), datetime(2100, 1, 1)),
)
def test_intervals_are_a_grid_over_the_epoch(every: int, phase: int, after: datetime) -> None:
    phase %= every
    definition = parsed(every_seconds=every / 1000, phase_seconds=phase / 1000)
    given_after = after.replace(tzinfo=UTC)
    times = list(islice(times_after(definition, given_after), 3))
    epoch, unit = datetime(1970, 1, 1, tzinfo=UTC), timedelta(milliseconds=1)
    assert all((time - epoch - phase * unit) % (every * unit) == timedelta() for time in times)
    assert given_after < times[0] <= given_after + every * unit
    assert times[2] - times[1] == times[1] - times[0] == every * unit


def test_the_start_and_the_end_are_times_too() -> None:
    bounded = parsed(every_seconds=3600, start_at="2026-11-23T00:00:00Z", end_at="2026-11-23T02:00:00Z")
    assert first(bounded, 9) == ["2026-11-23T00:00:00", "2026-11-23T01:00:00", "2026-11-23T02:00:00"]
    assert first(bounded, 9, at("2026-11-23T01:00:00")) == ["2026-11-23T02:00:00"]
    assert first(bounded, 9, at("2026-11-23T02:00:00")) == []
    once = parsed(at="2026-11-23T00:00:00Z", start_at="2026-11-23T00:00:00Z")
    assert first(once, 2) == ["2026-11-23T00:00:00"]


def test_a_start_between_two_seconds_does_not_let_an_earlier_one_pass() -> None:
    definition = parsed(cron="* * * * * *", seconds=True, start_at="2026-11-23T00:00:00.000001Z")
    assert first(definition, 1) == ["2026-11-23T00:00:01"]


def test_times_may_be_asked_from_either_end_of_the_calendar() -> None:
    for timing in ({"cron": "@daily"}, {"every_seconds": 86_400}):
        definition = parsed(**timing)
        assert first(definition, 1, datetime(1, 1, 1, tzinfo=UTC))[0] <= "0002-01-02T00:00:00"
        assert first(definition, 1, datetime(9999, 12, 31, 23, 59, tzinfo=UTC)) == []
        assert len(first(definition, 1000, at("9998-12-01"))) <= 31


@given(st.text(min_size=1), st.integers(0, 10**9), st.floats(0.001, 86_400))
def test_jitter_is_the_same_wherever_it_is_computed_and_below_its_bound(key: str, second: int, most: float) -> None:
    definition = parsed(cron="@daily", jitter_seconds=most)
    nominal = datetime.fromtimestamp(second, UTC)
    jitter = jitter_of(definition, key, nominal)
    assert 0 <= jitter < most
    assert jitter == jitter_of(definition, key, nominal.astimezone())


def test_jitter_spreads_schedules_and_times() -> None:
    definition = parsed(cron="@daily", jitter_seconds=100)
    found = [jitter_of(definition, f"s{n % 100}", NOW + timedelta(days=n // 100)) for n in range(1000)]
    assert len(set(found)) == 1000
    assert 45 < sum(found) / len(found) < 55
    assert jitter_of(parsed(cron="@daily"), "a", NOW) == 0


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"cron": "@daily"}, "At 00:00 every day, UTC time."),
        (
            {"cron": "30 2 * * *", "timezone": "Europe/Berlin"},
            "At 02:30 every day, Europe/Berlin time; a local time skipped by a clock change runs right after the gap; "
            "a repeated one runs once, the first time.",
        ),
        (
            {"cron": "30 2 * * *", "timezone": "Europe/Berlin", "dst": "skip"},
            "At 02:30 every day, Europe/Berlin time; a local time skipped by a clock change does not run; a repeated one "
            "runs once, the first time.",
        ),
        (
            {"cron": "30 2 * * *", "timezone": "Europe/Berlin", "dst": "twice"},
            "At 02:30 every day, Europe/Berlin time; a local time skipped by a clock change runs right after the gap; "
            "a repeated one runs both times.",
        ),
        (
            {"cron": "*/30 * * * *", "timezone": "Europe/Berlin", "dst": "twice"},
            "Every 30th minute of every hour, Europe/Berlin time; follows elapsed time when the clocks change.",
        ),
        ({"cron": "30 2 * * *", "timezone": "Asia/Tokyo"}, "At 02:30 every day, Asia/Tokyo time."),
        ({"cron": "every 15 minutes"}, "Every 15 minutes, counted from 1970-01-01 00:00 UTC."),
        ({"every_seconds": 3600}, "Every hour, counted from 1970-01-01 00:00 UTC."),
        ({"every_seconds": 1.5}, "Every 1.5 seconds, counted from 1970-01-01 00:00 UTC."),
        (
            {"every_seconds": 5400, "phase_seconds": 60},
            "Every 90 minutes, counted from 1 minute after 1970-01-01 00:00 UTC.",
        ),
        ({"at": "2026-12-24T17:00:00Z"}, "Once, at 2026-12-24 17:00:00 UTC."),
        (
            {"at": "2026-12-24T17:00:00Z", "timezone": "Europe/Berlin"},
            "Once, at 2026-12-24 18:00:00+01:00 (Europe/Berlin).",
        ),
        (
            {"cron": "@daily", "start_at": "2026-01-01T00:00:00Z", "end_at": "2026-02-01T00:00:00.5Z", "max_runs": 1,
             "jitter_seconds": 90},
            "At 00:00 every day, UTC time. Not before 2026-01-01 00:00:00 UTC. Not after 2026-02-01 00:00:00.500000 UTC. "
            "At most 1 run. Each starts up to 90 seconds later, to spread the load.",
        ),
        ({"cron": "@daily", "max_runs": 3}, "At 00:00 every day, UTC time. At most 3 runs."),
    ],
)  # fmt: skip
def test_a_schedule_reads_in_plain_english(fields: dict[str, Any], words: str) -> None:
    assert reading(parsed(**fields)) == words
