"""Verbs on tasks: enqueue, read, list, cancel, retry."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import msgspec

from app.domain.callbacks import called_queues
from app.domain.callers import Caller
from app.domain.errors import Refusal, task_ended
from app.domain.hiding import shown_to
from app.domain.instants import format_instant
from app.domain.options import options_of
from app.domain.tasks import UNFINISHED, Enqueue, State, TaskFilters
from app.domain.views import AttemptView, TaskView, carried, shown_payload
from app.domain.waiting import WaitingFor, first_of_new
from app.runtime.cancelling import after_cancel
from app.runtime.catalogue import KeepsChanging, until_current
from app.runtime.confined import check_named
from app.runtime.core import Core
from app.runtime.enqueueing import Admitted
from app.runtime.entries import (
    check,
    entry_of,
    find_queue,
    needs_check,
    new_ids,
    refusal_of,
    task_created,
    task_replaced,
)
from app.service.audit import audited, record
from app.store import handlers, partitions, task_lists, tasks, views
from app.store.callbacks import Called
from app.store.db import Gate, Reader
from app.store.handlers import OwnHandler
from app.store.queues import QueueRow
from app.store.task_lists import TaskPage, TaskQuery
from app.store.tasks import Cancelled
from app.store.vault import Vault
from app.telemetry.tracing import TraceContext

FAMILY_ROWS = 2000
MAX_ANCESTORS = 10


class Family(NamedTuple):
    """The tasks around one: a batch formed by answers is a tree."""

    above: list[TaskView]
    """What it followed from, the root first."""
    below: list[TaskView]
    """What followed from it, parents before their children."""
    complete: bool
    """Whether that is all."""


class Enqueued(msgspec.Struct, frozen=True):
    created: bool
    task_id: str
    body: bytes
    held: bool = False
    """Not created, because an unfinished task has its unique key: the answer is that task, as it is now, not a replay."""


async def enqueue(
    core: Core, caller: Caller, queue: str, request: Enqueue, trace: tuple[str | None, str | None] | None
) -> Enqueued:
    """Enqueue a task. Acknowledged after commit.

    Raises Refusal: queue_not_found, invalid, egress_denied, payload_schema_mismatch, idempotency_mismatch, queue_full, key_full,
    unavailable.
    """
    caller.require("use")
    if caller.queues is not None:
        await check_named(core, caller, request)
    incoming = TraceContext.parse(*trace) if trace is not None else None
    lookups = core.db.lookups(caller.tenant_id)
    held: Enqueued | None = None
    with core.tracing.enqueue(queue, caller.tenant, incoming) as span:

        async def attempt() -> Enqueued | None:
            nonlocal held
            row = await find_queue(core, caller, queue)
            own = None
            if request.handler is not None:
                own = await handlers.find_own(lookups, caller.tenant_id, request.handler)
            if needs_check(row, request):
                await check(core, row, own, request)
            [task_id] = new_ids(core, 1)
            entry = entry_of(core, task_id, row, own.id if own else 0, request, span.context)
            admitted = await core.enqueueing.submit(entry)
            match admitted.verdict:
                case "created":
                    return _created(core, caller, row, own, request, admitted)
                case "replayed":
                    view = await views.find_task(
                        lookups, core.vault, caller.tenant_id, admitted.task_id, even_past=True
                    )
                    if view is not None:
                        return Enqueued(False, admitted.task_id, _encoded(caller, view))
                case "replaced":
                    task_replaced(core, row.id, own.id if own else 0, request, admitted.at)
                    view = await views.find_task(
                        lookups, core.vault, caller.tenant_id, admitted.task_id, even_past=True
                    )
                    if view is not None:
                        return Enqueued(False, admitted.task_id, _encoded(caller, view), held=True)
                case "held":
                    view = await views.find_task(
                        lookups, core.vault, caller.tenant_id, admitted.task_id, even_past=True
                    )
                    if view is not None:
                        held = Enqueued(False, admitted.task_id, _encoded(caller, view), held=True)
                        if view.state in UNFINISHED:
                            return held
                    # it has ended since, so there may be room for this one
                case verdict:
                    if (refusal := refusal_of(verdict, queue, request)) is not None:
                        raise refusal
                    core.queues.forget(caller.tenant_id, queue, *called_queues(request.callbacks).values())
            return None

        try:
            return await until_current(attempt, "the definition of the queue")
        except KeepsChanging:
            if held is None:
                raise
    # others keep taking a hot key: the task found was unfinished when it blocked this one
    return held


def _created(
    core: Core, caller: Caller, row: QueueRow, own: OwnHandler | None, request: Enqueue, admitted: Admitted
) -> Enqueued:
    run_at, expires_at = task_created(core, row.id, own.id if own else 0, request, admitted.at)
    retry, options = request.retry or {}, options_of(request)
    view = TaskView(
        id=admitted.task_id,
        queue=row.name,
        handler=request.handler or row.handler,
        state=State.READY if run_at is None else State.SCHEDULED,
        reason=None,
        priority=request.priority,
        idempotency_key=request.idempotency_key,
        unique_key=request.unique_key,
        created_at=admitted.at,
        run_at=admitted.at if run_at is None else format_instant(run_at),
        started_at=None,
        ended_at=None,
        expires_at=None if expires_at is None else format_instant(expires_at),
        attempt=0,
        max_attempts=retry.get("max_attempts", row.max_attempts),
        timeout_seconds=request.timeout_seconds
        or row.timeout_seconds
        or (own.timeout_seconds if own else row.handler_timeout_seconds),
        waiting_for=_waiting_for(core, row, own, admitted, later=run_at is not None),
        encrypted=True if row.encrypt else msgspec.UNSET,
        **shown_payload(request.payload, options),
        **carried(options),
    )
    return Enqueued(True, admitted.task_id, _encoded(caller, view))


def _waiting_for(
    core: Core, row: QueueRow, own: OwnHandler | None, admitted: Admitted, *, later: bool
) -> WaitingFor | None:
    """Return waiting_for. The receipt considers the queue's handler; a task with its own handler waits for that one."""
    told = admitted.waiting_for
    return first_of_new(
        later=later,
        queue_paused=told == WaitingFor.QUEUE_PAUSED,
        handler=row.handler is not None,
        handler_disabled=told == WaitingFor.HANDLER_DISABLED if own is None else not own.enabled,
        engine=core.engine_lives,
    )


