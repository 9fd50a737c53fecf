"""Actions on all tasks that match a filter."""

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Request, Response

from app.domain.actions import ActionBody, ActionPreview, ActionView, request_of
from app.domain.errors import Refusal
from app.domain.ids import parse_uuid
from app.edge.auth import CoreDep, Reader, User
from app.edge.config import EdgeConfig
from app.edge.declared import Reads, Shown
from app.edge.idempotency import key_of
from app.edge.pages import DEFAULT_LIMIT, Cursor, Limit, Page, binding, next_cursor, position_of
from app.edge.problems import header, problems
from app.edge.replies import reply
from app.edge.strict import StrictRoute
from app.service import actions

router = APIRouter(prefix="/actions", tags=["actions"], route_class=StrictRoute)
LIST = binding("actions")


async def action_id_of(action_id: Annotated[str, Path(description="A UUID.")]) -> str:
    found = parse_uuid(action_id)
    if found is None:
        raise Refusal("action_not_found", "there is no such action: the id is not a UUID")
    return found


ActionId = Annotated[str, Depends(action_id_of)]


@router.post(
    "",
    operation_id="start_action",
    status_code=202,
    responses=problems(
        "idempotency_mismatch",
        body=True,
        also={
            200: Shown(ActionPreview, description="Of a dry run."),
            202: Shown(
                ActionView,
                headers={
                    "Location": header("URL of the action."),
                    "Idempotent-Replayed": header(
                        "`true` if an earlier request with the idempotency key has started it."
                    ),
                },
                description="Started.",
            ),
        },
    ),
)
async def start_action(
    request: Request,
    core: CoreDep,
    caller: User,
    body: Annotated[ActionBody, Depends(Reads(ActionBody))],
    idempotency_key: Annotated[
        str | None, Header(description="Quoted or bare; the key starts one action, however often it is sent.")
    ] = None,
) -> Response:
    """Start an action on all tasks that match a filter now, or with `dry_run` count them.

    The tasks are changed in chunks, oldest first, each at most once, even when replicas crash. Tasks enqueued later are left alone.
    With an `Idempotency-Key` the request may be repeated: an API key starts one action under it, and a repeat returns that one.
    """
    key = None if idempotency_key is None else key_of(idempotency_key.encode("latin-1"))
    asked = request_of(body, core.clock.now(), key)
    if body.dry_run:
        return reply(await actions.preview(core, caller, asked))
    view, started = await actions.start(core, caller, asked)
    edge: EdgeConfig = request.app.state.edge
    headers = {"location": f"{edge.public_url.rstrip('/')}/actions/{view.id}"}
    return reply(view, 202, headers if started else headers | {"idempotent-replayed": "true"})


@router.get("", operation_id="list_actions", responses=problems(shows=Page[ActionView]))
async def list_actions(core: CoreDep, caller: Reader, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Response:
    """List actions, newest first. They are kept for 30 days after their end."""
    items, more = await actions.list_page(core, caller, position_of(cursor, LIST, parse_uuid), limit)
    following = next_cursor(LIST, items[-1].id) if more else None
    return reply(Page(items, following))


@router.get("/{action_id}", operation_id="get_action", responses=problems("action_not_found", shows=ActionView))
async def get_action(core: CoreDep, caller: Reader, action_id: ActionId) -> Response:
    """Read an action and its progress."""
    return reply(await actions.get(core, caller, action_id))


@router.post(
    "/{action_id}/cancel",
    operation_id="cancel_action",
    responses=problems("action_not_found", shows=ActionView, body=True),
)
async def cancel_action(core: CoreDep, caller: User, action_id: ActionId) -> Response:
    """End an action early. What it has done stays done; once answered, it does nothing more."""
    return reply(await actions.cancel(core, caller, action_id))
