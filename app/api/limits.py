"""A tenant's limits over all queues: its own and the operator's."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response
from msgspec import UNSET

from app.api.models.limits import GrantOut, LimitsOut
from app.domain.limits import Grant, Limits
from app.domain.names import NAME_PATTERN
from app.edge.auth import CoreDep, Manager, Operator, User
from app.edge.declared import Reads
from app.edge.problems import problems
from app.edge.replies import reply
from app.edge.strict import StrictRoute
from app.service import limits
from app.store.tenants import TenantLimits

router = APIRouter(prefix="/limits", tags=["limits"], route_class=StrictRoute)
tenant_router = APIRouter(prefix="/tenants", tags=["limits"], route_class=StrictRoute)

TenantName = Annotated[str, Path(pattern=NAME_PATTERN)]


@router.get("", operation_id="get_limits", responses=problems(shows=LimitsOut))
async def get_limits(core: CoreDep, caller: User) -> Response:
    """Read the tenant's limit over all queues."""
    return _limits(await limits.get(core, caller))


@router.put("", operation_id="put_limits", responses=problems(shows=LimitsOut, body=True))
async def put_limits(core: CoreDep, caller: Manager, body: Annotated[Limits, Depends(Reads(Limits))]) -> Response:
    """Change the tenant's limit over all queues. Once answered, nothing is admitted above it."""
    return _limits(await limits.put(core, caller, body.max_concurrency))


@tenant_router.get(
    "/{name}/limits",
    operation_id="get_tenant_limits",
    responses=problems("tenant_not_found", shows=GrantOut),
)
async def get_tenant_limits(core: CoreDep, caller: Operator, name: TenantName) -> Response:
    """Read a tenant's limit as granted by the operator."""
    return reply(GrantOut(name, await limits.get_grant(core, caller, name)))


@tenant_router.put(
    "/{name}/limits",
    operation_id="put_tenant_limits",
    responses=problems("tenant_not_found", shows=GrantOut, body=True),
)
async def put_tenant_limits(
    core: CoreDep, caller: Operator, name: TenantName, body: Annotated[Grant, Depends(Reads(Grant))]
) -> Response:
    """Limit a tenant's running tasks over all its queues. Its own limit cannot exceed or remove this one."""
    granted = await limits.put_grant(core, caller, name, body.max_concurrency)
    return reply(GrantOut(name, granted))


def _limits(found: TenantLimits) -> Response:
    granted = found.granted_max_concurrency
    return reply(LimitsOut(found.max_concurrency, UNSET if granted is None else granted))
