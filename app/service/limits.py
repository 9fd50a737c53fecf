"""The tenant's limit over all its queues."""

from app.domain.conditions import ANY, Conditions
from app.domain.errors import invalid
from app.domain.etags import etag_of
from app.domain.handlers import check_max_concurrency
from app.service.context import Caller, Core
from app.store import queues, tenants


async def get(core: Core, caller: Caller) -> int | None:
    caller.require("use")
    async with core.db.begin(caller.tenant_id) as connection:
        return await tenants.read_limit(connection, caller.tenant_id)


def limits_etag(max_concurrency: int | None) -> str:
    return etag_of({"max_concurrency": max_concurrency})


async def put(core: Core, caller: Caller, max_concurrency: int | None, conditions: Conditions = ANY) -> None:
    """From the return on nothing is admitted above the new limit. Raises Refusal: invalid, etag_mismatch."""
    caller.require("manage")
    if errors := check_max_concurrency(max_concurrency):
        raise invalid(errors)
    async with core.db.begin(caller.tenant_id) as connection:
        await tenants.lock(connection, caller.tenant_id)
        before = await tenants.read_limit(connection, caller.tenant_id)
        conditions.check(limits_etag(before))
        await tenants.write_limit(connection, caller.tenant_id, max_concurrency)
        if (before is None) != (max_concurrency is None):
            await queues.outdate_of_tenant(connection, caller.tenant_id)
    core.signals.stir()
