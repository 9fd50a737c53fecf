"""Verbs on schedules: define and operate them.

A change is one transaction: the schedule's row is locked, its state is read in a later statement, and the consequences are
decided (app.domain.schedules.firing) and written. Once the change is answered, the old definition never fires again: its times
that have come without a run are in the ledger, and its waiting starts are dropped.
"""

import asyncio
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date, datetime
from itertools import islice
from typing import Any

import msgspec

from app.domain.callers import Caller
from app.domain.conditions import Conditions
from app.domain.errors import FieldError, Refusal, invalid, too_many
from app.domain.followups import OnCompleteBody
from app.domain.hiding import shown_to
from app.domain.instants import format_instant, instant_text
from app.domain.names import NAME_RULE, is_name
from app.domain.options import decode_options, encode_options, options_of
from app.domain.schedules.bodies import parse_schedule
from app.domain.schedules.definitions import (
    Overlap,
    Preview,
    ScheduleDefinition,
    ScheduledTime,
    ScheduleView,
    schedule_etag,
    schedule_to_dict,
)
from app.domain.schedules.firing import DueTime, apply_overlap, left_over
from app.domain.schedules.readings import reading
from app.domain.schedules.times import MICROSECOND, times_after
from app.domain.schedules.zones import zone_of
from app.domain.tasks import Enqueue
from app.runtime.catalogue import until_current
from app.runtime.confined import check_named
from app.runtime.core import Core
from app.runtime.entries import check, check_schema, named_queue
from app.runtime.followups import completion_of
from app.runtime.pieces import in_pieces
from app.runtime.schedule_changes import ScheduleChange, after_commit, next_look, waiting_starts_due, write_held
from app.service.audit import audited, record
from app.store import handlers, ledger, limits, schedules, tenants
from app.store.contents import open_apart, seal_payload
from app.store.db import Reader
from app.store.ledger import LedgerRow
from app.store.queues import QueueRow
from app.store.schedules import Columns, ScheduleRow, ScheduleState
from app.store.vault import Vault, VaultError

SHOWN_TIMES = 5


@dataclass(frozen=True, slots=True)
class Saved:
    view: ScheduleView
    etag: str
    created: bool


@dataclass(frozen=True, slots=True)
class _References:
    """The queues and handlers that a definition refers to, as they are now."""

    queue: QueueRow
    then_queue: QueueRow | None
    handler_id: int

    @property
    def queues(self) -> list[tuple[int, int]]:
        rows = [self.queue] if self.then_queue is None else [self.queue, self.then_queue]
        return sorted({(row.id, row.version) for row in rows})


def _not_found(name: str) -> Refusal:
    return Refusal("schedule_not_found", f"there is no schedule {name}; PUT /schedules/{name} creates it")


def shown(vault: Vault, caller: Caller, row: ScheduleRow, now: datetime) -> ScheduleView:
    """Return a schedule as the caller is shown it. Its times are those that will fire or, while paused, would."""
    definition = full_definition(vault, row)
    fields = schedule_to_dict(definition)
    if definition.on_complete is not None:
        fields["on_complete"] = OnCompleteBody(**fields["on_complete"])
    view = ScheduleView(
        **fields,
        id=row.name,
        paused=row.paused,
        paused_at=instant_text(row.paused_at),
        paused_reason=row.paused_reason,
        next_nominal_at=instant_text(row.next_nominal_at),
        created_at=format_instant(row.created_at),
        updated_at=format_instant(row.updated_at),
        owner=msgspec.UNSET if row.owner is None else row.owner,
        times=_times(definition, coming(row, definition, now, SHOWN_TIMES)),
        reading=reading(definition),
    )
    return shown_to(caller, view)


def coming(row: ScheduleRow, definition: ScheduleDefinition, now: datetime, count: int) -> Iterator[datetime]:
    """Yield the next nominal times that may fire. If the database's clock went back, times before `next_nominal_at` are already in
    the ledger; beyond max_runs there are none."""
    if row.next_nominal_at is None:
        return iter(())
    left = count if definition.max_runs is None else min(count, definition.max_runs - row.runs)
    return islice(times_after(definition, max(now, row.next_nominal_at - MICROSECOND)), max(0, left))


