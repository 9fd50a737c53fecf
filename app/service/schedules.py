"""Schedules: who may define and operate what fires by itself.

A change is one transaction: the schedule's row is locked, its state is read in a later statement, what becomes of it is decided
(app.domain.firing) and written. From the answer on the definition before never fires: its times that have come and not fired are
in the ledger, and its waiting starts are dropped.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby, islice, pairwise, takewhile
from typing import Any

import msgspec

from app.domain.conditions import Conditions
from app.domain.errors import FieldError, Refusal, invalid, invalid_field
from app.domain.firing import Due, Overlap, Start, Without, judge, left_over, may_start
from app.domain.instants import format_instant
from app.domain.names import NAME_RULE, is_name
from app.domain.schedules import (
    ScheduleDefinition,
    parse_schedule,
    reading,
    schedule_etag,
    schedule_to_dict,
    times_after,
)
from app.domain.tasks import Enqueue
from app.domain.zones import zone_of
from app.service.context import Caller, Core
from app.service.firing import Change, announce, look_at
from app.service.tasks import LOOKUP_SECONDS, LOOKUPS, check, named_queue
from app.store import handlers, schedules
from app.store.queues import QueueRow
from app.store.schedules import Columns, LedgerRow, Reader, ScheduleRow, ScheduleState

SHOWN_TIMES = 5
MAX_BACKFILL = 10_000
TICK = timedelta(microseconds=1)
FIRST = datetime(1970, 1, 1, tzinfo=UTC)
"""No time before this is looked for."""


@dataclass(frozen=True, slots=True)
class Saved:
    view: dict[str, Any]
    etag: str
    created: bool


@dataclass(frozen=True, slots=True)
class _Named:
    """What a definition names, as it is now."""

    queue: QueueRow
    then_queue: QueueRow | None
    handler_id: int

    @property
    def queues(self) -> list[tuple[int, int]]:
        rows = [self.queue] if self.then_queue is None else [self.queue, self.then_queue]
        return sorted({(row.id, row.version) for row in rows})


def _not_found(name: str) -> Refusal:
    return Refusal("schedule_not_found", f"there is no schedule {name}; PUT /schedules/{name} creates it")


def shown(row: ScheduleRow, now: datetime) -> dict[str, Any]:
    """As the wire has it. The times are those that will fire: of a paused schedule, those it would have."""
    definition = _definition(row)
    view: dict[str, Any] = {"id": row.name, **schedule_to_dict(definition)}
    view["payload"] = msgspec.Raw(row.payload)
    view |= {
        "paused": row.paused,
        "paused_at": _text(row.paused_at),
        "paused_reason": row.paused_reason,
        "next_nominal_at": _text(row.next_nominal_at),
        "created_at": _text(row.created_at),
        "updated_at": _text(row.updated_at),
    }
    times = [] if row.next_nominal_at is None else list(islice(times_after(definition, now), SHOWN_TIMES))
    return view | {"times": _times(definition, times), "reading": reading(definition)}


def _definition(row: ScheduleRow) -> ScheduleDefinition:
    return parse_schedule(row.definition.encode(), 2**31)


def _text(at: datetime | None) -> str | None:
    return None if at is None else format_instant(at)


def _times(definition: ScheduleDefinition, times: Sequence[datetime]) -> list[dict[str, str]]:
    zone = zone_of(definition.timezone)
    return [{"at": format_instant(time), "local": time.astimezone(zone).isoformat()} for time in times]


def preview(definition: ScheduleDefinition, count: int, after: datetime) -> dict[str, Any]:
    """The next `count` nominal times strictly after an instant, and what the definition says in words."""
    times = list(islice(times_after(definition, after), count))
    return {"times": _times(definition, times), "reading": reading(definition)}


async def put(core: Core, caller: Caller, name: str, definition: ScheduleDefinition, conditions: Conditions) -> Saved:
    """Create or replace; a pause survives. Raises Refusal: invalid, payload_schema_mismatch, etag_mismatch, unavailable."""
    caller.require("manage")
    if not is_name(name):
        raise invalid([FieldError("", f"{name} is not a name ({NAME_RULE})")])
    for tried in range(LOOKUPS):
        await asyncio.sleep(LOOKUP_SECONDS * tried)
        named = await _named(core, caller, definition)
        saved = await _put(core, caller, name, definition, named, conditions)
        if saved is not None:
            return saved
        core.queue_cache.pop((caller.tenant_id, definition.queue), None)
        if definition.on_complete is not None:
            core.queue_cache.pop((caller.tenant_id, definition.on_complete.queue), None)
    raise Refusal("unavailable", f"what schedule {name} names keeps changing", retry_after_seconds=1)


async def _named(core: Core, caller: Caller, definition: ScheduleDefinition) -> _Named:
    queue = await named_queue(core, caller, definition.queue, "/queue")
    own = None
    if definition.handler is not None:
        own = await handlers.find_own(core.db, caller.tenant_id, definition.handler)
    await check(core, queue, own, Enqueue(definition.payload, handler=definition.handler))
    then = None
    if definition.on_complete is not None:
        then = await named_queue(core, caller, definition.on_complete.queue, "/on_complete/queue")
        await check(core, then, None, Enqueue(definition.on_complete.payload), "/on_complete")
    return _Named(queue, then, own.id if own else 0)


async def _put(
    core: Core, caller: Caller, name: str, definition: ScheduleDefinition, named: _Named, conditions: Conditions
) -> Saved | None:
    """None: to be tried again, for something has changed meanwhile."""
    columns = _columns(definition, named)
    change: Change | None = None
    async with core.db.transaction() as connection:
        if not await schedules.hold_named(connection, named.queues, named.handler_id):
            return None
        schedule_id = await schedules.lock(connection, caller.tenant_id, name)
        before = await schedules.find(connection, caller.tenant_id, name) if schedule_id else None
        conditions.check(before.etag if before else None)
        at = await schedules.now(connection)
        if before is None:
            first = next(times_after(definition, at), None)
            state = ScheduleState.new(caller.tenant_id, caller.tenant, name, at)
            look = look_at(definition, state, first, at)
            if not await schedules.insert(connection, caller.tenant_id, name, columns, at, first, look):
                return None
        elif before.etag != columns.etag:
            change = await _replaced(connection, core, before, definition)
            await schedules.replace(connection, before.id, columns, change.state.now)
        after = await schedules.find(connection, caller.tenant_id, name)
        assert after is not None, "its row is locked"
    if change is not None:
        announce(core, change)
    elif before is None and look is not None:
        core.signals.look_at(look.timestamp())
    return Saved(shown(after, at), after.etag, before is None)


def _columns(definition: ScheduleDefinition, named: _Named) -> Columns:
    kept = schedule_to_dict(definition) | {"payload": None}
    then = definition.on_complete
    return Columns(
        queue_id=named.queue.id,
        handler_id=named.handler_id,
        definition=msgspec.json.encode(kept).decode(),
        payload=definition.payload,
        priority=definition.priority,
        type=definition.type,
        headers=msgspec.json.encode(definition.headers).decode() if definition.headers else None,
        tags=list(definition.tags) or None,
        retry=msgspec.json.encode(definition.retry).decode() if definition.retry else None,
        max_attempts=(definition.retry or {}).get("max_attempts"),
        timeout_seconds=definition.timeout_seconds,
        then_queue_id=named.then_queue.id if named.then_queue else None,
        then_payload=then.payload if then else None,
        etag=schedule_etag(definition),
    )


async def _replaced(connection: Reader, core: Core, before: ScheduleRow, definition: ScheduleDefinition) -> Change:
    """Write what the definition before leaves behind, and when the new one begins."""
    [state] = await schedules.states(connection, [before.id])
    outcome = "paused" if state.paused else "superseded"
    change = Change.of(state, None)
    change.lines = list(
        await asyncio.to_thread(left_over, _definition(before), state.next_nominal_at, state.now, outcome)
    )
    change.drop = True
    change.failures = 0
    exhausted = definition.max_runs is not None and state.runs_made >= definition.max_runs
    change.next_nominal_at = None if exhausted else next(times_after(definition, state.settled_until), None)
    change.look_at = look_at(definition, state, change.next_nominal_at, state.now)
    await _apply(connection, core, change)
    return change


async def _apply(connection: Reader, core: Core, change: Change) -> None:
    written = await schedules.apply(connection, [change.told(core)], core.replica.name, wait=True)
    assert written, "its row is locked"


async def get(core: Core, caller: Caller, name: str) -> tuple[dict[str, Any], str]:
    """(view, etag). Raises Refusal (schedule_not_found)."""
    row = await find(core, caller, name)
    return shown(row, core.clock.now()), row.etag


async def find(core: Core, caller: Caller, name: str) -> ScheduleRow:
    caller.require("use")
    row = await schedules.find(core.db, caller.tenant_id, name)
    if row is None:
        raise _not_found(name)
    return row


async def list_page(core: Core, caller: Caller, after: str | None, limit: int) -> tuple[list[dict[str, Any]], bool]:
    """By name, after the name `after`; and whether there are more."""
    caller.require("use")
    rows = await schedules.list_page(core.db, caller.tenant_id, after, limit + 1)
    now = core.clock.now()
    return [shown(row, now) for row in rows[:limit]], len(rows) > limit


async def delete(core: Core, caller: Caller, name: str, conditions: Conditions) -> None:
    """Its runs go on, its waiting starts are dropped. Raises Refusal: schedule_not_found, etag_mismatch."""
    caller.require("manage")
    async with core.db.transaction() as connection:
        row = await _locked(connection, caller, name)
        conditions.check(row.etag)
        [state] = await schedules.states(connection, [row.id])
        change = Change.of(state, None)
        change.drop = True
        await _apply(connection, core, change)
        await schedules.mark_deleted(connection, row.id)


async def _locked(connection: Reader, caller: Caller, name: str) -> ScheduleRow:
    """The schedule of this name under its row's lock, held until the transaction ends."""
    if await schedules.lock(connection, caller.tenant_id, name) is not None:
        row = await schedules.find(connection, caller.tenant_id, name)
        if row is not None:
            return row
    raise _not_found(name)


