"""Tasks and their attempts. Enqueueing is in enqueue.py."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from app.domain.errors import FieldError, Refusal, invalid
from app.domain.ids import parse_uuid
from app.domain.instants import parse_instant
from app.domain.names import NAME_PATTERN
from app.domain.patches import PatchBody, parse_patch
from app.domain.tasks import MAX_LABEL, MAX_TAG, Reason, State, TaskFilters
from app.domain.texts import check_text
from app.domain.views import AttemptView, TaskView
from app.domain.why import WhyTask
from app.edge.auth import CoreDep, Reader, User
from app.edge.declared import Takes
from app.edge.pages import DEFAULT_LIMIT, Cursor, Limit, Page, binding, next_cursor, position_of
from app.edge.problems import problems
from app.edge.replies import reply
from app.edge.strict import StrictRoute
from app.service import patches, tasks, why

router = APIRouter(prefix="/tasks", tags=["tasks"], route_class=StrictRoute)


async def task_id_of(task_id: Annotated[str, Path(description="A UUID.")]) -> str:
    found = parse_uuid(task_id)
    if found is None:
        raise Refusal("task_not_found", "there is no such task: the id is not a UUID")
    return found


TaskId = Annotated[str, Depends(task_id_of)]
NameQuery = Annotated[str | None, Query(pattern=NAME_PATTERN)]
LabelQuery = Annotated[str | None, Query(min_length=1, max_length=MAX_LABEL)]
InstantQuery = Annotated[str | None, Query(max_length=50, json_schema_extra={"format": "date-time"})]


async def filters_of(
    queue: NameQuery = None,
    state: Annotated[State | None, Query()] = None,
    reason: Annotated[Reason | None, Query()] = None,
    type: LabelQuery = None,  # the parameter's name on the wire
    tag: Annotated[str | None, Query(min_length=1, max_length=MAX_TAG)] = None,
    handler: NameQuery = None,
    correlation_id: LabelQuery = None,
    schedule: NameQuery = None,
    batch: Annotated[str | None, Query(max_length=36, json_schema_extra={"format": "uuid"})] = None,
    ended_from: InstantQuery = None,
    ended_to: InstantQuery = None,
) -> TaskFilters:
    errors: list[FieldError] = []
    for name, text in (("type", type), ("tag", tag), ("correlation_id", correlation_id)):
        if text is not None:
            errors += check_text(text, f"/{name}", MAX_LABEL)
    span: list[datetime | None] = []
    for name, text in (("ended_from", ended_from), ("ended_to", ended_to)):
        span.append(None if text is None else parse_instant(text))
        if text is not None and span[-1] is None:
            errors.append(FieldError(f"/{name}", "expected an RFC 3339 instant with an offset (encode + as %2B)"))
    batch_id = None if batch is None else parse_uuid(batch)
    if batch is not None and batch_id is None:
        errors.append(FieldError("/batch", "is not the id of a batch"))
    if errors:
        raise invalid(errors)
    return TaskFilters(queue, state, reason, type, tag, handler, correlation_id, schedule, batch_id, span[0], span[1])


@router.get("", operation_id="list_tasks", responses=problems(shows=Page[TaskView]))
async def list_tasks(
    core: CoreDep,
    caller: Reader,
    filters: Annotated[TaskFilters, Depends(filters_of)],
    include: Annotated[Literal["payload"] | None, Query(description="`payload`: include payloads.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Response:
    """List tasks, newest first.

    A filter that matches little does not make a page slower. Instead, the page may have fewer items than `limit`, or none, although
    there are more: follow `next_cursor` until it is null.
    """
    bound_to = binding("tasks", filters)
    after = position_of(cursor, bound_to, parse_uuid)
    page = await tasks.list_page(core, caller, filters, after, limit, include is not None)
    cursor = None if page.position is None else next_cursor(bound_to, page.position)
    return reply(Page(page.items, cursor))


@router.get("/{task_id}", operation_id="get_task", responses=problems("task_not_found", shows=TaskView))
async def get_task(
    request: Request,
    core: CoreDep,
    caller: Reader,
    task_id: TaskId,
    wait_seconds: Annotated[
        float,
        Query(ge=0, le=60, description="How long to wait for the task to end; afterwards it is returned as it is."),
    ] = 0,
) -> Response:
    """Read a task, at once or, with `wait_seconds`, when it has ended."""
    if wait_seconds:
        view = await tasks.get_ended(core, caller, task_id, wait_seconds, lambda: disconnected(request))
    else:
        view = await tasks.get(core, caller, task_id)
    return reply(view)


async def disconnected(request: Request) -> None:
    """Return when the caller has disconnected; its body has been read, so nothing else can arrive."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


@router.patch(
    "/{task_id}",
    operation_id="update_task",
    responses=problems("task_not_found", "task_not_editable", "task_ended", "egress_denied", shows=TaskView, body=True),
)
async def update_task(
    core: CoreDep,
    caller: User,
    task_id: TaskId,
    request: Request,
    body: Annotated[bytes, Depends(Takes(PatchBody))],
) -> Response:
    """Change a waiting task with a merge patch: absent fields are kept, null resets to the default, the payload is replaced."""
    patch = parse_patch(body, await request.json(), core.max_payload_bytes)
    return reply(await patches.update(core, caller, task_id, patch))


@router.get(
    "/{task_id}/attempts",
    operation_id="list_attempts",
    responses=problems("task_not_found", shows=Page[AttemptView]),
)
async def list_attempts(
    core: CoreDep, caller: Reader, task_id: TaskId, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None
) -> Response:
    """List a task's attempts, newest first: one per claim."""
    bound_to = binding("attempts", task_id)
    after = position_of(cursor, bound_to, _is_number)
    items, more = await tasks.attempts(core, caller, task_id, None if after is None else int(after), limit)
    cursor = next_cursor(bound_to, str(items[-1].number)) if more else None
    return reply(Page(items, cursor))


def _is_number(position: str) -> bool:
    return position.isdigit() and len(position) < 10


@router.get("/{task_id}/why", operation_id="why_task", responses=problems("task_not_found", shows=WhyTask))
async def why_task(core: CoreDep, caller: Reader, task_id: TaskId) -> Response:
    """Say why a task does not start, who has it, or how it ended: everything that stands in its way, and what would remove it."""
    return reply(await why.of_task(core, caller, task_id))


@router.post(
    "/{task_id}/cancel",
    operation_id="cancel_task",
    responses=problems("task_not_found", "task_ended", shows=TaskView, body=True),
)
async def cancel_task(core: CoreDep, caller: User, task_id: TaskId) -> Response:
    """Cancel an unfinished task. A running one loses its lease at once, and its call is aborted."""
    return reply(await tasks.cancel(core, caller, task_id))


@router.post(
    "/{task_id}/retry",
    operation_id="retry_task",
    responses=problems("task_not_found", "task_not_editable", "task_ended", shows=TaskView, body=True),
)
async def retry_task(core: CoreDep, caller: User, task_id: TaskId) -> Response:
    """Make a dead or cancelled task ready again with all attempts available, or a scheduled one ready now."""
    return reply(await tasks.retry(core, caller, task_id))