def definition_of(row: ScheduleRow) -> ScheduleDefinition:
    """Return the definition without its payload, and without that of `on_complete` if it is encrypted."""
    return parse_schedule(row.definition.encode(), 2**31)


def full_definition(vault: Vault, row: ScheduleRow) -> ScheduleDefinition:
    """Return the definition. A payload that cannot be decrypted is null."""
    definition, payload = definition_of(row), row.payload
    options, then = decode_options(row.options), definition.on_complete
    if options.sealed:
        payload = _opened(vault, row.tenant_id, options.sealed_for or "", payload)
    if then is not None and row.then_sealed_for is not None:
        then = replace(then, payload=_opened(vault, row.tenant_id, row.then_sealed_for, row.then_payload or b""))
    return msgspec.structs.replace(definition, payload=payload, on_complete=then)


def _opened(vault: Vault, tenant_id: int, sealed_for: str, sealed: bytes) -> bytes:
    try:
        return open_apart(vault, tenant_id, sealed_for, sealed)
    except VaultError:
        return b"null"


def _times(definition: ScheduleDefinition, times: Iterable[datetime]) -> list[ScheduledTime]:
    zone = zone_of(definition.timezone)
    return [ScheduledTime(format_instant(time), time.astimezone(zone).isoformat()) for time in times]


async def preview(definition: ScheduleDefinition, count: int, after: datetime) -> Preview:
    """Return the next `count` nominal times strictly after an instant, and the definition in plain English."""
    return await _previewed(definition, islice(times_after(definition, after), count))


async def _previewed(definition: ScheduleDefinition, coming: Iterable[datetime]) -> Preview:
    times = [time async for time in in_pieces(coming)]
    return Preview(_times(definition, times), reading(definition))


@audited("put", "schedule")
async def put(
    core: Core,
    caller: Caller,
    name: str,
    definition: ScheduleDefinition,
    conditions: Conditions,
    *,
    owner: str | None = None,
) -> Saved:
    """Create or replace a schedule; a pause is kept, and the owner if none is given.

    Raises Refusal: invalid, egress_denied, payload_schema_mismatch, etag_mismatch, unavailable.
    """
    caller.require("manage")
    if not is_name(name):
        raise invalid([FieldError("", f"{name} is not a name ({NAME_RULE})")])

    async def attempt() -> Saved | None:
        named = await _named(core, caller, definition)
        saved = await _put(core, caller, name, definition, named, conditions, owner)
        if saved is None:
            then = [] if definition.on_complete is None else [definition.on_complete.queue]
            core.queues.forget(caller.tenant_id, definition.queue, *then)
        return saved

    return await until_current(attempt, f"a queue or handler of schedule {name}")


async def _named(core: Core, caller: Caller, definition: ScheduleDefinition) -> _References:
    queue = await named_queue(core, caller, definition.queue, "/queue")
    if caller.queues is not None:
        await check_named(core, caller, _task_of(definition, definition.payload))
    own = None
    if definition.handler is not None:
        own = await handlers.find_own(core.db.lookups(caller.tenant_id), caller.tenant_id, definition.handler)
    await check(core, queue, own, _task_of(definition, definition.payload))
    then = None
    if definition.on_complete is not None:
        then = await named_queue(core, caller, definition.on_complete.queue, "/on_complete/queue")
        await check(
            core, then, None, Enqueue(definition.on_complete.payload, definition.on_complete.type), "/on_complete"
        )
    return _References(queue, then, own.id if own else 0)


def _task_of(definition: ScheduleDefinition, payload: bytes) -> Enqueue:
    """Return what decides whether a run's task may be enqueued."""
    given = {name: getattr(definition, name) for name in ("handler", "target", "key", "limits")}
    return Enqueue(payload, **given)


