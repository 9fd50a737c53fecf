"""Handlers: where tasks are delivered."""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Path, Request, Response

from app.api.models.handlers import (
    DEFAULT_OVERLAP_SECONDS,
    HandlerIn,
    HandlerOut,
    HandlerSaved,
    RotateSecretIn,
    SecretOut,
    TestIn,
    TestOut,
)
from app.domain.names import NAME_PATTERN, is_name
from app.domain.tasks import payload_of
from app.edge.auth import CoreDep, Manager, User
from app.edge.conditions import ConditionsDep
from app.edge.pages import Cursor, Limit, binding, next_cursor, position_of
from app.edge.problems import EMPTY, ETAG, problems
from app.edge.replies import NO_STORE, Page, json_reply
from app.edge.strict import StrictRoute
from app.service import handlers

router = APIRouter(prefix="/handlers", tags=["handlers"], route_class=StrictRoute)
HandlerName = Annotated[str, Path(pattern=NAME_PATTERN)]
LIST = binding("handlers")


@router.get("", operation_id="list_handlers", response_model=Page[HandlerOut], responses=problems())
async def list_handlers(core: CoreDep, caller: User, limit: Limit = 50, cursor: Cursor = None) -> Response:
    """List handlers, by name."""
    views, more = await handlers.list_page(core, caller, position_of(cursor, LIST, is_name), limit)
    return Page[HandlerOut](
        items=[HandlerOut.of(view) for view in views],
        next_cursor=next_cursor(LIST, views[-1].name) if more else None,
    ).reply()


@router.put(
    "/{name}",
    operation_id="put_handler",
    response_model=HandlerSaved,
    responses=problems(
        "etag_mismatch",
        "egress_denied",
        body=True,
        also={200: ETAG, 201: {"model": HandlerSaved, "description": "Created.", **ETAG}},
    ),
)
async def put_handler(
    core: CoreDep, caller: Manager, name: HandlerName, body: HandlerIn, conditions: ConditionsDep
) -> Response:
    """Create or replace a handler. Absent fields return to their defaults; the secret and enabledness survive."""
    saved = await handlers.put(core, caller, name, body.definition(), body.secret, conditions)
    out = HandlerSaved.of(saved.view, secret=saved.secret)
    return out.reply(201 if saved.created else 200, {"etag": saved.etag, **NO_STORE})


@router.get(
    "/{name}",
    operation_id="get_handler",
    response_model=HandlerOut,
    responses=problems("handler_not_found", also={200: ETAG}),
)
async def get_handler(core: CoreDep, caller: User, name: HandlerName) -> Response:
    """Read a handler."""
    view, etag = await handlers.get(core, caller, name)
    return HandlerOut.of(view).reply(headers={"etag": etag})


@router.delete(
    "/{name}",
    operation_id="delete_handler",
    status_code=204,
    responses=problems("handler_not_found", "handler_in_use", "etag_mismatch", also={204: EMPTY}),
)
async def delete_handler(core: CoreDep, caller: Manager, name: HandlerName, conditions: ConditionsDep) -> Response:
    """Delete a handler that no queue and no unfinished task names."""
    await handlers.delete(core, caller, name, conditions)
    return Response(status_code=204)


@router.post(
    "/{name}/enable",
    operation_id="enable_handler",
    response_model=HandlerOut,
    responses=problems("handler_not_found", body=True),
)
async def enable_handler(core: CoreDep, caller: Manager, name: HandlerName) -> Response:
    """Deliver its tasks again."""
    return HandlerOut.of(await handlers.enable(core, caller, name)).reply()


@router.post(
    "/{name}/disable",
    operation_id="disable_handler",
    response_model=HandlerOut,
    responses=problems("handler_not_found", body=True),
)
async def disable_handler(core: CoreDep, caller: Manager, name: HandlerName) -> Response:
    """Accept its tasks and claim none."""
    return HandlerOut.of(await handlers.disable(core, caller, name)).reply()


@router.post(
    "/{name}/rotate-secret",
    operation_id="rotate_handler_secret",
    response_model=SecretOut,
    responses=problems("handler_not_found", body=True),
)
async def rotate_secret(
    core: CoreDep, caller: Manager, name: HandlerName, body: RotateSecretIn | None = None
) -> Response:
    """Sign with a new secret, and with the old one too for a while."""
    overlap = body.overlap_seconds if body else float(DEFAULT_OVERLAP_SECONDS)
    secret = await handlers.rotate_secret(core, caller, name, overlap)
    return SecretOut(secret=secret, overlap_seconds=overlap).reply(headers=NO_STORE)


@router.post(
    "/{name}/test",
    operation_id="test_handler",
    response_model=TestOut,
    responses=problems("handler_not_found", body=True),
)
async def test_handler(
    core: CoreDep,
    caller: Manager,
    name: HandlerName,
    request: Request,
    body: TestIn | None = None,  # noqa: PT028
) -> Response:
    """Send one signed request now, and show what was sent and what came back. It counts nowhere."""
    payload = payload_of(await request.body(), max_bytes=core.max_payload_bytes) if body else None
    tried = await handlers.test(core, caller, name, payload)
    return json_reply(msgspec.json.encode(tried), headers=NO_STORE)
