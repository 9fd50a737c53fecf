"""Limits: named ones and their keys, and what a tenant may run over all its queues."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from app.api.models.limits import GrantOut, KeyOut, LimitOut, LimitsOut, TenantLimitsOut, key_out, limit_out, own_limits
from app.domain.limits import Grant, KeyOverride, KeyState, LimitDefinition, Limits
from app.domain.names import NAME_PATTERN, is_name
from app.edge.auth import CoreDep, Manager, Operator, Reader
from app.edge.conditions import ConditionsDep
from app.edge.declared import Reads, Shown
from app.edge.pages import DEFAULT_LIMIT, Cursor, Limit, Page, binding, next_cursor, position_of
from app.edge.problems import EMPTY, ETAG, problems
from app.edge.replies import reply
from app.edge.strict import StrictRoute
from app.service import limit_keys, limits, tenant_limits

router = APIRouter(prefix="/limits", tags=["limits"], route_class=StrictRoute)
tenant_router = APIRouter(prefix="/tenants", tags=["limits"], route_class=StrictRoute)

TenantName = Annotated[str, Path(pattern=NAME_PATTERN)]
LimitName = Annotated[str, Path(pattern=NAME_PATTERN)]
KeyName = Annotated[str, Path(description="1-128 bytes of UTF-8, percent-encoded.")]
State = Annotated[
    KeyState | None,
    Query(description="`full`: only keys without room, or paused; `waiting`: only keys that something waits for."),
]
LIST = binding("limits")


@router.get("", operation_id="get_limits", responses=problems(shows=LimitsOut))
async def get_limits(core: CoreDep, caller: Reader, limit: Limit = DEFAULT_LIMIT, cursor: Cursor = None) -> Response:
    """Read the tenant's limits over all queues, and list the named ones, by name."""
    own = await tenant_limits.get(core, caller)
    found, more = await limits.list_page(core, caller, position_of(cursor, LIST, is_name), limit)
    return reply(
        LimitsOut(
            **own_limits(own),
            items=[limit_out(view, use) for view, use in found],
            next_cursor=next_cursor(LIST, found[-1][0].name) if more else None,
        )
    )


@router.put("", operation_id="put_limits", responses=problems(shows=TenantLimitsOut, body=True))
async def put_limits(core: CoreDep, caller: Manager, body: Annotated[Limits, Depends(Reads(Limits))]) -> Response:
    """Change the tenant's limits over all queues. Once answered, nothing is admitted above them."""
    return reply(TenantLimitsOut(**own_limits(await tenant_limits.put(core, caller, body))))


@router.put(
    "/{name}",
    operation_id="put_limit",
    responses=problems(
        "etag_mismatch",
        "limit_in_use",
        body=True,
        also={200: Shown(LimitOut, **ETAG), 201: Shown(LimitOut, description="Created.", **ETAG)},
    ),
)
async def put_limit(
    core: CoreDep,
    caller: Manager,
    name: LimitName,
    body: Annotated[LimitDefinition, Depends(Reads(LimitDefinition))],
    conditions: ConditionsDep,
) -> Response:
    """Create or replace a named limit. Absent fields get their defaults; a pause and the values of single keys are kept.

    Once answered, nothing is admitted above it. `keyed` cannot change while something names the limit.
    """
    saved = await limits.put(core, caller, name, body, conditions)
    return reply(limit_out(saved.view, saved.use), 201 if saved.created else 200, {"etag": saved.etag})


@router.get(
    "/{name}",
    operation_id="get_limit",
    responses=problems("limit_not_found", also={200: Shown(LimitOut, **ETAG)}),
)
async def get_limit(core: CoreDep, caller: Reader, name: LimitName) -> Response:
    """Read a named limit, and what is taken of it now."""
    view, use, etag = await limits.get(core, caller, name)
    return reply(limit_out(view, use), headers={"etag": etag})


@router.delete(
    "/{name}",
    operation_id="delete_limit",
    status_code=204,
    responses=problems("limit_not_found", "limit_in_use", "etag_mismatch", also={204: EMPTY}),
)
async def delete_limit(core: CoreDep, caller: Manager, name: LimitName, conditions: ConditionsDep) -> Response:
    """Delete a limit that no queue, handler, schedule or unfinished task names."""
    await limits.delete(core, caller, name, conditions)
    return Response(status_code=204)