def _encoded(caller: Caller, view: TaskView) -> bytes:
    return msgspec.json.encode(shown_to(caller, view))


def not_found(task_id: str) -> Refusal:
    return Refusal("task_not_found", f"there is no task {task_id}, or its retention has passed")


async def get(core: Core, caller: Caller, task_id: str) -> TaskView:
    caller.require("read")
    return shown_to(caller, await find(core.db.reads(caller.tenant_id), core.vault, caller, task_id))


async def find(db: Reader, vault: Vault, caller: Caller, task_id: str) -> TaskView:
    """Return a task with its content. Raises Refusal (task_not_found)."""
    view = await views.find_task(db, vault, caller.tenant_id, task_id)
    if view is None or not caller.sees(view.queue):
        raise not_found(task_id)
    return view


async def get_ended(
    core: Core, caller: Caller, task_id: str, wait_seconds: float, gone: Callable[[], Awaitable[object]]
) -> TaskView:
    """Return the task once it has ended, or as it is when the time is up. `gone` returns when the caller has disconnected.

    Raises Refusal: task_not_found, unavailable (too many wait).
    """
    until = time.monotonic() + wait_seconds
    async with AsyncExitStack() as stack:
        ended = stack.enter_context(core.waiters.watching(task_id))
        leaving, waits = asyncio.ensure_future(gone()), False
        try:
            while True:
                ended.clear()
                view = await get(core, caller, task_id)
                left = until - time.monotonic()
                if view.state not in UNFINISHED or left <= 0 or core.waiters.closed or leaving.done():
                    return view
                if not waits:
                    await stack.enter_async_context(core.waits.turn(caller.tenant_id))
                    waits = True
                waking = asyncio.ensure_future(ended.wait())
                await asyncio.wait((waking, leaving), timeout=left, return_when=asyncio.FIRST_COMPLETED)
                waking.cancel()
        finally:
            leaving.cancel()


async def list_page(
    core: Core, caller: Caller, filters: TaskFilters, after: str | None, limit: int, include_payload: bool
) -> TaskPage:
    """Return a page, newest first, after the task id `after`. It may hold fewer than `limit` although there are more: its position
    says so."""
    caller.require("read")
    reads = core.db.reads(caller.tenant_id)
    handler_ids = None
    if filters.handler is not None:
        handler_ids = await handlers.ids(reads, caller.tenant_id, filters.handler)
    query = TaskQuery(
        tenant_id=caller.tenant_id,
        queue_ids=await task_lists.queues_to_look_in(reads, caller, filters.queue),
        before=after,
        limit=limit,
        include_payload=include_payload and caller.payloads,
        state=filters.state,
        reason=filters.reason,
        type=filters.type,
        tag=filters.tag,
        handler_ids=handler_ids,
        correlation_id=filters.correlation_id,
        schedule=filters.schedule,
        batch=filters.batch,
        ended_from=filters.ended_from,
        ended_to=filters.ended_to,
    )
    page = await task_lists.list_page(reads, core.vault, query)
    return replace(page, items=[shown_to(caller, view) for view in page.items])


