"""Purge and redrive: actions (service/actions.py) on one queue that are answered when they have ended.

If the request is interrupted, the engines go on.
"""

from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

import msgspec

from app.domain.actions import ActionRequest, ActionView
from app.domain.callers import Caller
from app.domain.instants import format_instant
from app.domain.tasks import TaskFilters
from app.runtime import acting
from app.runtime.core import Core
from app.runtime.entries import find_queue
from app.service.actions import count, prepared
from app.service.audit import audited, record
from app.store import actions
from app.store.actions import NewAction
from app.telemetry import events
from app.telemetry.logs import get_logger

log = get_logger(__name__)


@audited("purge", "queue")
async def purge(core: Core, caller: Caller, queue: str) -> int:
    """Cancel the tasks waiting in the queue at the time of the call; return how many. Raises Refusal (queue_not_found)."""
    caller.require("manage")
    request = ActionRequest("purge", TaskFilters(queue=queue), None, {"queue": queue})
    action = await _of_queue(core, caller, queue, request)
    changes = core.db.changes(caller.tenant_id)
    async with changes.transaction() as connection:
        await actions.add(connection, action)
        await record(connection, caller, None, {"action": action.id})
    purged = (await _ended(core, caller, action)).done
    if purged:
        events.emit(log, events.TASKS_PURGED, tenant=caller.tenant, queue=queue, tasks=purged)
    return purged


@audited("redrive", "queue")
async def redrive(
    core: Core, caller: Caller, queue: str, filters: TaskFilters, limit: int, dry_run: bool
) -> tuple[int, int, int]:
    """Revive up to `limit` matching dead tasks, oldest first; return how many matched, were revived, and remain dead.

    Tasks that die after the call began are not included. Raises Refusal (queue_not_found).
    """
    caller.require("use")
    filters = replace(filters, queue=queue)
    request = ActionRequest("redrive", filters, None, _shown(filters))
    action = await _of_queue(core, caller, queue, request)
    matched, _, _ = await count(core, action)
    moved = 0
    if not dry_run:
        async with core.db.changes(caller.tenant_id).transaction() as connection:
            await actions.add(connection, replace(action, most=limit, matched=matched))
            told = {"action": action.id, "limit": limit} | asdict(replace(filters, queue=None))
            await record(connection, caller, None, told)
        moved = (await _ended(core, caller, action)).done
    return matched, moved, max(0, matched - moved)


async def _of_queue(core: Core, caller: Caller, queue: str, request: ActionRequest) -> NewAction:
    """Return an action on the queue of this name, and not on an earlier one. Raises Refusal (queue_not_found)."""
    core.queues.forget(caller.tenant_id, queue)
    row = await find_queue(core, caller, queue)
    action = await prepared(core, caller, request)
    return replace(action, search=msgspec.structs.replace(action.search, queue_ids=[row.id]))


def _shown(filters: TaskFilters) -> dict[str, Any]:
    """Return filters as an action shows them."""
    given = {name: value for name, value in asdict(filters).items() if value is not None}
    return {name: format_instant(value) if isinstance(value, datetime) else value for name, value in given.items()}


async def _ended(core: Core, caller: Caller, action: NewAction) -> ActionView:
    changes = core.db.changes(caller.tenant_id)
    await acting.finish(core, changes, action.id)
    found = await actions.read(changes, action.id)
    assert found is not None, "it is kept after its end"
    return found.view
