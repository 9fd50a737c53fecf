"""Definitions as code: plan what a document would change, and apply it.

A plan validates the whole document first, so that a fault changes nothing. An apply then uses the same verbs as single requests,
each under the ETag that the plan read, and stops at the first refusal: someone else has changed something in the meantime, or
what is to be deleted is in use. Changes made before stay; the next apply continues from there.
"""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from msgspec import structs

from app.domain.callbacks import Callbacks, callbacks_to_dict, called_queues, target_of
from app.domain.callers import Caller
from app.domain.conditions import Conditions
from app.domain.definitions import (
    SECTIONS,
    DefinitionChange,
    Document,
    FieldChange,
    Kind,
    called_first,
    called_last,
    handler_changes,
    limits_changes,
    name_faults,
    named_limit_changes,
    owner_change,
    queue_changes,
    schedule_changes,
    source_changes,
    version_of,
)
from app.domain.errors import FieldError, Refusal, invalid, pointer, too_many
from app.domain.handlers import HandlerDefinition, handler_etag
from app.domain.hiding import shown_to
from app.domain.limits import TASKS_KEY, LimitRule, Limits, QueueRules, limit_etag, rule_of, task_errors, use_errors
from app.domain.queues import QueueDefinition, queue_etag
from app.domain.schedules.definitions import ScheduleDefinition, schedule_etag
from app.domain.sources import MAX_SOURCES, source_etag
from app.runtime.confined import reach_of
from app.runtime.core import Core
from app.runtime.entries import check_target, pull_queue_target
from app.runtime.pieces import in_pieces
from app.runtime.schemas import CheckBudget
from app.service import handlers, limits, queues, schedules, sources, tenant_limits
from app.service.audit import audited
from app.store import handlers as handler_rows
from app.store import limits as limit_rows
from app.store import queues as queue_rows
from app.store import schedules as schedule_rows
from app.store import sources as source_rows
from app.store.handlers import HandlerRow
from app.store.limits import StoredLimit
from app.store.queues import StoredQueue
from app.store.schedules import ScheduleRow
from app.store.sources import SourceRow
from app.store.tenants import TenantLimits
from app.store.vault import Vault

PAGE = 500
MAX_FAULTS = 100

Row = TypeVar("Row")
SECTION_OF: dict[Kind, str] = {kind: section for section, kind in SECTIONS.items()}


@dataclass(frozen=True, slots=True)
class Plan:
    changes: list[DefinitionChange]
    """In the order in which they are applied."""
    version: str
    """An ETag over the document and everything it was compared with."""
    secrets: dict[str, str] = field(default_factory=dict, repr=False)
    """After an apply: the secrets generated for new handlers, by name; shown only once."""


@dataclass(frozen=True, slots=True)
class _Stored:
    named_limits: dict[str, StoredLimit]
    handlers: dict[str, HandlerRow]
    queues: dict[str, StoredQueue]
    schedules: dict[str, ScheduleRow]
    sources: dict[str, SourceRow]
    limits: TenantLimits


async def plan(core: Core, caller: Caller, document: Document) -> Plan:
    """Return what an apply would do. Raises Refusal: invalid, egress_denied, payload_schema_mismatch, unavailable."""
    caller.require("manage")
    current = await _read(core, caller)
    await _validate(core, caller, document, current)
    changes = [change async for change in in_pieces(_changes(core.vault, document, current))]
    version = version_of(changes, await _wanted(document))
    return Plan([shown_to(caller, change) for change in changes], version)


@audited("apply", "definitions", parts=0)
async def apply(core: Core, caller: Caller, document: Document, version: str | None) -> Plan:
    """Apply a document; with `version`, only if the plan is still the one with that version.

    Raises Refusal: as plan, etag_mismatch, and those of the single verbs, whose details say how far it got.
    """
    made = await plan(core, caller, document)
    if version is not None and version != made.version:
        raise Refusal(
            "etag_mismatch", "the document or the current definitions have changed since this plan; plan again"
        )
    todo = [change for change in made.changes if change.action != "unchanged"]
    steps: list[Callable[[], Awaitable[str | None]]] = [
        partial(_carry_out, core, caller, document, change) for change in todo
    ]
    for n, change in _before_called(document, todo):
        name, wanted = change.name or "", (document.queues or {})[change.name or ""]
        incomplete = structs.replace(wanted, callbacks=Callbacks())
        steps[n] = partial(_put_queue, core, caller, document, name, incomplete, _conditions(change))
        todo.append(change)
        steps.append(
            partial(_put_queue, core, caller, document, name, wanted, Conditions(if_match=(queue_etag(incomplete),)))
        )
    for done, (change, step) in enumerate(zip(todo, steps, strict=True)):
        try:
            if (secret := await step()) is not None:
                made.secrets[change.name or ""] = secret
        except Refusal as refusal:
            raise _stopped(refusal, todo, done) from None
    return made


