"""Tenants: the owners of all rows, and their limits over all queues."""

from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Table, bindparam, func, select, update
from sqlalchemy.dialects.postgresql import insert

from app.domain.limits import Limits, Rate
from app.store import limits, locks
from app.store.db import Reader
from app.store.numbers import Lock
from app.store.statements import Query
from app.store.tables import handlers, queues, schedules, sources, tenants
from app.store.tables import limits as limit_rows


def _counted(definitions: Table) -> Query:
    living = (
        select(definitions.c.id)
        .where(definitions.c.tenant_id == bindparam("tenant_id"), definitions.c.deleted_at.is_(None))
        .limit(bindparam("most"))
    )
    return Query(select(func.count()).select_from(living.subquery()))


_THIS = tenants.c.id == bindparam("tenant_id")
_BY_NAME = Query(select(tenants.c.id).where(tenants.c.name == bindparam("name")))
_INSERT = Query(insert(tenants).values(name=bindparam("name")).on_conflict_do_nothing(constraint="tenants_name_key"))
_LOCK_ROW = Query(select(tenants.c.id).where(_THIS).with_for_update(key_share=True))
_COUNTED = {"handlers": _counted(handlers), "queues": _counted(queues), "schedules": _counted(schedules)}
_COUNT_LIMITS = Query(
    select(func.count())
    .select_from(limit_rows)
    .where(limit_rows.c.tenant_id == bindparam("tenant_id"), limit_rows.c.kind == "named")
)
_COUNT_SOURCES = Query(select(func.count()).select_from(sources).where(sources.c.tenant_id == bindparam("tenant_id")))
_RATE, _OF_RATE = limits.owned("tenant_rate", tenants.c.id)
_LIMITS = Query(
    select(tenants.c.max_concurrency, tenants.c.granted_max_concurrency, *limits.shown(_RATE))
    .select_from(tenants.outerjoin(_RATE, _OF_RATE))
    .where(_THIS)
)
_FLOWS = Query(update(tenants).where(_THIS).values(flows=True))
_SET_LIMIT = Query(update(tenants).where(_THIS).values(max_concurrency=bindparam("most")))
_SET_GRANTED = Query(update(tenants).where(_THIS).values(granted_max_concurrency=bindparam("most")))


async def lock(connection: Reader, tenant_id: int) -> None:
    """Lock a tenant: until the transaction ends, no claim is admitted, because claims hold the same lock shared."""
    await locks.take(connection, Lock.TENANT, tenant_id)


async def lock_row(connection: Reader, tenant_id: int) -> None:
    """Take this lock, exclusively, until the transaction ends."""
    await _LOCK_ROW.fetch(connection, tenant_id=tenant_id)


async def is_full(
    connection: Reader,
    tenant_id: int,
    kind: Literal["handlers", "queues", "schedules", "sources", "limits"],
    most: int,
) -> bool:
    """Return whether the tenant has the maximum number of definitions of this kind. Until the transaction ends, nobody adds one.

    The lock is taken before those of handlers and queues, and the count is made in a later statement.
    """
    await locks.take(connection, Lock.DEFINITIONS, tenant_id)
    if kind == "sources":
        return int(await _COUNT_SOURCES.fetchval(connection, tenant_id=tenant_id)) >= most
    if kind == "limits":
        return int(await _COUNT_LIMITS.fetchval(connection, tenant_id=tenant_id)) >= most
    return int(await _COUNTED[kind].fetchval(connection, tenant_id=tenant_id, most=most)) >= most


async def id_of(reader: Reader, name: str) -> int:
    """Return the id of a tenant that is known to exist."""
    return int(await _BY_NAME.fetchval(reader, name=name))


async def ensure(connection: Reader, name: str) -> int:
    """Return the id of a tenant, creating it if necessary."""
    await _INSERT.fetch(connection, name=name)
    return await id_of(connection, name)


async def find(reader: Reader, name: str) -> int | None:
    tenant_id: int | None = await _BY_NAME.fetchval(reader, name=name)
    return tenant_id


@dataclass(frozen=True, slots=True)
class TenantLimits:
    """A tenant's limits over all its queues; None: no limit. The lower one applies."""

    max_concurrency: int | None = None
    """Its own."""
    granted_max_concurrency: int | None = None
    """Granted by an operator."""
    rate: Rate | None = None
    """Its own, over all its queues."""

    @property
    def own(self) -> Limits:
        return Limits(self.max_concurrency, self.rate)

    @property
    def limited(self) -> bool:
        return self.max_concurrency is not None or self.granted_max_concurrency is not None


async def read_limits(reader: Reader, tenant_id: int) -> TenantLimits:
    """Return the limits of a tenant that is known to exist."""
    (row,) = await _LIMITS.fetch(reader, tenant_id=tenant_id)
    return TenantLimits(row[0], row[1], limits.rate_in(row, "tenant_rate"))


async def write_limits(connection: Reader, tenant_id: int, own: Limits) -> None:
    await _SET_LIMIT.fetch(connection, tenant_id=tenant_id, most=own.max_concurrency)
    await limits.set_rate(connection, tenant_id, "tenant_rate", tenant_id, own.rate)
    if own.rate is not None:
        await _FLOWS.fetch(connection, tenant_id=tenant_id)


async def write_granted(connection: Reader, tenant_id: int, max_concurrency: int | None) -> None:
    await _SET_GRANTED.fetch(connection, tenant_id=tenant_id, most=max_concurrency)
