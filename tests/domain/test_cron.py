"""Cron expressions: what is refused and in which words, how the others read, and the names of zones."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.schedules.cron import CronError, explained, parse_cron, parse_interval
from app.domain.schedules.zones import changes_clocks, zone_names, zone_of, zone_problem

NEVER = "never fires: no date has this day in these months"
COUNT = "(minute hour day-of-month month day-of-week)"


def refusal(text: str, *, seconds: bool = False) -> str:
    with pytest.raises(CronError) as found:
        parse_cron(text, seconds=seconds)
    return str(found.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must not be empty"),
        ("   ", "must not be empty"),
        ("5 4 * *", f"has 4 fields, expected five {COUNT}"),
        ("daily", f"has 1 field, expected five {COUNT}"),
        ("* * * * * *", "has six fields, expected five; set `seconds: true` if the first is seconds"),
        (
            "0 0 0 1 1 ? 2026",
            "has seven fields; cron has no year field, so use start_at and end_at to bound a schedule",
        ),
        (
            "@reboot",
            "`@reboot` is not an alias; use @hourly, @daily, @midnight, @weekly, @monthly, @yearly or @annually",
        ),
        (
            "every 1.5 hours",
            "`every 1.5 hours` is not an interval; write `every 15 minutes`, with "
            "a whole number of seconds, minutes, hours, days or weeks",
        ),
        ("0 0 30 2 *", NEVER),
        ("0 0 31 2,4,6,9,11 *", NEVER),
        ("* * */20 * 1L", NEVER),
        ("0 0 */31 2 1#5", NEVER),
        ("0 0 30,31 feb */2", NEVER),
        ("60 * * * *", "minute `60`: expected 0-59, `*`, lists, ranges or steps of them"),
        ("60 24 * * *", "minute `60`: expected 0-59, `*`, lists, ranges or steps of them"),
        ("0 24 * * *", "hour `24`: expected 0-23, `*`, lists, ranges or steps of them"),
        (
            "0 0 32 * *",
            "day-of-month `32`: expected 1-31, L (the last day) or LW (the last weekday), `*`, lists, ranges or steps of them",
        ),
        ("0 0 1 13 *", "month `13`: expected 1-12 or JAN-DEC, `*`, lists, ranges or steps of them"),
        ("1,,2 * * * *", "minute `1,,2`: expected 0-59, `*`, lists, ranges or steps of them"),
        ("-5 * * * *", "minute `-5`: expected 0-59, `*`, lists, ranges or steps of them"),
        ("*/0 * * * *", "minute `*/0`: a step must be at least 1"),
        ("*/ * * * *", "minute `*/`: a step must be at least 1"),
        ("0 22-4 * * *", "hour `22-4`: the range 22-4 runs backwards"),
        (
            "0 0 * * sat-sun",
            "day-of-week `sat-sun`: the range sat-sun runs backwards; Sunday at the end of a range is 7",
        ),
        ("0 0 * dec-jan *", "month `dec-jan`: the range dec-jan runs backwards"),
        ("0 0 ? * 1", "day-of-month `?`: `?` is not supported; write `*`"),
        ("0 0 15W * *", "day-of-month `15W`: the weekday nearest to a day (`W`) is not supported"),
        ("0 0 * * L", "day-of-week `L`: give a day, such as 5L for the last Friday of the month"),
        ("0 0 é * *", "must be printable ASCII"),
        ("0 0\x00 * * *", "must be printable ASCII"),
        ("0 0\u2028* * *", "must be printable ASCII"),
        ("1," * 300 + "1 * * * *", "is longer than 500 characters"),
    ],
)
def test_what_cannot_be_is_refused_with_words_for_its_author(text: str, words: str) -> None:
    assert refusal(text) == words


def test_seconds_allow_a_sixth_field_and_ask_for_none() -> None:
    assert parse_cron("*/20 * * * * *", seconds=True).seconds == (0, 20, 40)
    assert parse_cron("* * * * *", seconds=True).seconds == (0,)
    assert refusal("60 * * * * *", seconds=True).startswith("second `60`: ")
    assert refusal("* * * *", seconds=True) == f"has 4 fields, expected five, or six that begin with seconds {COUNT}"


@given(st.text(max_size=30) | st.text("0123456789*/-,LW#?@ \tmonfri", max_size=30))
def test_any_text_is_taken_or_refused_and_what_is_taken_can_be_read(text: str) -> None:
    for seconds in (False, True):
        try:
            cron = parse_cron(text, seconds=seconds)
        except CronError as error:
            found = str(error)
        else:
            found = explained(cron)
        assert found and "None" not in found


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("every 15 minutes", 900), ("every 1 hour", 3600), ("EVERY  2 Days", 172_800), ("every week", 604_800),
     (" every 30 seconds ", 30), ("every 1 minutes", 60), ("0 0 * * *", None), ("every 1.5 hours", None),
     ("every -1 hours", None), ("every month", None), ("every 15minutes", None), ("15 minutes", None)],
)  # fmt: skip
def test_intervals_in_words(text: str, seconds: int | None) -> None:
    assert parse_interval(text) == seconds


@pytest.mark.parametrize("text", ["every 0 minutes", "every 000 weeks", "every 523 weeks", "every 999999999 weeks"])
def test_intervals_in_words_have_the_bounds_of_every_seconds(text: str) -> None:
    with pytest.raises(CronError, match="an interval must be 1 to 316224000 seconds"):
        parse_interval(text)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("30 2 * * *", "At 02:30 every day"),
        ("@daily", "At 00:00 every day"),
        ("*/15 * * * *", "Every 15th minute of every hour"),
        ("0 9 * * mon-fri", "At 09:00 on Monday through Friday"),
        ("0 0 13 * 5", "At 00:00 on the 13th day of month and on Friday"),
        ("0 0 L * *", "At 00:00 on the last day of every month"),
        ("0 0 * * fril", "At 00:00 on the last Friday of the month"),
        ("0 0 * * 5#2", "At 00:00 on the second Friday of the month"),
        ("*/90 * * * *", "At the start of every hour"),
        ("5-5/10 * * * *", "At minute 5 of every hour"),
    ],
)
def test_expressions_in_plain_english(expression: str, words: str) -> None:
    assert explained(parse_cron(expression)) == words


def test_there_is_every_zone_and_each_can_be_read() -> None:
    assert {"UTC", "Europe/Berlin", "Australia/Lord_Howe", "US/Pacific"} <= zone_names()
    assert all(zone_of(name).utcoffset(datetime(2026, 1, 1, tzinfo=UTC)) is not None for name in zone_names())


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("europe/berlin", "; did you mean Europe/Berlin?"),
        ("Berlin", "; did you mean Europe/Berlin?"),
        ("New York", "; did you mean America/New_York?"),
        ("Europe/Berln", "; did you mean Europe/Berlin?"),
        ("utc", "; did you mean UTC?"),
        ("../../etc/passwd", ""),
        ("/usr/share/zoneinfo/UTC", ""),
        ("", ""),
        ("\x00", ""),
        ("x" * 100_000, ""),
    ],
)
def test_what_is_no_zone_is_refused_with_the_nearest_that_is_one(name: str, hint: str) -> None:
    assert zone_problem(name) == "is not an IANA time zone such as Europe/Berlin or UTC" + hint


def test_zones_that_change_their_clocks_are_known() -> None:
    changing = [name for name in ("UTC", "Asia/Kolkata", "Europe/Berlin", "America/New_York") if changes_clocks(name)]
    assert changing == ["Europe/Berlin", "America/New_York"]
