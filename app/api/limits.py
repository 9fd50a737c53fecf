"""The tenant's limit over all its queues."""

from fastapi import APIRouter, Response

from app.api.auth import CoreDep, Manager, User
from app.api.models.limits import LimitsIn, LimitsOut
from app.api.problems import problems
from app.api.strict import StrictRoute
from app.service import limits

router = APIRouter(prefix="/limits", tags=["limits"], route_class=StrictRoute)


@router.get("", operation_id="get_limits", response_model=LimitsOut, responses=problems())
async def get_limits(core: CoreDep, caller: User) -> Response:
    """Read the limit over all queues."""
    return LimitsOut(max_concurrency=await limits.get(core, caller)).reply()


@router.put("", operation_id="put_limits", response_model=LimitsOut, responses=problems(body=True))
async def put_limits(core: CoreDep, caller: Manager, body: LimitsIn) -> Response:
    """Change the limit over all queues. From the answer on, nothing is admitted above it."""
    await limits.put(core, caller, body.max_concurrency)
    return LimitsOut(max_concurrency=body.max_concurrency).reply()
