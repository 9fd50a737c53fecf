"""Verbs on single keys: of keyed limits, and of queues. A key needs no definition; one that nobody uses reads as empty."""

from typing import Any

from msgspec import structs

from app.domain.callers import Caller
from app.domain.errors import invalid_field
from app.domain.limits import KeyOverride, KeyState, KeyView, QueueKeyOverride, Use, key_problem
from app.runtime.core import Core
from app.service import queues
from app.service.audit import audited, record
from app.service.limits import changing, found
from app.store import flows, limit_uses, limits
from app.store.limits import StoredLimit
from app.store.queues import StoredQueue

KeyShown = tuple[KeyView, Use]
QueueKeyShown = tuple[KeyView, Use, int]
"""The last is how many of its tasks wait."""


async def list_page(
    core: Core, caller: Caller, name: str, state: KeyState | None, after: str | None, limit: int
) -> tuple[list[KeyShown], bool]:
    """Return a page of the keys that are held, waited for or overridden, in byte order after the key `after`, and whether there
    are more. `state`: only those without room, or only those that something waits for.

    Raises Refusal: limit_not_found, invalid.
    """
    caller.require("read")
    async with core.db.begin(caller.tenant_id) as connection:
        row = await _keyed(connection, caller, name)
        keys = await limit_uses.list_keys(connection, caller.tenant_id, row, state, after, limit + 1)
    return keys[:limit], len(keys) > limit


async def get(core: Core, caller: Caller, name: str, key: str) -> KeyShown:
    """Return one key of a limit. Raises Refusal: limit_not_found, invalid."""
    caller.require("read")
    _check(key)
    async with core.db.begin(caller.tenant_id) as connection:
        row = await _keyed(connection, caller, name)
        return await limit_uses.show_key(connection, caller.tenant_id, row, key)


@audited("put", "limit_key", parts=2)
async def put(core: Core, caller: Caller, name: str, key: str, values: KeyOverride) -> KeyShown:
    """Set what holds for one key in place of the limit's own values. Once this returns, nothing is admitted above it.

    Raises Refusal: limit_not_found, invalid.
    """
    _check(key)
    async with changing(core, caller) as connection:
        row = await _locked(connection, caller, name)
        before = await limit_uses.show_key(connection, caller.tenant_id, row, key)
        await limits.put_key(connection, row.id, key, values)
        await flows.reopen(connection, caller.tenant_id, row.id, key)
        after = await limit_uses.show_key(connection, caller.tenant_id, row, key)
        await record(connection, caller, _recorded(before[0]), _recorded(after[0]))
    return after


@audited("delete", "limit_key", parts=2)
async def delete(core: Core, caller: Caller, name: str, key: str) -> None:
    """Let the limit's own values hold for a key again, and resume it. Raises Refusal: limit_not_found, invalid."""
    _check(key)
    async with changing(core, caller) as connection:
        row = await _locked(connection, caller, name)
        before = await limit_uses.show_key(connection, caller.tenant_id, row, key)
        await limits.remove_key(connection, row.id, key)
        await flows.reopen(connection, caller.tenant_id, row.id, key)
        await record(connection, caller, _recorded(before[0]), None)


@audited("pause", "limit_key", parts=2)
async def pause(core: Core, caller: Caller, name: str, key: str) -> KeyShown:
    """Pause one key of a limit. Once this returns, no task that takes it starts. Raises Refusal: limit_not_found, invalid."""
    return await _set_paused(core, caller, name, key, paused=True)


@audited("resume", "limit_key", parts=2)
async def resume(core: Core, caller: Caller, name: str, key: str) -> KeyShown:
    """Resume one key of a limit. Raises Refusal: limit_not_found, invalid."""
    return await _set_paused(core, caller, name, key, paused=False)


async def _set_paused(core: Core, caller: Caller, name: str, key: str, *, paused: bool) -> KeyShown:
    _check(key)
    async with changing(core, caller) as connection:
        row = await _locked(connection, caller, name)
        before = await limit_uses.show_key(connection, caller.tenant_id, row, key)
        await limits.set_key_paused(connection, row.id, key, paused=paused)
        await flows.reopen(connection, caller.tenant_id, row.id, key)
        after = await limit_uses.show_key(connection, caller.tenant_id, row, key)
        await record(connection, caller, _pause(before[0]), _pause(after[0]))
    return after