async def _put(
    core: Core,
    caller: Caller,
    name: str,
    definition: ScheduleDefinition,
    named: _References,
    conditions: Conditions,
    owner: str | None,
) -> Saved | None:
    """Return None to be tried again, if something changed in the meantime."""
    columns = _columns(core.vault, caller, definition, named)
    change: ScheduleChange | None = None
    async with core.db.changes(caller.tenant_id).transaction() as connection:
        known = await schedules.find(connection, caller.tenant_id, name)
        full = known is None and await tenants.is_full(connection, caller.tenant_id, "schedules", core.max_definitions)
        if not await schedules.hold_named(connection, named.queues, named.handler_id):
            return None
        if not await limits.hold(connection, caller.tenant_id, {use.name for use in definition.limits}):
            return None
        schedule_id = await schedules.lock(connection, caller.tenant_id, name)
        before = await schedules.find(connection, caller.tenant_id, name) if schedule_id else None
        if before is not None and not _is_seen(caller, before):
            raise _not_found(name)
        conditions.check(before.etag if before else None)
        at = await schedules.now(connection)
        if before is None and known is not None:
            return None
        if before is None:
            if full:
                raise too_many("schedules", core.max_definitions)
            first = next(times_after(definition, at), None)
            state = ScheduleState.new(caller.tenant_id, caller.tenant, name, at)
            look = next_look(definition, state, first, at)
            if not await schedules.insert(connection, caller.tenant_id, name, columns, at, first, look):
                return None
        elif before.etag != columns.etag:
            change = await _replaced(connection, core, before, definition)
            await schedules.replace(connection, before.id, columns, change.state.now)
        if owner is not None:
            await schedules.set_owner(connection, caller.tenant_id, name, owner)
        after = await schedules.find(connection, caller.tenant_id, name)
        assert after is not None, "its row is locked"
        await record(
            connection,
            caller,
            None if before is None else _recorded(core.vault, before),
            _recorded(core.vault, after),
        )
    if change is not None:
        after_commit(core, change)
    elif before is None and look is not None:
        core.signals.schedule_due_at(look.timestamp())
    return Saved(shown(core.vault, caller, after, at), after.etag, before is None)


def _recorded(vault: Vault, row: ScheduleRow) -> dict[str, Any]:
    """Return what the audit compares."""
    definition = full_definition(vault, row)
    return schedule_to_dict(definition) | {"payload": definition.payload, "owner": row.owner}


def _columns(vault: Vault, caller: Caller, definition: ScheduleDefinition, named: _References) -> Columns:
    kept = schedule_to_dict(definition) | {"payload": None}
    options, payload = options_of(definition), definition.payload
    if named.queue.encrypt:
        options = msgspec.structs.replace(options, sealed=True, sealed_for=str(uuid.uuid4()))
        payload = seal_payload(vault, caller.tenant_id, options.sealed_for or "", payload)
    then = definition.on_complete
    completion = None
    if then is not None and named.then_queue is not None:
        completion = completion_of(vault, named.then_queue, then)
        if completion.sealed_for is not None:
            kept["on_complete"] = {**kept["on_complete"], "payload": None}
    return Columns(
        queue_id=named.queue.id,
        handler_id=named.handler_id,
        definition=msgspec.json.encode(kept).decode(),
        payload=payload,
        priority=definition.priority,
        options=encode_options(options),
        max_attempts=(definition.retry or {}).get("max_attempts"),
        then_queue_id=None if completion is None else completion.queue_id,
        then_digest=None if completion is None else completion.digest,
        then_payload=None if completion is None else completion.payload,
        then_sealed_for=None if completion is None else completion.sealed_for,
        etag=schedule_etag(definition, vault.fingerprint_key),
    )


