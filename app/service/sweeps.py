"""Purge and redrive: verbs over many tasks of a queue, in chunks, each in its own transaction.

If the request is interrupted, finished chunks stay done; repeating the request continues with the rest.
"""

from dataclasses import asdict
from functools import partial

from app.domain.callers import Caller
from app.domain.tasks import TaskFilters
from app.runtime.core import Core
from app.runtime.entries import find_queue
from app.service.audit import audited, record
from app.store import handlers, partitions, sweeps
from app.store.db import Reader
from app.store.sweeps import FIRST, DeadTasks
from app.telemetry import events
from app.telemetry.logs import get_logger

CHUNK = 500

log = get_logger(__name__)


@audited("purge", "queue")
async def purge(core: Core, caller: Caller, queue: str) -> int:
    """Cancel the tasks waiting in the queue at the time of the call; return how many. Raises Refusal (queue_not_found)."""
    caller.require("manage")
    core.queues.forget(caller.tenant_id, queue)
    row = await find_queue(core, caller, queue)
    changes = core.db.changes(caller.tenant_id)
    before = await sweeps.now(changes)
    async with changes.transaction() as connection:  # before the first chunk: it says who, whatever becomes of the rest
        await record(connection, caller, None, {})
    total = 0
    try:
        for wait in (False, True):
            after = FIRST
            while True:
                purge_chunk = partial(
                    sweeps.purge, changes, row.id, before, after, CHUNK, wait=wait, told=core.called_back
                )
                purged, after = await partitions.with_days(core.db, purge_chunk)
                if purged == 0:
                    break
                total += purged
                core.stats.ended_waiting(row.id, "cancelled", "purged", purged)
                core.waiters.look()
    finally:
        if total:
            events.emit(log, events.TASKS_PURGED, tenant=caller.tenant, queue=queue, tasks=total)
    return total


@audited("redrive", "queue")
async def redrive(
    core: Core, caller: Caller, queue: str, filters: TaskFilters, limit: int, dry_run: bool
) -> tuple[int, int, int]:
    """Revive up to `limit` matching dead tasks, oldest first; return how many matched, were revived, and remain dead.

    Tasks that die after the call began are not included. Raises Refusal (queue_not_found).
    """
    caller.require("use")
    core.queues.forget(caller.tenant_id, queue)
    row = await find_queue(core, caller, queue)
    changes = core.db.changes(caller.tenant_id)
    handler_ids = None
    if filters.handler is not None:
        handler_ids = await handlers.ids(changes, caller.tenant_id, filters.handler)
    dead = DeadTasks(
        queue_id=row.id,
        ended_before=await sweeps.now(changes),
        reason=filters.reason,
        type=filters.type,
        tag=filters.tag,
        handler_ids=handler_ids,
        correlation_id=filters.correlation_id,
        ended_from=filters.ended_from,
        ended_to=filters.ended_to,
    )
    matched = await sweeps.count_dead(changes, dead)
    if not dry_run:
        async with changes.transaction() as connection:
            await record(connection, caller, None, {"limit": limit} | asdict(filters))
    moved = 0 if dry_run else await _redrive(core, changes, dead, limit)
    return matched, moved, max(0, matched - moved)


async def _redrive(core: Core, changes: Reader, dead: DeadTasks, limit: int) -> int:
    moved, after = 0, FIRST
    while moved < limit:
        chunk = await sweeps.redrive(changes, dead, after, min(CHUNK, limit - moved))
        if chunk.seen == 0:
            break
        after = chunk.last_id
        moved += chunk.moved
        for lane in chunk.lanes:
            core.signals.lane_ready(dead.queue_id, lane)
    return moved
