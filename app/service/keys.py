"""Verbs on API keys.

A caller handles keys of its own tenant that reach no further than its own; one that sees every tenant, keys of all. The verbs
without a caller are for commands on the database.
"""

import asyncio
import hmac
from datetime import datetime
from typing import Any, Literal

from msgspec import structs

from app.domain.callers import SCOPES, Act, Caller
from app.domain.confinement import within
from app.domain.errors import FieldError, Refusal, invalid, invalid_field, too_many
from app.domain.ids import CHOSEN_KEY_RULE, ApiKey, aws_key, chosen_api_key, make_api_key
from app.domain.instants import format_instant, instant_text
from app.domain.keys import (
    Grant,
    KeyBody,
    KeyIssued,
    KeyKind,
    KeyView,
    check_issue,
    check_reach,
    grant_of,
    issued,
)
from app.domain.names import NAME_RULE, is_name
from app.runtime.core import Core
from app.service import authentication
from app.service.audit import audited, record
from app.store import keys as store
from app.store import tenants
from app.store.audit import record_by
from app.store.db import Database, Reader
from app.store.keys import KeyRow
from app.store.vault import Vault
from app.telemetry import events
from app.telemetry.logs import get_logger

BOOTSTRAP_TENANT = "default"
BOOTSTRAP_GRANT = Grant("operate")

log = get_logger(__name__)


@audited("create", "key", parts=0)
async def issue(core: Core, caller: Caller, body: KeyBody, key: ApiKey | None = None) -> KeyIssued:
    """Create a key; its secret is shown only once. With `key`, that one, or the access key that it stands for: to create it again
    changes nothing.

    Raises Refusal: forbidden (it would reach further than the caller's), invalid.
    """
    caller.require("manage")
    errors: list[FieldError] = []
    grant = grant_of(body, errors)
    if errors:
        raise invalid(errors)
    if body.tenant not in (None, caller.tenant):
        caller.require("operate")
    check_issue(caller, grant)
    async with core.db.begin(caller.tenant_id) as connection:
        tenant_id = await tenants.ensure(connection, body.tenant or caller.tenant)
        if await store.is_full(connection, tenant_id, core.max_definitions):
            raise too_many("keys", core.max_definitions)
        made = await _created(connection, tenant_id, grant, core.vault, key)
        await record(connection, caller, None, _recorded(grant), name=made.id, tenant_id=tenant_id)
        return made


def _recorded(grant: Grant) -> dict[str, Any]:
    """Return what the audit compares."""
    return structs.asdict(grant) | {"expires_at": instant_text(grant.expires_at)}


async def get(core: Core, caller: Caller, key_id: str) -> KeyView:
    """Return a key. Raises Refusal (key_not_found)."""
    caller.require("manage")
    await core.keys.note(core.db, now=True)
    return shown(_visible(caller, await store.find(core.db.reads(caller.tenant_id), key_id), key_id))


async def list_page(
    core: Core, caller: Caller, tenant: str | None, before: tuple[datetime, str] | None, limit: int
) -> tuple[list[KeyView], tuple[datetime, str] | None]:
    """Return a page, newest first, of the keys that the caller sees, and the position of the next; None after the last.

    Raises Refusal: forbidden (`tenant` is another's), tenant_not_found.
    """
    caller.require("manage")
    await core.keys.note(core.db, now=True)
    reads = core.db.reads(caller.tenant_id)
    tenant_id: int | None = None if caller.may("operate") else caller.tenant_id
    if tenant is not None and tenant != caller.tenant:
        caller.require("operate")
        tenant_id = await tenants.find(reads, tenant)
        if tenant_id is None:
            raise Refusal("tenant_not_found", f"there is no tenant {tenant}; a key for it creates it")
    elif tenant is not None:
        tenant_id = caller.tenant_id
    rows = await store.list_page(reads, tenant_id, caller.queues, before, limit + 1)
    last = rows[limit - 1] if len(rows) > limit else None
    return [shown(row) for row in rows[:limit]], None if last is None else (last.created_at, last.id)


