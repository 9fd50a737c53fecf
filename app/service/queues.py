"""Verbs on queues: define and operate them.

A change is one transaction: take the locks (the handler's, shared, before the queue's: see store/numbers.py), then read, then
write. Claims and enqueues hold the queue's lock shared, so once a verb here has returned, nothing is admitted under the old
definition.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from msgspec import to_builtins

from app.domain.callbacks import callbacks_to_dict, called_queues
from app.domain.callers import Caller
from app.domain.conditions import Conditions
from app.domain.errors import FieldError, Refusal, invalid, invalid_field, queue_not_found, too_many
from app.domain.hiding import shown_to
from app.domain.limits import QueueRules
from app.domain.names import NAME_RULE, is_name
from app.domain.queues import QueueDefinition, QueueView, queue_to_dict
from app.domain.signatures import ErrorGroup, grouped
from app.domain.sqs import QueueAttributes
from app.runtime import counting as queue_stats
from app.runtime.confined import reach_of
from app.runtime.core import Core
from app.runtime.entries import check_callbacks
from app.service import limits
from app.service.audit import audited, record
from app.store import clock, flows, handlers, partitions, queues, schedules, task_errors, tenants
from app.store.queues import StoredQueue

ERRORS_SINCE: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Saved:
    view: QueueView
    etag: str
    created: bool


@dataclass(frozen=True, slots=True)
class SqsChange:
    """What a queue has as an SQS queue, beside its definition: a change that is refused unless it has `before`."""

    before: QueueAttributes | None
    after: QueueAttributes


@audited("put", "queue")
async def put(
    core: Core,
    caller: Caller,
    name: str,
    definition: QueueDefinition,
    conditions: Conditions,
    *,
    owner: str | None = None,
) -> Saved:
    """Create or replace a queue. Absent fields get their defaults; a pause is kept, and the owner if none is given.

    Raises Refusal: invalid, encryption_unavailable, etag_mismatch.
    """
    caller.require("manage")
    return await save(core, caller, name, definition, conditions, owner=owner)


async def save(
    core: Core,
    caller: Caller,
    name: str,
    definition: QueueDefinition,
    conditions: Conditions,
    *,
    owner: str | None = None,
    sqs: SqsChange | None = None,
) -> Saved:
    """Do what `put` does. `sqs`: what changes beside the definition; None: nothing. Raises Refusal: etag_mismatch, too, if `sqs`
    expects what is not there; as `put`."""
    await check(core, caller, name, definition)
    if caller.queues is not None:
        reach = await reach_of(core, caller)
        if errors := reach.faults(definition.handler, definition.limits, callbacks_to_dict(definition.callbacks)):
            raise invalid(errors)
    called = {
        state: callback
        for state, callback in callbacks_to_dict(definition.callbacks).items()
        if callback is not None and callback["queue"] != name
    }
    await check_callbacks(core, caller.tenant_id, called)
    # A task may end under the new retention as soon as it is written, so its partition must exist by then.
    await partitions.ensure_for(core.db.changes(caller.tenant_id), definition)
    while True:
        async with core.db.begin(caller.tenant_id) as connection:
            saved = await _save(core, caller, connection, name, definition, conditions, owner, sqs)
        if saved is not None:
            break
    if not saved.created:
        core.signals.any_lane_ready()
    return saved


async def _save(
    core: Core,
    caller: Caller,
    connection: Any,
    name: str,
    definition: QueueDefinition,
    conditions: Conditions,
    owner: str | None,
    sqs: SqsChange | None,
) -> Saved | None:
    """Return None to be tried again, if someone else has created or deleted it in the meantime."""
    queue_id = await queues.id_of(connection, caller.tenant_id, name)
    if queue_id is None:
        conditions.check(None)
        full = await tenants.is_full(connection, caller.tenant_id, "queues", core.max_definitions)
        if await queues.id_of(connection, caller.tenant_id, name) is not None:
            return None
        if full:
            raise too_many("queues", core.max_definitions)
    handler_id = await _held_handler(connection, caller, definition)
    await _lock_with_called(connection, caller, name, queue_id, definition)
    if queue_id is None:
        await _check_limits(connection, caller, definition, handler_id)
        attributes = None if sqs is None else sqs.after
        row = await queues.insert_new(connection, caller.tenant_id, name, definition, handler_id, owner, attributes)
        if row is None:
            return None
        await record(connection, caller, None, recorded(row))
        return Saved(row.view, row.etag, True)
    before = await queues.read(connection, queue_id)
    if before is None:
        return None
    conditions.check(before.etag)
    if sqs is not None and sqs.before != before.sqs:
        raise Refusal("etag_mismatch", "the SQS attributes of the queue have changed; read them and try again")
    attributes = before.sqs if sqs is None else sqs.after
    if definition != before.view.definition or attributes != before.sqs:
        await _check_limits(connection, caller, definition, handler_id)
        await queues.replace_definition(connection, caller.tenant_id, queue_id, definition, handler_id, attributes)
        if definition.encrypt != before.view.definition.encrypt:
            await schedules.recode(connection, core.vault, caller.tenant_id, queue_id, encrypt=definition.encrypt)
        if _flows_see(definition) != _flows_see(before.view.definition):
            await flows.reopen(connection, caller.tenant_id)
    if owner is not None:
        await queues.set_owner(connection, queue_id, owner)
    after = await queues.read(connection, queue_id)
    assert after is not None, "its lock is held"
    await record(connection, caller, recorded(before), recorded(after))
    return Saved(after.view, after.etag, False)


def recorded(row: StoredQueue) -> dict[str, Any]:
    """Return what the audit compares."""
    sqs = {} if row.sqs is None else {"sqs": to_builtins(row.sqs)}
    return queue_to_dict(row.view.definition) | {"owner": row.view.owner} | sqs


async def _check_limits(connection: Any, caller: Caller, definition: QueueDefinition, handler_id: int | None) -> None:
    """Check the limits that its tasks would take, and hold the named ones until the transaction ends. Raises Refusal (invalid)."""
    await limits.check_uses(connection, caller, definition.limits)
    of_handler = () if handler_id is None else await handlers.uses_of(connection, handler_id)
    limits.check_count(QueueRules(uses=definition.limits, handler_uses=of_handler, key_limited=definition.key_limited))


def _flows_see(definition: QueueDefinition) -> tuple[object, ...]:
    """Return what decides which of its tasks are blocked together."""
    return definition.rate, definition.key, definition.limits, definition.handler


async def check(core: Core, caller: Caller, name: str, definition: QueueDefinition) -> None:
    """Check that a definition may be stored, given that its handler exists. Raises Refusal: queue_not_found (the caller is confined
    to others), invalid, encryption_unavailable, unavailable."""
    errors = [] if is_name(name) else [FieldError("", f"{name} is not a name ({NAME_RULE})")]
    if errors := errors + definition.check():
        raise invalid(errors)
    if not caller.sees(name):
        raise queue_not_found(name)
    if definition.encrypt and not core.vault.wrapped:
        raise Refusal(
            "encryption_unavailable", "SLUICE_ENCRYPTION_KEY is not set, so the content of tasks cannot be encrypted"
        )
    schema = definition.payload_schema
    if schema is not None and (errors := await core.schemas.compile(caller.tenant_id, schema)):
        raise invalid(errors)


async def _held_handler(connection: Any, caller: Caller, definition: QueueDefinition) -> int | None:
    """Return the id of the queue's handler, which cannot be deleted before this transaction ends."""
    if definition.handler is None:
        return None
    handler_id = await handlers.id_of(connection, caller.tenant_id, definition.handler)
    if handler_id is not None:
        await handlers.lock_shared(connection, handler_id)
        if await handlers.is_there(connection, handler_id):
            return handler_id
    raise invalid_field(
        "/handler", f"there is no handler {definition.handler}; PUT /handlers/{definition.handler} first"
    )


