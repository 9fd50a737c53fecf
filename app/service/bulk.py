"""Verbs on many tasks in one request, with a result per task.

Tasks go through the group writer in groups, together with those of other requests, one group after another, so that a large
request takes turns with small ones. An atomic request is a single group of its own, in one transaction.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from app.domain.bulk import atomic_refusal
from app.domain.callbacks import called_queues
from app.domain.callers import Caller
from app.domain.errors import Refusal, invalid, pointer
from app.domain.tasks import Enqueue
from app.runtime.catalogue import until_current
from app.runtime.confined import reach_of
from app.runtime.core import Core
from app.runtime.enqueueing import Admitted, GroupRefused, writer
from app.runtime.entries import (
    check,
    entry_of,
    find_queue,
    is_timed,
    needs_check,
    new_ids,
    refusal_of,
    task_created,
    task_replaced,
    tasks_ready,
)
from app.runtime.pieces import in_pieces
from app.runtime.schemas import CheckBudget
from app.store import handlers
from app.store.enqueues import Entry
from app.store.handlers import OwnHandler
from app.store.queues import QueueRow
from app.telemetry.tracing import TraceContext

GROUP = 500

Write = Callable[[Sequence[Entry]], Awaitable[Sequence[Admitted | BaseException]]]


class Stored(msgspec.Struct, frozen=True):
    created: bool
    task_id: str
    unique_held: bool = False
    """Not created, because an unfinished task has its unique key: this is that task."""


Result = Stored | Refusal


@dataclass(slots=True)
class _Bulk:
    core: Core
    caller: Caller
    queue: str
    items: dict[int, Enqueue]
    """The sound ones, by their place in the request."""
    context: TraceContext | None
    results: dict[int, Result]
    atomic: bool = False
    budget: CheckBudget = field(default_factory=CheckBudget)


async def enqueue(
    core: Core,
    caller: Caller,
    queue: str,
    items: Sequence[Enqueue | Refusal],
    atomic: bool,
    trace: tuple[str | None, str | None] | None,
    batch_id: str | None = None,
) -> list[Result]:
    """Return one result per item, in order; items that are refusals already stay so. Acknowledged after commit.

    Created tasks join the batch, in groups of its own, so that no other request waits for whoever closes the batch.
    Raises Refusal: queue_not_found, unavailable; batch_sealed and, if atomic, invalid, and then nothing is stored.
    """
    caller.require("use")
    incoming = TraceContext.parse(*trace) if trace is not None else None
    with core.tracing.enqueue(queue, caller.tenant, incoming, len(items)) as span:
        await find_queue(core, caller, queue)
        refused: dict[int, Result] = {n: item for n, item in enumerate(items) if isinstance(item, Refusal)}
        sound = {n: item for n, item in enumerate(items) if not isinstance(item, Refusal)}
        bulk = _Bulk(core, caller, queue, sound, span.context, refused, atomic)
        if caller.queues is not None:
            await _refuse_beyond(bulk)
            sound = bulk.items
        if atomic:
            await _write(bulk, list(sound), writer(core.db.changes(caller.tenant_id), core.taken_keys, atomic=True))
        elif batch_id is not None:
            await _write_in_groups(bulk, writer(core.db.changes(caller.tenant_id), core.taken_keys, batch_id=batch_id))
        else:
            await _write_in_groups(bulk, core.enqueueing.submit_all)
    return [bulk.results[n] for n in range(len(items))]


async def _refuse_beyond(bulk: _Bulk) -> None:
    """Refuse the items that name what does not exist for a caller who is confined to queues."""
    reach = await reach_of(bulk.core, bulk.caller)
    async for n in in_pieces(list(bulk.items)):
        item = bulk.items[n]
        if errors := reach.faults(item.handler, item.limits, item.callbacks, pointer("tasks", n)):
            bulk.results[n] = invalid(errors).bare()
            del bulk.items[n]
    if bulk.atomic:
        _raise_if_refused(bulk)


async def _write_in_groups(bulk: _Bulk, write: Write) -> None:
    """Write in groups. After something is stored, a failure affects only its own items: the caller must learn the stored ids."""
    sound = list(bulk.items)
    for start in range(0, len(sound), GROUP):
        try:
            await _write(bulk, sound[start : start + GROUP], write)
        except Refusal as refusal:
            if not any(isinstance(result, Stored) for result in bulk.results.values()):
                raise
            bulk.results |= {n: refusal.bare() for n in sound if n not in bulk.results}
            return


async def _write(bulk: _Bulk, pending: list[int], write: Write) -> None:
    """Give every pending item its result, rebuilding entries whose definition has changed."""

    async def attempt() -> bool | None:
        nonlocal pending
        row = await find_queue(bulk.core, bulk.caller, bulk.queue)
        # checked once here, not for each item that a schema refuses
        fresh = row.payload_schema is not None and await bulk.core.queues.is_current(row)
        entries = await _entries(bulk, row, fresh, pending)
        if bulk.atomic:
            _raise_if_refused(bulk)
        if not entries:
            return True
        try:
            verdicts = await write(list(entries.values()))
        except GroupRefused as refused:
            pending = list(entries)
            for n, admitted in zip(entries, refused.admitted, strict=True):
                _note_refusal(bulk, n, admitted)
            _raise_if_refused(bulk)
        else:
            pending = _note(bulk, entries, verdicts)
        if not pending:
            return True
        named = {name for n in pending for name in called_queues(bulk.items[n].callbacks).values()}
        bulk.core.queues.forget(bulk.caller.tenant_id, bulk.queue, *named)
        return None

    await until_current(attempt, f"the definition of queue {bulk.queue}")


async def _entries(bulk: _Bulk, row: QueueRow, fresh: bool, pending: list[int]) -> dict[int, Entry]:
    """Return entries by item. An item that breaks a rule of its queue is recorded as refused instead."""
    own: dict[str | None, OwnHandler | None] = {None: None}
    if any(needs_check(row, bulk.items[n]) for n in pending):
        pending = await _checked(bulk, row, fresh, pending, own)
    entries: dict[int, Entry] = {}
    for n, task_id in zip(pending, new_ids(bulk.core, len(pending)), strict=True):
        item = bulk.items[n]
        handler = own[item.handler]
        entries[n] = entry_of(bulk.core, task_id, row, handler.id if handler else 0, item, bulk.context)
    return entries


async def _checked(
    bulk: _Bulk, row: QueueRow, fresh: bool, pending: list[int], own: dict[str | None, OwnHandler | None]
) -> list[int]:
    """Return the items that break no rule of their queue, and add the handlers they name to `own`."""
    lookups = bulk.core.db.lookups(bulk.caller.tenant_id)
    sound: list[int] = []
    async for n in in_pieces(pending):
        item = bulk.items[n]
        if item.handler not in own and item.handler is not None:
            own[item.handler] = await handlers.find_own(lookups, bulk.caller.tenant_id, item.handler)
        try:
            await check(bulk.core, row, own[item.handler], item, pointer("tasks", n), fresh=fresh, budget=bulk.budget)
        except Refusal as refusal:
            bulk.results[n] = refusal.bare()
        else:
            sound.append(n)
    return sound


def _note(bulk: _Bulk, entries: dict[int, Entry], verdicts: Sequence[Admitted | BaseException]) -> list[int]:
    """Record the results of a group; return the items to try again."""
    again: list[int] = []
    ready: Counter[tuple[int, int]] = Counter()
    failed: BaseException | None = None
    for (n, entry), admitted in zip(entries.items(), verdicts, strict=True):
        item = bulk.items[n]
        if isinstance(admitted, BaseException):
            failed = failed or admitted
        elif admitted.verdict == "created":
            bulk.results[n] = Stored(True, admitted.task_id)
            if is_timed(item):
                task_created(bulk.core, entry.queue_id, entry.handler_id, item, admitted.at)
            else:
                ready[entry.queue_id, entry.handler_id] += 1
        elif admitted.verdict in ("replayed", "held", "replaced"):
            bulk.results[n] = Stored(False, admitted.task_id, unique_held=admitted.verdict != "replayed")
            if admitted.verdict == "replaced":
                task_replaced(bulk.core, entry.queue_id, entry.handler_id, item, admitted.at)
        elif admitted.verdict == "batch_sealed":
            failed = refusal_of(admitted.verdict, bulk.queue, item)
        elif not _note_refusal(bulk, n, admitted):
            again.append(n)
    for lane, count in ready.items():
        tasks_ready(bulk.core, *lane, count)
    if failed is not None:
        raise failed
    return again


def _note_refusal(bulk: _Bulk, n: int, admitted: Admitted) -> bool:
    refusal = refusal_of(admitted.verdict, bulk.queue, bulk.items[n])
    if refusal is not None:
        bulk.results[n] = refusal
    return refusal is not None


def _raise_if_refused(bulk: _Bulk) -> None:
    refused = [(n, result) for n, result in sorted(bulk.results.items()) if isinstance(result, Refusal)]
    for _, refusal in refused:
        if refusal.code == "unavailable":  # not the fault of the tasks: the same request may succeed a moment later
            raise refusal
    if refused:
        raise atomic_refusal(refused)
