"""A tenant's limits over all its queues: its own, and the one that an operator grants. The lower one applies."""

from app.domain.bodies import faults
from app.domain.callers import Caller
from app.domain.conditions import ANY, Conditions
from app.domain.errors import Refusal, invalid, invalid_field
from app.domain.limits import Limits, MaxConcurrency, limit_etag, limit_to_dict
from app.runtime.core import Core
from app.service.audit import audited, record
from app.store import flows, queues, tenants
from app.store.tenants import TenantLimits


async def get(core: Core, caller: Caller) -> TenantLimits:
    """Return a tenant's limits. Raises Refusal (not_found)."""
    caller.require("read")
    caller.require_tenant()
    async with core.db.begin(caller.tenant_id) as connection:
        return await tenants.read_limits(connection, caller.tenant_id)


def check(own: Limits, before: TenantLimits) -> None:
    """Check that a tenant may set these limits. Raises Refusal (invalid)."""
    if errors := faults(own):
        raise invalid(errors)
    most, granted = own.max_concurrency, before.granted_max_concurrency
    if most is not None and granted is not None and most > granted:
        raise invalid_field(
            "/max_concurrency", f"exceeds what the operator grants this tenant, {granted}; null uses the whole grant"
        )


@audited("put", "limits", parts=0)
async def put(core: Core, caller: Caller, own: Limits, conditions: Conditions = ANY) -> TenantLimits:
    """Set the tenant's own limits. Once this returns, nothing is admitted above them. Raises Refusal: invalid, etag_mismatch."""
    caller.require("manage")
    caller.require_tenant()
    async with core.db.begin(caller.tenant_id) as connection:
        await tenants.lock(connection, caller.tenant_id)
        before = await tenants.read_limits(connection, caller.tenant_id)
        conditions.check(limit_etag(before.own))
        check(own, before)
        await tenants.write_limits(connection, caller.tenant_id, own)
        after = await tenants.read_limits(connection, caller.tenant_id)
        if before.limited != after.limited:
            await queues.outdate_of_tenant(connection, caller.tenant_id)
        if before.rate != after.rate:
            await flows.reopen(connection, caller.tenant_id)
        await record(connection, caller, limit_to_dict(before.own), limit_to_dict(after.own))
    core.signals.any_lane_ready()
    return after


async def get_grant(core: Core, caller: Caller, tenant: str) -> int | None:
    """Return the operator's limit for a tenant. Raises Refusal: forbidden, tenant_not_found."""
    caller.require("operate")
    async with core.db.begin(caller.tenant_id) as connection:
        tenant_id = _known(tenant, await tenants.find(connection, tenant))
        limits = await tenants.read_limits(connection, tenant_id)
        return limits.granted_max_concurrency


@audited("put", "grant")
async def put_grant(core: Core, caller: Caller, tenant: str, max_concurrency: int | None) -> int | None:
    """Set the operator's limit. Once this returns, nothing is admitted above it. Raises Refusal: forbidden, tenant_not_found,
    invalid."""
    caller.require("operate")
    if errors := faults(max_concurrency, MaxConcurrency | None, "/max_concurrency"):
        raise invalid(errors)
    async with core.db.begin(caller.tenant_id) as connection:
        tenant_id = _known(tenant, await tenants.find(connection, tenant))
        await tenants.lock(connection, tenant_id)
        before = await tenants.read_limits(connection, tenant_id)
        await tenants.write_granted(connection, tenant_id, max_concurrency)
        if before.limited != TenantLimits(before.max_concurrency, max_concurrency).limited:
            await queues.outdate_of_tenant(connection, tenant_id)
        was, now = {"max_concurrency": before.granted_max_concurrency}, {"max_concurrency": max_concurrency}
        await record(connection, caller, was, now, tenant_id=tenant_id)
    core.signals.any_lane_ready()
    return max_concurrency


def _known(tenant: str, tenant_id: int | None) -> int:
    if tenant_id is None:
        raise Refusal(
            "tenant_not_found", f"there is no tenant {tenant}; `sluice keys create --tenant {tenant}` creates it"
        )
    return tenant_id