async def family(core: Core, caller: Caller, task: TaskView, most: int) -> Family:
    """Return what a task has followed from, and what followed from it, as far as it can still be read.

    Follow-ups are looked for among the next FAMILY_ROWS tasks of its batch, so that a page of a batch of millions takes no longer.
    """
    reads = core.db.reads(caller.tenant_id)
    above: list[TaskView] = []
    parent = task.parent
    while parent is not None and len(above) < MAX_ANCESTORS:
        view = await views.find_task(reads, core.vault, caller.tenant_id, parent)
        if view is None or not caller.sees(view.queue):
            break
        above.insert(0, shown_to(caller, view))
        parent = view.parent
    below: list[TaskView] = []
    complete, level = True, [task.id]
    while task.batch is not None and level:
        query = TaskQuery(
            caller.tenant_id, None, min(level), most, False, batch=task.batch, parents=level, ascending=True
        )
        ids, reached = await task_lists.look_through(reads, query, FAMILY_ROWS, most - len(below))
        found = [
            view for view in await task_lists.find(reads, core.vault, caller.tenant_id, ids) if caller.sees(view.queue)
        ]
        below += [shown_to(caller, view) for view in sorted(found, key=lambda view: view.id)]
        complete = complete and reached is None
        level = ids if len(below) < most else []
    return Family(above, below, complete)


async def attempts(
    core: Core, caller: Caller, task_id: str, after: int | None, limit: int
) -> tuple[list[AttemptView], bool]:
    """Return attempts, newest first, after attempt number `after`, and whether there are more."""
    caller.require("read")
    reads = core.db.reads(caller.tenant_id)
    if caller.queues is not None:
        await find(reads, core.vault, caller, task_id)
    found = await views.list_attempts(reads, core.vault, caller.tenant_id, task_id, after or 2**31 - 1, limit + 1)
    if not found:
        await find(reads, core.vault, caller, task_id)
    return [shown_to(caller, attempt) for attempt in found[:limit]], len(found) > limit


@audited("cancel", "task")
async def cancel(core: Core, caller: Caller, task_id: str) -> TaskView:
    """Cancel a task. Raises Refusal: task_not_found, task_ended (succeeded or dead)."""
    caller.require("use")
    changes = core.db.changes(caller.tenant_id)

    async def attempt() -> TaskView | None:
        """None: a retry has revived it between the cancel and the lookup in history."""
        cancelled, called, view = await partitions.with_days(
            core.db, partial(_cancel, changes, core.vault, caller, task_id)
        )
        after_cancel(core, cancelled, "requested")
        for one in called:
            core.called_back(one)
        return shown_to(caller, view) if view.state == State.CANCELLED else None

    return await until_current(attempt, "the task")


async def _cancel(
    changes: Gate, vault: Vault, caller: Caller, task_id: str
) -> tuple[list[Cancelled], list[Called], TaskView]:
    """Cancel a task; return what to tell once it is committed, and the task as it is then."""
    called: list[Called] = []
    async with changes.transaction() as connection:
        before = await views.find_task(connection, vault, caller.tenant_id, task_id, even_past=True)
        cancelled = await tasks.cancel(connection, caller.tenant_id, [task_id], "requested", told=called.append)
        view = await views.find_task(connection, vault, caller.tenant_id, task_id, even_past=True)
        if before is None or view is None or not caller.sees(before.queue):
            raise not_found(task_id)
        if view.state == State.CANCELLED:
            await record(connection, caller, {"state": before.state}, {"state": view.state})
        elif view.state not in UNFINISHED:
            raise task_ended(view.state)
    return cancelled, called, view


@audited("retry", "task")
async def retry(core: Core, caller: Caller, task_id: str) -> TaskView:
    """Make a task ready. Raises Refusal: task_not_found, task_not_editable (running, orphaned, unique_key taken), task_ended
    (succeeded)."""
    caller.require("use")
    lane = None
    async with core.db.changes(caller.tenant_id).transaction() as connection:
        before = await views.find_task(connection, core.vault, caller.tenant_id, task_id)
        verdict = await tasks.retry(connection, caller.tenant_id, task_id)
        if before is None or not caller.sees(before.queue):
            raise not_found(task_id)
        if (refusal := _not_retried(verdict, task_id)) is not None:
            raise refusal
        view = await find(connection, core.vault, caller, task_id)
        await record(connection, caller, {"state": before.state}, {"state": view.state})
        if verdict == "moved":
            lane = await tasks.lane_of(connection, task_id)
    if lane is not None:
        core.signals.lane_ready(*lane)
    return shown_to(caller, view)


def _not_retried(verdict: str, task_id: str) -> Refusal | None:
    match verdict:
        case "gone":
            return not_found(task_id)
        case "running":
            return Refusal("task_not_editable", "the task is running; cancel it first, or wait for it to end")
        case "ended":
            return Refusal("task_ended", "the task has succeeded; enqueue a new task to run it again")
        case "held":
            return Refusal(
                "task_not_editable", "another unfinished task has the same unique_key; wait for it to end, or cancel it"
            )
        case "orphaned":
            return Refusal(
                "task_not_editable",
                "the task's queue, or the handler it names, has been deleted; enqueue a new task instead",
            )
    return None
