"""API keys: ids and digests; the keys themselves are nowhere."""

from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.db import Database, Reader
from app.store.tables import api_keys, tenants


@dataclass(frozen=True, slots=True)
class KeyRow:
    id: str
    tenant_id: int
    tenant: str
    scope: str
    digest: bytes = field(repr=False)
    bootstrap: bool
    """It is, or was, the key that replicas are given to start with."""
    created_at: datetime
    revoked_at: datetime | None


_ROWS = """
select k.id, k.tenant_id, n.name as tenant, k.scope, k.digest, k.bootstrap, k.created_at, k.revoked_at
from sluice.api_keys k join sluice.tenants n on n.id = k.tenant_id
"""


async def find(db: Reader, key_id: str) -> KeyRow | None:
    rows = await db.fetch(_ROWS + "where k.id = $1", key_id)
    return KeyRow(**rows[0]) if rows else None


async def list_all(db: Database) -> list[KeyRow]:
    return [KeyRow(**row) for row in await db.fetch(_ROWS + "order by n.name, k.created_at, k.id")]


async def insert_new(connection: AsyncConnection, key_id: str, tenant_id: int, scope: str, digest: bytes) -> None:
    """Nothing happens when a key of this id is there already."""
    await connection.execute(
        insert(api_keys)
        .values(id=key_id, tenant_id=tenant_id, scope=scope, digest=digest)
        .on_conflict_do_nothing(index_elements=["id"])
    )


async def read(connection: AsyncConnection, key_id: str) -> KeyRow | None:
    wanted = select(api_keys, tenants.c.name.label("tenant")).join(tenants).where(api_keys.c.id == key_id)
    row = (await connection.execute(wanted)).first()
    return None if row is None else KeyRow(**row._mapping)


async def revoke(db: Database, key_id: str) -> bool:
    """False when there is no key of this id in force."""
    revoked = await db.fetchval(
        "update sluice.api_keys set revoked_at = clock_timestamp() where id = $1 and revoked_at is null returning true",
        key_id,
    )
    return bool(revoked)


async def take_bootstrap(connection: AsyncConnection, key_id: str) -> list[str]:
    """Make this key the bootstrap key; the ids of those in force that it has replaced, which are revoked."""
    replaced = await connection.execute(
        update(api_keys)
        .where(api_keys.c.bootstrap, api_keys.c.id != key_id, api_keys.c.revoked_at.is_(None))
        .values(revoked_at=func.clock_timestamp())
        .returning(api_keys.c.id)
    )
    found = [row.id for row in replaced]
    await connection.execute(update(api_keys).where(api_keys.c.id == key_id).values(bootstrap=True))
    return found


async def bootstrap_in_force(connection: AsyncConnection) -> str | None:
    """The id of the bootstrap key that is not revoked."""
    wanted = select(api_keys.c.id).where(api_keys.c.bootstrap, api_keys.c.revoked_at.is_(None))
    key_id: str | None = await connection.scalar(wanted)
    return key_id


async def any_usable(db: Database) -> bool:
    return bool(await db.fetchval("select exists (select from sluice.api_keys where revoked_at is null)"))
