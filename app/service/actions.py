"""Verbs on many tasks: one action on all that match a filter.

An action is a stored row. What matched when it was asked for is listed, then acted on in chunks, each in one transaction with the
list and the counts (act_v1). So any replica continues where another has stopped, and no task is acted on twice.
"""

import time
from dataclasses import asdict, replace
from typing import Any, Final

from app.domain.actions import SAMPLE, TAKES, ActionPreview, ActionRequest, ActionView, view_of
from app.domain.callers import Caller
from app.domain.errors import Refusal
from app.domain.hiding import shown_to
from app.domain.instants import instant_text
from app.runtime import acting
from app.runtime.core import Core
from app.service.audit import audited, record
from app.store import actions, clock, handlers, task_lists
from app.store.actions import NewAction, Search
from app.store.db import Reader
from app.store.failures import Unavailable

FIRST_SECONDS = 1.0
"""How long the request that starts an action works on it before it is answered; the engines go on."""
COUNT_SECONDS = 10.0
"""How long a dry run counts."""
NEEDS: Final = {"purge": "manage", "empty": "manage", "move": "manage"}
"""The scope for a kind, as for the route that does the same to one queue; `use` for the others."""


@audited("start", "action", parts=0)
async def start(core: Core, caller: Caller, request: ActionRequest) -> tuple[ActionView, bool]:
    """Start an action, and return it with True. Once this returns, it is stored, and goes on by itself.

    An idempotency key is the caller's own. If it has started one under it, even one whose start was not answered, return that one,
    as it is now, with False. Raises Refusal: forbidden, idempotency_mismatch (that one is another action), unavailable.
    """
    _check(caller, request)
    changes = core.db.changes(caller.tenant_id)
    action = await prepared(core, caller, request)
    told = {"kind": request.kind, "filter": request.shown} | _terms(request)
    async with changes.transaction() as connection:
        if not await actions.add(connection, action):
            return await _started_before(connection, caller, request), False
        await record(connection, caller, None, told, name=action.id)
    try:
        await acting.work(core, changes, action.id, FIRST_SECONDS)
        return await get(core, caller, action.id), True
    except Unavailable:
        # it is stored: a 503 would ask for a second one
        return shown_to(caller, _just_started(action)), True
    finally:
        # only now: an engine that has begun would end the work of this request, which is answered when a short action is done
        core.signals.action_started()


def _just_started(action: NewAction) -> ActionView:
    counts = dict.fromkeys(("found", "done", "refused", "failed"), 0)
    row = asdict(action) | counts | {"state": "running", "created_at": action.at, "ended_at": None}
    return view_of(row, filter=action.filter, errors=())


async def _started_before(db: Reader, caller: Caller, request: ActionRequest) -> ActionView:
    assert request.idempotency_key is not None, "nothing else keeps an action from being stored"
    first = await actions.keyed(db, caller.tenant_id, caller.key_id, request.idempotency_key)
    if first is None:
        raise Refusal(
            "unavailable", "the action under this idempotency key is being removed; try again", retry_after_seconds=1
        )
    was = first.kind, first.filter, first.run_at, first.priority, first.rate_per_second, first.reason
    asked = (
        request.kind,
        request.shown,
        instant_text(request.run_at),
        request.priority,
        request.rate_per_second,
        request.reason,
    )
    if was != asked:
        raise Refusal("idempotency_mismatch", "this idempotency key has started another action; use a new key")
    return shown_to(caller, first)


def _check(caller: Caller, request: ActionRequest) -> None:
    caller.require(NEEDS.get(request.kind, "use"))
    if request.error is not None:
        caller.require_payloads()  # which tasks match would tell what their errors say


def _terms(request: ActionRequest) -> dict[str, Any]:
    terms = {name: getattr(request, name) for name in ("run_at", "priority", "rate_per_second", "reason")}
    return {name: value for name, value in terms.items() if value is not None}


async def prepared(core: Core, caller: Caller, request: ActionRequest, db: Reader | None = None) -> NewAction:
    """Return an action as it is stored, on what matches now. With `db`, its names are looked up there."""
    db = db or core.db.changes(caller.tenant_id)
    return NewAction(
        id=core.ids.uuid7(int(core.clock.seconds() * 1000)),
        tenant_id=caller.tenant_id,
        kind=request.kind,
        filter=request.shown,
        search=await _search_of(db, caller, request),
        at=await clock.now(db),
        run_at=request.run_at,
        priority=request.priority,
        rate_per_second=request.rate_per_second,
        reason=request.reason,
        created_by=caller.key_id,
        idempotency_key=request.idempotency_key,
    )


