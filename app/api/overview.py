"""The overview of a tenant, and its series by minute."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from app.domain.names import NAME_PATTERN
from app.domain.overviews import Overview, Series
from app.edge.auth import CoreDep, Reader
from app.edge.problems import problems
from app.edge.replies import reply
from app.edge.strict import StrictRoute
from app.runtime.series import MAX_MINUTES
from app.service import overview

router = APIRouter(tags=["operations"], route_class=StrictRoute)
Minutes = Annotated[int, Query(ge=1, le=MAX_MINUTES, description="How many minutes, with the current one.")]


@router.get("/overview", operation_id="get_overview", responses=problems(shows=Overview))
async def get_overview(core: CoreDep, caller: Reader) -> Response:
    """Read what matters first: verdicts, alarms, every queue, what is due, and with scope operate replicas and database."""
    return reply(await overview.overview(core, caller))


@router.get("/series", operation_id="get_series", responses=problems(shows=Series))
async def get_series(core: CoreDep, caller: Reader, minutes: Minutes = 60) -> Response:
    """Read what happened in each of the last minutes, over all queues."""
    return reply(await overview.series(core, caller, minutes))


@router.get(
    "/queues/{name}/series", operation_id="get_queue_series", responses=problems("queue_not_found", shows=Series)
)
async def get_queue_series(
    core: CoreDep, caller: Reader, name: Annotated[str, Path(pattern=NAME_PATTERN)], minutes: Minutes = 60
) -> Response:
    """Read what happened to a queue in each of the last minutes."""
    return reply(await overview.queue_series(core, caller, name, minutes))
