"""Handlers: where tasks are delivered."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response

from app.api.models.handlers import (
    BreakerBody,
    HandlerHealthOut,
    HandlerOut,
    HandlerSaved,
    RotateSecretBody,
    SecretOut,
    TestBody,
    TestOut,
    handler_out,
    handler_saved,
    health_out,
)
from app.domain.handlers import HandlerBody
from app.domain.names import NAME_PATTERN, is_name
from app.domain.payloads import payload_of
from app.edge.auth import CoreDep, Manager, Reader
from app.edge.conditions import ConditionsDep
from app.edge.declared import Reads, Shown
from app.edge.pages import DEFAULT_LIMIT, Cursor, Limit, Page, binding, next_cursor, position_of
from app.edge.problems import EMPTY, ETAG, problems
from app.edge.replies import NO_STORE, reply
from app.edge.strict import StrictRoute
from app.service import breakers, handlers

router = APIRouter(prefix="/handlers", tags=["handlers"], route_class=StrictRoute)
HandlerName = Annotated[str, Path(pattern=NAME_PATTERN)]
LIST = binding("handlers")


@router.get("", operation_id="list_handlers", responses=problems(shows=Page[HandlerOut]))
async def list_handlers(core: CoreDep, caller: Reader, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Response:
    """List handlers, by name."""
    views, more = await handlers.list_page(core, caller, position_of(cursor, LIST, is_name), limit)
    following = next_cursor(LIST, views[-1].name) if more else None
    return reply(Page([handler_out(view) for view in views], following))


@router.put(
    "/{name}",
    operation_id="put_handler",
    responses=problems(
        "etag_mismatch",
        "egress_denied",
        "bridge_unavailable",
        body=True,
        also={200: Shown(HandlerSaved, **ETAG), 201: Shown(HandlerSaved, description="Created.", **ETAG)},
    ),
)
async def put_handler(
    core: CoreDep,
    caller: Manager,
    name: HandlerName,
    body: Annotated[HandlerBody, Depends(Reads(HandlerBody))],
    conditions: ConditionsDep,
) -> Response:
    """Create or replace a handler. Absent fields get their defaults; the secret and the enabled state are kept."""
    saved = await handlers.put(core, caller, name, body.definition, body.secret, conditions)
    out = handler_saved(saved.view, saved.secret)
    return reply(out, 201 if saved.created else 200, {"etag": saved.etag, **NO_STORE})


@router.get(
    "/{name}",
    operation_id="get_handler",
    responses=problems("handler_not_found", also={200: Shown(HandlerOut, **ETAG)}),
)
async def get_handler(core: CoreDep, caller: Reader, name: HandlerName) -> Response:
    """Read a handler."""
    view, etag = await handlers.get(core, caller, name)
    return reply(handler_out(view), headers={"etag": etag})


@router.delete(
    "/{name}",
    operation_id="delete_handler",
    status_code=204,
    responses=problems("handler_not_found", "handler_in_use", "etag_mismatch", also={204: EMPTY}),
)
async def delete_handler(core: CoreDep, caller: Manager, name: HandlerName, conditions: ConditionsDep) -> Response:
    """Delete a handler that is not used by any queue, schedule or unfinished task."""
    await handlers.delete(core, caller, name, conditions)
    return Response(status_code=204)


@router.post(
    "/{name}/enable",
    operation_id="enable_handler",
    responses=problems("handler_not_found", shows=HandlerOut, body=True),
)
async def enable_handler(core: CoreDep, caller: Manager, name: HandlerName) -> Response:
    """Enable a handler: its tasks are delivered again."""
    return reply(handler_out(await handlers.enable(core, caller, name)))


@router.post(
    "/{name}/disable",
    operation_id="disable_handler",
    responses=problems("handler_not_found", shows=HandlerOut, body=True),
)
async def disable_handler(core: CoreDep, caller: Manager, name: HandlerName) -> Response:
    """Disable a handler: its tasks are accepted but not delivered."""
    return reply(handler_out(await handlers.disable(core, caller, name)))


@router.get(
    "/{name}/health",
    operation_id="get_handler_health",
    responses=problems("handler_not_found", shows=HandlerHealthOut),
)
async def get_handler_health(core: CoreDep, caller: Reader, name: HandlerName) -> Response:
    """Show how a handler fares: its breaker, the limit now, and the calls of the window, over all replicas."""
    return reply(health_out(await breakers.get(core, caller, name)))


@router.post(
    "/{name}/breaker",
    operation_id="set_handler_breaker",
    responses=problems("handler_not_found", shows=HandlerHealthOut, body=True),
)
async def set_handler_breaker(
    core: CoreDep, caller: Manager, name: HandlerName, body: Annotated[BreakerBody, Depends(Reads(BreakerBody))]
) -> Response:
    """Open a handler's breaker until it is closed by hand, or close it: its tasks are delivered again, few at first."""
    return reply(health_out(await breakers.set_breaker(core, caller, name, to_open=body.to_open)))


@router.post(
    "/{name}/rotate-secret",
    operation_id="rotate_handler_secret",
    responses=problems("handler_not_found", shows=SecretOut, body=True),
)
async def rotate_secret(
    core: CoreDep,
    caller: Manager,
    name: HandlerName,
    body: Annotated[RotateSecretBody, Depends(Reads(RotateSecretBody, RotateSecretBody()))],
) -> Response:
    """Sign deliveries with a new secret, and for a while with the old one too."""
    secret = await handlers.rotate_secret(core, caller, name, body.overlap_seconds)
    return reply(SecretOut(secret, body.overlap_seconds), headers=NO_STORE)


@router.post(
    "/{name}/test",
    operation_id="test_handler",
    responses=problems("handler_not_found", shows=TestOut, body=True),
)
async def test_handler(
    core: CoreDep,
    caller: Manager,
    name: HandlerName,
    request: Request,
    body: Annotated[TestBody | None, Depends(Reads(TestBody, None))],
) -> Response:
    """Send one signed test request now; return what was sent and received. It does not count in any statistics."""
    payload = payload_of(await request.body(), max_bytes=core.max_payload_bytes) if body else None
    tried = await handlers.test(core, caller, name, payload)
    return reply(tried, headers=NO_STORE)
