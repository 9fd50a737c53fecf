"""Verbs on named limits: define and operate them.

A change is one transaction: hold off whoever names limits, read, write, and then take the tenant's gate, under which alone tasks
are admitted against limits. So once a verb here has returned, nothing is admitted under the old definition.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from app.domain.callers import Caller
from app.domain.conditions import Conditions
from app.domain.errors import FieldError, Refusal, invalid, invalid_field, pointer, too_many
from app.domain.limits import (
    MAX_USES,
    TASKS_KEY,
    LimitDefinition,
    LimitUse,
    LimitView,
    QueueRules,
    Use,
    limit_to_dict,
    use_errors,
)
from app.domain.names import NAME_RULE, is_name
from app.runtime.core import Core
from app.service.audit import audited, record
from app.store import flows, limit_uses, limits, queues, tenants
from app.store.limits import StoredLimit


@dataclass(frozen=True, slots=True)
class Saved:
    view: LimitView
    use: Use
    etag: str
    created: bool


def not_found(name: str) -> Refusal:
    return Refusal("limit_not_found", f"there is no limit {name}; PUT /limits/{name} creates it")


@asynccontextmanager
async def changing(core: Core, caller: Caller) -> AsyncIterator[Any]:
    """Begin a transaction that changes limits. A change ends with `flows.reopen`; then what waits is looked at again."""
    caller.require("manage")
    async with core.db.begin(caller.tenant_id) as connection:
        yield connection
    core.signals.any_lane_ready()


@audited("put", "limit")
async def put(
    core: Core,
    caller: Caller,
    name: str,
    definition: LimitDefinition,
    conditions: Conditions,
    *,
    owner: str | None = None,
) -> Saved:
    """Create or replace a limit. Absent fields get their defaults; a pause and the values of single keys are kept, and the owner
    if none is given. Once this returns, nothing is admitted above it.

    Raises Refusal: invalid, etag_mismatch, limit_in_use (`keyed`).
    """
    if caller.queues is not None:
        raise not_found(name)
    check(name, definition)
    async with changing(core, caller) as connection:
        known = await limits.id_of(connection, caller.tenant_id, name)
        full = known is None and await tenants.is_full(connection, caller.tenant_id, "limits", core.max_definitions)
        await limits.lock(connection, caller.tenant_id)
        limit_id = await limits.id_of(connection, caller.tenant_id, name)
        before = None if limit_id is None else await limits.read(connection, limit_id)
        conditions.check(None if before is None else before.etag)
        if before is None:
            if full:
                raise too_many("limits", core.max_definitions)
            after = await limits.insert_new(connection, caller.tenant_id, name, definition, owner)
            await flows.reopen(connection, caller.tenant_id)
        else:
            if owner is not None:
                await limits.set_owner(connection, before.id, owner)
            if definition != before.view.definition:
                await _replace(connection, caller, before, definition)
            after = await limits.read(connection, before.id)
        assert after is not None, "the lock of the tenant's limits is held"
        await record(connection, caller, None if before is None else _recorded(before), _recorded(after))
        [use] = await limit_uses.use_of(connection, caller.tenant_id, [after])
    return Saved(after.view, use, after.etag, before is None)


def _recorded(row: StoredLimit) -> dict[str, Any]:
    """Return what the audit compares."""
    return limit_to_dict(row.view.definition) | {"owner": row.view.owner}


async def _replace(connection: Any, caller: Caller, before: StoredLimit, definition: LimitDefinition) -> None:
    name, keyed = before.view.name, definition.keyed != before.view.definition.keyed
    if keyed:
        await _refuse_in_use(connection, caller, name, "/keyed")
    await limits.replace_definition(connection, before.id, definition)
    await queues.outdate_of_limit(connection, caller.tenant_id, name)
    # nothing names a limit whose keys change, but flows whose tasks did may be left, with the bucket that was theirs
    await flows.reopen(connection, caller.tenant_id, None if keyed else before.id)


def check(name: str, definition: LimitDefinition) -> None:
    """Check that a definition may be stored. Raises Refusal (invalid)."""
    errors = [] if is_name(name) else [FieldError("", f"{name} is not a name ({NAME_RULE})")]
    if errors := errors + definition.check():
        raise invalid(errors)


async def _refuse_in_use(connection: Any, caller: Caller, name: str, where: str) -> None:
    user = await limits.user_of(connection, caller.tenant_id, name)
    if user is not None:
        detail = f"limit {name} is named by {user}; change that first"
        raise Refusal("limit_in_use", detail, [FieldError(where, detail)])


async def get(core: Core, caller: Caller, name: str) -> tuple[LimitView, Use, str]:
    """Return the limit, what is taken of it, and its ETag. Raises Refusal (limit_not_found)."""
    caller.require("read")
    async with core.db.begin(caller.tenant_id) as connection:
        row = await found(connection, caller, name)
        [use] = await limit_uses.use_of(connection, caller.tenant_id, [row])
    return row.view, use, row.etag


async def list_page(
    core: Core, caller: Caller, after: str | None, limit: int
) -> tuple[list[tuple[LimitView, Use]], bool]:
    """Return a page by name, after the name `after`, and whether there are more. Raises Refusal (not_found)."""
    caller.require("read")
    caller.require_tenant()
    async with core.db.begin(caller.tenant_id) as connection:
        rows = await limits.list_page(connection, caller.tenant_id, after, limit + 1)
        uses = await limit_uses.use_of(connection, caller.tenant_id, rows[:limit])
    return [(row.view, use) for row, use in zip(rows, uses, strict=False)], len(rows) > limit


async def found(connection: Any, caller: Caller, name: str) -> StoredLimit:
    """Return the limit of this name; there is none for whoever is confined to queues. Raises Refusal (limit_not_found)."""
    limit_id = await limits.id_of(connection, caller.tenant_id, name)
    row = None if limit_id is None else await limits.read(connection, limit_id)
    if row is None or caller.queues is not None:
        raise not_found(name)
    return row


@audited("delete", "limit")
async def delete(core: Core, caller: Caller, name: str, conditions: Conditions) -> None:
    """Delete a limit. Raises Refusal: limit_not_found, etag_mismatch, limit_in_use."""
    async with changing(core, caller) as connection:
        await limits.lock(connection, caller.tenant_id)
        row = await found(connection, caller, name)
        conditions.check(row.etag)
        await _refuse_in_use(connection, caller, name, "")
        await limits.remove(connection, row.id)
        await flows.reopen(connection, caller.tenant_id)
        await record(connection, caller, _recorded(row), None)


@audited("pause", "limit")
async def pause(core: Core, caller: Caller, name: str) -> tuple[LimitView, Use]:
    """Pause a limit. Once this returns, no task that takes it starts. Raises Refusal (limit_not_found)."""
    return await _set_paused(core, caller, name, paused=True)


@audited("resume", "limit")
async def resume(core: Core, caller: Caller, name: str) -> tuple[LimitView, Use]:
    """Resume a limit. Raises Refusal (limit_not_found)."""
    return await _set_paused(core, caller, name, paused=False)


async def _set_paused(core: Core, caller: Caller, name: str, *, paused: bool) -> tuple[LimitView, Use]:
    async with changing(core, caller) as connection:
        await limits.lock(connection, caller.tenant_id)
        row = await found(connection, caller, name)
        was = row.view.paused_at is not None
        if was != paused:
            await limits.set_paused(connection, row.id, paused=paused)
            await flows.reopen(connection, caller.tenant_id, row.id)
            row = await found(connection, caller, name)
        await record(connection, caller, {"paused": was}, {"paused": paused})
        [use] = await limit_uses.use_of(connection, caller.tenant_id, [row])
    return row.view, use


async def check_uses(connection: Any, caller: Caller, uses: Sequence[LimitUse]) -> None:
    """Check the limits that a queue or handler names, and hold them until the transaction ends. Raises Refusal (invalid)."""
    if not uses:
        return
    await limits.share(connection, caller.tenant_id)
    known = await limits.rules(connection, caller.tenant_id, {use.name for use in uses})
    errors = [
        error
        for index, use in enumerate(uses)
        for error in use_errors(use, known.get(use.name), TASKS_KEY, pointer("limits", index))
    ]
    if errors:
        raise invalid(errors)


def check_count(rules: QueueRules, prefix: str = "") -> None:
    """Check that the tasks of a queue do not take too many limits. `prefix` says which queue. Raises Refusal (invalid)."""
    if rules.count() > MAX_USES:
        detail = f"{prefix}its tasks would take {rules.count()} named or keyed limits, at most {MAX_USES} are allowed"
        raise invalid_field("/limits", detail)