async def pause(core: Core, caller: Caller, name: str) -> dict[str, Any]:
    """From the return on nothing of it starts. Raises Refusal (schedule_not_found)."""
    caller.require("manage")
    return await _set_paused(core, caller, name, paused=True)


async def resume(core: Core, caller: Caller, name: str) -> dict[str, Any]:
    """The times that came while it was paused stay without a run. Raises Refusal (schedule_not_found)."""
    caller.require("manage")
    return await _set_paused(core, caller, name, paused=False)


async def _set_paused(core: Core, caller: Caller, name: str, *, paused: bool) -> dict[str, Any]:
    change: Change | None = None
    async with core.db.transaction() as connection:
        row = await _locked(connection, caller, name)
        if row.paused != paused:
            definition = _definition(row)
            [state] = await schedules.states(connection, [row.id])
            change = Change.of(state, None)
            first = state.next_nominal_at
            # what has come until now and did not fire was paused, whichever way the pause changes
            change.lines = list(await asyncio.to_thread(left_over, definition, first, state.now, "paused"))
            if first is not None and first <= state.now:
                change.next_nominal_at = next(times_after(definition, state.settled_until), None)
            change.look_at = look_at(definition, replace(state, paused=paused), change.next_nominal_at, state.now)
            waiting = (await schedules.first_waiting(connection, [row.id])).get(row.id)
            if not paused and waiting is not None:
                overlap: Overlap = waiting.overlap or definition.overlap  # type: ignore[assignment]
                if may_start(overlap, state.runs):
                    change.starts = [waiting.run_id]
            await _apply(connection, core, change)
            await schedules.set_paused(connection, row.id, "paused by request" if paused else None, paused=paused)
            row = await _locked(connection, caller, name)
    if change is not None:
        announce(core, change)
    return shown(row, core.clock.now())


