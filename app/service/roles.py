"""Verbs on roles that may call sluice.enqueue. They are for commands on the database."""

from collections.abc import Sequence

from app.domain.bodies import faults
from app.domain.callers import Act
from app.domain.errors import FieldError, Refusal, invalid
from app.domain.keys import KeyBody
from app.domain.names import NAME_RULE, is_name
from app.domain.roles import MAX_ROLE_BYTES, RoleGrant
from app.store import roles, tenants
from app.store.audit import record_by
from app.store.db import Database


async def grant(db: Database, role: str, tenant: str, queues: Sequence[str] | None) -> RoleGrant:
    """Let a role of the database enqueue for a tenant, on the queues that match a pattern (None: on all). A role that may
    already gets these patterns instead of its own.

    Raises Refusal: invalid (no such role or tenant; the role enqueues for another tenant), forbidden.
    """
    if errors := faults({"queues": None if queues is None else list(queues)}, KeyBody):
        raise invalid(errors)
    if not is_name(tenant):
        raise invalid([FieldError("/tenant", f"is not a name ({NAME_RULE})")])
    async with db.begin(None) as connection:
        if len(role.encode()) > MAX_ROLE_BYTES or not await roles.is_role(connection, role):
            raise Refusal("invalid", f"the database has no role {role}; CREATE ROLE makes one")
        tenant_id = await tenants.find(connection, tenant)
        if tenant_id is None:
            raise Refusal("invalid", f"there is no tenant {tenant}; a key for it creates it")
        before = await roles.find(connection, role)
        if before is not None and before.tenant != tenant:
            raise Refusal(
                "invalid",
                f"role {role} enqueues for tenant {before.tenant}: revoke that first, or grant to another role",
            )
        await roles.grant(connection, role, tenant_id, queues)
        after = {"role": role, "queues": queues}
        said = None if before is None else {"role": role, "queues": before.queues}
        await record_by("cli", connection, tenant_id, Act("grant", "role", role, None), said, after)
        made = await roles.find(connection, role)
        assert made is not None
        return made


async def list_roles(db: Database) -> list[RoleGrant]:
    """Return what roles may enqueue, by role."""
    return await roles.list_all(db)


async def revoke(db: Database, role: str) -> bool:
    """Take back what `grant` gave; return whether there was anything. Raises Refusal (forbidden)."""
    async with db.begin(None) as connection:
        before = await roles.find(connection, role)
        tenant_id = await roles.revoke(connection, role)
        if before is None or tenant_id is None:
            return False
        said = {"role": role, "queues": before.queues}
        await record_by("cli", connection, tenant_id, Act("revoke", "role", role, None), said, None)
        return True
