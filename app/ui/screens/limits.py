"""Named limits, and those of the tenant and of handlers: how full they are, and who holds them."""

from starlette.responses import Response

from app.domain.names import is_name
from app.edge.pages import DEFAULT_LIMIT, binding, next_cursor, position_of
from app.service import limit_keys, limits, overview
from app.ui.visits import Visit

LIST = binding("limits")
OF_HANDLERS = binding("limits of handlers")


async def show_all(visit: Visit) -> Response:
    after = position_of(visit.query("cursor"), LIST, is_name)
    rows, more = await limits.list_page(visit.core, visit.caller, after, DEFAULT_LIMIT)
    seen = await overview.overview(visit.core, visit.caller)
    since = position_of(visit.query("handlers"), OF_HANDLERS, is_name) or ""
    of_handlers = [row for row in seen.limits if row.level == "handler" and row.name > since]
    further = (
        next_cursor(OF_HANDLERS, of_handlers[DEFAULT_LIMIT - 1].name) if len(of_handlers) > DEFAULT_LIMIT else None
    )
    return visit.page(
        "limits.html",
        here="limits",
        limits=rows,
        tenant=next((row for row in seen.limits if row.level == "tenant"), None),
        of_handlers=of_handlers[:DEFAULT_LIMIT],
        further=further,
        begun=not since,
        following=next_cursor(LIST, rows[-1][0].name) if more else None,
        first=after is None,
    )


async def show(visit: Visit) -> Response:
    name = visit.name("limit")
    view, use, _ = await limits.get(visit.core, visit.caller, name)
    keys: list[limit_keys.KeyShown] = []
    following, bound_to = None, binding("keys of limit", name)
    after = position_of(visit.query("cursor"), bound_to, limit_keys.is_position)
    if view.definition.keyed:
        keys, more = await limit_keys.list_page(
            visit.core, visit.caller, name, None, limit_keys.key_at(after), DEFAULT_LIMIT
        )
        following = next_cursor(bound_to, limit_keys.position_at(keys[-1][0].key)) if more else None
    return visit.page(
        "limit.html", here="limits", view=view, use=use, keys=keys, following=following, first=after is None
    )


async def pause(visit: Visit) -> Response:
    name = visit.name("limit")
    await limits.pause(visit.core, visit.caller, name)
    return visit.redirect("limits", name, notice="limit-paused")


async def resume(visit: Visit) -> Response:
    name = visit.name("limit")
    await limits.resume(visit.core, visit.caller, name)
    return visit.redirect("limits", name, notice="limit-resumed")