async def _replaced(
    connection: Reader, core: Core, before: ScheduleRow, definition: ScheduleDefinition
) -> ScheduleChange:
    """Write what the old definition leaves behind, and when the new one begins."""
    [state] = await schedules.states(connection, [before.id])
    outcome = "paused" if state.paused else "superseded"
    change = ScheduleChange.of(state, None)
    change.lines = list(
        await asyncio.to_thread(left_over, definition_of(before), state.next_nominal_at, state.now, outcome)
    )
    change.drop = True
    change.failures = 0
    exhausted = definition.max_runs is not None and state.runs_made >= definition.max_runs
    change.next_nominal_at = None if exhausted else next(times_after(definition, state.settled_until), None)
    change.look_at = next_look(definition, state, change.next_nominal_at, state.now)
    await write_held(connection, core, change)
    return change


async def get(core: Core, caller: Caller, name: str) -> tuple[ScheduleView, str]:
    """Return (view, etag). Raises Refusal (schedule_not_found)."""
    row = await find(core.db.reads(caller.tenant_id), caller, name)
    return shown(core.vault, caller, row, core.clock.now()), row.etag


async def find(db: Reader, caller: Caller, name: str) -> ScheduleRow:
    caller.require("read")
    row = await schedules.find(db, caller.tenant_id, name)
    if row is None or not _is_seen(caller, row):
        raise _not_found(name)
    return row


def _is_seen(caller: Caller, row: ScheduleRow) -> bool:
    return caller.queues is None or caller.sees(definition_of(row).queue)


async def list_page(core: Core, caller: Caller, after: str | None, limit: int) -> tuple[list[ScheduleView], bool]:
    """Return a page by name, after the name `after`, and whether there are more."""
    caller.require("read")
    reads = core.db.reads(caller.tenant_id)
    rows, more = await schedules.list_page(reads, caller.tenant_id, after, limit, caller.queues)
    now = core.clock.now()
    return [shown(core.vault, caller, row, now) async for row in in_pieces(rows)], more


@audited("delete", "schedule")
async def delete(core: Core, caller: Caller, name: str, conditions: Conditions) -> None:
    """Delete a schedule. Its runs continue, its waiting starts are dropped. Raises Refusal: schedule_not_found, etag_mismatch."""
    caller.require("manage")
    async with core.db.changes(caller.tenant_id).transaction() as connection:
        row = await _locked(connection, caller, name)
        conditions.check(row.etag)
        [state] = await schedules.states(connection, [row.id])
        change = ScheduleChange.of(state, None)
        change.drop = True
        await write_held(connection, core, change)
        await schedules.mark_deleted(connection, row.id)
        await record(connection, caller, _recorded(core.vault, row), None)


async def _locked(connection: Reader, caller: Caller, name: str) -> ScheduleRow:
    """Return the schedule of this name under its row's lock, which is held until the transaction ends."""
    if await schedules.lock(connection, caller.tenant_id, name) is not None:
        row = await schedules.find(connection, caller.tenant_id, name)
        if row is not None and _is_seen(caller, row):
            return row
    raise _not_found(name)


@audited("pause", "schedule")
async def pause(core: Core, caller: Caller, name: str) -> ScheduleView:
    """Pause a schedule. Once this returns, it starts nothing. Raises Refusal (schedule_not_found)."""
    caller.require("manage")
    return await _set_paused(core, caller, name, paused=True)


@audited("resume", "schedule")
async def resume(core: Core, caller: Caller, name: str) -> ScheduleView:
    """Resume a schedule. Times that passed while it was paused do not run. Raises Refusal (schedule_not_found)."""
    caller.require("manage")
    return await _set_paused(core, caller, name, paused=False)


