"""Verbs on handlers: define, operate and test the places where tasks are delivered.

A change is one transaction: take the handler's lock (store/numbers.py), then read, then write. Claims hold that lock
shared, so once a verb here has returned, nothing is admitted under the old definition.
"""

import secrets
import time
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

from msgspec import UNSET, structs

from app.delivery.kinds import Call, GroupedCall
from app.delivery.webhook.signing import new_secret
from app.domain.answers import Answer, NoAnswer
from app.domain.audit import Concealed
from app.domain.breakers import Guard
from app.domain.callers import Caller
from app.domain.conditions import Conditions
from app.domain.errors import FieldError, Refusal, invalid, invalid_field, pointer, too_many
from app.domain.grouped import UNEXPLAINED, Failure, GroupFault, is_shared, share_out
from app.domain.handlers import (
    HIDDEN,
    SECRET_RULE,
    SECRETS_LOST,
    HandlerDefinition,
    HandlerView,
    handler_secrets,
    handler_to_dict,
    is_secret,
)
from app.domain.hiding import shown_test
from app.domain.names import NAME_RULE, is_name
from app.domain.options import Options
from app.domain.schemas.rules import example_of
from app.runtime import breakers
from app.runtime.core import Core
from app.service import limits
from app.service.audit import audited, record
from app.store import flows, handlers, queues, tenants
from app.store.handlers import HandlerRow
from app.telemetry import events
from app.telemetry.logs import get_logger

