"""Tenants: who owns every row, and the limits over all queues of one."""

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.db import Database
from app.store.numbers import named
from app.store.tables import tenants

_LOCK_DEFINITIONS = text(named("select pg_advisory_xact_lock(:lock_definitions, (:id)::integer)"))
_LOCK = text(named("select pg_advisory_xact_lock(:lock_tenant, (:id)::integer)"))


async def lock(connection: AsyncConnection, tenant_id: int) -> None:
    """Until the transaction ends no claim of this tenant is admitted; claims hold the same lock shared."""
    await connection.execute(_LOCK, {"id": tenant_id})


async def lock_row(connection: AsyncConnection, tenant_id: int) -> None:
    """Until the transaction ends nobody else does this."""
    await connection.execute(select(tenants.c.id).where(tenants.c.id == tenant_id).with_for_update(key_share=True))


async def is_full(connection: AsyncConnection, tenant_id: int, kind: Literal["handlers", "queues"], most: int) -> bool:
    """Whether the tenant has as many definitions of this kind as it may. Until the transaction ends nobody else adds one.

    Taken before the locks of handlers and queues, and counted in a later statement.
    """
    await connection.execute(_LOCK_DEFINITIONS, {"id": tenant_id})
    counted = f"select from sluice.{kind} where tenant_id = :id and deleted_at is null limit :most"
    sql = text(f"select count(*) from ({counted}) d")  # noqa: S608  # ours
    return int(await connection.scalar(sql, {"id": tenant_id, "most": most})) >= most


async def id_of(db: Database, name: str) -> int:
    """The id of a tenant known to be there."""
    return int(await db.fetchval("select id from sluice.tenants where name = $1", name))


async def ensure(connection: AsyncConnection, name: str) -> int:
    """The id of the tenant, made where it is new."""
    await connection.execute(insert(tenants).values(name=name).on_conflict_do_nothing(constraint="tenants_name_key"))
    return int(await connection.scalar(select(tenants.c.id).where(tenants.c.name == name)))  # type: ignore[arg-type]


async def find(connection: AsyncConnection, name: str) -> int | None:
    return await connection.scalar(select(tenants.c.id).where(tenants.c.name == name))


@dataclass(frozen=True, slots=True)
class TenantLimits:
    """Over all queues of a tenant; None: none. The lesser counts."""

    max_concurrency: int | None = None
    """Its own."""
    granted_max_concurrency: int | None = None
    """An operator's."""

    @property
    def limited(self) -> bool:
        return self.max_concurrency is not None or self.granted_max_concurrency is not None


async def read_limits(connection: AsyncConnection, tenant_id: int) -> TenantLimits:
    """Of a tenant known to be there."""
    wanted = select(tenants.c.max_concurrency, tenants.c.granted_max_concurrency).where(tenants.c.id == tenant_id)
    return TenantLimits(*(await connection.execute(wanted)).one())


async def write_limit(connection: AsyncConnection, tenant_id: int, max_concurrency: int | None) -> None:
    await connection.execute(update(tenants).where(tenants.c.id == tenant_id).values(max_concurrency=max_concurrency))


async def write_granted(connection: AsyncConnection, tenant_id: int, max_concurrency: int | None) -> None:
    values = {"granted_max_concurrency": max_concurrency}
    await connection.execute(update(tenants).where(tenants.c.id == tenant_id).values(values))
