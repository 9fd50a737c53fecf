"""API keys: authentication and management.

A verified key is trusted for a second, counted from before the check, without asking again. So a revocation holds everywhere one
second after its commit.
"""

import asyncio
import hmac
import time
from datetime import datetime
from typing import Any

from app.domain.callers import SCOPES, STRANGERS, Caller
from app.domain.errors import FieldError, Refusal, invalid
from app.domain.ids import CHOSEN_KEY_RULE, chosen_api_key, make_api_key
from app.domain.names import NAME_RULE, is_name
from app.runtime.core import Core
from app.store import keys as store
from app.store import tenants
from app.store.db import Database
from app.telemetry import events
from app.telemetry.logs import get_logger

CACHE_SECONDS = 1.0
BOOTSTRAP_TENANT = "default"

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
    if key is None or row is None or row.revoked_at is not None or not hmac.compare_digest(row.digest, key.digest):
        core.keys.callers.pop(token, None)
        raise Refusal("unauthenticated", "the key is unknown or has been revoked; create one with `sluice keys create`")
    caller = Caller(row.tenant_id, row.tenant, row.scope)
    core.keys.callers[token] = (asked + CACHE_SECONDS, caller)
    return caller


async def create(db: Database, tenant: str, scope: str) -> str:
    """Return a new key, shown only once; a new tenant is created. Raises Refusal (invalid)."""
    errors = [] if is_name(tenant) else [FieldError("/tenant", f"is not a name ({NAME_RULE})")]
    if scope not in SCOPES:
        errors.append(FieldError("/scope", "expected one of " + ", ".join(SCOPES)))
    if errors:
        raise invalid(errors)
    key = make_api_key()
    async with db.begin(None) as connection:
        tenant_id = await tenants.ensure(connection, tenant)
        await store.insert_new(connection, key.id, tenant_id, scope, key.digest)
    return key.text


async def list_keys(db: Database) -> list[dict[str, Any]]:
    """Return all keys by tenant, oldest first: id, tenant, scope, created_at, revoked_at."""
    return [_shown(row.id, row.tenant, row.scope, row.created_at, row.revoked_at) for row in await store.list_all(db)]


def _shown(key_id: str, tenant: str, scope: str, created_at: datetime, revoked_at: datetime | None) -> dict[str, Any]:
    return {"id": key_id, "tenant": tenant, "scope": scope, "created_at": created_at, "revoked_at": revoked_at}


async def revoke(db: Database, key_id: str) -> bool:
    """Revoke a key. Once this returns, no replica accepts it. Return False if no valid key has this id."""
    revoked = await store.revoke(db, key_id)
    if revoked:
        await asyncio.sleep(CACHE_SECONDS)
    return revoked


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
        await store.insert_new(connection, key.id, tenant_id, "operate", key.digest)
        row = await store.find(connection, key.id)
        assert row is not None, "keys are revoked, never removed"
        if not hmac.compare_digest(row.digest, key.digest) or (row.tenant_id, row.scope) != (tenant_id, "operate"):
            raise ValueError(
                f"key {key.id} already exists with another secret, tenant or scope; choose a different bootstrap key"
            )
        if row.revoked_at is None:
            replaced = await store.take_bootstrap(connection, key.id)
        current = await store.bootstrap_in_force(connection)
    if replaced:
        events.emit(log, events.BOOTSTRAP_KEY_REPLACED, key=key.id, revoked=replaced)
    if current is not None and current != key.id:
        events.emit(log, events.BOOTSTRAP_KEY_OUTDATED, key=key.id, current=current)
    return current is not None