BY_REQUEST = "disabled by request"
TEST_PAYLOAD = b'{"test": true}'
"""Used if no queue that delivers to the handler has an example. An object, because few handlers expect anything else."""
TEST_TURN_SECONDS = 10.0
MAX_TEST_SECONDS = 60.0
"""The caller waits for a test's answer, so it ends by then whatever the handler's timeout."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Saved:
    view: HandlerView
    etag: str
    created: bool
    secret: str | None = field(repr=False)
    """The signing secret generated for a new handler; it is shown only once."""


@audited("put", "handler")
async def put(
    core: Core,
    caller: Caller,
    name: str,
    definition: HandlerDefinition,
    secret: str | None,
    conditions: Conditions,
    *,
    owner: str | None = None,
) -> Saved:
    """Create or replace a handler. Absent fields get their defaults; secret and owner (unless given) and the enabled state are
    kept. A secret that cannot be decrypted is replaced by a new one.

    Raises Refusal: invalid, egress_denied, etag_mismatch.
    """
    caller.require("manage")
    if caller.queues is not None:
        raise not_found(name)
    check(core, name, definition, secret)
    while True:
        async with core.db.begin(caller.tenant_id) as connection:
            saved = await _put(core, caller, connection, name, definition, secret, conditions, owner)
        if saved is not None:
            break
    if not saved.created:
        core.signals.any_lane_ready()
    return saved


async def _put(
    core: Core,
    caller: Caller,
    connection: Any,
    name: str,
    definition: HandlerDefinition,
    secret: str | None,
    conditions: Conditions,
    owner: str | None,
) -> Saved | None:
    """Return None to be tried again, if someone else has created or deleted it in the meantime."""
    handler_id = await handlers.id_of(connection, caller.tenant_id, name)
    if handler_id is None:
        conditions.check(None)
        full = await tenants.is_full(connection, caller.tenant_id, "handlers", core.max_definitions)
        if await handlers.id_of(connection, caller.tenant_id, name) is not None:
            return None
        if full:
            raise too_many("handlers", core.max_definitions)
        await limits.check_uses(connection, caller, definition.limits)
        definition = completed(core, caller, definition, None)
        made = None if secret is not None or definition.kind != "webhook" else new_secret()
        new = secret or made or ""
        row = await handlers.insert_new(connection, core.vault, caller.tenant_id, name, definition, new, owner)
        if row is not None and definition.guard.on:
            await breakers.fit(connection, row.id, definition.guard)
        if row is None:
            return None
        await record(connection, caller, None, _recorded(row))
        return Saved(_shown(row), row.etag, True, made)
    await handlers.lock(connection, handler_id)
    before = await handlers.read(connection, core.vault, handler_id)
    if before is None:
        return None
    conditions.check(before.etag)
    lost, renewed = before.view.secrets_lost, None
    definition = completed(core, caller, definition, before)
    if definition.kind != "webhook":
        secret = ""  # nothing is signed
    elif secret is None and (lost or not before.secret):
        secret = renewed = new_secret()
    if lost or definition != before.view.definition:
        await _check_limits(connection, caller, handler_id, definition)
        await handlers.replace_definition(connection, core.vault, caller.tenant_id, handler_id, definition)
        if definition.guard != before.view.definition.guard:
            await breakers.fit(connection, handler_id, definition.guard)
    if secret is not None and secret != before.secret:
        await handlers.replace_secret(connection, core.vault, handler_id, secret, 0)
    if owner is not None:
        await handlers.set_owner(connection, handler_id, owner)
    if _queues_see(definition) != _queues_see(before.view.definition):
        await queues.outdate_of_handler(connection, handler_id)
    if _flows_see(definition) != _flows_see(before.view.definition):
        await flows.reopen(connection, caller.tenant_id)
    after = await handlers.read(connection, core.vault, handler_id)
    assert after is not None, "its lock is held"
    await record(connection, caller, _recorded(before), _recorded(after))
    return Saved(_shown(after), after.etag, False, renewed)


def _recorded(row: HandlerRow) -> dict[str, Any]:
    """Return what the audit compares."""
    secrets = {name: Concealed(value) for name, value in handler_secrets(row.view.definition).items()}
    return handler_to_dict(row.view.definition) | secrets | {"secret": row.secret or None, "owner": row.view.owner}


def completed(
    core: Core, caller: Caller, definition: HandlerDefinition, before: HandlerRow | None
) -> HandlerDefinition:
    """Return the definition with the secrets that it keeps of its predecessor, and check where it leads.

    Raises Refusal: invalid, egress_denied, bridge_unavailable, forbidden.
    """
    complete = definition.with_kept(None if before is None or before.view.secrets_lost else before.view.definition)
    if errors := complete.missing():
        raise invalid(errors)
    changed = before is None or before.view.secrets_lost or complete != before.view.definition
    if changed and complete.kind == "sqs" and not complete.credentials and not caller.may("operate"):
        raise Refusal(
            "forbidden",
            "without credentials, the handler would use those of the replicas, which needs a key with scope operate; "
            "send credentials",
        )
    core.delivery.check(complete)
    return complete


def _switch(row: HandlerRow) -> dict[str, Any]:
    view = row.view
    return {"enabled": view.enabled, "disabled_reason": view.disabled_reason, "parked_until": view.parked_until}


def _queues_see(definition: HandlerDefinition) -> tuple[object, ...]:
    """Return what replicas cache of a handler together with its queues."""
    return (
        definition.max_concurrency is None,
        definition.timeout_seconds,
        definition.url,
        definition.targets,
        definition.limits,
    )


def _flows_see(definition: HandlerDefinition) -> tuple[object, ...]:
    """Return what decides which of its tasks are blocked together."""
    return definition.rate, definition.limits


async def _check_limits(connection: Any, caller: Caller, handler_id: int, definition: HandlerDefinition) -> None:
    """Check the limits that its tasks would take, and hold the named ones until the transaction ends. Raises Refusal (invalid)."""
    await limits.check_uses(connection, caller, definition.limits)
    for queue, rules in (await queues.rules_to(connection, handler_id)).items() if definition.limits else ():
        limits.check_count(replace(rules, handler_uses=definition.limits), f"in queue {queue}: ")


def check(core: Core, name: str, definition: HandlerDefinition, secret: str | None) -> None:
    """Check that a definition may be stored, but for what `completed` checks. Raises Refusal (invalid)."""
    errors = [] if is_name(name) else [FieldError("", f"{name} is not a name ({NAME_RULE})")]
    errors += definition.check()
    errors += [
        # The placeholder from a read came back: storing it would replace a credential with three asterisks.
        FieldError(
            "/headers" + pointer(header), f"is {HIDDEN}, the placeholder for a hidden value; send the real value"
        )
        for header, value in definition.headers.items()
        if value == HIDDEN
    ]
    if secret is not None and definition.kind != "webhook":
        errors.append(FieldError("/secret", "belongs to kind webhook"))
    elif secret is not None and not is_secret(secret):
        errors.append(FieldError("/secret", f"is not {SECRET_RULE}"))
    if errors:
        raise invalid(errors)


def _shown(row: HandlerRow) -> HandlerView:
    definition = row.view.definition
    secret = {} if definition.secret_field is None else {definition.secret_field: UNSET}
    hidden = structs.replace(definition, headers=dict.fromkeys(definition.headers, HIDDEN), **secret)
    return replace(row.view, definition=hidden)


def not_found(name: str) -> Refusal:
    return Refusal("handler_not_found", f"there is no handler {name}; PUT /handlers/{name} creates it")


async def id_of(connection: Any, caller: Caller, name: str) -> int | None:
    """Return the id of the handler of this name; None if there is none, which is so for whoever is confined to queues."""
    return None if caller.queues is not None else await handlers.id_of(connection, caller.tenant_id, name)


async def get(core: Core, caller: Caller, name: str) -> tuple[HandlerView, str]:
    """Return the handler and its ETag. Raises Refusal (handler_not_found)."""
    caller.require("read")
    row = await _read(core, caller, name)
    _log_secrets_lost(caller, row)
    return _shown(row), row.etag


def _log_secrets_lost(caller: Caller, row: HandlerRow) -> None:
    if row.view.secrets_lost:
        events.emit(log, events.HANDLER_SECRETS_LOST, tenant=caller.tenant, handler=row.view.name)


async def _read(core: Core, caller: Caller, name: str) -> HandlerRow:
    async with core.db.begin(caller.tenant_id) as connection:
        handler_id = await id_of(connection, caller, name)
        row = None if handler_id is None else await handlers.read(connection, core.vault, handler_id)
    if row is None:
        raise not_found(name)
    return row


async def list_page(core: Core, caller: Caller, after: str | None, limit: int) -> tuple[list[HandlerView], bool]:
    """Return a page by name, after the name `after`, and whether there are more."""
    caller.require("read")
    if caller.queues is not None:
        return [], False
    async with core.db.begin(caller.tenant_id) as connection:
        rows = await handlers.list_page(connection, core.vault, caller.tenant_id, after, limit + 1)
    for row in rows[:limit]:
        _log_secrets_lost(caller, row)
    return [_shown(row) for row in rows[:limit]], len(rows) > limit


@audited("delete", "handler")
async def delete(core: Core, caller: Caller, name: str, conditions: Conditions) -> None:
    """Delete a handler. Raises Refusal: handler_not_found, etag_mismatch, handler_in_use."""
    caller.require("manage")
    async with core.db.begin(caller.tenant_id) as connection:
        row = await locked(core, connection, caller, name)
        conditions.check(row.etag)
        if named_by := await handlers.queues_naming(connection, row.id):
            raise Refusal(
                "handler_in_use",
                f"handler {name} is used by queues: {', '.join(named_by)}; change or delete them first",
            )
        if await handlers.has_own_tasks(connection, row.id):
            raise Refusal(
                "handler_in_use",
                f"handler {name} is used by unfinished tasks or by a schedule; wait for them, or change them first",
            )
        await handlers.mark_deleted(connection, row.id)
        await breakers.fit(connection, row.id, Guard())
        await record(connection, caller, _recorded(row), None)


async def locked(core: Core, connection: Any, caller: Caller, name: str) -> HandlerRow:
    """Return the handler of this name under its lock, which is held until the transaction ends."""
    while (handler_id := await id_of(connection, caller, name)) is not None:
        await handlers.lock(connection, handler_id)
        row = await handlers.read(connection, core.vault, handler_id)
        if row is not None:
            return row
    raise not_found(name)


@audited("enable", "handler")
async def enable(core: Core, caller: Caller, name: str) -> HandlerView:
    """Enable a handler; it is not parked any longer either. Raises Refusal (handler_not_found)."""
    caller.require("manage")
    async with core.db.begin(caller.tenant_id) as connection:
        row = await locked(core, connection, caller, name)
        before = _switch(row)
        if not row.view.enabled or row.view.parked_until is not None:
            await handlers.enable(connection, row.id)
            row = await locked(core, connection, caller, name)
        await record(connection, caller, before, _switch(row))
    core.signals.any_lane_ready()
    return _shown(row)


@audited("disable", "handler")
async def disable(core: Core, caller: Caller, name: str) -> HandlerView:
    """Disable a handler; one that is already disabled keeps its reason. Raises Refusal (handler_not_found)."""
    caller.require("manage")
    async with core.db.begin(caller.tenant_id) as connection:
        row = await locked(core, connection, caller, name)
        before = _switch(row)
        if row.view.enabled:
            await handlers.disable(connection, row.id, BY_REQUEST)
            row = await locked(core, connection, caller, name)
        await record(connection, caller, before, _switch(row))
    return _shown(row)


@audited("rotate", "handler")
async def rotate_secret(
    core: Core, caller: Caller, name: str, overlap_seconds: float, secret: str | None = None
) -> str:
    """Return a new signing secret, shown only once. The old one keeps signing too for `overlap_seconds`.

    To give the same `secret` again changes nothing, so that a call can be repeated. Raises Refusal: handler_not_found, invalid.
    """
    caller.require("manage")
    if secret is not None and not is_secret(secret):
        raise invalid_field("/secret", f"is not {SECRET_RULE}")
    secret = secret or new_secret()
    async with core.db.begin(caller.tenant_id) as connection:
        row = await locked(core, connection, caller, name)
        if row.view.definition.kind != "webhook":
            raise Refusal("invalid", f"handler {name} is of kind {row.view.definition.kind}, which signs nothing")
        if row.view.secrets_lost:  # a new secret would not restore the headers
            raise Refusal("invalid", SECRETS_LOST)
        if secret != row.secret:
            await handlers.replace_secret(connection, core.vault, row.id, secret, overlap_seconds)
        await record(connection, caller, {"secret": row.secret}, {"secret": secret})
    return secret


async def test(core: Core, caller: Caller, name: str, payload: bytes | None) -> dict[str, Any]:
    """Send one signed request now, as an attempt would, and return it with its answer. It is neither recorded nor counted.

    Without a payload, one of its queues' examples is sent. Raises Refusal: handler_not_found, unavailable (too many at once).
    """
    caller.require("manage")
    reads = core.db.reads(caller.tenant_id)
    handler_id = await id_of(reads, caller, name)
    target = None if handler_id is None else await handlers.load_target(reads, core.vault, handler_id)
    if target is None:
        raise not_found(name)
    if payload is None:
        schemas = await queues.schemas_to(reads, target.id)
        payload = next(filter(None, map(example_of, schemas)), TEST_PAYLOAD)
    now = core.clock.now()
    task_id = core.ids.uuid7(int(core.clock.seconds() * 1000))
    call = Call(
        tenant=caller.tenant,
        url=target.url,
        kind=target.kind,
        address=target.address,
        task_id=task_id,
        queue="test",
        options=Options(type="sluice.test"),
        attempt=1,
        max_attempts=1,
        lease_token=secrets.token_hex(16),
        task_url=f"{core.public_url}/tasks/{task_id}",
        timeout_seconds=min(target.timeout_seconds, MAX_TEST_SECONDS),
        payload=payload,
        secrets=target.secrets,
        handler_headers=target.headers,
    )
    sent: Call | GroupedCall = call if target.group is None else GroupedCall(f"group_{task_id}", (call,))
    begun = time.monotonic()
    lost = NoAnswer("failed", SECRETS_LOST) if target.secrets_lost else None
    if lost is None:
        async with core.handler_tests.turn(caller.tenant_id, patience_seconds=TEST_TURN_SECONDS):
            begun = time.monotonic()
            answer: Answer | NoAnswer = await core.delivery.deliver(sent, now)
    else:
        answer = lost
    tried = {
        "sent": core.delivery.preview(sent, now),
        **_result_of_test(answer, () if target.group is None else (task_id,)),
        "duration_seconds": time.monotonic() - begun,
    }
    return shown_test(caller, tried)


def _result_of_test(answer: Answer | NoAnswer, group: Collection[str]) -> dict[str, Any]:
    """Return what is shown of the answer. `group` is empty for a handler that does not take groups."""
    if isinstance(answer, NoAnswer):
        return {"received": None, "outcome": answer.outcome, "error": answer.error}
    error = None if 200 <= answer.status <= 299 else answer.error or f"the handler answered {answer.status}"
    if group and is_shared(answer):
        error = _failure_of_group(answer, group)
    return {
        "received": {
            "status": answer.status,
            "headers": dict(answer.headers),
            "body": answer.body.decode("utf-8", "replace"),
            "truncated": answer.truncated,
        },
        "outcome": "succeeded" if error is None else "failed",
        "error": error,
    }


def _failure_of_group(answer: Answer, group: Collection[str]) -> str | None:
    """Return why a task of this group would fail; None if all would succeed."""
    try:
        shares = share_out(answer, group).values()
    except GroupFault as fault:
        return f"the handler answered {answer.status}, but {fault}"
    return next((share.error or UNEXPLAINED for share in shares if isinstance(share, Failure)), None)
