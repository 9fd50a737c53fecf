"""Batches: many tasks as one piece of work, and its progress."""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Path, Request, Response

from app.api.bulk import LargeRoute, all_shown, judge_items
from app.api.enqueue import trace_of
from app.api.models.batches import BatchIn, BatchOut, BatchTasksIn, FilledBatchOut, RetriedBatchOut
from app.domain.batches import BatchView, split_batch, split_tasks
from app.domain.bulk import MAX_BULK_BYTES
from app.domain.errors import Refusal
from app.domain.ids import parse_uuid
from app.edge.auth import CoreDep, User
from app.edge.config import EdgeConfig
from app.edge.headers import read_headers
from app.edge.pages import Cursor, Limit, binding, next_cursor, position_of
from app.edge.problems import header, problems
from app.edge.replies import Page, json_reply
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


def _body(model: type) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


@filling_router.post(
    "",
    operation_id="create_batch",
    status_code=201,
    response_model=FilledBatchOut,
    responses=problems(
        "payload_schema_mismatch", body=True, also={201: {"headers": {"Location": header("URL of the batch.")}}}
    ),
    openapi_extra=_body(BatchIn),
)
async def create_batch(request: Request, core: CoreDep, caller: User) -> Response:
    """Create a batch, with up to 10,000 tasks in a body of at most 32 MiB. The answer has a result per task, in order."""
    edge: EdgeConfig = request.app.state.edge
    asked = split_batch(await request.body(), edge.max_payload_bytes)
    items = await judge_items(asked.spans, edge.max_payload_bytes)
    view, results = await batches.create(core, caller, asked, items, _trace(request))
    location = f"{edge.public_url.rstrip('/')}/batches/{view.id}"
    return json_reply(await _filled(view, results), 201, {"location": location})


@filling_router.post(
    "/{batch_id}/tasks",
    operation_id="add_batch_tasks",
    response_model=FilledBatchOut,
    responses=problems("batch_not_found", "queue_not_found", "batch_sealed", body=True),
    openapi_extra=_body(BatchTasksIn),
)
async def add_batch_tasks(request: Request, core: CoreDep, caller: User, batch_id: BatchId) -> Response:
    """Add tasks to an unsealed batch, up to 10,000 per request. The answer has a result per task, in order."""
    edge: EdgeConfig = request.app.state.edge
    items = await judge_items(split_tasks(await request.body()), edge.max_payload_bytes)
    return json_reply(await _filled(*await batches.add(core, caller, batch_id, items, _trace(request))))


def _trace(request: Request) -> tuple[str, str | None] | None:
    return trace_of(read_headers(request.scope["headers"]))


async def _filled(view: BatchView, results: Sequence[Result]) -> bytes:
    return _with(view, results=await all_shown(results))


def _with(view: BatchView, **more: Any) -> bytes:
    return msgspec.json.encode({**msgspec.structs.asdict(view), **more})


@router.get("", operation_id="list_batches", response_model=Page[BatchOut], responses=problems())
async def list_batches(core: CoreDep, caller: User, limit: Limit = 50, cursor: Cursor = None) -> Response:
    """List batches, newest first. If a batch has more than 1,000 scheduled tasks, the rest of them count as ready."""
    items, more = await batches.list_page(core, caller, position_of(cursor, LIST, parse_uuid), limit)
    cursor = next_cursor(LIST, items[-1].id) if more else None
    return json_reply(msgspec.json.encode({"items": items, "next_cursor": cursor}))


@router.get("/{batch_id}", operation_id="get_batch", response_model=BatchOut, responses=problems("batch_not_found"))
async def get_batch(core: CoreDep, caller: User, batch_id: BatchId) -> Response:
    """Read a batch and its progress."""
    return json_reply(msgspec.json.encode(await batches.get(core, caller, batch_id)))


@router.post(
    "/{batch_id}/seal",
    operation_id="seal_batch",
    response_model=BatchOut,
    responses=problems("batch_not_found", body=True),
)
async def seal_batch(core: CoreDep, caller: User, batch_id: BatchId) -> Response:
    """Seal a batch: no more tasks can be added, and it completes when all have ended."""
    return json_reply(msgspec.json.encode(await batches.seal(core, caller, batch_id)))


@router.post(
    "/{batch_id}/cancel",
    operation_id="cancel_batch",
    response_model=BatchOut,
    responses=problems("batch_not_found", body=True),
)
async def cancel_batch(core: CoreDep, caller: User, batch_id: BatchId) -> Response:
    """Seal a batch and cancel its unfinished tasks. Its `on_complete` still runs."""
    return json_reply(msgspec.json.encode(await batches.cancel(core, caller, batch_id)))


@router.post(
    "/{batch_id}/retry",
    operation_id="retry_batch",
    response_model=RetriedBatchOut,
    responses=problems("batch_not_found", body=True),
)
async def retry_batch(core: CoreDep, caller: User, batch_id: BatchId) -> Response:
    """Make a batch's dead tasks ready again, with all attempts available."""
    view, matched, moved = await batches.retry(core, caller, batch_id)
    return json_reply(_with(view, matched=matched, moved=moved, remaining=matched - moved))
