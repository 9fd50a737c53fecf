"""Queues: where tasks wait, and the rules under which they leave."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response

from app.api.models.limits import QueueKeyOut, queue_key_out
from app.api.models.queues import PurgedOut, QueueErrors, QueueOut, QueueStatsOut, RedriveBody, RedrivenOut, queue_out
from app.domain.limits import QueueKeyOverride
from app.domain.names import NAME_PATTERN, is_name
from app.domain.queues import QueueBody
from app.domain.why import WhyQueue
from app.edge.auth import CoreDep, Manager, Reader, User
from app.edge.conditions import ConditionsDep
from app.edge.declared import Reads, Shown
from app.edge.pages import DEFAULT_LIMIT, Cursor, Limit, Page, binding, next_cursor, position_of
from app.edge.problems import EMPTY, ETAG, problems
from app.edge.replies import reply
from app.edge.strict import StrictRoute
from app.runtime.pieces import in_pieces
from app.service import limit_keys, queues, sweeps, why

router = APIRouter(prefix="/queues", tags=["queues"], route_class=StrictRoute)
QueueName = Annotated[str, Path(pattern=NAME_PATTERN)]
KeyName = Annotated[str, Path(description="1-128 bytes of UTF-8, percent-encoded.")]
LIST = binding("queues")


@router.get("", operation_id="list_queues", responses=problems(shows=Page[QueueOut]))
async def list_queues(core: CoreDep, caller: Reader, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Response:
    """List queues, by name."""
    views, more = await queues.list_page(core, caller, position_of(cursor, LIST, is_name), limit)
    following = next_cursor(LIST, views[-1].name) if more else None
    return reply(Page([queue_out(view) async for view in in_pieces(views)], following))


@router.put(
    "/{name}",
    operation_id="put_queue",
    responses=problems(
        "etag_mismatch",
        body=True,
        also={200: Shown(QueueOut, **ETAG), 201: Shown(QueueOut, description="Created.", **ETAG)},
    ),
)
async def put_queue(
    core: CoreDep,
    caller: Manager,
    name: QueueName,
    body: Annotated[QueueBody, Depends(Reads(QueueBody))],
    conditions: ConditionsDep,
) -> Response:
    """Create or replace a queue. Absent fields get their defaults; a pause is kept."""
    saved = await queues.put(core, caller, name, body.definition(), conditions)
    return reply(queue_out(saved.view), 201 if saved.created else 200, {"etag": saved.etag})


@router.get(
    "/{name}",
    operation_id="get_queue",
    responses=problems("queue_not_found", also={200: Shown(QueueOut, **ETAG)}),
)
async def get_queue(core: CoreDep, caller: Reader, name: QueueName) -> Response:
    """Read a queue."""
    view, etag = await queues.get(core, caller, name)
    return reply(queue_out(view), headers={"etag": etag})


@router.delete(
    "/{name}",
    operation_id="delete_queue",
    status_code=204,
    responses=problems("queue_not_found", "queue_in_use", "etag_mismatch", also={204: EMPTY}),
)
async def delete_queue(core: CoreDep, caller: Manager, name: QueueName, conditions: ConditionsDep) -> Response:
    """Delete a queue without unfinished tasks, schedules or pending batch completions."""
    await queues.delete(core, caller, name, conditions)
    return Response(status_code=204)


@router.post(
    "/{name}/pause",
    operation_id="pause_queue",
    responses=problems("queue_not_found", shows=QueueOut, body=True),
)
async def pause_queue(core: CoreDep, caller: Manager, name: QueueName) -> Response:
    """Pause a queue: tasks are accepted but not started. Once answered, nothing is claimed."""
    return reply(queue_out(await queues.pause(core, caller, name)))


@router.post(
    "/{name}/resume",
    operation_id="resume_queue",
    responses=problems("queue_not_found", shows=QueueOut, body=True),
)
async def resume_queue(core: CoreDep, caller: Manager, name: QueueName) -> Response:
    """Resume a paused queue."""
    return reply(queue_out(await queues.resume(core, caller, name)))


@router.post(
    "/{name}/purge",
    operation_id="purge_queue",
    status_code=202,
    responses=problems("queue_not_found", body=True, also={202: Shown(PurgedOut)}),
)
async def purge_queue(core: CoreDep, caller: Manager, name: QueueName) -> Response:
    """Cancel the queue's scheduled and ready tasks, in chunks. Running tasks and those enqueued in the meantime are kept."""
    return reply(PurgedOut(await sweeps.purge(core, caller, name)), 202)