async def _set_paused(core: Core, caller: Caller, name: str, *, paused: bool) -> ScheduleView:
    change: ScheduleChange | None = None
    async with core.db.changes(caller.tenant_id).transaction() as connection:
        row = await _locked(connection, caller, name)
        was = row.paused
        if was != paused:
            definition = definition_of(row)
            [state] = await schedules.states(connection, [row.id])
            change = ScheduleChange.of(state, None)
            first = state.next_nominal_at
            # times up to now that did not fire count as paused, whether this pauses or resumes
            change.lines = list(await asyncio.to_thread(left_over, definition, first, state.now, "paused"))
            if first is not None and first <= state.now:
                change.next_nominal_at = next(times_after(definition, state.settled_until), None)
            change.look_at = next_look(definition, replace(state, paused=paused), change.next_nominal_at, state.now)
            waiting = (await ledger.first_waiting(connection, [row.id])).get(row.id)
            if not paused:
                change.starts = waiting_starts_due(definition, waiting, state.runs)
            await write_held(connection, core, change)
            await schedules.set_paused(connection, row.id, "paused by request" if paused else None, paused=paused)
            row = await _locked(connection, caller, name)
        await record(connection, caller, {"paused": was}, {"paused": row.paused})
    if change is not None:
        after_commit(core, change)
    return shown(core.vault, caller, row, core.clock.now())


@audited("trigger", "schedule")
async def trigger(core: Core, caller: Caller, name: str, payload: bytes | None, overlap: Overlap | None) -> LedgerRow:
    """Start a run now, even while paused; the overlap policy applies. Raises Refusal: schedule_not_found, invalid,
    payload_schema_mismatch."""
    caller.require("use")
    if payload is not None:
        definition = definition_of(await find(core.db.lookups(caller.tenant_id), caller, name))
        core.queues.forget(caller.tenant_id, definition.queue)  # nothing later would detect that its schema has changed
        queue = await named_queue(core, caller, definition.queue, "")
        await check_schema(core, queue, Enqueue(payload))
    async with core.db.changes(caller.tenant_id).transaction() as connection:
        row = await _locked(connection, caller, name)
        [state] = await schedules.states(connection, [row.id])
        definition = definition_of(row)
        options = decode_options(row.options)
        if payload is not None and options.sealed:
            payload = seal_payload(core.vault, caller.tenant_id, options.sealed_for or "", payload)
        decision = apply_overlap([DueTime(state.now, "trigger", extra=True)], state.runs, overlap or definition.overlap)
        change = ScheduleChange.of(state, next_look(definition, state, state.next_nominal_at, state.now))
        change.lines, change.cancel = decision.lines, decision.cancel
        change.counted, change.overlap, change.payload = False, overlap, payload
        await write_held(connection, core, change)
        [made], _ = await ledger.history(
            connection, row.id, outcome=None, from_=state.now, to=state.now + MICROSECOND, before=None, limit=1
        )
        run = {"outcome": made.outcome, "task_id": made.task_id, "overlap": overlap, "payload": payload}
        await record(connection, caller, None, run)
    after_commit(core, change)
    return made


async def history(
    core: Core,
    caller: Caller,
    name: str,
    *,
    outcome: str | None,
    from_: datetime | None,
    to: datetime | None,
    before: ledger.Position | None,
    limit: int,
) -> tuple[list[LedgerRow], ledger.Position | None]:
    """Return rows, newest first, and the next position, None after the last. Raises Refusal (schedule_not_found)."""
    reads = core.db.reads(caller.tenant_id)
    row = await find(reads, caller, name)
    return await ledger.history(reads, row.id, outcome=outcome, from_=from_, to=to, before=before, limit=limit)


async def days(core: Core, caller: Caller, name: str, since: datetime) -> list[tuple[date, str, int]]:
    """Return how many nominal times since an instant had each outcome, by day. Raises Refusal (schedule_not_found)."""
    reads = core.db.reads(caller.tenant_id)
    row = await find(reads, caller, name)
    return await ledger.days(reads, row.id, since)


async def preview_saved(core: Core, caller: Caller, name: str, count: int, after: datetime | None) -> Preview:
    """Return the times after an instant; with None, those it will fire from now on. Raises Refusal (schedule_not_found)."""
    row = await find(core.db.reads(caller.tenant_id), caller, name)
    definition = definition_of(row)
    if after is not None:
        return await preview(definition, count, after)
    return await _previewed(definition, coming(row, definition, core.clock.now(), count))