def _before_called(document: Document, todo: Sequence[DefinitionChange]) -> list[tuple[int, DefinitionChange]]:
    """Return the new queues, with their places, that must come before one that their callbacks name, because these form a circle.

    They are created without callbacks, and get them at the end.
    """
    places = {change.name: n for n, change in enumerate(todo) if change.kind == "queue" and change.action == "create"}
    return [
        (n, todo[n])
        for name, n in places.items()
        if any(
            places.get(called, -1) > n
            for called in called_queues(callbacks_to_dict((document.queues or {})[name or ""].callbacks)).values()
        )
    ]


async def _read(core: Core, caller: Caller) -> _Stored:
    tenant = caller.tenant_id
    async with core.db.begin(caller.tenant_id) as connection:

        async def limits_after(name: str | None) -> list[StoredLimit]:
            return await limit_rows.list_page(connection, tenant, name, PAGE)

        async def handlers_after(name: str | None) -> list[HandlerRow]:
            return await handler_rows.list_page(connection, core.vault, tenant, name, PAGE)

        async def queues_after(name: str | None) -> list[StoredQueue]:
            return await queue_rows.list_page(connection, tenant, name, PAGE, caller.queues)

        async def schedules_after(name: str | None) -> list[ScheduleRow]:
            rows, _ = await schedule_rows.list_page(core.db.reads(tenant), tenant, name, PAGE, caller.queues)
            return rows

        async def sources_after(name: str | None) -> list[SourceRow]:
            reads = core.db.reads(tenant)
            return await source_rows.list_page(reads, core.vault, tenant, name, PAGE, caller.queues)

        found_limits = await _all(limits_after, lambda row: row.view.name)
        found_handlers = await _all(handlers_after, lambda row: row.view.name)
        found_queues = await _all(queues_after, lambda row: row.view.name)
    found_schedules = await _all(schedules_after, lambda row: row.name)
    found_sources = await _all(sources_after, lambda row: row.view.name)
    if caller.queues is None:
        own = await tenant_limits.get(core, caller)
        return _Stored(found_limits, found_handlers, found_queues, found_schedules, found_sources, own)
    reach = await reach_of(core, caller)
    nameable_limits = {name: row for name, row in found_limits.items() if name in reach.limits}
    nameable_handlers = {name: row for name, row in found_handlers.items() if name in reach.handlers}
    return _Stored(nameable_limits, nameable_handlers, found_queues, found_schedules, found_sources, TenantLimits())


async def _all(page: Callable[[str | None], Awaitable[list[Row]]], name_of: Callable[[Row], str]) -> dict[str, Row]:
    found: dict[str, Row] = {}
    after = None
    while rows := await page(after):
        found |= {name_of(row): row for row in rows}
        after = name_of(rows[-1])
    return found


