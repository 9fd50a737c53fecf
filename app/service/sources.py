"""Verbs on sources: define, operate and test the queues elsewhere from which tasks come in.

A change is one transaction: the source's row is locked, then read, then written. Receivers compare its version in each round
(take_source_room_v1), so that once a pause, a change or a deletion is answered, no further receive begins. What a receive under way
brings is given back.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from app.domain.callers import Caller
from app.domain.conditions import Conditions
from app.domain.errors import FieldError, Refusal, invalid, invalid_field, queue_not_found
from app.domain.names import NAME_RULE, is_name
from app.domain.sources import (
    MAX_SOURCES,
    NO_SECRETS,
    SourceDefinition,
    SourceState,
    SourceView,
    source_etag,
    source_to_dict,
)
from app.runtime.catalogue import until_current
from app.runtime.core import Core
from app.runtime.entries import named_queue
from app.service.audit import audited, record
from app.sources.kinds import Depth, SourceError
from app.store import partitions, schedules, sources, tenants
from app.store.db import Reader
from app.store.queues import QueueRow
from app.store.sources import SourceRow

TEST_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Saved:
    view: SourceView
    etag: str
    created: bool


@dataclass(frozen=True, slots=True)
class Tested:
    error: str | None
    """None: it can be received from."""
    depth: Depth
    duration_seconds: float


def not_found(name: str) -> Refusal:
    return Refusal("source_not_found", f"there is no source {name}; PUT /sources/{name} creates it")


def check(core: Core, caller: Caller, name: str, definition: SourceDefinition) -> None:
    """Check that a definition may be stored, but for what `completed` checks. Raises Refusal (invalid)."""
    errors = [] if is_name(name) else [FieldError("", f"{name} is not a name ({NAME_RULE})")]
    errors += definition.check()
    if errors:
        raise invalid(errors)
    if not caller.sees(definition.queue):
        raise invalid_field("/queue", f"there is no queue {definition.queue}")


@audited("put", "source")
async def put(
    core: Core,
    caller: Caller,
    name: str,
    definition: SourceDefinition,
    conditions: Conditions,
    *,
    owner: str | None = None,
) -> Saved:
    """Create or replace a source. Secrets that are absent are kept, and so are a pause, the counts, and the owner if none is given.

    Raises Refusal: invalid, egress_denied, bridge_unavailable, etag_mismatch, unavailable, and forbidden if the replicas' own
    credentials would be used for a caller who does not operate them.
    """
    caller.require("manage")
    wanted = definition.complete
    check(core, caller, name, wanted)

    async def attempt() -> Saved | None:
        queue = await named_queue(core, caller, wanted.queue, "/queue")
        saved = await _put(core, caller, name, wanted, queue, conditions, owner)
        if saved is None:
            core.queues.forget(caller.tenant_id, wanted.queue)
        return saved

    saved = await until_current(attempt, f"queue {wanted.queue}")
    core.signals.source_changed()
    return saved


async def _put(
    core: Core,
    caller: Caller,
    name: str,
    wanted: SourceDefinition,
    queue: QueueRow,
    conditions: Conditions,
    owner: str | None,
) -> Saved | None:
    """Return None to be tried again, if the queue has changed in the meantime."""
    await partitions.ensure_for_sources(core.db)
    async with core.db.changes(caller.tenant_id).transaction() as connection:
        full = await tenants.is_full(connection, caller.tenant_id, "sources", MAX_SOURCES)
        if not await schedules.hold_named(connection, [(queue.id, queue.version)], 0):
            return None
        await sources.lock(connection, caller.tenant_id, name)
        before = await sources.find(connection, core.vault, caller.tenant_id, name)
        if before is not None and not caller.sees(before.view.definition.queue):
            raise not_found(name)
        conditions.check(None if before is None else before.etag)
        definition = completed(core, caller, wanted, before)
        if before is None:
            if full:
                raise invalid_field("", f"the tenant already has {MAX_SOURCES} sources, the most allowed; delete some")
            await sources.insert_new(connection, core.vault, caller.tenant_id, name, queue.id, definition, owner)
        elif before.view.secrets_lost or before.etag != source_etag(definition, core.vault.fingerprint_key):
            await sources.replace(connection, core.vault, before.id, queue.id, definition)
        if before is not None and owner is not None:
            await sources.set_owner(connection, before.id, owner)
        after = await sources.find(connection, core.vault, caller.tenant_id, name)
        assert after is not None, "its row is locked"
        await record(connection, caller, None if before is None else _recorded(before), _recorded(after))
        view = await _with_state(connection, after)
    return Saved(view, after.etag, before is None)


def kept(wanted: SourceDefinition, before: SourceRow | None) -> SourceDefinition:
    """Return the definition with the secrets that it keeps of its predecessor."""
    if before is None or before.view.definition.kind != wanted.kind or before.view.secrets_lost:
        return wanted.with_kept(NO_SECRETS)
    return wanted.with_kept(before.view.definition.secrets)


def completed(core: Core, caller: Caller, wanted: SourceDefinition, before: SourceRow | None) -> SourceDefinition:
    """Return the definition with the secrets that it keeps of its predecessor, and check where it leads.

    Raises Refusal: invalid, egress_denied, bridge_unavailable, forbidden.
    """
    definition = kept(wanted, before)
    if errors := definition.missing():
        raise invalid(errors)
    changed = before is None or before.view.secrets_lost or definition != before.view.definition
    if changed and definition.kind == "sqs" and not definition.credentials and not caller.may("operate"):
        raise Refusal(
            "forbidden",
            "without credentials, the source would use those of the replicas, which needs a key with scope operate; "
            "send credentials",
        )
    core.sources.of(definition).check(definition)
    return definition


def _recorded(row: SourceRow) -> dict[str, Any]:
    """Return what the audit compares. It hides what is called a secret."""
    secret = msgspec.to_builtins(row.view.definition.secrets) or None
    return source_to_dict(row.view.definition) | {"secret": secret, "owner": row.view.owner}


async def get(core: Core, caller: Caller, name: str) -> tuple[SourceView, str]:
    """Return (view, etag). Raises Refusal (source_not_found)."""
    caller.require("read")
    reads = core.db.reads(caller.tenant_id)
    row = await _find(core, reads, caller, name)
    return await _with_state(reads, row), row.etag


async def list_page(core: Core, caller: Caller, after: str | None, limit: int) -> tuple[list[SourceView], bool]:
    """Return a page by name, after the name `after`, and whether there are more."""
    caller.require("read")
    reads = core.db.reads(caller.tenant_id)
    rows = await sources.list_page(reads, core.vault, caller.tenant_id, after, limit + 1, caller.queues)
    return await _with_states(reads, rows[:limit]), len(rows) > limit


async def feeding(core: Core, caller: Caller, queue: str, limit: int) -> tuple[list[SourceView], bool]:
    """Return the first sources of a queue, by name, and whether there are more. Raises Refusal (queue_not_found)."""
    caller.require("read")
    if not caller.sees(queue):
        raise queue_not_found(queue)
    reads = core.db.reads(caller.tenant_id)
    rows = await sources.feeding(reads, core.vault, caller.tenant_id, queue, limit + 1)
    return await _with_states(reads, rows[:limit]), len(rows) > limit


@audited("delete", "source")
async def delete(core: Core, caller: Caller, name: str, conditions: Conditions) -> None:
    """Delete a source. What it has brought stays; messages that are not acknowledged yet stay at the queue it came from.

    Raises Refusal: source_not_found, etag_mismatch.
    """
    caller.require("manage")
    async with core.db.changes(caller.tenant_id).transaction() as connection:
        row = await _locked(core, connection, caller, name)
        conditions.check(row.etag)
        await sources.remove(connection, row.id)
        await record(connection, caller, _recorded(row), None)
    core.signals.source_changed()


@audited("pause", "source")
async def pause(core: Core, caller: Caller, name: str) -> SourceView:
    """Pause a source. Once this returns, no further receive begins. Raises Refusal (source_not_found)."""
    caller.require("manage")
    return await _set_paused(core, caller, name, paused=True)


@audited("resume", "source")
async def resume(core: Core, caller: Caller, name: str) -> SourceView:
    """Resume a source. Raises Refusal (source_not_found)."""
    caller.require("manage")
    return await _set_paused(core, caller, name, paused=False)


async def _set_paused(core: Core, caller: Caller, name: str, *, paused: bool) -> SourceView:
    async with core.db.changes(caller.tenant_id).transaction() as connection:
        row = await _locked(core, connection, caller, name)
        if row.view.paused != paused:
            await sources.set_paused(connection, row.id, paused=paused)
        after = await _find(core, connection, caller, name)
        await record(connection, caller, {"paused": row.view.paused}, {"paused": after.view.paused})
        view = await _with_state(connection, after)
    core.signals.source_changed()
    return view


async def test(core: Core, caller: Caller, name: str) -> Tested:
    """Connect to a source and look at it, without taking a message. It counts nowhere. Raises Refusal: source_not_found,
    bridge_unavailable, unavailable."""
    caller.require("manage")
    row = await _find(core, core.db.reads(caller.tenant_id), caller, name)
    began, depth = time.monotonic(), Depth(None, None)
    async with core.handler_tests.turn(caller.tenant_id):
        try:
            depth, error = await _looked_at(core, row), None
        except SourceError as failure:
            error = str(failure)
    return Tested(error, depth, round(time.monotonic() - began, 3))


async def _looked_at(core: Core, row: SourceRow) -> Depth:
    """Raises SourceError, Refusal (bridge_unavailable)."""
    if row.view.secrets_lost:
        raise SourceError("its credentials cannot be decrypted: PUT the source again, with them", permanent=True)
    definition = row.view.definition
    source = core.sources.of(definition).open(definition, core.replica.name, row.tenant)
    try:
        async with asyncio.timeout(TEST_SECONDS):
            await source.check()
            return await source.measure()
    except TimeoutError:
        raise SourceError(f"it has not answered for {TEST_SECONDS:.0f} s") from None
    finally:
        await source.aclose()


async def _find(core: Core, reader: Reader, caller: Caller, name: str) -> SourceRow:
    row = await sources.find(reader, core.vault, caller.tenant_id, name)
    if row is None or not caller.sees(row.view.definition.queue):
        raise not_found(name)
    return row


async def _locked(core: Core, connection: Reader, caller: Caller, name: str) -> SourceRow:
    """Return the source of this name under its row's lock, which is held until the transaction ends."""
    await sources.lock(connection, caller.tenant_id, name)
    return await _find(core, connection, caller, name)


async def _with_state(reader: Reader, row: SourceRow) -> SourceView:
    return (await _with_states(reader, [row]))[0]


async def _with_states(reader: Reader, rows: Sequence[SourceRow]) -> list[SourceView]:
    if not rows:
        return []
    states = await sources.states(reader, [row.id for row in rows])
    return [replace(row.view, state=states.get(row.id, SourceState())) for row in rows]