async def _search_of(db: Reader, caller: Caller, request: ActionRequest) -> Search:
    filters, (states, within) = request.filters, TAKES[request.kind]
    handler_ids = None
    if filters.handler is not None:
        handler_ids = await handlers.ids(db, caller.tenant_id, filters.handler)
    only = next(iter(states)) if len(states) == 1 else None
    return Search(
        queue_ids=await task_lists.queues_to_look_in(db, caller, filters.queue),
        state=filters.state or only,
        reason=filters.reason,
        type=filters.type,
        tag=filters.tag,
        handler_ids=handler_ids,
        correlation_id=filters.correlation_id,
        schedule=filters.schedule,
        batch=filters.batch,
        ended_from=filters.ended_from,
        ended_to=filters.ended_to,
        error=request.error,
        within=within,
    )


def sees(caller: Caller, view: ActionView) -> bool:
    """Return whether an action exists for the caller: it is on a queue that does, and sends nothing beyond."""
    queue, target = view.filter.get("queue"), view.filter.get("to")
    within = queue is not None and caller.sees(queue) and (target is None or caller.sees(target))
    return caller.queues is None or view.created_by == caller.key_id or within


async def preview(core: Core, caller: Caller, request: ActionRequest, seconds: float = COUNT_SECONDS) -> ActionPreview:
    """Return what an action would act on now, as far as it can be counted in this time. Raises Refusal (forbidden, unavailable)."""
    _check(caller, request)
    action = await prepared(core, caller, request)
    matched, complete, first = await count(core, action, seconds)
    found = await task_lists.find(core.db.reads(caller.tenant_id), core.vault, caller.tenant_id, first)
    return ActionPreview(matched, complete, [shown_to(caller, view) for view in found])


async def count(core: Core, action: NewAction, seconds: float = COUNT_SECONDS) -> tuple[int, bool, list[str]]:
    """Return how many tasks match, whether all were counted, and the first SAMPLE of them."""
    until, pace = time.monotonic() + seconds, acting.Pace(acting.FIRST_WINDOW, acting.MAX_WINDOW)
    query = action.search.query(action.tenant_id, task_lists.FIRST, action.at)
    matched, first = 0, list[str]()
    while True:
        began = time.monotonic()
        ids, reached = await acting.matching(core, query, action.search.error, pace.rows, pace.rows)
        pace.took(time.monotonic() - began)
        matched += len(ids)
        first += ids[: SAMPLE - len(first)]
        if reached is None or began > until:
            return matched, reached is None, first
        query = replace(query, before=reached)


async def get(core: Core, caller: Caller, action_id: str) -> ActionView:
    """Return an action. Raises Refusal (action_not_found)."""
    caller.require("read")
    found = await actions.read(core.db.reads(caller.tenant_id), action_id)
    if found is None or found.tenant_id != caller.tenant_id or not sees(caller, found.view):
        raise Refusal("action_not_found", f"there is no action {action_id}, or it ended more than 30 days ago")
    return shown_to(caller, found.view)


async def list_page(core: Core, caller: Caller, after: str | None, limit: int) -> tuple[list[ActionView], bool]:
    """Return a page, newest first, after the action id `after`, and whether there are more."""
    caller.require("read")
    reads = core.db.reads(caller.tenant_id)
    found = await actions.list_page(
        reads, caller.tenant_id, after, limit + 1, within=caller.queues, key_id=caller.key_id
    )
    return [shown_to(caller, view) for view in found[:limit]], len(found) > limit


@audited("cancel", "action")
async def cancel(core: Core, caller: Caller, action_id: str) -> ActionView:
    """End an action as it is; what it has done stays done. Once this returns, it does nothing more. An ended one stays as it is.

    Raises Refusal (action_not_found, forbidden).
    """
    caller.require("use")
    view = await get(core, caller, action_id)
    caller.require(NEEDS.get(view.kind, "use"))
    async with core.db.changes(caller.tenant_id).transaction() as connection:
        if await actions.cancel(connection, caller.tenant_id, action_id):
            await record(connection, caller, {"state": "running"}, {"state": "cancelled"})
    return await get(core, caller, action_id)
