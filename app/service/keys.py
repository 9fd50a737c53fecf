"""API keys: authentication and management.

A verified key is trusted for a second, counted from before the check, without asking again. So a revocation holds everywhere one
second after its commit.
"""

import asyncio
import hmac
import time

from msgspec import structs

from app.domain.callers import SCOPES, STRANGERS, Caller
from app.domain.errors import FieldError, Refusal, invalid, invalid_field
from app.domain.ids import CHOSEN_KEY_RULE, ApiKey, chosen_api_key, make_api_key
from app.domain.instants import format_instant, instant_text
from app.domain.keys import Grant, KeyIssued, KeyView, issued
from app.domain.names import NAME_RULE, is_name
from app.runtime.core import Core
from app.store import keys as store
from app.store import tenants
from app.store.db import Database, Reader
from app.store.keys import KeyRow
from app.telemetry import events
from app.telemetry.logs import get_logger

CACHE_SECONDS = 1.0
BOOTSTRAP_TENANT = "default"
BOOTSTRAP_GRANT = Grant("operate")

log = get_logger(__name__)


async def authenticate(core: Core, token: str) -> Caller:
    """Return the caller of a token. Raises Refusal (unauthenticated), Unavailable."""
    known = core.keys.callers.get(token)
    if known is not None and time.monotonic() < known[0]:
        return known[1]
    question = core.keys.questions.get(token)
    if question is None:
        question = asyncio.ensure_future(_ask(core, token))
        core.keys.questions[token] = question
        question.add_done_callback(lambda done: _answered(core, token, done))
    # Shielded, because others wait for the same answer.
    return await asyncio.shield(question)


def _answered(core: Core, token: str, question: "asyncio.Task[Caller]") -> None:
    core.keys.questions.pop(token, None)
    if not question.cancelled():
        question.exception()  # everyone who asked may have gone, so nobody else would retrieve it


async def _ask(core: Core, token: str) -> Caller:
    asked = time.monotonic()
    key = chosen_api_key(token)
    # a key that was valid a second ago must not queue behind invalid ones
    db = core.db if token in core.keys.callers else core.db.lookups(STRANGERS)
    row = None if key is None else await store.find(db, key.id)
    trusted = 0.0 if key is None or row is None else _trusted_seconds(row, key)
    if row is None or trusted <= 0:
        core.keys.callers.pop(token, None)
        raise Refusal(
            "unauthenticated",
            "the key is unknown, has expired or has been revoked; create one with `sluice keys create`",
        )
    caller = Caller(row.tenant_id, row.tenant, row.scope, row.id, row.queues, row.payloads, row.expires_at)
    core.keys.callers[token] = (asked + trusted, caller)
    core.keys.used[row.id] = row.now
    return caller


def _trusted_seconds(row: KeyRow, key: ApiKey) -> float:
    """Return for how long the key may be trusted without asking again; 0: it is not valid."""
    if row.revoked_at is not None:
        return 0.0
    ends = [] if row.expires_at is None else [row.expires_at]
    if not hmac.compare_digest(row.digest, key.digest):
        if row.previous_digest is None or not hmac.compare_digest(row.previous_digest, key.digest):
            return 0.0
        ends += [row.previous_until or row.now]
    return min([CACHE_SECONDS, *((end - row.now).total_seconds() for end in ends)])


async def create(db: Database, tenant: str, grant: Grant) -> KeyIssued:
    """Return a new key with its token, which is shown only once; a new tenant is created. Raises Refusal (invalid)."""
    errors = [] if is_name(tenant) else [FieldError("/tenant", f"is not a name ({NAME_RULE})")]
    if grant.scope not in SCOPES:
        errors.append(FieldError("/scope", "expected one of " + ", ".join(SCOPES)))
    if errors:
        raise invalid(errors)
    async with db.begin(None) as connection:
        return await _created(connection, await tenants.ensure(connection, tenant), grant)


async def _created(connection: Reader, tenant_id: int, grant: Grant) -> KeyIssued:
    key = make_api_key()
    await store.insert_new(connection, key.id, tenant_id, grant, key.digest)
    row = await store.find(connection, key.id)
    assert row is not None, "keys are revoked, never removed"
    if grant.expires_at is not None and grant.expires_at <= row.now:
        raise invalid_field("/expires_at", "has passed")
    return issued(shown(row), key.text)


async def list_keys(db: Database) -> list[KeyView]:
    """Return all keys by tenant, oldest first."""
    return [shown(row) for row in await store.list_all(db)]


def shown(row: KeyRow) -> KeyView:
    return KeyView(
        id=row.id,
        tenant=row.tenant,
        scope=row.scope,  # type: ignore[arg-type]  # as it was read
        queues=None if row.queues is None else list(row.queues),
        payloads=row.payloads,
        expires_at=instant_text(row.expires_at),
        description=row.description,
        created_at=format_instant(row.created_at),
        last_used_at=instant_text(row.last_used_at),
        revoked_at=instant_text(row.revoked_at),
    )


async def rotate(db: Database, key_id: str, overlap_seconds: float) -> KeyIssued:
    """Give a key a new token, which is shown only once. The present one is accepted for the overlap, but none before it.

    Raises Refusal: key_not_found, invalid (no longer valid, or the bootstrap key).
    """
    async with db.begin(None) as connection:
        return await _rotated(connection, await store.lock(connection, key_id), key_id, overlap_seconds)


async def _rotated(connection: Reader, row: KeyRow | None, key_id: str, overlap_seconds: float) -> KeyIssued:
    if row is None:
        raise not_found(key_id)
    if not row.in_force:
        raise Refusal("invalid", f"key {key_id} has expired or has been revoked; create a new one")
    if row.bootstrap:
        raise Refusal(
            "invalid", f"key {key_id} is the bootstrap key; restart the replicas with another SLUICE_BOOTSTRAP_KEY"
        )
    key = make_api_key(key_id=key_id)
    await store.rotate(connection, key_id, key.digest, overlap_seconds)
    return issued(shown(row), key.text)


def not_found(key_id: str) -> Refusal:
    return Refusal("key_not_found", f"there is no key {key_id}; GET /keys lists them")


async def revoke(db: Database, key_id: str) -> bool:
    """Revoke a key. Once this returns, no replica accepts it. Return False if no valid key has this id."""
    revoked = await store.revoke(db, key_id)
    if revoked:
        await asyncio.sleep(CACHE_SECONDS)
    return revoked


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
        await store.insert_new(connection, key.id, tenant_id, BOOTSTRAP_GRANT, key.digest)
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
        current = await store.bootstrap_in_force(connection)
    if replaced:
        events.emit(log, events.BOOTSTRAP_KEY_REPLACED, key=key.id, revoked=replaced)
    if current is not None and current != key.id:
        events.emit(log, events.BOOTSTRAP_KEY_OUTDATED, key=key.id, current=current)
    return current is not None