@audited("rotate", "key")
async def renew(
    core: Core, caller: Caller, key_id: str, overlap_seconds: float, key: ApiKey | None = None
) -> KeyIssued:
    """Give a key a new secret, as `rotate`. With `key`, that one, or the one that it stands for: to give it again changes nothing.

    Raises Refusal: key_not_found, forbidden (it reaches further), invalid.
    """
    caller.require("manage")
    async with core.db.begin(caller.tenant_id) as connection:
        row = _visible(caller, await store.lock(connection, key_id), key_id)
        check_issue(caller, row.grant)
        made = await _rotated(connection, row, core.vault, overlap_seconds, key)
        await record(connection, caller, {}, {"overlap_seconds": overlap_seconds}, tenant_id=row.tenant_id)
        return made


@audited("revoke", "key")
async def withdraw(core: Core, caller: Caller, key_id: str) -> None:
    """Revoke a key. Once this returns, no replica accepts it. Raises Refusal: key_not_found, forbidden (it reaches further)."""
    caller.require("manage")
    async with core.db.begin(caller.tenant_id) as connection:
        row = _visible(caller, await store.lock(connection, key_id), key_id)
        check_reach(caller, row.grant)
        revoked = await store.revoke(connection, key_id)
        await record(connection, caller, {"revoked": not revoked}, {"revoked": True}, tenant_id=row.tenant_id)
    if revoked:
        await asyncio.sleep(authentication.CACHE_SECONDS)


def _visible(caller: Caller, row: KeyRow | None, key_id: str) -> KeyRow:
    """Return the key, if it exists for the caller. Raises Refusal (key_not_found)."""
    if row is None or not (caller.may("operate") or row.tenant_id == caller.tenant_id):
        raise not_found(key_id)
    if caller.queues is not None and (row.queues is None or not within(row.queues, caller.queues)):
        raise not_found(key_id)
    return row


async def create(db: Database, tenant: str, grant: Grant, vault: Vault | None = None) -> KeyIssued:
    """Return a new key with its secret, which is shown only once; a new tenant is created. An access key needs the vault.

    Raises Refusal (invalid).
    """
    errors = [] if is_name(tenant) else [FieldError("/tenant", f"is not a name ({NAME_RULE})")]
    if grant.scope not in SCOPES:
        errors.append(FieldError("/scope", "expected one of " + ", ".join(SCOPES)))
    if errors:
        raise invalid(errors)
    async with db.begin(None) as connection:
        tenant_id = await tenants.ensure(connection, tenant)
        made = await _created(connection, tenant_id, grant, vault)
        await record_by("cli", connection, tenant_id, Act("create", "key", made.id, None), None, _recorded(grant))
        return made


async def _created(
    connection: Reader, tenant_id: int, grant: Grant, vault: Vault | None, key: ApiKey | None = None
) -> KeyIssued:
    key, sealed = _secret(grant.kind, vault, key or make_api_key())
    await store.insert_new(connection, key, tenant_id, grant, sealed)
    row = await store.find(connection, key.id)
    assert row is not None, "keys are revoked, never removed"
    if not hmac.compare_digest(row.digest, key.digest) or (row.tenant_id, row.grant) != (tenant_id, grant):
        raise invalid_field("", f"there is another key with the id {key.id}")
    if grant.expires_at is not None and grant.expires_at <= row.now:
        raise invalid_field("/expires_at", "has passed")
    return issued(shown(row), key.text)


def _secret(kind: KeyKind, vault: Vault | None, key: ApiKey, key_id: str | None = None) -> tuple[ApiKey, bytes | None]:
    """Return a new key of this kind, and its secret as it is stored, if it is. With `key_id`, that of an access key."""
    if kind == "bearer":
        return key, None
    assert vault is not None, "whoever makes an access key has opened the vault"
    made = aws_key(key, key_id=key_id)
    return made, store.seal(vault, made)


async def list_keys(db: Database) -> list[KeyView]:
    """Return all keys by tenant, oldest first."""
    return [shown(row) for row in await store.list_all(db)]


def shown(row: KeyRow) -> KeyView:
    return KeyView(
        id=row.id,
        tenant=row.tenant,
        kind=row.kind,
        scope=row.scope,  # type: ignore[arg-type]  # as it was read
        queues=None if row.queues is None else list(row.queues),
        payloads=row.payloads,
        expires_at=instant_text(row.expires_at),
        description=row.description,
        created_at=format_instant(row.created_at),
        last_used_at=instant_text(row.last_used_at),
        revoked_at=instant_text(row.revoked_at),
    )


