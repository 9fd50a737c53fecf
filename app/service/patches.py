"""Updating a waiting task."""

from typing import Any

import msgspec

from app.domain.callers import Caller
from app.domain.errors import Refusal, task_ended
from app.domain.hiding import shown_to
from app.domain.instants import parse_instant
from app.domain.limits import LimitUse
from app.domain.options import OPTIONS
from app.domain.patches import TaskPatch
from app.domain.tasks import UNFINISHED, Enqueue, State, check_instants
from app.domain.views import TaskView
from app.runtime.catalogue import until_current
from app.runtime.confined import check_named
from app.runtime.core import Core
from app.runtime.entries import check_handler, check_limits, check_own_target, check_schema, find_queue, key_full
from app.service import tasks as service
from app.service.audit import audited, record
from app.store import handlers, tasks
from app.store.contents import seal_payload
from app.store.handlers import OwnHandler
from app.store.queues import QueueRow

_PAYLOAD = {"payload", "payload_base64"}
_SHOWN_AS = {"delay_seconds": "run_at", "retry": "max_attempts"}
"""What a task shows of what a patch names."""


@audited("update", "task")
async def update(core: Core, caller: Caller, task_id: str, patch: TaskPatch) -> TaskView:
    """Update a task. Raises Refusal: task_not_found, invalid, egress_denied, payload_schema_mismatch, task_not_editable (running),
    task_ended, key_full."""
    caller.require("use")
    if caller.queues is not None:
        await check_named(core, caller, patch.asked)

    async def attempt() -> TaskView | None:
        view = await service.find(core.db.changes(caller.tenant_id), core.vault, caller, task_id)
        if view.state not in UNFINISHED:
            raise task_ended(view.state)
        match await _write(core, caller, view, patch):
            case "done":
                return shown_to(caller, await _announced(core, caller, task_id))
            case "running":
                raise Refusal(
                    "task_not_editable", "the task is running, so what its handler was sent can no longer change"
                )
            case "key_full":
                raise key_full(view.queue, patch.asked.key or "")
            case "changed":
                core.queues.forget(caller.tenant_id, view.queue)
        return None

    return await until_current(attempt, "the task")


async def _write(core: Core, caller: Caller, view: TaskView, patch: TaskPatch) -> str:
    row = await find_queue(core, caller, view.queue)
    own = await _own_handler(core, caller, row, view, patch)
    try:
        check_handler(row, own, patch.asked)
        check_instants(patch.asked, core.clock.now())
        _check_target(core, row, own, view, patch)
        if patch.new_payload:
            await check_schema(core, row, patch.asked)
        if patch.options.keys() & {"key", "limits", "handler"}:
            await check_limits(core, row, own, _with_limits(patch, view))
    except Refusal as refusal:
        if refusal.code == "unavailable" or await core.queues.is_current(row):
            raise
        return "changed"
    options, present = dict(patch.options), _merged_with(view)
    options |= patch.form_over(bool(present["binary"]))
    if "headers" in options:
        options["headers"] = patch.headers_over(view.headers)
    handler_id = None
    if "handler" in options:
        del options["handler"]
        handler_id = own.id if own else 0
    carried = {name: options.pop(name) for name in OPTIONS if name in options}
    payload = patch.asked.payload if patch.new_payload else None
    if payload is not None and present["sealed"]:
        payload, carried["sealed_for"] = seal_payload(core.vault, caller.tenant_id, view.id, payload), None
    async with core.db.changes(caller.tenant_id).transaction() as connection:
        verdict = await tasks.update(
            connection,
            caller.tenant_id,
            view.id,
            row.version,
            msgspec.json.encode(options).decode(),
            msgspec.json.encode(carried).decode(),
            payload,
            handler_id,
            msgspec.json.encode(present).decode(),
        )
        if verdict == "done":
            after = await service.find(connection, core.vault, caller, view.id)
            await record(connection, caller, _recorded(view, patch), _recorded(after, patch))
    return verdict


def _recorded(view: TaskView, patch: TaskPatch) -> dict[str, Any]:
    """Return what the audit compares: of the task as a patch has found or left it, what the patch names."""
    names = patch.options.keys() | (_PAYLOAD if patch.new_payload else set())
    names |= {shown for name, shown in _SHOWN_AS.items() if name in names}
    found = {name: getattr(view, name, None) for name in sorted(names)}
    return {name: None if value is msgspec.UNSET else value for name, value in found.items()}


def _merged_with(view: TaskView) -> dict[str, Any]:
    """Return what a patch is merged with or judged by, as options, None for absent. A patch is written only while it is so."""
    return {
        "headers": view.headers or None,
        "binary": True if view.payload_base64 is not msgspec.UNSET else None,
        "sealed": True if view.encrypted is True else None,
        "target": view.target,
        "key": view.key,
        "limits": [LimitUse(use.name, use.key, use.cost) for use in view.limits] or None,
    }


async def _own_handler(
    core: Core, caller: Caller, row: QueueRow, view: TaskView, patch: TaskPatch
) -> OwnHandler | None:
    """Return the handler that the task will have itself; None for the queue's, or if the patch changes nothing that it decides."""
    name = None
    if "handler" in patch.options:
        name = patch.asked.handler
    elif view.handler != row.handler and patch.options.keys() & {"target", "key", "limits"}:
        name = view.handler
    return None if name is None else await handlers.find_own(core.db.lookups(caller.tenant_id), caller.tenant_id, name)


def _check_target(core: Core, row: QueueRow, own: OwnHandler | None, view: TaskView, patch: TaskPatch) -> None:
    """Check the target that the task will have against the handler that it will have, if the patch changes either."""
    target = patch.asked.target if "target" in patch.options else view.target
    if target is not None and {"target", "handler"} & patch.options.keys():
        check_own_target(core, row, own, target)


def _with_limits(patch: TaskPatch, view: TaskView) -> Enqueue:
    """Return the key and the limits that the task will have."""
    key = patch.asked.key if "key" in patch.options else view.key
    given = patch.asked.limits if "limits" in patch.options else tuple(view.limits)
    return Enqueue(b"null", key=key, limits=given)


async def _announced(core: Core, caller: Caller, task_id: str) -> TaskView:
    """Return the task as it is now, and wake whoever must act on it."""
    view = await service.find(core.db.changes(caller.tenant_id), core.vault, caller, task_id)
    due = parse_instant(view.run_at) if view.state == State.SCHEDULED else None
    for instant in (due, None if view.expires_at is None else parse_instant(view.expires_at)):
        if instant is not None:
            core.signals.task_due_at(instant.timestamp())
    if view.state == State.READY and (lane := await tasks.lane_of(core.db.changes(caller.tenant_id), task_id)):
        core.signals.lane_ready(*lane)
    return view
