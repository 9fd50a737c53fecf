"""The ledger of schedules: every nominal time is in exactly one row that is not extra. apply_schedules_v1 writes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from app.store.db import Reader
from app.store.statements import fill, part, sql
from app.store.windows import Windows


@dataclass(frozen=True, slots=True)
class Finished:
    """A run whose batch has completed but whose end is not in the ledger yet. A run that a redrive reopened before that
    continues."""

    schedule_id: int
    run_id: str
    task_id: str
    cause: str
    outcome: str


_FINISHED = sql("find_finished_runs")
_WAITING = sql("find_waiting_starts")
_RUNNING = sql("find_running_runs")


async def running(db: Reader, run_ids: Sequence[str]) -> set[str]:
    """Return those of the runs whose end is not recorded."""
    return {row[0] for row in await db.fetch(_RUNNING, run_ids)}


async def finished(db: Reader, limit: int) -> list[Finished]:
    """Return runs in the order in which they ended."""
    return [
        Finished(row["schedule_id"], str(row["run_id"]), str(row["task_id"]), row["cause"], row["outcome"])
        for row in await db.fetch(_FINISHED, limit)
    ]


@dataclass(frozen=True, slots=True)
class WaitingStart:
    run_id: str
    overlap: str
    """The run's own; empty for the schedule's."""


async def first_waiting(reader: Reader, ids: Sequence[int]) -> dict[int, WaitingStart]:
    """Return, by schedule, the oldest waiting start."""
    return {
        row["schedule_id"]: WaitingStart(row["id"], row["overlap"]) for row in await reader.fetch(_WAITING, list(ids))
    }


@dataclass(frozen=True, slots=True)
class LedgerRow:
    id: str
    nominal_at: datetime
    nominal_until: datetime
    count: int
    cause: str
    extra: bool
    outcome: str
    jitter_seconds: float
    fired_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    task_id: str | None
    replica: str | None


DAYS_ROWS = 20_000
_DAYS = sql("count_runs_by_day")
_FOUND = sql(
    "show_runs",
    where="r.id = any($1::uuid[]) and ($2::text is null or r.outcome = $2) order by r.nominal_at desc, r.id desc",
)
_OVERLAPPING = sql(
    "show_runs",
    where="not r.extra and int8range(r.schedule_id, r.schedule_id, '[]') && int8range($1, $1, '[]')"
    " and tstzrange(r.nominal_at, r.nominal_until, '[]') && tstzrange($2, $3) order by r.nominal_at limit $4",
)
"""Uses the index of the exclusion constraint that keeps nominal times unique."""
_WINDOW = sql("look_through_runs")
_REACHING = part("newest_run_before")
_REMOVE = sql("remove_runs")


Position = tuple[datetime, str]
"""(nominal_at, id) of a row."""


async def days(reader: Reader, schedule_id: int, since: datetime) -> list[tuple[date, str, int]]:
    """Return how many nominal times since an instant had each outcome, by day, of the newest DAYS_ROWS rows."""
    return [tuple(row) for row in await reader.fetch(_DAYS, schedule_id, since, DAYS_ROWS)]


async def history(
    reader: Reader,
    schedule_id: int,
    *,
    outcome: str | None,
    from_: datetime | None,
    to: datetime | None,
    before: Position | None,
    limit: int,
) -> tuple[list[LedgerRow], Position | None]:
    """Return rows with a time in [from, to), newest first, before a position, and the next position, None after the last.

    A schedule may have millions of rows, few of them with the outcome, so they are searched in windows, like pages of tasks
    (task_lists). A page may therefore have fewer rows than `limit` although there are more.
    """
    windows = Windows(limit + 1)
    found: list[Position] = []
    position = before
    while True:
        rows = windows.rows if outcome else limit + 1
        fits, position = await _look(reader, schedule_id, outcome, (from_, to), position, rows, limit + 1 - len(found))
        found += fits
        if len(found) > limit or position is None or not windows.looked():
            break
    if len(found) > limit:
        del found[limit:]
        position = found[-1]
    shown = await reader.fetch(_FOUND, [row_id for _, row_id in found], outcome)
    return [LedgerRow(**dict(row.items())) for row in shown], position


async def _look(
    reader: Reader,
    schedule_id: int,
    outcome: str | None,
    span: tuple[datetime | None, datetime | None],
    before: Position | None,
    rows: int,
    limit: int,
) -> tuple[list[Position], Position | None]:
    """Return, of the newest `rows` rows, those with the outcome, and the last one searched; None if there are no more."""
    args: list[Any] = [schedule_id]

    def given(value: object, kind: str) -> str:
        args.append(value)
        return f"${len(args)}::{kind}"

    within = ["r.schedule_id = $1"]
    if before is not None:
        within.append(f"(r.nominal_at, r.id) < ({given(before[0], 'timestamptz')}, {given(before[1], 'uuid')})")
    if span[0] is not None:
        from_ = given(span[0], "timestamptz")
        within.append(
            f"r.nominal_until >= {from_} and r.nominal_at >= coalesce(({fill(_REACHING, instant=from_)}), {from_})"
        )
    if span[1] is not None:
        within.append(f"r.nominal_at < {given(span[1], 'timestamptz')}")
    fits = "true" if outcome is None else f"r.outcome = {given(outcome, 'text')}"
    window = fill(_WINDOW, within=" and ".join(within), fits=fits, rows=str(rows), limit=str(limit))
    [row] = await reader.fetch(window, *args)
    last = (row["nominal_at"], row["id"]) if row["looked_at"] >= rows else None
    return list(zip(row["instants"], row["ids"], strict=True)), last


async def overlapping(reader: Reader, schedule_id: int, from_: datetime, to: datetime, limit: int) -> list[LedgerRow]:
    """Return the rows, without extra ones, that have a time in [from, to), oldest first."""
    rows = await reader.fetch(_OVERLAPPING, schedule_id, from_, to, limit)
    return [LedgerRow(**dict(row.items())) for row in rows]


async def take_out(connection: Reader, row_ids: Sequence[str]) -> None:
    """Remove rows that are written again, in parts, in the same transaction."""
    await connection.fetch(_REMOVE, row_ids)