async def rotate(db: Database, key_id: str, overlap_seconds: float, vault: Vault | None = None) -> KeyIssued:
    """Give a key a new secret, which is shown only once. The present one is accepted for the overlap, but none before it. An access
    key needs the vault.

    Raises Refusal: key_not_found, invalid (no longer valid, or the bootstrap key).
    """
    async with db.begin(None) as connection:
        row = await store.lock(connection, key_id)
        if row is None:
            raise not_found(key_id)
        made = await _rotated(connection, row, vault, overlap_seconds)
        after = {"overlap_seconds": overlap_seconds}
        await record_by("cli", connection, row.tenant_id, Act("rotate", "key", key_id, None), {}, after)
        return made


async def _rotated(
    connection: Reader, row: KeyRow, vault: Vault | None, overlap_seconds: float, key: ApiKey | None = None
) -> KeyIssued:
    if not row.in_force:
        raise Refusal("invalid", f"key {row.id} has expired or has been revoked; create a new one")
    if row.bootstrap:
        raise Refusal(
            "invalid", f"key {row.id} is the bootstrap key; restart the replicas with another SLUICE_BOOTSTRAP_KEY"
        )
    key, sealed = _secret(row.kind, vault, key or make_api_key(key_id=row.id), row.id)
    if key.id != row.id:
        raise invalid_field("", f"the token is not one of key {row.id}")
    if not hmac.compare_digest(row.digest, key.digest):
        await store.rotate(connection, key, sealed, overlap_seconds)
    return issued(shown(row), key.text)


def not_found(key_id: str) -> Refusal:
    return Refusal("key_not_found", f"there is no key {key_id}; GET /keys lists them")


async def revoke(db: Database, key_id: str) -> bool:
    """Revoke a key. Once this returns, no replica accepts it. Return False if no valid key has this id."""
    async with db.begin(None) as connection:
        row = await store.lock(connection, key_id)
        revoked = row is not None and await store.revoke(connection, key_id)
        if row is not None and revoked:
            await _record_revoked("cli", connection, row.tenant_id, key_id)
    if revoked:
        await asyncio.sleep(authentication.CACHE_SECONDS)
    return revoked


async def _record_revoked(actor: Literal["cli", "system"], connection: Reader, tenant_id: int, key_id: str) -> None:
    act = Act("revoke", "key", key_id, None)
    await record_by(actor, connection, tenant_id, act, {"revoked": False}, {"revoked": True})


def _is_bootstrap(row: KeyRow, tenant_id: int) -> bool:
    return row.tenant_id == tenant_id and structs.replace(row.grant, description=None) == BOOTSTRAP_GRANT


async def seed_bootstrap(db: Database, token: str) -> bool:
    """Make this the only bootstrap key, with scope operate for tenant default. The previous one is revoked in the same transaction.
    Return False if this one has been revoked and none has replaced it.

    A replaced key never becomes valid again, but a replica that starts with it still starts: while a new key is rolled out, a
    replica restarted with the old one neither locks out callers with the new one nor fails to start.
    Raises ValueError if the text is not a key, or is another key.
    """
    key = chosen_api_key(token)
    if key is None:
        raise ValueError(f"the bootstrap key must be {CHOSEN_KEY_RULE}")
    replaced: list[str] = []
    async with db.begin(None) as connection:
        tenant_id = await tenants.ensure(connection, BOOTSTRAP_TENANT)
        await tenants.lock_row(connection, tenant_id)
        known = await store.find(connection, key.id)
        await store.insert_new(connection, key, tenant_id, BOOTSTRAP_GRANT)
        row = await store.find(connection, key.id)
        assert row is not None, "keys are revoked, never removed"
        if not hmac.compare_digest(row.digest, key.digest) or (row.tenant_id, row.grant) != (
            tenant_id,
            BOOTSTRAP_GRANT,
        ):
            raise ValueError(
                f"key {key.id} already exists with another secret, tenant, scope or limit; choose a different bootstrap key"
            )
        if row.revoked_at is None:
            replaced = await store.take_bootstrap(connection, key.id)
        if known is None:
            act = Act("create", "key", key.id, None)
            await record_by("system", connection, tenant_id, act, None, _recorded(BOOTSTRAP_GRANT))
        for key_id in replaced:
            await _record_revoked("system", connection, tenant_id, key_id)
        current = await store.bootstrap_in_force(connection)
    if replaced:
        events.emit(log, events.BOOTSTRAP_KEY_REPLACED, key=key.id, revoked=replaced)
    if current is not None and current != key.id:
        events.emit(log, events.BOOTSTRAP_KEY_OUTDATED, key=key.id, current=current)
    return current is not None