async def _keyed(connection: Any, caller: Caller, name: str) -> StoredLimit:
    row = await found(connection, caller, name)
    if not row.view.definition.keyed:
        raise invalid_field("/key", f"limit {name} is not keyed, so it has no keys")
    return row


async def _locked(connection: Any, caller: Caller, name: str) -> StoredLimit:
    """Return the limit of this name, which is not changed or deleted before the transaction ends."""
    await limits.lock(connection, caller.tenant_id)
    return await _keyed(connection, caller, name)


async def get_of_queue(core: Core, caller: Caller, queue: str, key: str) -> QueueKeyShown:
    """Return one key of a queue. Raises Refusal: queue_not_found, invalid."""
    caller.require("read")
    _check(key)
    async with core.db.begin(caller.tenant_id) as connection:
        return await _of_queue(connection, caller, await queues.found(connection, caller, queue), key)


@audited("put", "queue_key", parts=2)
async def put_of_queue(core: Core, caller: Caller, queue: str, key: str, values: QueueKeyOverride) -> QueueKeyShown:
    """Set what holds for one key of a queue in place of its `key`. Once this returns, nothing is admitted above it.

    Raises Refusal: queue_not_found, invalid.
    """
    _check(key)
    async with changing(core, caller) as connection:
        row = await queues.locked(connection, caller, queue)
        before = await _of_queue(connection, caller, row, key)
        limit_id = await limits.of_queue_keys(connection, caller.tenant_id, row.id)
        await limits.put_key(connection, limit_id, key, values, values.weight)
        await flows.reopen(connection, caller.tenant_id, limit_id, key)
        after = await _of_queue(connection, caller, row, key)
        await record(connection, caller, _recorded(before[0]), _recorded(after[0]))
    return after


@audited("pause", "queue_key", parts=2)
async def pause_of_queue(core: Core, caller: Caller, queue: str, key: str) -> QueueKeyShown:
    """Pause one key of a queue. Once this returns, no task with this key starts. Raises Refusal: queue_not_found, invalid."""
    return await _set_paused_of_queue(core, caller, queue, key, paused=True)


@audited("resume", "queue_key", parts=2)
async def resume_of_queue(core: Core, caller: Caller, queue: str, key: str) -> QueueKeyShown:
    """Resume one key of a queue. Raises Refusal: queue_not_found, invalid."""
    return await _set_paused_of_queue(core, caller, queue, key, paused=False)


async def _set_paused_of_queue(core: Core, caller: Caller, queue: str, key: str, *, paused: bool) -> QueueKeyShown:
    _check(key)
    async with changing(core, caller) as connection:
        row = await queues.locked(connection, caller, queue)
        before = await _of_queue(connection, caller, row, key)
        limit_id = await limits.of_queue_keys(connection, caller.tenant_id, row.id)
        await limits.set_key_paused(connection, limit_id, key, paused=paused)
        await flows.reopen(connection, caller.tenant_id, limit_id, key)
        after = await _of_queue(connection, caller, row, key)
        await record(connection, caller, _pause(before[0]), _pause(after[0]))
    return after


async def _of_queue(connection: Any, caller: Caller, row: StoredQueue, key: str) -> QueueKeyShown:
    return await limit_uses.show_queue_key(connection, caller.tenant_id, row.id, key, row.view.definition.key)


def _recorded(view: KeyView) -> dict[str, Any]:
    """Return what the audit compares: the values that apply to a key."""
    rate = None if view.rate is None else structs.asdict(view.rate)
    return {"max_concurrency": view.max_concurrency, "rate": rate, "weight": view.weight} | _pause(view)


def _pause(view: KeyView) -> dict[str, Any]:
    return {"paused": view.paused_at is not None}


def position_at(key: str) -> str:
    """Return a key as the position of a page, which is ASCII."""
    return key.encode().hex()


def key_at(position: str | None) -> str | None:
    return None if position is None else bytes.fromhex(position).decode()


def is_position(text: str) -> bool:
    try:
        return key_problem(bytes.fromhex(text).decode()) is None
    except ValueError:
        return False


def _check(key: str) -> None:
    if problem := key_problem(key):
        raise invalid_field("/key", problem)