async def trigger(core: Core, caller: Caller, name: str, payload: bytes | None, overlap: Overlap | None) -> LedgerRow:
    """Start a run now, also while paused; judged by overlap like any other. Raises Refusal: schedule_not_found, invalid,
    payload_schema_mismatch."""
    caller.require("use")
    if payload is not None:
        definition = _definition(await find(core, caller, name))
        core.queue_cache.pop(
            (caller.tenant_id, definition.queue), None
        )  # nothing later says that its schema has changed
        queue = await named_queue(core, caller, definition.queue, "")
        await check(core, queue, None, Enqueue(payload))
    async with core.db.transaction() as connection:
        row = await _locked(connection, caller, name)
        [state] = await schedules.states(connection, [row.id])
        definition = _definition(row)
        judged = judge([Due(state.now, "trigger", extra=True)], state.runs, overlap or definition.overlap)
        change = Change.of(state, look_at(definition, state, state.next_nominal_at, state.now))
        change.lines, change.cancel = judged.lines, judged.cancel
        change.counted, change.overlap, change.payload = False, overlap, payload
        await _apply(connection, core, change)
        [made] = await schedules.history(
            connection, row.id, outcome=None, from_=state.now, to=state.now + TICK, before=None, limit=1
        )
    announce(core, change)
    return made


@dataclass(frozen=True, slots=True)
class Backfilled:
    matched: int
    """Nominal times in the window."""
    started: int
    waiting: int
    passed_over: int
    """Times that have a run already, or are about to be fired."""
    skipped: int
    """Times that overlap kept from running; they stay as they were."""


