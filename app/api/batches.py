"""Batches: many tasks as one piece of work, and its progress."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response
from msgspec import structs

from app.api.bulk import LargeRoute, all_shown, validate_items
from app.api.models.batches import FilledBatch, RetriedBatch
from app.domain.batches import BatchBody, BatchTasksBody, BatchView, split_batch, split_tasks
from app.domain.bulk import MAX_BULK_BYTES
from app.domain.errors import Refusal
from app.domain.ids import parse_uuid
from app.edge.auth import CoreDep, Reader, User
from app.edge.config import EdgeConfig
from app.edge.declared import Shown, Takes
from app.edge.headers import read_headers, trace_of
from app.edge.idempotency import require_no_key
from app.edge.pages import DEFAULT_LIMIT, Cursor, Limit, Page, binding, next_cursor, position_of
from app.edge.problems import header, problems
from app.edge.replies import reply
from app.edge.strict import StrictRoute
from app.service import batches
from app.service.bulk import Result

LIST = binding("batches")


class ManyTasksRoute(LargeRoute):
    max_body_bytes = MAX_BULK_BYTES


filling_router = APIRouter(prefix="/batches", tags=["batches"], route_class=ManyTasksRoute)
router = APIRouter(prefix="/batches", tags=["batches"], route_class=StrictRoute)


async def batch_id_of(batch_id: Annotated[str, Path(description="A UUID.")]) -> str:
    found = parse_uuid(batch_id)
    if found is None:
        raise Refusal("batch_not_found", "there is no such batch: the id is not a UUID")
    return found


BatchId = Annotated[str, Depends(batch_id_of)]


@filling_router.post(
    "",
    operation_id="create_batch",
    status_code=201,
    responses=problems(
        "egress_denied",
        "payload_schema_mismatch",
        body=True,
        also={201: Shown(FilledBatch, headers={"Location": header("URL of the batch.")})},
    ),
)
async def create_batch(
    request: Request, core: CoreDep, caller: User, body: Annotated[bytes, Depends(Takes(BatchBody))]
) -> Response:
    """Create a batch, with up to 10,000 tasks in a body of at most 32 MiB. The answer has a result per task, in order."""
    edge: EdgeConfig = request.app.state.edge
    headers = read_headers(request.scope["headers"])
    require_no_key(headers)
    asked = split_batch(body, edge.max_payload_bytes)
    items = await validate_items(asked.spans, edge.max_payload_bytes)
    view, results = await batches.create(core, caller, asked, items, trace_of(headers))
    location = f"{edge.public_url.rstrip('/')}/batches/{view.id}"
    return reply(await _with_results(view, results), 201, {"location": location})


@filling_router.post(
    "/{batch_id}/tasks",
    operation_id="add_batch_tasks",
    responses=problems("batch_not_found", "queue_not_found", "batch_sealed", shows=FilledBatch, body=True),
)
async def add_batch_tasks(
    request: Request,
    core: CoreDep,
    caller: User,
    batch_id: BatchId,
    body: Annotated[bytes, Depends(Takes(BatchTasksBody))],
) -> Response:
    """Add tasks to an unsealed batch, up to 10,000 per request. The answer has a result per task, in order."""
    edge: EdgeConfig = request.app.state.edge
    headers = read_headers(request.scope["headers"])
    require_no_key(headers)
    items = await validate_items(split_tasks(body), edge.max_payload_bytes)
    return reply(await _with_results(*await batches.add(core, caller, batch_id, items, trace_of(headers))))


async def _with_results(view: BatchView, results: Sequence[Result]) -> FilledBatch:
    return FilledBatch(**structs.asdict(view), results=await all_shown(results))


@router.get("", operation_id="list_batches", responses=problems(shows=Page[BatchView]))
async def list_batches(core: CoreDep, caller: Reader, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Response:
    """List batches, newest first. If a batch has more than 1,000 scheduled tasks, the rest of them count as ready."""
    items, more = await batches.list_page(core, caller, position_of(cursor, LIST, parse_uuid), limit)
    cursor = next_cursor(LIST, items[-1].id) if more else None
    return reply(Page(items, cursor))


@router.get("/{batch_id}", operation_id="get_batch", responses=problems("batch_not_found", shows=BatchView))
async def get_batch(core: CoreDep, caller: Reader, batch_id: BatchId) -> Response:
    """Read a batch and its progress."""
    return reply(await batches.get(core, caller, batch_id))


@router.post(
    "/{batch_id}/seal",
    operation_id="seal_batch",
    responses=problems("batch_not_found", shows=BatchView, body=True),
)
async def seal_batch(core: CoreDep, caller: User, batch_id: BatchId) -> Response:
    """Seal a batch: no more tasks can be added, and it completes when all have ended."""
    return reply(await batches.seal(core, caller, batch_id))


@router.post(
    "/{batch_id}/cancel",
    operation_id="cancel_batch",
    responses=problems("batch_not_found", shows=BatchView, body=True),
)
async def cancel_batch(core: CoreDep, caller: User, batch_id: BatchId) -> Response:
    """Seal a batch and cancel its unfinished tasks. Its `on_complete` still runs."""
    return reply(await batches.cancel(core, caller, batch_id))


@router.post(
    "/{batch_id}/retry",
    operation_id="retry_batch",
    responses=problems("batch_not_found", shows=RetriedBatch, body=True),
)
async def retry_batch(core: CoreDep, caller: User, batch_id: BatchId) -> Response:
    """Make a batch's dead tasks ready again, with all attempts available."""
    view, matched, moved = await batches.retry(core, caller, batch_id)
    return reply(RetriedBatch(**structs.asdict(view), matched=matched, moved=moved, remaining=matched - moved))