async def _validate(core: Core, caller: Caller, document: Document, current: _Stored) -> None:
    """Check every rule that can be checked before anything changes."""
    _check_sections(caller, document)
    refusals: list[Refusal] = []

    def note(where: str, refusal: Refusal) -> None:
        if refusal.code == "unavailable":
            raise refusal
        refusals.append(placed(refusal, where))

    async for name, limit in in_pieces((document.named_limits or {}).items()):
        try:
            limits.check(name, limit)
        except Refusal as refusal:
            note(pointer("named_limits", name), refusal)
    async for name, handler in in_pieces((document.handlers or {}).items()):
        try:
            handlers.check(core, name, handler, document.secrets.get(name))
            handlers.completed(core, caller, handler, current.handlers.get(name))
        except Refusal as refusal:
            note(pointer("handlers", name), refusal)
    async for name, queue in in_pieces((document.queues or {}).items()):
        try:
            await queues.check(core, caller, name, queue)
        except Refusal as refusal:
            note(pointer("queues", name), refusal)
    for name, source in (document.sources or {}).items():
        try:
            sources.check(core, caller, name, source)
            sources.completed(core, caller, source, current.sources.get(name))
        except Refusal as refusal:
            note(pointer("sources", name), refusal)
    if document.limits is not None and document.limits != current.limits.own:
        try:
            tenant_limits.check(document.limits, current.limits)
        except Refusal as refusal:
            note(pointer("limits"), refusal)
    for section in ("named_limits", "handlers", "queues", "schedules", "sources"):
        rows, wanted = getattr(current, section), getattr(document, section) or {}
        most = MAX_SOURCES if section == "sources" else core.max_definitions
        # pruning comes last
        if wanted.keys() - rows.keys() and len(wanted.keys() | rows.keys()) > most:
            refusals.append(too_many(section.replace("_", " "), most, pointer(section)))
    names = {section: set(getattr(current, section)) for section in ("named_limits", "handlers", "queues")}
    kept = {
        section: {name for name, row in getattr(current, section).items() if _owner(row) != document.owner}
        for section in names
    }
    refusals += [Refusal("invalid", fault.detail, [fault]) for fault in name_faults(document, names, kept)]
    then = _then(document, current)
    refusals += [refusal async for refusal in _limit_refusals(document, then)]
    if not refusals:  # otherwise a queue's schema may itself be at fault
        async for name, queue in in_pieces((document.queues or {}).items()):
            try:
                _validate_callbacks(core, then, queue)
            except Refusal as refusal:
                note(pointer("queues", name), refusal)
        budget = CheckBudget()
        async for name, schedule in in_pieces((document.schedules or {}).items()):
            try:
                await _validate_schedule(core, caller, then, schedule, budget)
            except Refusal as refusal:
                note(pointer("schedules", name), refusal)
    if refusals:
        raise joined(refusals)


def _check_sections(caller: Caller, document: Document) -> None:
    """Check that a document of a caller who is confined to queues is about these alone. Raises Refusal (not_found)."""
    for section in ("named_limits", "handlers", "limits"):
        if getattr(document, section) is not None:
            try:
                caller.require_tenant()
            except Refusal as refusal:
                raise placed(refusal, pointer(section)) from None


@dataclass(frozen=True, slots=True)
class _Then:
    """What there will be. What a prune deletes is here, too, but nothing that is kept names it."""

    limits: dict[str, LimitRule]
    handlers: dict[str, HandlerDefinition]
    queues: dict[str, QueueDefinition]

    def rules(self, queue: QueueDefinition, handler: str | None) -> QueueRules:
        """Return what tasks of the queue must observe that this handler executes."""
        return QueueRules(
            key_required=queue.key is not None and queue.key.required,
            key_limited=queue.key_limited,
            uses=queue.limits,
            handler_uses=self.handlers[handler].limits if handler in self.handlers else (),
        )


def _then(document: Document, current: _Stored) -> _Then:
    def merged(section: str) -> dict[str, Any]:
        stored = {name: row.view.definition for name, row in getattr(current, section).items()}
        return stored | (getattr(document, section) or {})

    limits_then = {name: rule_of(limit) for name, limit in merged("named_limits").items()}
    return _Then(limits_then, merged("handlers"), merged("queues"))


async def _limit_refusals(document: Document, then: _Then) -> AsyncIterator[Refusal]:
    """Yield what is wrong with the limits that handlers and queues name, if the document has one of them."""
    for section in ("handlers", "queues"):
        async for name, definition in in_pieces((getattr(document, section) or {}).items()):
            errors = [
                error
                for index, use in enumerate(definition.limits)
                if use.name in then.limits
                for error in use_errors(use, then.limits[use.name], TASKS_KEY, pointer(section, name, "limits", index))
            ]
            if errors:
                yield Refusal("invalid", errors[0].detail, errors)
    own_queues, own_handlers = document.queues or {}, document.handlers or {}
    async for name, queue in in_pieces(then.queues.items()):
        if name in own_queues:
            where, prefix = pointer("queues", name), ""
        elif queue.handler is not None and queue.handler in own_handlers:
            where, prefix = pointer("handlers", queue.handler), f"in queue {name}: "
        else:
            continue
        try:
            limits.check_count(then.rules(queue, queue.handler), prefix)
        except Refusal as refusal:
            yield placed(refusal, where)


