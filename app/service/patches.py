"""Updating a waiting task."""

import msgspec

from app.domain.callers import Caller
from app.domain.errors import Refusal, task_ended
from app.domain.instants import parse_instant
from app.domain.options import OPTIONS
from app.domain.patches import TaskPatch
from app.domain.tasks import UNFINISHED, State, check_instants
from app.domain.views import TaskView
from app.runtime.catalogue import until_current
from app.runtime.core import Core
from app.runtime.entries import check_handler, check_schema, find_queue
from app.service import tasks as service
from app.store import handlers, tasks


async def update(core: Core, caller: Caller, task_id: str, patch: TaskPatch, payload: bytes | None) -> TaskView:
    """Update a task. Raises Refusal: task_not_found, invalid, payload_schema_mismatch, task_not_editable (running), task_ended."""
    caller.require("use")

    async def attempt() -> TaskView | None:
        view = await service.find(core.db.changes(caller.tenant_id), caller, task_id)
        if view.state not in UNFINISHED:
            raise task_ended(view.state)
        match await _write(core, caller, view, patch, payload):
            case "done":
                return await _announced(core, caller, task_id)
            case "running":
                raise Refusal(
                    "task_not_editable", "the task is running, so what its handler was sent can no longer change"
                )
            case "changed":
                core.queues.forget(caller.tenant_id, view.queue)
        return None

    return await until_current(attempt, "the task")


async def _write(core: Core, caller: Caller, view: TaskView, patch: TaskPatch, payload: bytes | None) -> str:
    row = await find_queue(core, caller, view.queue)
    name = patch.asked.handler
    own = None if name is None else await handlers.find_own(core.db.lookups(caller.tenant_id), caller.tenant_id, name)
    try:
        check_handler(row, own, patch.asked)
        check_instants(patch.asked, core.clock.now())
        if payload is not None:
            await check_schema(core, row, payload)
    except Refusal as refusal:
        if refusal.code == "unavailable" or await core.queues.is_current(row):
            raise
        return "changed"
    options = dict(patch.options)
    if "headers" in options:
        options["headers"] = patch.headers_over(view.headers)
    handler_id = None
    if "handler" in options:
        del options["handler"]
        handler_id = own.id if own else 0
    carried = {name: options.pop(name) for name in OPTIONS if name in options}
    return await tasks.update(
        core.db.changes(caller.tenant_id),
        caller.tenant_id,
        view.id,
        row.version,
        msgspec.json.encode(options).decode(),
        msgspec.json.encode(carried).decode(),
        payload,
        handler_id,
        msgspec.json.encode(view.headers).decode(),
    )


async def _announced(core: Core, caller: Caller, task_id: str) -> TaskView:
    """Return the task as it is now, and wake whoever must act on it."""
    view = await service.find(core.db.changes(caller.tenant_id), caller, task_id)
    due = parse_instant(view.run_at) if view.state == State.SCHEDULED else None
    for instant in (due, None if view.expires_at is None else parse_instant(view.expires_at)):
        if instant is not None:
            core.signals.task_due_at(instant.timestamp())
    if view.state == State.READY and (lane := await tasks.lane_of(core.db.changes(caller.tenant_id), task_id)):
        core.signals.lane_ready(*lane)
    return view
