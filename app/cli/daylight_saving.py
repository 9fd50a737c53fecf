"""The page that shows what schedules do when clocks change, computed by the code that fires them."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import NamedTuple, get_args

from app.domain.schedules.cron import Dst
from app.domain.schedules.definitions import ScheduleDefinition
from app.domain.schedules.times import times_after
from app.domain.schedules.zones import zone_of

_HOUR = timedelta(hours=1)


class Change(NamedTuple):
    """A change of the clocks, and an expression for a local time that the change skips or repeats."""

    zone: str
    at: datetime
    what: str
    fixed: str


def _change(zone: str, at: str, what: str, fixed: str) -> Change:
    return Change(zone, datetime.fromisoformat(at).replace(tzinfo=UTC), what, fixed)


CHANGES = (
    _change("America/New_York", "2026-03-08 07:00", "02:00 becomes 03:00", "30 2 * * *"),
    _change("America/New_York", "2026-11-01 06:00", "02:00 becomes 01:00", "30 1 * * *"),
    _change("America/Los_Angeles", "2026-03-08 10:00", "02:00 becomes 03:00", "0,30 2 * * *"),
    _change("America/Los_Angeles", "2026-11-01 09:00", "02:00 becomes 01:00", "0,30 1 * * *"),
    _change("Europe/London", "2026-03-29 01:00", "01:00 becomes 02:00", "30 1,2 * * *"),
    _change("Europe/London", "2026-10-25 01:00", "02:00 becomes 01:00", "30 1,2 * * *"),
    _change("Europe/Berlin", "2026-03-29 01:00", "02:00 becomes 03:00", "0 2,3 * * *"),
    _change("Europe/Berlin", "2026-10-25 01:00", "03:00 becomes 02:00", "0 2,3 * * *"),
    _change("Australia/Lord_Howe", "2026-10-03 15:30", "02:00 becomes 02:30", "15 2 * * *"),
    _change("Australia/Lord_Howe", "2026-04-04 15:00", "02:00 becomes 01:30", "45 1 * * *"),
    _change("America/Sao_Paulo", "2018-11-04 03:00", "00:00 becomes 01:00", "0 0 * * *"),
    _change("America/Sao_Paulo", "2018-02-18 02:00", "00:00 becomes 23:00 of the day before", "30 23 * * *"),
    _change("Pacific/Apia", "2011-12-30 10:00", "30 December becomes 31 December", "0 9 * * *"),
)
WILD = ("*/30 * * * *", "30 * * * *", "*/30 1-3 * * *")
"""Expressions that follow elapsed time."""
AROUND = {"fixed": 20 * _HOUR, "wild": 2 * _HOUR}
"""How far the tables look before and after a change."""


def times_around(change: Change, expression: str, dst: Dst, width: timedelta) -> list[datetime]:
    """The instants less than `width` away from the change, in its time zone."""
    definition = ScheduleDefinition("any", b"null", cron=expression, timezone=change.zone, dst=dst)
    times = takewhile(lambda time: time < change.at + width, times_after(definition, change.at - width))
    return [time.astimezone(zone_of(change.zone)) for time in times]


def daylight_saving_page() -> str:
    lines = [
        "# Daylight saving",
        "",
        "Generated from `app/domain/schedules/cron.py`. A test checks every line against a search minute by minute.",
        "",
        "A cron expression names local times in its `timezone`. When clocks change, some local times are skipped or repeated. If",
        "neither the minute nor the hour of the expression begins with `*`, `dst` decides what happens to them:",
        "",
        "| `dst` | a skipped local time | a repeated local time |",
        "|---|---|---|",
        "| `once` (the default) | runs at the first instant after the gap | runs once, the first time |",
        "| `skip` | does not run | runs once, the first time |",
        "| `twice` | runs at the first instant after the gap | runs both times |",
        "",
        "Times that fall on the same instant count as one. The size of the change and the reason for it make no difference: Apia",
        "once skipped a whole day. All other expressions follow elapsed time, whatever `dst` says. They run whenever the clock",
        "shows a matching time, so `*/30 * * * *` keeps its 30 minutes. Intervals (`every_seconds`, `every 15 minutes`) count from",
        "1970-01-01 00:00 UTC and ignore clock changes. Time zones come from the package tzdata, never from the machine.",
        "",
        "## Fixed minute and hour",
        "",
        f"All times within {AROUND['fixed'] // _HOUR} hours of the change.",
        "",
        "| zone | clocks | cron | `once` | `skip` | `twice` |",
        "|---|---|---|---|---|---|",
        *map(_fixed_line, CHANGES),
        "",
        "## Minute or hour begins with `*`",
        "",
        f"All times within {AROUND['wild'] // _HOUR} hours of the change.",
        "",
        "| zone | clocks | cron | runs at |",
        "|---|---|---|---|",
        *(_wild_line(change, expression) for change in CHANGES for expression in WILD),
    ]
    return "\n".join(lines) + "\n"


def _fixed_line(change: Change) -> str:
    cells = (_cell(times_around(change, change.fixed, dst, AROUND["fixed"])) for dst in get_args(Dst))
    return f"| {change.zone} | {_when(change)} | `{change.fixed}` | {' | '.join(cells)} |"


def _wild_line(change: Change, expression: str) -> str:
    cell = _cell(times_around(change, expression, "once", AROUND["wild"]))
    return f"| {change.zone} | {_when(change)} | `{expression}` | {cell} |"


def _when(change: Change) -> str:
    before = (change.at - timedelta(seconds=1)).astimezone(zone_of(change.zone)) + timedelta(seconds=1)
    return f"{before.date()}: {change.what}"


def _cell(times: Iterable[datetime]) -> str:
    return ", ".join(f"{time:%d}. {time:%H:%M}{time.isoformat()[-6:]}" for time in times) or "–"
