"""The overview of a tenant, its events, and its series by minute."""

from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request, Response

from app.api.tasks import task_id_of
from app.domain.names import NAME_PATTERN
from app.domain.overviews import Overview, Series
from app.edge.auth import CoreDep, Reader, verified
from app.edge.config import EdgeConfig
from app.edge.event_stream import EVENT_STREAM, EventStream
from app.edge.problems import problems
from app.edge.replies import json_reply, reply
from app.edge.strict import StrictRoute
from app.runtime.series import MAX_MINUTES
from app.service import events, overview

router = APIRouter(tags=["operations"], route_class=StrictRoute)
Minutes = Annotated[int, Query(ge=1, le=MAX_MINUTES, description="How many minutes, with the current one.")]


@router.get("/overview", operation_id="get_overview", responses=problems(shows=Overview))
async def get_overview(core: CoreDep, caller: Reader) -> Response:
    """Read what matters first: verdicts, alarms, every queue, what is due, and with scope operate replicas and database."""
    return json_reply((await overview.shown(core, caller)).body)


@router.get(
    "/events",
    operation_id="get_events",
    responses=problems(
        "task_not_found",
        also={
            200: {
                "content": {EVENT_STREAM: {"schema": {"type": "string"}}},
                "description": "Server-sent events: `overview` (as GET /overview), `alarm` (with `active`: it begins or ends), and "
                "`task` (as GET /tasks/{id} without payload). A comment each 15 seconds of silence.",
            }
        },
    ),
)
async def get_events(
    request: Request,
    core: CoreDep,
    caller: Reader,
    task: Annotated[str | None, Query(description="A task to watch as well: its UUID.")] = None,
    last_event_id: Annotated[
        str | None, Header(max_length=200, description="The last id received, after a break.")
    ] = None,
) -> Response:
    """Watch the overview (at most every two seconds, when it changed), alarms at once, and a task as it changes."""
    edge: EdgeConfig = request.app.state.edge

    async def still() -> None:
        await verified(edge, request.headers.get("authorization"))

    task_id = None if task is None else await task_id_of(task)
    found = events.watch(core, caller, task_id, last_event_id, still)
    return await EventStream.begin(found, head_only=request.scope.get("head", False))


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
