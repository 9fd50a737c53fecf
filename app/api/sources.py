"""Sources: queues elsewhere from which tasks come in."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response

from app.api.models.sources import SourceOut, SourceTested, source_out, tested_out
from app.domain.names import NAME_PATTERN, is_name
from app.domain.sources import SourceDefinition
from app.edge.auth import CoreDep, Manager, Reader
from app.edge.conditions import ConditionsDep
from app.edge.declared import Reads, Shown
from app.edge.pages import DEFAULT_LIMIT, Cursor, Limit, Page, binding, next_cursor, position_of
from app.edge.problems import EMPTY, ETAG, problems
from app.edge.replies import reply
from app.edge.strict import StrictRoute
from app.service import sources

router = APIRouter(prefix="/sources", tags=["sources"], route_class=StrictRoute)
SourceName = Annotated[str, Path(pattern=NAME_PATTERN)]
LIST = binding("sources")


@router.get("", operation_id="list_sources", responses=problems(shows=Page[SourceOut]))
async def list_sources(core: CoreDep, caller: Reader, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Response:
    """List sources, by name."""
    views, more = await sources.list_page(core, caller, position_of(cursor, LIST, is_name), limit)
    following = next_cursor(LIST, views[-1].name) if more else None
    return reply(Page([source_out(view) for view in views], following))


@router.put(
    "/{name}",
    operation_id="put_source",
    responses=problems(
        "etag_mismatch",
        "egress_denied",
        "bridge_unavailable",
        body=True,
        also={200: Shown(SourceOut, **ETAG), 201: Shown(SourceOut, description="Created.", **ETAG)},
    ),
)
async def put_source(
    core: CoreDep,
    caller: Manager,
    name: SourceName,
    body: Annotated[SourceDefinition, Depends(Reads(SourceDefinition))],
    conditions: ConditionsDep,
) -> Response:
    """Create or replace a source. Absent fields get their defaults; secrets that are absent, a pause and the counts are kept."""
    saved = await sources.put(core, caller, name, body, conditions)
    return reply(source_out(saved.view), 201 if saved.created else 200, {"etag": saved.etag})


@router.get(
    "/{name}", operation_id="get_source", responses=problems("source_not_found", also={200: Shown(SourceOut, **ETAG)})
)
async def get_source(core: CoreDep, caller: Reader, name: SourceName) -> Response:
    """Read a source, and how it fares over all replicas."""
    view, etag = await sources.get(core, caller, name)
    return reply(source_out(view), headers={"etag": etag})


@router.delete(
    "/{name}",
    operation_id="delete_source",
    status_code=204,
    responses=problems("source_not_found", "etag_mismatch", also={204: EMPTY}),
)
async def delete_source(core: CoreDep, caller: Manager, name: SourceName, conditions: ConditionsDep) -> Response:
    """Delete a source. Its tasks stay, and so do messages at the source that are not tasks yet."""
    await sources.delete(core, caller, name, conditions)
    return Response(status_code=204)


@router.post(
    "/{name}/pause",
    operation_id="pause_source",
    responses=problems("source_not_found", shows=SourceOut, body=True),
)
async def pause_source(core: CoreDep, caller: Manager, name: SourceName) -> Response:
    """Pause a source: nothing more is received."""
    return reply(source_out(await sources.pause(core, caller, name)))


@router.post(
    "/{name}/resume",
    operation_id="resume_source",
    responses=problems("source_not_found", shows=SourceOut, body=True),
)
async def resume_source(core: CoreDep, caller: Manager, name: SourceName) -> Response:
    """Resume a source."""
    return reply(source_out(await sources.resume(core, caller, name)))


@router.post(
    "/{name}/test",
    operation_id="test_source",
    responses=problems("source_not_found", "bridge_unavailable", shows=SourceTested, body=True),
)
async def test_source(core: CoreDep, caller: Manager, name: SourceName) -> Response:
    """Connect to a source and look at how much waits there, without taking a message. It counts nowhere."""
    return reply(tested_out(await sources.test(core, caller, name)))