@router.post(
    "/{name}/redrive",
    operation_id="redrive_queue",
    responses=problems("queue_not_found", shows=RedrivenOut, body=True),
)
async def redrive_queue(
    core: CoreDep,
    caller: User,
    name: QueueName,
    body: Annotated[RedriveBody, Depends(Reads(RedriveBody, RedriveBody()))],
) -> Response:
    """Make up to `limit` matching dead tasks ready again, oldest first, with all attempts available."""
    return reply(RedrivenOut(*await sweeps.redrive(core, caller, name, body.filters(), body.limit, body.dry_run)))


@router.get(
    "/{name}/stats",
    operation_id="get_queue_stats",
    responses=problems("queue_not_found", shows=QueueStatsOut),
)
async def get_queue_stats(core: CoreDep, caller: Reader, name: QueueName) -> Response:
    """Read a queue's counts by state, rates, waiting times and run times."""
    return reply(await queues.stats(core, caller, name))


@router.get(
    "/{name}/errors", operation_id="list_queue_errors", responses=problems("queue_not_found", shows=QueueErrors)
)
async def list_queue_errors(core: CoreDep, caller: Reader, name: QueueName) -> Response:
    """List the errors of the last day by signature: what is left of their texts without ids, numbers and quoted parts.

    A task counts once, by its last error. `filter.error` of an action takes a signature.
    """
    return reply(QueueErrors(*await queues.errors(core, caller, name)))


@router.get("/{name}/why", operation_id="why_queue", responses=problems("queue_not_found", shows=WhyQueue))
async def why_queue(core: CoreDep, caller: Reader, name: QueueName) -> Response:
    """Say why a queue does not move: what stands in the way of the task that comes first, and what would remove it."""
    return reply(await why.of_queue(core, caller, name))


@router.get(
    "/{name}/keys/{key:path}",
    operation_id="get_queue_key",
    responses=problems("queue_not_found", shows=QueueKeyOut),
)
async def get_queue_key(core: CoreDep, caller: Reader, name: QueueName, key: KeyName) -> Response:
    """Read one key of a queue: what holds for it, what it holds, and how many of its tasks wait."""
    return reply(queue_key_out(*await limit_keys.get_of_queue(core, caller, name, key)))


@router.put(
    "/{name}/keys/{key:path}",
    operation_id="put_queue_key",
    responses=problems("queue_not_found", shows=QueueKeyOut, body=True),
)
async def put_queue_key(
    core: CoreDep,
    caller: Manager,
    name: QueueName,
    key: KeyName,
    body: Annotated[QueueKeyOverride, Depends(Reads(QueueKeyOverride))],
) -> Response:
    """Set what holds for one key in place of the queue's `key`. Absent fields get their defaults; a pause is kept."""
    return reply(queue_key_out(*await limit_keys.put_of_queue(core, caller, name, key, body)))


@router.post(
    "/{name}/keys/{key:path}/pause",
    operation_id="pause_queue_key",
    responses=problems("queue_not_found", shows=QueueKeyOut, body=True),
)
async def pause_queue_key(core: CoreDep, caller: Manager, name: QueueName, key: KeyName) -> Response:
    """Pause one key: its tasks are accepted but not started. Once answered, none of them starts."""
    return reply(queue_key_out(*await limit_keys.pause_of_queue(core, caller, name, key)))


@router.post(
    "/{name}/keys/{key:path}/resume",
    operation_id="resume_queue_key",
    responses=problems("queue_not_found", shows=QueueKeyOut, body=True),
)
async def resume_queue_key(core: CoreDep, caller: Manager, name: QueueName, key: KeyName) -> Response:
    """Resume a paused key."""
    return reply(queue_key_out(*await limit_keys.resume_of_queue(core, caller, name, key)))