def _validate_callbacks(core: Core, then: _Then, queue: QueueDefinition) -> None:
    """Validate the targets of a queue's callbacks, against the handlers that will deliver them."""
    for state, callback in callbacks_to_dict(queue.callbacks).items():
        if callback is not None and (target := target_of(callback)) is not None:
            where = f"/callbacks/{state}"
            name = then.queues[callback["queue"]].handler
            if name is None:
                raise pull_queue_target(callback["queue"], where)
            handler = then.handlers[name]
            check_target(core, target, handler.url or "", handler.targets, where)


async def _validate_schedule(
    core: Core, caller: Caller, then: _Then, schedule: ScheduleDefinition, budget: CheckBudget
) -> None:
    """Validate a schedule as its tasks will be validated, against the queues as they will be."""

    queue = then.queues[schedule.queue]
    if schedule.handler is not None and queue.handler is None:
        detail = f"queue {schedule.queue} is for pull workers, so its tasks cannot name a handler"
        raise Refusal("invalid", detail, [FieldError("/handler", detail)])
    name = schedule.handler or queue.handler
    if schedule.target is not None:
        if name is None:
            raise pull_queue_target(schedule.queue)
        handler = then.handlers[name]
        check_target(core, schedule.target, handler.url or "", handler.targets)
    if errors := task_errors(schedule.key, schedule.limits, then.rules(queue, name), then.limits, ""):
        raise invalid(errors)
    if queue.payload_schema is not None:
        await core.schemas.check(caller.tenant_id, queue.payload_schema, schedule.payload, "", budget)
    complete = schedule.on_complete
    if complete is not None and (schema := then.queues[complete.queue].payload_schema) is not None:
        await core.schemas.check(caller.tenant_id, schema, complete.payload, "/on_complete", budget)


def placed(refusal: Refusal, where: str) -> Refusal:
    """Return the refusal of one definition with pointers into the document."""
    errors = [FieldError(where + error.pointer, error.detail) for error in refusal.errors]
    return Refusal(refusal.code, refusal.detail, errors or [FieldError(where, refusal.detail)])


