"""Verbs on batches: create, extend, seal, cancel, retry, read.

Tasks are added in groups, each in one transaction with its delta. A batch is closed under a lock that adders share, so that
nothing joins it once the caller has the answer. Added and ended tasks are counted by the fold (engine/janitor.py).
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NoReturn

from app.domain.actions import ActionRequest, Kind
from app.domain.batches import BatchRequest, BatchView
from app.domain.callers import Caller
from app.domain.errors import Refusal, batch_sealed
from app.domain.tasks import Enqueue, TaskFilters
from app.runtime import acting
from app.runtime.catalogue import until_current
from app.runtime.core import Core
from app.runtime.entries import check, named_queue
from app.runtime.followups import completion_of
from app.service import bulk
from app.service.actions import prepared
from app.service.audit import audited, record
from app.service.bulk import Result
from app.store import actions, batches, queue_names
from app.store.db import Reader
from app.store.failures import Held

CANCEL_SECONDS = 10.0
"""How long a cancel works before it answers; the engines go on with what is left."""
Trace = tuple[str | None, str | None] | None


async def create(
    core: Core, caller: Caller, request: BatchRequest, items: Sequence[Enqueue | Refusal], trace: Trace
) -> tuple[BatchView, list[Result]]:
    """Create a batch with these tasks; return it with a result per task. Acknowledged after commit.

    It stays open, even if it was to be sealed, when tasks could not be stored because the database became unavailable.
    Raises Refusal: invalid, payload_schema_mismatch, unavailable (naming the batch if it exists by then).
    """
    caller.require("use")
    batch_id = core.ids.uuid7(int(core.clock.seconds() * 1000))
    await _create(core, caller, batch_id, request, sealed=request.sealed and not items)
    core.signals.batch_changed()
    results: list[Result] = []
    try:
        if items:
            results = await bulk.enqueue(core, caller, request.queue, items, False, trace, batch_id)
            core.signals.batch_changed()
        unstored = any(isinstance(result, Refusal) and result.code == "unavailable" for result in results)
        if items and request.sealed and not unstored:
            await batches.close(core.db.changes(caller.tenant_id), caller.tenant_id, batch_id, None)
            core.signals.batch_changed()
        return await _found(core.db.changes(caller.tenant_id), caller, batch_id), results
    except Refusal as refusal:
        if refusal.code != "unavailable":
            raise
        detail = f"batch {batch_id} was created but may be incomplete; add the missing tasks, then seal it"
        raise Refusal("unavailable", detail, retry_after_seconds=refusal.retry_after_seconds) from refusal


async def _create(core: Core, caller: Caller, batch_id: str, request: BatchRequest, *, sealed: bool) -> None:
    then = request.on_complete

    async def attempt() -> bool | None:
        row = await named_queue(core, caller, request.queue, "/queue")
        completion = None
        if then is not None:
            target = await named_queue(core, caller, then.queue, "/on_complete/queue")
            await check(core, target, None, Enqueue(then.payload, then.type), "/on_complete")
            completion = completion_of(core.vault, target, then)
        if await batches.create(
            core.db.changes(caller.tenant_id),
            caller.tenant_id,
            batch_id,
            (row.id, row.version),
            sealed=sealed,
            completion=completion,
        ):
            return True
        core.queues.forget(caller.tenant_id, request.queue, *([] if then is None else [then.queue]))
        return None

    await until_current(attempt, f"the definition of queue {request.queue}")


async def add(
    core: Core, caller: Caller, batch_id: str, items: Sequence[Enqueue | Refusal], trace: Trace
) -> tuple[BatchView, list[Result]]:
    """Add tasks to an open batch; return it with a result per task.

    Raises Refusal: batch_not_found, batch_sealed (nothing was added), invalid (its queue was deleted), unavailable.
    """
    caller.require("use")
    batch = await _found(core.db.changes(caller.tenant_id), caller, batch_id)
    if batch.sealed:
        raise batch_sealed()
    try:
        results = await bulk.enqueue(core, caller, batch.queue, items, False, trace, batch_id)
    finally:
        core.signals.batch_changed()
    return await _found(core.db.changes(caller.tenant_id), caller, batch_id), results


async def seal(core: Core, caller: Caller, batch_id: str) -> BatchView:
    """Seal a batch. Once this returns, nothing is added to it. Raises Refusal (batch_not_found)."""
    caller.require("use")
    if caller.queues is not None:
        await _found(core.db.changes(caller.tenant_id), caller, batch_id)
    if not await batches.close(core.db.changes(caller.tenant_id), caller.tenant_id, batch_id, None):
        _raise_not_found(batch_id)
    core.signals.batch_changed()
    return await _found(core.db.changes(caller.tenant_id), caller, batch_id)


@audited("cancel", "batch")
async def cancel(core: Core, caller: Caller, batch_id: str) -> BatchView:
    """Mark a batch as cancelled, then cancel its unfinished tasks, as an action (service/actions.py), which the engines go on with.

    Raises Refusal (batch_not_found).
    """
    caller.require("use")
    changes = core.db.changes(caller.tenant_id)
    async with changes.transaction() as connection:
        if caller.queues is not None:
            await _found(connection, caller, batch_id)
        # from here on, nothing joins the batch until this has committed, and then it sees the mark
        if not await batches.close(connection, caller.tenant_id, batch_id, "requested"):
            _raise_not_found(batch_id)
        # all of the batch ends, also what handlers have enqueued on queues that the caller does not see
        action = await prepared(core, replace(caller, queues=None), _on_batch("cancel", batch_id), connection)
        await actions.add(connection, action)
        await batches.leave_to_action(connection, batch_id)
        await record(connection, caller, None, {"action": action.id})
    core.signals.batch_changed()
    with suppress(Held):
        await acting.finish(core, changes, action.id, CANCEL_SECONDS)
    core.signals.action_started()
    return await _found(changes, caller, batch_id)


@audited("retry", "batch")
async def retry(core: Core, caller: Caller, batch_id: str) -> tuple[BatchView, int, int]:
    """Make a batch's dead tasks ready with all attempts again; return the batch, how many were dead, and how many were revived.

    Tasks that die after the call began are not included. Raises Refusal (batch_not_found).
    """
    caller.require("use")
    changes = core.db.changes(caller.tenant_id)
    await _found(changes, caller, batch_id)
    action = await prepared(core, caller, _on_batch("redrive", batch_id))
    async with changes.transaction() as connection:
        await actions.add(connection, action)
        await record(connection, caller, None, {"action": action.id})
    await acting.finish(core, changes, action.id)
    found = await actions.read(changes, action.id)
    assert found is not None, "it is kept after its end"
    return await _found(changes, caller, batch_id), found.view.matched, found.view.done


def _on_batch(kind: Kind, batch_id: str) -> ActionRequest:
    return ActionRequest(kind, TaskFilters(batch=batch_id), None, {"batch": batch_id})


async def get(core: Core, caller: Caller, batch_id: str) -> BatchView:
    """Return a batch. Raises Refusal (batch_not_found)."""
    caller.require("read")
    return await _found(core.db.reads(caller.tenant_id), caller, batch_id)


async def list_page(core: Core, caller: Caller, after: str | None, limit: int) -> tuple[list[BatchView], bool]:
    """Return a page, newest first, after the batch id `after`, and whether there are more."""
    caller.require("read")
    reads = core.db.reads(caller.tenant_id)
    seen = (
        None if caller.queues is None else await queue_names.remembered_within(reads, caller.tenant_id, caller.queues)
    )
    found = await batches.list_page(reads, caller.tenant_id, after, limit + 1, seen)
    return found[:limit], len(found) > limit


async def _found(db: Reader, caller: Caller, batch_id: str) -> BatchView:
    view = await batches.find(db, caller.tenant_id, batch_id)
    return view if view is not None and caller.sees(view.queue) else _raise_not_found(batch_id)


def _raise_not_found(batch_id: str) -> NoReturn:
    raise Refusal("batch_not_found", f"there is no batch {batch_id}, or its retention has passed")
