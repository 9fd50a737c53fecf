"""API keys: who is calling, and which keys there are.

A key found good is taken as good for a second without asking again, counted from before it was asked about: so a
revocation holds everywhere a second after it is committed.
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
    """Raises Refusal (unauthenticated), Unavailable."""
    known = core.keys.callers.get(token)
    if known is not None and time.monotonic() < known[0]:
        return known[1]
    question = core.keys.questions.get(token)
    if question is None:
        question = asyncio.ensure_future(_ask(core, token))
        core.keys.questions[token] = question
        question.add_done_callback(lambda done: _answered(core, token, done))
    # Shielded: others wait for the same answer.
    return await asyncio.shield(question)


def _answered(core: Core, token: str, question: "asyncio.Task[Caller]") -> None:
    core.keys.questions.pop(token, None)
    if not question.cancelled():
        question.exception()  # everybody who asked may have gone: nobody else would look at it


async def _ask(core: Core, token: str) -> Caller:
    asked = time.monotonic()
    key = chosen_api_key(token)
    # a key that was good a second ago does not wait in a crowd of those that are none
    db = core.db if token in core.keys.callers else core.db.lookups(STRANGERS)
    row = None if key is None else await store.find(db, key.id)
    if key is None or row is None or row.revoked_at is not None or not hmac.compare_digest(row.digest, key.digest):
        core.keys.callers.pop(token, None)
        raise Refusal("unauthenticated", "the key is unknown or has been revoked; create one with `sluice keys create`")
    caller = Caller(row.tenant_id, row.tenant, row.scope)
    core.keys.callers[token] = (asked + CACHE_SECONDS, caller)
    return caller


async def create(db: Database, tenant: str, scope: str) -> str:
    """A new key, shown this once; the tenant is made where it is new. Raises Refusal (invalid)."""
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
    """By tenant, oldest first: id, tenant, scope, created_at, revoked_at."""
    return [_shown(row.id, row.tenant, row.scope, row.created_at, row.revoked_at) for row in await store.list_all(db)]


def _shown(key_id: str, tenant: str, scope: str, created_at: datetime, revoked_at: datetime | None) -> dict[str, Any]:
    return {"id": key_id, "tenant": tenant, "scope": scope, "created_at": created_at, "revoked_at": revoked_at}


async def revoke(db: Database, key_id: str) -> bool:
    """Once it returns no replica accepts the key any more. False when there is no key of this id in force."""
    revoked = await store.revoke(db, key_id)
    if revoked:
        await asyncio.sleep(CACHE_SECONDS)
    return revoked


async def seed_bootstrap(db: Database, token: str) -> bool:
    """Make this the one bootstrap key, with scope operate for tenant default. Another that was it so far is revoked in the
    same transaction. False when this one has been revoked and none has taken its place.

    A key that was replaced never comes back, and whoever brings it is not stopped: while a new key is rolled out, a replica that
    is started again with the old one neither locks out those who have the new one, nor fails to start.
    Raises ValueError for a text that is no key, or is the key of somebody else.
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


async def any_keys(db: Database) -> bool:
    """Whether anybody can enter: a key that is not revoked."""
    return await store.any_usable(db)
