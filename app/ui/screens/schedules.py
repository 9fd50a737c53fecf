"""Schedules: when they fire, and what became of each of their times."""

from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta
from typing import Any

from starlette.responses import Response

from app.domain.errors import FieldError, invalid
from app.domain.instants import NO_INSTANT, format_instant, parse_instant
from app.domain.names import is_name
from app.domain.schedules.times import EPOCH
from app.edge.pages import DEFAULT_LIMIT, binding, next_cursor, position_of
from app.service import backfills, schedules, why
from app.store.ledger import LedgerRow
from app.ui.visits import Visit

LIST = binding("schedules")
DAYS = 30
SHOWN_RUNS = 50
SEVERITY = (
    "ran_failed",
    "missed",
    "dropped",
    "skipped_overlap",
    "cancelled",
    "running",
    "waiting",
    "paused",
    "superseded",
    "ran_ok",
)
"""The most serious outcome of a day stands for it."""


async def show_all(visit: Visit) -> Response:
    after = position_of(visit.query("cursor"), LIST, is_name)
    views, more = await schedules.list_page(visit.core, visit.caller, after, DEFAULT_LIMIT)
    following = next_cursor(LIST, views[-1].id) if more else None
    return visit.page("schedules.html", here="schedules", schedules=views, following=following, first=after is None)


async def show(visit: Visit) -> Response:
    name = visit.name("schedule")
    view, _ = await schedules.get(visit.core, visit.caller, name)
    now = visit.core.clock.now()
    since = (now - timedelta(days=DAYS - 1)).replace(hour=0, minute=0, second=0, microsecond=0)
    counted = await schedules.days(visit.core, visit.caller, name, since)
    rows, _ = await schedules.history(
        visit.core, visit.caller, name, outcome=None, from_=None, to=None, before=None, limit=SHOWN_RUNS
    )
    found, _ = await why.of_schedule(visit.core, visit.caller, name, None)
    return visit.page(
        "schedule.html",
        here="schedules",
        view=view,
        why=found,
        days=list(_days(since.date(), counted)),
        runs=rows,
        points=_durations(rows),
    )


def _days(first: date, counted: Sequence[tuple[date, str, int]]) -> Iterator[dict[str, Any]]:
    """Yield a cell for each day: its most serious outcome, and how many times had which."""
    for n in range(DAYS):
        day = first + timedelta(days=n)
        found = {outcome: times for at, outcome, times in counted if at == day}
        worst = next((outcome for outcome in SEVERITY if outcome in found), None)
        yield {"day": day, "worst": worst, "counts": found}


def _durations(rows: Sequence[LedgerRow]) -> list[dict[str, Any]]:
    """Return the runs that have ended, oldest first, with how long they took."""
    return [
        {"at": format_instant(row.nominal_at), "duration": (row.completed_at - row.started_at).total_seconds()}
        for row in reversed(rows)
        if row.started_at is not None and row.completed_at is not None
    ]


async def pause(visit: Visit) -> Response:
    view = await schedules.pause(visit.core, visit.caller, visit.name("schedule"))
    return visit.redirect("schedules", view.id, notice="schedule-paused")


async def resume(visit: Visit) -> Response:
    view = await schedules.resume(visit.core, visit.caller, visit.name("schedule"))
    return visit.redirect("schedules", view.id, notice="schedule-resumed")


async def trigger(visit: Visit) -> Response:
    name = visit.name("schedule")
    await schedules.trigger(visit.core, visit.caller, name, None, None)
    return visit.redirect("schedules", name, notice="triggered")


async def ask_backfill(visit: Visit) -> Response:
    """Ask for the window; with one, show which times it has."""
    visit.caller.require("manage")
    name = visit.name("schedule")
    view, _ = await schedules.get(visit.core, visit.caller, name)
    given = {"from": visit.query("from"), "to": visit.query("to")}
    times = None
    if all(given.values()):
        from_, to = _window(given)
        before = max(from_, EPOCH) - timedelta(microseconds=1)
        found = await schedules.preview_saved(visit.core, visit.caller, name, 100, before)
        times = [time for time in found.times if (parse_instant(time.at) or to) < to]
    return visit.page("schedule_backfill.html", here="schedules", view=view, given=given, times=times)


async def backfill(visit: Visit) -> Response:
    name = visit.name("schedule")
    from_, to = _window({"from": visit.form.get("from"), "to": visit.form.get("to")})
    await backfills.backfill(visit.core, visit.caller, name, from_, to, None, False)
    return visit.redirect("schedules", name, notice="backfilled")


def _window(given: dict[str, str | None]) -> tuple[datetime, datetime]:
    found = {name: parse_instant(text or "") or parse_instant(f"{text}Z") for name, text in given.items()}
    errors = [FieldError(f"/{name}", NO_INSTANT) for name, instant in found.items() if instant is None]
    from_, to = found["from"], found["to"]
    if from_ is None or to is None:
        raise invalid(errors)
    if from_ >= to:
        raise invalid([FieldError("/to", "must be later than from")])
    return from_, to