@router.post(
    "/{name}/pause",
    operation_id="pause_limit",
    responses=problems("limit_not_found", shows=LimitOut, body=True),
)
async def pause_limit(core: CoreDep, caller: Manager, name: LimitName) -> Response:
    """Pause a limit. Once answered, no task that takes it starts."""
    return reply(limit_out(*await limits.pause(core, caller, name)))


@router.post(
    "/{name}/resume",
    operation_id="resume_limit",
    responses=problems("limit_not_found", shows=LimitOut, body=True),
)
async def resume_limit(core: CoreDep, caller: Manager, name: LimitName) -> Response:
    """Resume a paused limit."""
    return reply(limit_out(*await limits.resume(core, caller, name)))


@router.get(
    "/{name}/keys",
    operation_id="list_limit_keys",
    responses=problems("limit_not_found", shows=Page[KeyOut]),
)
async def list_limit_keys(
    core: CoreDep,
    caller: Reader,
    name: LimitName,
    state: State = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Response:
    """List the keys of a limit that are held, waited for or overridden, in byte order."""
    bound = binding("limit_keys", name, state)
    after = position_of(cursor, bound, limit_keys.is_position)
    found, more = await limit_keys.list_page(core, caller, name, state, limit_keys.key_at(after), limit)
    following = next_cursor(bound, limit_keys.position_at(found[-1][0].key)) if more else None
    return reply(Page([key_out(view, use) for view, use in found], following))


@router.get(
    "/{name}/keys/{key:path}",
    operation_id="get_limit_key",
    responses=problems("limit_not_found", shows=KeyOut),
)
async def get_limit_key(core: CoreDep, caller: Reader, name: LimitName, key: KeyName) -> Response:
    """Read one key of a limit, and what is taken of it now."""
    return reply(key_out(*await limit_keys.get(core, caller, name, key)))


@router.put(
    "/{name}/keys/{key:path}",
    operation_id="put_limit_key",
    responses=problems("limit_not_found", shows=KeyOut, body=True),
)
async def put_limit_key(
    core: CoreDep,
    caller: Manager,
    name: LimitName,
    key: KeyName,
    body: Annotated[KeyOverride, Depends(Reads(KeyOverride))],
) -> Response:
    """Set what holds for one key in place of the limit's own values. Absent fields get their defaults; a pause is kept."""
    return reply(key_out(*await limit_keys.put(core, caller, name, key, body)))


@router.delete(
    "/{name}/keys/{key:path}",
    operation_id="delete_limit_key",
    status_code=204,
    responses=problems("limit_not_found", also={204: EMPTY}),
)
async def delete_limit_key(core: CoreDep, caller: Manager, name: LimitName, key: KeyName) -> Response:
    """Let the limit's own values hold for a key again, and resume it."""
    await limit_keys.delete(core, caller, name, key)
    return Response(status_code=204)


@router.post(
    "/{name}/keys/{key:path}/pause",
    operation_id="pause_limit_key",
    responses=problems("limit_not_found", shows=KeyOut, body=True),
)
async def pause_limit_key(core: CoreDep, caller: Manager, name: LimitName, key: KeyName) -> Response:
    """Pause one key of a limit. Once answered, no task that takes it starts."""
    return reply(key_out(*await limit_keys.pause(core, caller, name, key)))


@router.post(
    "/{name}/keys/{key:path}/resume",
    operation_id="resume_limit_key",
    responses=problems("limit_not_found", shows=KeyOut, body=True),
)
async def resume_limit_key(core: CoreDep, caller: Manager, name: LimitName, key: KeyName) -> Response:
    """Resume a paused key."""
    return reply(key_out(*await limit_keys.resume(core, caller, name, key)))


@tenant_router.get(
    "/{name}/limits",
    operation_id="get_tenant_limits",
    responses=problems("tenant_not_found", shows=GrantOut),
)
async def get_tenant_limits(core: CoreDep, caller: Operator, name: TenantName) -> Response:
    """Read a tenant's limit as granted by the operator."""
    return reply(GrantOut(name, await tenant_limits.get_grant(core, caller, name)))


@tenant_router.put(
    "/{name}/limits",
    operation_id="put_tenant_limits",
    responses=problems("tenant_not_found", shows=GrantOut, body=True),
)
async def put_tenant_limits(
    core: CoreDep, caller: Operator, name: TenantName, body: Annotated[Grant, Depends(Reads(Grant))]
) -> Response:
    """Limit a tenant's running tasks over all its queues. Its own limit cannot exceed or remove this one."""
    granted = await tenant_limits.put_grant(core, caller, name, body.max_concurrency)
    return reply(GrantOut(name, granted))