async def backfill(
    core: Core, caller: Caller, name: str, from_: datetime, to: datetime, overlap: Overlap | None, rerun: bool
) -> Backfilled:
    """Run the nominal times in [from_, to) that have none. Raises Refusal: schedule_not_found, invalid, unavailable."""
    caller.require("manage")
    if to <= from_:
        raise invalid_field("/to", "is not after from")
    for tried in range(LOOKUPS):
        await asyncio.sleep(LOOKUP_SECONDS * tried)
        row = await find(core, caller, name)
        definition = _definition(row)
        [state] = await schedules.states(core.db, [row.id])
        if to > state.now:
            raise invalid_field("/to", f"is ahead: it is {format_instant(state.now)}")
        times = await asyncio.to_thread(_times_between, definition, from_, to)
        if len(times) > MAX_BACKFILL:
            raise invalid_field("/to", f"the window has more than {MAX_BACKFILL} nominal times")
        rows = await schedules.overlapping(core.db, row.id, from_, to)
        made = await asyncio.to_thread(_backfill, definition, state, times, rows, overlap, rerun)
        async with core.db.transaction() as connection:
            if not await schedules.lock_state(connection, state):
                continue
            await schedules.take_out(connection, made.taken)
            await _apply(connection, core, made.change)
        announce(core, made.change)
        return made.result
    raise Refusal("unavailable", f"schedule {name} keeps changing", retry_after_seconds=1)


def _times_between(definition: ScheduleDefinition, from_: datetime, to: datetime) -> list[datetime]:
    """Of [from_, to), at most one more than a backfill may take."""
    times = takewhile(lambda time: time < to, times_after(definition, max(from_, FIRST) - TICK))
    return list(islice(times, MAX_BACKFILL + 1))


@dataclass(frozen=True, slots=True)
class _Made:
    change: Change
    taken: list[str]
    result: Backfilled


def _backfill(
    definition: ScheduleDefinition,
    state: ScheduleState,
    times: Sequence[datetime],
    rows: Sequence[LedgerRow],
    overlap: Overlap | None,
    rerun: bool,
) -> _Made:
    ran = {row.nominal_at for row in rows if row.fired_at is not None or row.outcome == "waiting"}
    coming = state.next_nominal_at or datetime.max.replace(tzinfo=UTC)
    candidates = [
        Due(time, "backfill", extra=time in ran) for time in times if (rerun or time not in ran) and time < coming
    ]
    judged = judge(candidates, state.runs, overlap or definition.overlap)
    starts = [line for line in judged.lines if isinstance(line, Start)]
    taken_times = {line.due.nominal_at for line in starts if not line.due.extra}
    change = Change.of(replace(state, newest_id=None), look_at(definition, state, state.next_nominal_at, state.now))
    change.lines, change.cancel = list(starts), judged.cancel
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
    return _Made(change, taken, result)


def _pieces(definition: ScheduleDefinition, row: LedgerRow, out: Sequence[datetime]) -> list[Without]:
    """What stays of a row without these times of it."""
    if row.count == 1:
        return []
    within = takewhile(lambda time: time <= row.nominal_until, times_after(definition, row.nominal_at - TICK))
    times = list(islice(within, row.count + 1))
    if len(times) != row.count or times[0] != row.nominal_at or times[-1] != row.nominal_until:
        return _parts(row, out)
    taken = set(out)
    runs = ((went, list(group)) for went, group in groupby(times, key=taken.__contains__))
    return [_part(row, group[0], group[-1], len(group)) for went, group in runs if not went]


def _parts(row: LedgerRow, out: Sequence[datetime]) -> list[Without]:
    """As _pieces, of a row from an earlier definition. Its times are not known any more: what stays of them is spread evenly
    over what stays of its range."""
    edges = [row.nominal_at - TICK, *out, row.nominal_until + TICK]
    gaps = [(a + TICK, b - TICK) for a, b in pairwise(edges) if b - a > TICK]
    left = row.count - (out[0] == row.nominal_at) - (out[-1] == row.nominal_until)
    length = sum((b - a + TICK for a, b in gaps), timedelta())
    parts: list[Without] = []
    passed, given = timedelta(), 0
    for a, b in gaps:
        passed += b - a + TICK
        count = round(left * (passed / length)) - given
        if count:
            parts.append(_part(row, a, b, count))
        given += count
    return parts


def _part(row: LedgerRow, first: datetime, last: datetime, count: int) -> Without:
    return Without(first, last, count, row.outcome, row.cause)  # type: ignore[arg-type]  # as it was read


async def history(
    core: Core,
    caller: Caller,
    name: str,
    *,
    outcome: str | None,
    from_: datetime | None,
    to: datetime | None,
    before: tuple[datetime, str] | None,
    limit: int,
) -> tuple[list[LedgerRow], bool]:
    """Newest first; and whether there are more. Raises Refusal (schedule_not_found)."""
    row = await find(core, caller, name)
    found = await schedules.history(
        core.db, row.id, outcome=outcome, from_=from_, to=to, before=before, limit=limit + 1
    )
    return found[:limit], len(found) > limit


async def preview_saved(core: Core, caller: Caller, name: str, count: int, after: datetime) -> dict[str, Any]:
    """Raises Refusal (schedule_not_found)."""
    return preview(_definition(await find(core, caller, name)), count, after)
