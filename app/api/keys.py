"""API keys: who may do what."""

from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from app.domain.instants import format_instant, parse_instant
from app.domain.keys import KeyBody, KeyIssued, KeyView, RotateKeyBody
from app.domain.names import NAME_PATTERN
from app.edge.auth import CoreDep, Manager
from app.edge.declared import Reads, Shown
from app.edge.pages import DEFAULT_LIMIT, Cursor, Limit, Page, binding, next_cursor, position_of
from app.edge.problems import EMPTY, header, problems
from app.edge.replies import NO_STORE, reply
from app.edge.strict import StrictRoute
from app.service import keys

router = APIRouter(prefix="/keys", tags=["keys"], route_class=StrictRoute)
KeyId = Annotated[str, Path(pattern=r"^[0-9A-Za-z]{1,20}$")]


@router.get("", operation_id="list_keys", responses=problems("tenant_not_found", shows=Page[KeyView]))
async def list_keys(
    core: CoreDep,
    caller: Manager,
    tenant: Annotated[str | None, Query(pattern=NAME_PATTERN, description="Needs scope operate for another's.")] = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Response:
    """List keys, newest first: of the tenant, or of all tenants with scope operate. Revoked and expired ones are included."""
    bound_to = binding("keys", tenant)
    position = position_of(cursor, bound_to, _position)
    items, last = await keys.list_page(core, caller, tenant, _position(position) if position else None, limit)
    following = None if last is None else next_cursor(bound_to, f"{format_instant(last[0])} {last[1]}")
    return reply(Page(items, following))


def _position(text: str) -> tuple[datetime, str] | None:
    at, _, key_id = text.partition(" ")
    found = parse_instant(at)
    return None if found is None or not key_id.isalnum() else (found.astimezone(UTC), key_id)


@router.post(
    "",
    operation_id="create_key",
    status_code=201,
    responses=problems(
        body=True,
        also={201: Shown(KeyIssued, description="Created.", headers={"Location": header("Path of the key.")})},
    ),
)
async def create_key(core: CoreDep, caller: Manager, body: Annotated[KeyBody, Depends(Reads(KeyBody))]) -> Response:
    """Create a key that reaches no further than the one it is created with. Its token is not shown again."""
    made = await keys.issue(core, caller, body)
    return reply(made, 201, {"location": f"{core.public_url}/keys/{made.id}", **NO_STORE})


@router.get("/{key_id}", operation_id="get_key", responses=problems("key_not_found", shows=KeyView))
async def get_key(core: CoreDep, caller: Manager, key_id: KeyId) -> Response:
    """Read a key, without its token."""
    return reply(await keys.get(core, caller, key_id))


@router.delete(
    "/{key_id}",
    operation_id="revoke_key",
    status_code=204,
    responses=problems("key_not_found", also={204: EMPTY}),
)
async def revoke_key(core: CoreDep, caller: Manager, key_id: KeyId) -> Response:
    """Revoke a key. Once answered, no replica accepts it. It stays on record."""
    await keys.withdraw(core, caller, key_id)
    return Response(status_code=204)


@router.post(
    "/{key_id}/rotate",
    operation_id="rotate_key",
    responses=problems("key_not_found", shows=KeyIssued, body=True),
)
async def rotate_key(
    core: CoreDep,
    caller: Manager,
    key_id: KeyId,
    body: Annotated[RotateKeyBody, Depends(Reads(RotateKeyBody, RotateKeyBody()))],
) -> Response:
    """Give a key a new token, which is not shown again. The present one is accepted for the overlap."""
    return reply(await keys.renew(core, caller, key_id, body.overlap_seconds), headers=NO_STORE)
