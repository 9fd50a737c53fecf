"""Leases: pull workers lease tasks, and holders of leases, workers or handlers, report the results."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Header, Path, Request, Response
from msgspec import UNSET

from app.api.models.leases import FailBody, LeaseBody, LeasedTasks, RenewBody
from app.api.tasks import disconnected
from app.domain.answers import MAX_FOLLOWUP_BYTES
from app.domain.errors import Refusal
from app.domain.followups import FollowupPage, PageBody, split_page
from app.domain.ids import parse_uuid
from app.domain.names import NAME_PATTERN
from app.domain.views import TaskView
from app.edge.auth import CoreDep, User
from app.edge.body import hold_of, read_body
from app.edge.config import EdgeConfig
from app.edge.declared import Reads, Takes
from app.edge.problems import problems
from app.edge.replies import NO_STORE, reply
from app.edge.strict import OpenRoute, StrictRoute
from app.service import leases

QueueName = Annotated[str, Path(pattern=NAME_PATTERN)]


FREE_BYTES = 65_536
"""How much of a body is read before its token is verified."""


class HolderRoute(OpenRoute):
    """A route authorised by a lease token. A malformed token is refused by the head; a well-formed one is looked up before more
    than a few bytes are read."""

    async def enter(self, request: Request) -> None:
        request.state.token = await token_of(request.headers.get("sluice-lease-token"))
        request.state.task_id = await held_task_of(request.path_params["task_id"])

    async def read(self, request: Request, max_bytes: int) -> bytes:
        async def look_up() -> None:
            core, asked = request.app.state.core, request.state
            tenant_id = await leases.tenant_of_lease(core, asked.task_id, asked.token)
            if (hold := hold_of(request.scope)) is not None:
                hold.enter(tenant_id)

        return await read_body(request.scope, request.receive, max_bytes, free_bytes=FREE_BYTES, beyond=look_up)


class FollowUpsRoute(HolderRoute):
    """A route whose body is passed on as bytes, because payloads of follow-up work must stay byte for byte."""

    max_body_bytes = MAX_FOLLOWUP_BYTES
    validates = False


pull_router = APIRouter(tags=["leases"], route_class=StrictRoute)
holder_router = APIRouter(prefix="/tasks", tags=["leases"], route_class=HolderRoute)
complete_router = APIRouter(prefix="/tasks", tags=["leases"], route_class=FollowUpsRoute)
HOLDER = ("lease_lost", "task_cancelled")


async def held_task_of(task_id: Annotated[str, Path(description="A UUID.")]) -> str:
    found = parse_uuid(task_id)
    if found is None:
        raise leases.lease_lost()
    return found


async def token_of(
    sluice_lease_token: Annotated[str | None, Header(description="The token of the lease.")] = None,
) -> str:
    if not sluice_lease_token:
        raise Refusal("unauthenticated", "the request has no lease token; send Sluice-Lease-Token: <token>")
    token = parse_uuid(sluice_lease_token.strip())
    if token is None:
        raise leases.lease_lost()
    return token


HeldTask = Annotated[str, Depends(held_task_of)]
Token = Annotated[str, Depends(token_of)]


@pull_router.post(
    "/queues/{name}/leases",
    operation_id="lease_tasks",
    responses=problems("queue_not_found", "queue_is_push", shows=LeasedTasks, body=True),
)
async def lease_tasks(
    request: Request,
    core: CoreDep,
    caller: User,
    name: QueueName,
    body: Annotated[LeaseBody, Depends(Reads(LeaseBody, LeaseBody()))],
) -> Response:
    """Lease tasks of a pull queue, waiting for the first if necessary. Returns none if none came in time."""
    taken = await leases.acquire(
        core,
        caller,
        name,
        max_tasks=body.max_tasks,
        wait_seconds=body.wait_seconds,
        lease_seconds=body.lease_seconds,
        gone=lambda: disconnected(request),
    )
    return reply(LeasedTasks(taken), headers=NO_STORE)


@holder_router.post(
    "/{task_id}/renew", operation_id="renew_lease", responses=problems(*HOLDER, shows=TaskView, body=True)
)
async def renew_lease(
    core: CoreDep, task_id: HeldTask, token: Token, body: Annotated[RenewBody, Depends(Reads(RenewBody))]
) -> Response:
    """Extend or shorten a lease, and optionally report progress."""
    progress = None if body.progress is UNSET else msgspec.json.encode(body.progress)
    return reply(await leases.renew(core, task_id, token, body.seconds, progress))


@complete_router.post(
    "/{task_id}/complete",
    operation_id="complete_task",
    responses=problems(*HOLDER, "queue_full", "key_full", shows=TaskView, body=True),
)
async def complete_task(
    request: Request,
    core: CoreDep,
    task_id: HeldTask,
    token: Token,
    body: Annotated[bytes, Depends(Takes(PageBody, b""))],
) -> Response:
    """End a task as succeeded and enqueue its follow-up work, if any: all of it, or none, and then the lease stays valid.

    Repeating it with the same token returns the first answer and writes nothing.
    """
    edge: EdgeConfig = request.app.state.edge
    page = split_page(body, edge.max_payload_bytes) if body else FollowupPage()
    return reply(await leases.complete(core, task_id, token, page))


@holder_router.post("/{task_id}/fail", operation_id="fail_task", responses=problems(*HOLDER, shows=TaskView, body=True))
async def fail_task(
    core: CoreDep, task_id: HeldTask, token: Token, body: Annotated[FailBody, Depends(Reads(FailBody))]
) -> Response:
    """End an attempt as failed: the task is retried later, or is dead."""
    view = await leases.fail(
        core,
        task_id,
        token,
        body.error,
        retryable=body.retryable,
        retry_after_seconds=body.retry_after_seconds,
    )
    return reply(view)


@holder_router.post(
    "/{task_id}/release", operation_id="release_task", responses=problems(*HOLDER, shows=TaskView, body=True)
)
async def release_task(core: CoreDep, task_id: HeldTask, token: Token) -> Response:
    """Return a task without working on it: it is ready at once, and the attempt does not count."""
    return reply(await leases.release(core, task_id, token))