async def _lock_with_called(
    connection: Any, caller: Caller, name: str, queue_id: int | None, definition: QueueDefinition
) -> None:
    """Lock the queue, if it exists, and shared those that its callbacks name, which then cannot be deleted before this transaction
    ends. In ascending order, like everywhere. Raises Refusal: invalid if one of them does not exist."""
    named = called_queues(callbacks_to_dict(definition.callbacks))
    others = {other: await queues.id_of(connection, caller.tenant_id, other) for other in {*named.values()} - {name}}
    for locked in sorted(found for found in {queue_id, *others.values()} if found is not None):
        await (queues.lock if locked == queue_id else queues.lock_shared)(connection, locked)
    errors = [
        FieldError(f"/callbacks/{state}/queue", f"there is no queue {other}; PUT /queues/{other} first")
        for state, other in named.items()
        if other != name
        and (others[other] is None or await queues.id_of(connection, caller.tenant_id, other) != others[other])
    ]
    if errors:
        raise invalid(errors)


async def get(core: Core, caller: Caller, name: str) -> tuple[QueueView, str]:
    """Return the queue and its ETag. Raises Refusal (queue_not_found)."""
    caller.require("read")
    row = await _read(core, caller, name)
    return row.view, row.etag


async def _read(core: Core, caller: Caller, name: str) -> StoredQueue:
    async with core.db.begin(caller.tenant_id) as connection:
        return await found(connection, caller, name)


