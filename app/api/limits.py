"""The limits over all queues of a tenant: its own, and the one that an operator grants it."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from app.api.models.limits import GrantIn, GrantOut, LimitsIn, LimitsOut
from app.domain.names import NAME_PATTERN
from app.edge.auth import CoreDep, Manager, Operator, User
from app.edge.problems import problems
from app.edge.strict import StrictRoute
from app.service import limits
from app.service.limits import Grant
from app.store.tenants import TenantLimits

router = APIRouter(prefix="/limits", tags=["limits"], route_class=StrictRoute)
tenant_router = APIRouter(prefix="/tenants", tags=["limits"], route_class=StrictRoute)

TenantName = Annotated[str, Path(pattern=NAME_PATTERN)]


@router.get("", operation_id="get_limits", response_model=LimitsOut, responses=problems())
async def get_limits(core: CoreDep, caller: User) -> Response:
    """Read the limit over all queues."""
    return _limits(await limits.get(core, caller))


@router.put("", operation_id="put_limits", response_model=LimitsOut, responses=problems(body=True))
async def put_limits(core: CoreDep, caller: Manager, body: LimitsIn) -> Response:
    """Change the limit over all queues. From the answer on, nothing is admitted above it."""
    return _limits(await limits.put(core, caller, body.max_concurrency))


@tenant_router.get(
    "/{name}/limits",
    operation_id="get_tenant_limits",
    response_model=GrantOut,
    responses=problems("tenant_not_found"),
)
async def get_tenant_limits(core: CoreDep, caller: Operator, name: TenantName) -> Response:
    """Read what an operator grants a tenant at most."""
    return _grant(await limits.get_grant(core, caller, name))


@tenant_router.put(
    "/{name}/limits",
    operation_id="put_tenant_limits",
    response_model=GrantOut,
    responses=problems("tenant_not_found", body=True),
)
async def put_tenant_limits(core: CoreDep, caller: Operator, name: TenantName, body: GrantIn) -> Response:
    """Grant a tenant at most so many running tasks over all its queues. Its own limit cannot exceed or remove that."""
    return _grant(await limits.put_grant(core, caller, name, body.max_concurrency))


def _limits(found: TenantLimits) -> Response:
    out = LimitsOut(max_concurrency=found.max_concurrency, granted_max_concurrency=found.granted_max_concurrency)
    return out.reply()


def _grant(found: Grant) -> Response:
    return GrantOut(tenant=found.tenant, max_concurrency=found.max_concurrency).reply()