def joined(refusals: Sequence[Refusal]) -> Refusal:
    """Merge refusals into one with all their pointers, and with their code if they agree on it."""
    codes = {refusal.code for refusal in refusals}
    errors = [error for refusal in refusals for error in refusal.errors]
    first = errors[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    code = codes.pop() if len(codes) == 1 else "invalid"
    return Refusal(code, f"{first.pointer or 'the body'}: {first.detail}{more}", errors[:MAX_FAULTS])


def _changes(vault: Vault, document: Document, current: _Stored) -> Iterator[DefinitionChange]:
    for name, limit in sorted((document.named_limits or {}).items()):
        kept = current.named_limits.get(name)
        found = named_limit_changes(None if kept is None else kept.view.definition, limit)
        yield _change("named_limit", name, kept, found, document.owner)
    for name in sorted(document.handlers or {}):
        yield _handler(document, name, current.handlers.get(name))
    for name in called_first(document.queues or {}, current.queues):
        row = current.queues.get(name)
        found = queue_changes(None if row is None else row.view.definition, (document.queues or {})[name])
        yield _change("queue", name, row, found, document.owner)
    for name, schedule in sorted((document.schedules or {}).items()):
        stored = current.schedules.get(name)
        found = schedule_changes(None if stored is None else schedules.full_definition(vault, stored), schedule)
        yield _change("schedule", name, stored, found, document.owner)
    for name, source in sorted((document.sources or {}).items()):
        found_source = current.sources.get(name)
        before = None if found_source is None else found_source.view.definition
        found = source_changes(before, sources.kept(source, found_source))
        yield _change("source", name, found_source, found, document.owner)
    if document.limits is not None:
        changes = limits_changes(current.limits.own, document.limits)
        etag = limit_etag(current.limits.own)
        yield DefinitionChange("limits", None, "update" if changes else "unchanged", changes, etag)
    if document.prune:
        yield from _prunings(document, current)


def _handler(document: Document, name: str, row: HandlerRow | None) -> DefinitionChange:
    before, secret = (None, None) if row is None else (row.view.definition, row.secret)
    changes = handler_changes(before, secret, (document.handlers or {})[name], document.secrets.get(name))
    return _change("handler", name, row, changes, document.owner)


def _change(kind: Kind, name: str, row: Any, found: tuple[FieldChange, ...], owner: str | None) -> DefinitionChange:
    changes = found + owner_change(None if row is None else _owner(row), owner)
    if row is None:
        return DefinitionChange(kind, name, "create", changes)
    return DefinitionChange(kind, name, "update" if changes else "unchanged", changes, row.etag)


def _owner(row: StoredLimit | HandlerRow | StoredQueue | ScheduleRow | SourceRow) -> str | None:
    return row.owner if isinstance(row, ScheduleRow) else row.view.owner


def _prunings(document: Document, current: _Stored) -> Iterator[DefinitionChange]:
    for section in ("sources", "schedules", "queues", "handlers", "named_limits"):
        wanted, rows = getattr(document, section), getattr(current, section)
        if wanted is not None:
            gone = sorted(name for name in set(rows) - set(wanted) if _owner(rows[name]) == document.owner)
            if section == "queues":
                gone = called_last({name: current.queues[name].view.definition for name in gone})
            for name in gone:
                yield DefinitionChange(SECTIONS[section], name, "delete", (), rows[name].etag)


async def _wanted(document: Document) -> dict[str, Any]:
    """Return the part of the document that a plan's version covers; secrets as a digest."""
    secrets = "\n".join(f"{name} {secret}" for name, secret in sorted(document.secrets.items()))
    return {
        "named_limits": await _etags(document.named_limits, limit_etag),
        "handlers": await _etags(document.handlers, handler_etag),
        "secrets": hashlib.sha256(secrets.encode()).hexdigest(),
        "queues": await _etags(document.queues, queue_etag),
        "schedules": await _etags(document.schedules, schedule_etag),
        "sources": await _etags(document.sources, source_etag),
        "limits": None if document.limits is None else limit_etag(document.limits),
        "prune": document.prune,
        "owner": document.owner,
    }


async def _etags(definitions: Mapping[str, Row] | None, etag: Callable[[Row], str]) -> dict[str, str]:
    return {name: etag(one) async for name, one in in_pieces((definitions or {}).items())}


async def _carry_out(core: Core, caller: Caller, document: Document, change: DefinitionChange) -> str | None:
    """Apply one change; return the signing secret if one was generated."""
    conditions = _conditions(change)
    name = change.name or ""
    if change.action == "delete":
        verbs: dict[str, Callable[[Core, Caller, str, Conditions], Awaitable[None]]] = {
            "named_limit": limits.delete,
            "handler": handlers.delete,
            "queue": queues.delete,
            "schedule": schedules.delete,
            "source": sources.delete,
        }
        await verbs[change.kind](core, caller, name, conditions)
    elif change.kind == "named_limit":
        await limits.put(core, caller, name, (document.named_limits or {})[name], conditions, owner=document.owner)
    elif change.kind == "handler":
        wanted = (document.handlers or {})[name]
        secret = document.secrets.get(name)
        saved = await handlers.put(core, caller, name, wanted, secret, conditions, owner=document.owner)
        return saved.secret
    elif change.kind == "queue":
        await _put_queue(core, caller, document, name, (document.queues or {})[name], conditions)
    elif change.kind == "schedule":
        await schedules.put(core, caller, name, (document.schedules or {})[name], conditions, owner=document.owner)
    elif change.kind == "source":
        await sources.put(core, caller, name, (document.sources or {})[name], conditions, owner=document.owner)
    else:
        await tenant_limits.put(core, caller, document.limits or Limits(), conditions)
    return None


async def _put_queue(
    core: Core, caller: Caller, document: Document, name: str, wanted: QueueDefinition, conditions: Conditions
) -> str | None:
    await queues.put(core, caller, name, wanted, conditions, owner=document.owner)
    return None


def _conditions(change: DefinitionChange) -> Conditions:
    return Conditions(if_none_match_any=True) if change.etag is None else Conditions(if_match=(change.etag,))


def _stopped(refusal: Refusal, todo: Sequence[DefinitionChange], done: int) -> Refusal:
    change = todo[done]
    where = pointer(SECTION_OF[change.kind], *([] if change.name is None else [change.name]))
    found = placed(refusal, where)
    detail = f"{where}: {refusal.detail} (the first {done} of {len(todo)} changes were made; apply again to continue)"
    return Refusal(found.code, detail, found.errors, retry_after_seconds=refusal.retry_after_seconds)