async def found(connection: Any, caller: Caller, name: str) -> StoredQueue:
    """Return the queue of this name. Raises Refusal (queue_not_found)."""
    queue_id = await queues.id_of(connection, caller.tenant_id, name)
    row = None if queue_id is None else await queues.read(connection, queue_id)
    if row is None or not caller.sees(name):
        raise queue_not_found(name)
    return row


async def list_page(core: Core, caller: Caller, after: str | None, limit: int) -> tuple[list[QueueView], bool]:
    """Return a page by name, after the name `after`, and whether there are more."""
    caller.require("read")
    async with core.db.begin(caller.tenant_id) as connection:
        rows = await queues.list_page(connection, caller.tenant_id, after, limit + 1, caller.queues)
    return [row.view for row in rows[:limit]], len(rows) > limit


@audited("delete", "queue")
async def delete(core: Core, caller: Caller, name: str, conditions: Conditions) -> None:
    """Delete a queue. Its ended tasks stay readable for their retention. Raises Refusal: queue_not_found, etag_mismatch,
    queue_in_use."""
    caller.require("manage")
    async with core.db.begin(caller.tenant_id) as connection:
        row = await locked(connection, caller, name)
        conditions.check(row.etag)
        if await queues.is_used(connection, row.id):
            raise Refusal(
                "queue_in_use",
                f"queue {name} holds unfinished tasks, or a schedule, source, batch, callback or transaction enqueues there; "
                "end or delete those first",
            )
        await queues.mark_deleted(connection, caller.tenant_id, row.id)
        await record(connection, caller, recorded(row), None)
    core.queues.forget(caller.tenant_id, name)


async def locked(connection: Any, caller: Caller, name: str) -> StoredQueue:
    """Return the queue of this name under its lock, which is held until the transaction ends."""
    while caller.sees(name) and (queue_id := await queues.id_of(connection, caller.tenant_id, name)) is not None:
        await queues.lock(connection, queue_id)
        row = await queues.read(connection, queue_id)
        if row is not None:
            return row
    raise queue_not_found(name)


@audited("pause", "queue")
async def pause(core: Core, caller: Caller, name: str) -> QueueView:
    """Pause a queue. Once this returns, nothing is claimed from it. Raises Refusal (queue_not_found)."""
    caller.require("manage")
    async with core.db.begin(caller.tenant_id) as connection:
        row = await locked(connection, caller, name)
        before = {"paused": row.view.paused}
        if not row.view.paused:
            await queues.pause(connection, row.id)
            row = await locked(connection, caller, name)
        await record(connection, caller, before, {"paused": row.view.paused})
    return row.view


@audited("resume", "queue")
async def resume(core: Core, caller: Caller, name: str) -> QueueView:
    """Resume a queue. Raises Refusal (queue_not_found)."""
    caller.require("manage")
    async with core.db.begin(caller.tenant_id) as connection:
        row = await locked(connection, caller, name)
        before = {"paused": row.view.paused}
        if row.view.paused:
            await queues.resume(connection, row.id)
            row = await locked(connection, caller, name)
        await record(connection, caller, before, {"paused": row.view.paused})
    core.signals.any_lane_ready()
    return row.view


async def stats(core: Core, caller: Caller, name: str) -> dict[str, Any]:
    """Return a queue's statistics. Raises Refusal (queue_not_found)."""
    caller.require("read")
    row = await _read(core, caller, name)
    return await queue_stats.of_queue(core.db, core.stats, caller.tenant_id, row.id, name)


async def errors(core: Core, caller: Caller, name: str) -> tuple[list[ErrorGroup], bool]:
    """Return the errors of a queue's tasks of the last day by signature, the most frequent first, and whether all were looked at.

    Raises Refusal (queue_not_found).
    """
    caller.require("read")
    row = await _read(core, caller, name)
    reads = core.db.reads(caller.tenant_id)
    now = await clock.now(reads)
    found = await task_errors.since(reads, row.id, now - ERRORS_SINCE, now)
    groups = await core.compute.run(caller.tenant_id, grouped, found.failures)
    return [shown_to(caller, group) for group in groups], found.complete
