"""API keys: only ids and digests; the keys themselves are not stored."""

from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import bindparam, exists, func, select, update
from sqlalchemy.dialects.postgresql import insert

from app.store.db import Reader
from app.store.statements import Query, bound
from app.store.tables import api_keys, tenants


@dataclass(frozen=True, slots=True)
class KeyRow:
    id: str
    tenant_id: int
    tenant: str
    scope: str
    digest: bytes = field(repr=False)
    bootstrap: bool
    """It is or was the bootstrap key."""
    created_at: datetime
    revoked_at: datetime | None


_ROWS = select(api_keys, tenants.c.name.label("tenant")).join(tenants)
_THIS = api_keys.c.id == bindparam("key_id")
_IN_FORCE = api_keys.c.revoked_at.is_(None)
_NOW = func.clock_timestamp()

_FIND = Query(_ROWS.where(_THIS))
_ALL = Query(_ROWS.order_by(tenants.c.name, api_keys.c.created_at, api_keys.c.id))
_ANY_IN_FORCE = Query(select(exists().where(_IN_FORCE)))
_BOOTSTRAP_IN_FORCE = Query(select(api_keys.c.id).where(api_keys.c.bootstrap, _IN_FORCE))
_INSERT = Query(
    insert(api_keys).values(**bound("id", "tenant_id", "scope", "digest")).on_conflict_do_nothing(index_elements=["id"])
)
_REVOKE = Query(update(api_keys).where(_THIS, _IN_FORCE).values(revoked_at=_NOW).returning(api_keys.c.id))
_REVOKE_OTHER_BOOTSTRAPS = Query(
    update(api_keys)
    .where(api_keys.c.bootstrap, api_keys.c.id != bindparam("key_id"), _IN_FORCE)
    .values(revoked_at=_NOW)
    .returning(api_keys.c.id)
)
_MARK_BOOTSTRAP = Query(update(api_keys).where(_THIS).values(bootstrap=True))


async def find(reader: Reader, key_id: str) -> KeyRow | None:
    row = await _FIND.fetchrow(reader, key_id=key_id)
    return KeyRow(**row) if row else None


async def list_all(reader: Reader) -> list[KeyRow]:
    return [KeyRow(**row) for row in await _ALL.fetch(reader)]


async def insert_new(connection: Reader, key_id: str, tenant_id: int, scope: str, digest: bytes) -> None:
    """Insert a key, unless one with this id exists."""
    await _INSERT.fetch(connection, id=key_id, tenant_id=tenant_id, scope=scope, digest=digest)


async def revoke(reader: Reader, key_id: str) -> bool:
    """Revoke a key; return False if no valid key has this id."""
    return await _REVOKE.fetchval(reader, key_id=key_id) is not None


async def take_bootstrap(connection: Reader, key_id: str) -> list[str]:
    """Make this the bootstrap key; return the ids of valid ones that it replaced, which are revoked."""
    replaced = await _REVOKE_OTHER_BOOTSTRAPS.fetch(connection, key_id=key_id)
    await _MARK_BOOTSTRAP.fetch(connection, key_id=key_id)
    return [row[0] for row in replaced]


async def bootstrap_in_force(reader: Reader) -> str | None:
    """Return the id of the valid bootstrap key, if any."""
    key_id: str | None = await _BOOTSTRAP_IN_FORCE.fetchval(reader)
    return key_id


async def any_usable(reader: Reader) -> bool:
    return bool(await _ANY_IN_FORCE.fetchval(reader))
