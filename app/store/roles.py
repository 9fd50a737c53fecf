"""Roles that may call sluice.enqueue. The rights in the database come and go with the rows that say for whom they enqueue."""

from collections.abc import Sequence
from typing import Any

import asyncpg
from sqlalchemy import Text, bindparam, column, delete, exists, select, table
from sqlalchemy.dialects.postgresql import insert

from app.domain.errors import Refusal
from app.domain.roles import RoleGrant
from app.store.db import Reader
from app.store.statements import Query, bound, call
from app.store.tables import grants, tenants

_ROLES = table("pg_roles", column("rolname", Text), schema="pg_catalog")
_EXISTS = exists().where(_ROLES.c.rolname == grants.c.role)
_THIS = grants.c.role == bindparam("role")
_SHOWN = select(
    grants.c.role, tenants.c.name.label("tenant"), grants.c.queues, grants.c.created_at, _EXISTS.label("exists")
).select_from(grants.join(tenants, tenants.c.id == grants.c.tenant_id))
_LIST = Query(_SHOWN.order_by(grants.c.role))
_FIND = Query(_SHOWN.where(_THIS))
_IS_THERE = Query(select(exists().where(_ROLES.c.rolname == bindparam("role"))))
_PUT = Query(
    insert(grants)
    .values(**bound("role", "tenant_id", "queues"))
    .on_conflict_do_update(index_elements=["role"], set_={"queues": bindparam("queues")})
)
_REMOVE = Query(delete(grants).where(_THIS).returning(grants.c.tenant_id))
_ADMIT = call("admit_role_v1", 2)


async def list_all(db: Reader) -> list[RoleGrant]:
    return [_grant(row) for row in await _LIST.fetch(db)]


async def find(db: Reader, role: str) -> RoleGrant | None:
    row = await _FIND.fetchrow(db, role=role)
    return None if row is None else _grant(row)


def _grant(row: Any) -> RoleGrant:
    queues = row["queues"]
    return RoleGrant(**{**row, "queues": None if queues is None else tuple(queues)})


async def is_role(db: Reader, role: str) -> bool:
    """Return whether the database has the role."""
    return bool(await _IS_THERE.fetchval(db, role=role))


async def grant(connection: Reader, role: str, tenant_id: int, queues: Sequence[str] | None) -> None:
    """Let a role enqueue for a tenant, which stays the same if it already may. Raises Refusal (forbidden)."""
    await _PUT.fetch(connection, role=role, tenant_id=tenant_id, queues=queues)
    await _admit(connection, role, admitted=True)


async def revoke(connection: Reader, role: str) -> int | None:
    """Take back what `grant` gave; return the tenant's id, None if there was nothing. Raises Refusal (forbidden)."""
    tenant_id: int | None = await _REMOVE.fetchval(connection, role=role)
    if tenant_id is not None and await is_role(connection, role):
        await _admit(connection, role, admitted=False)
    return tenant_id


async def _admit(connection: Reader, role: str, *, admitted: bool) -> None:
    try:
        await connection.fetch(_ADMIT, role, admitted)
    except asyncpg.InsufficientPrivilegeError as error:
        raise Refusal(
            "forbidden", f"only the owner of the schema sluice can grant rights in it ({error}): run this as that role"
        ) from error
