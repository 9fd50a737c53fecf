"""Backfill: nominal times of a window without a run get one, and leave the ledger rows that said why they had none."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby, islice, pairwise, takewhile
from typing import Annotated

from msgspec import Meta, Struct, structs

from app.domain.callers import Caller
from app.domain.errors import invalid_field
from app.domain.instants import format_instant
from app.domain.schedules.definitions import Overlap, ScheduleDefinition
from app.domain.schedules.firing import DueTime, Start, TimesWithoutRun, apply_overlap
from app.domain.schedules.times import EPOCH, MICROSECOND, times_after
from app.runtime.catalogue import until_current
from app.runtime.core import Core
from app.runtime.schedule_changes import ScheduleChange, after_commit, next_look, write_held
from app.service.audit import audited, record
from app.service.schedules import definition_of, find
from app.store import ledger, schedules
from app.store.ledger import LedgerRow
from app.store.schedules import ScheduleState

MAX_BACKFILL = 10_000
MAX_ROWS = 20_000
"""Limit on ledger rows, because an earlier definition may have left many more than the present one has times."""
MAX_EXACT = 200_000
"""A row with more times than this is divided as if they were evenly spaced."""


class Backfilled(Struct, frozen=True):
    matched: Annotated[int, Meta(description="Nominal times in the window.")]
    started: int
    waiting: int
    passed_over: Annotated[int, Meta(description="Times that already have a run, or are about to fire.")]
    skipped: Annotated[
        int, Meta(description="Times that the overlap policy kept from running; they stay as they were.")
    ]


@audited("backfill", "schedule")
async def backfill(
    core: Core, caller: Caller, name: str, from_: datetime, to: datetime, overlap: Overlap | None, rerun: bool
) -> Backfilled:
    """Run the nominal times in [from_, to) without a run. Raises Refusal: schedule_not_found, invalid, unavailable."""
    caller.require("manage")
    if to <= from_:
        raise invalid_field("/to", "must be after from")
    changes = core.db.changes(caller.tenant_id)

    async def attempt() -> Backfilled | None:
        row = await find(changes, caller, name)
        definition = definition_of(row)
        [state] = await schedules.states(changes, [row.id])
        if to > state.now:
            raise invalid_field("/to", f"is in the future; it is now {format_instant(state.now)}")
        times = await core.compute.run(caller.tenant_id, _times_between, definition, from_, to)
        if len(times) > MAX_BACKFILL:
            raise invalid_field("/to", f"the window has more than {MAX_BACKFILL} scheduled times; choose a shorter one")
        rows = await ledger.overlapping(changes, row.id, from_, to, MAX_ROWS + 1)
        if len(rows) > MAX_ROWS:
            raise invalid_field("/to", f"the window has more than {MAX_ROWS} rows in the ledger; choose a shorter one")
        made = await core.compute.run(caller.tenant_id, _backfill, definition, state, times, rows, overlap, rerun)
        async with changes.transaction() as connection:
            if not await schedules.lock_state(connection, state):
                return None
            await ledger.take_out(connection, made.taken)
            await write_held(connection, core, made.change)
            asked = {"from": from_, "to": to, "overlap": overlap, "rerun": rerun}
            await record(connection, caller, None, asked | structs.asdict(made.result))
        after_commit(core, made.change)
        return made.result

    return await until_current(attempt, f"schedule {name}")


def _times_between(definition: ScheduleDefinition, from_: datetime, to: datetime) -> list[datetime]:
    """Return the nominal times in [from_, to), at most one more than a backfill allows."""
    times = takewhile(lambda time: time < to, times_after(definition, max(from_, EPOCH) - MICROSECOND))
    return list(islice(times, MAX_BACKFILL + 1))


@dataclass(frozen=True, slots=True)
class _Prepared:
    change: ScheduleChange
    taken: list[str]
    result: Backfilled


def _backfill(
    definition: ScheduleDefinition,
    state: ScheduleState,
    times: Sequence[datetime],
    rows: Sequence[LedgerRow],
    overlap: Overlap | None,
    rerun: bool,
) -> _Prepared:
    ran = {row.nominal_at for row in rows if row.fired_at is not None or row.outcome == "waiting"}
    coming = state.next_nominal_at or datetime.max.replace(tzinfo=UTC)
    candidates = [
        DueTime(time, "backfill", extra=time in ran) for time in times if (rerun or time not in ran) and time < coming
    ]
    decision = apply_overlap(candidates, state.runs, overlap or definition.overlap)
    starts = [line for line in decision.lines if isinstance(line, Start)]
    taken_times = {line.due.nominal_at for line in starts if not line.due.extra}
    change = ScheduleChange.of(
        replace(state, newest_id=None), next_look(definition, state, state.next_nominal_at, state.now)
    )
    change.lines, change.cancel = list(starts), decision.cancel
    change.counted, change.overlap = False, overlap
    taken: list[str] = []
    for row in rows:
        if row.fired_at is None and row.outcome != "waiting":
            out = sorted(time for time in taken_times if row.nominal_at <= time <= row.nominal_until)
            if out:
                taken.append(row.id)
                change.lines += _pieces(definition, row, out)
    waiting = sum(line.waiting for line in starts)
    result = Backfilled(
        len(times), len(starts) - waiting, waiting, len(times) - len(candidates), len(candidates) - len(starts)
    )
    return _Prepared(change, taken, result)


def _pieces(definition: ScheduleDefinition, row: LedgerRow, out: Sequence[datetime]) -> list[TimesWithoutRun]:
    """Return what remains of a row without these times."""
    if row.count == 1:
        return []
    if row.count > MAX_EXACT:
        ends = (row.nominal_at, row.nominal_until)
        ours = all(next(times_after(definition, end - MICROSECOND), None) == end for end in ends)
        return _parts(row, out, len(out) if ours else sum(time in ends for time in out))
    within = takewhile(lambda time: time <= row.nominal_until, times_after(definition, row.nominal_at - MICROSECOND))
    times = list(islice(within, row.count + 1))
    if len(times) != row.count or times[0] != row.nominal_at or times[-1] != row.nominal_until:
        return _parts(row, out, sum(time in (row.nominal_at, row.nominal_until) for time in out))
    taken = set(out)
    runs = ((went, list(group)) for went, group in groupby(times, key=taken.__contains__))
    return [_part(row, group[0], group[-1], len(group)) for went, group in runs if not went]


def _parts(row: LedgerRow, out: Sequence[datetime], gone: int) -> list[TimesWithoutRun]:
    """Do the same as _pieces for a row whose times belong to an earlier definition, or are too many to iterate: the remaining
    times are spread evenly over the remaining range. `gone` is how many are removed."""
    edges = [row.nominal_at - MICROSECOND, *out, row.nominal_until + MICROSECOND]
    gaps = [(a + MICROSECOND, b - MICROSECOND) for a, b in pairwise(edges) if b - a > MICROSECOND]
    left = row.count - gone
    length = sum((b - a + MICROSECOND for a, b in gaps), timedelta())
    parts: list[TimesWithoutRun] = []
    passed, given = timedelta(), 0
    for a, b in gaps:
        passed += b - a + MICROSECOND
        count = round(left * (passed / length)) - given
        if count:
            parts.append(_part(row, a, b, count))
        given += count
    return parts


def _part(row: LedgerRow, first: datetime, last: datetime, count: int) -> TimesWithoutRun:
    return TimesWithoutRun(first, last, count, row.outcome, row.cause)  # type: ignore[arg-type]  # as it was read
