"""Named limits, and the tenant's own: how full they are, and who holds them."""

from starlette.responses import Response

from app.domain.names import is_name
from app.edge.pages import DEFAULT_LIMIT, binding, next_cursor, position_of
from app.service import limits, overview
from app.ui.visits import Visit

LIST = binding("limits")


async def show_all(visit: Visit) -> Response:
    after = position_of(visit.query("cursor"), LIST, is_name)
    rows, more = await limits.list_page(visit.core, visit.caller, after, DEFAULT_LIMIT)
    seen = await overview.overview(visit.core, visit.caller)
    following = next_cursor(LIST, rows[-1][0].name) if more else None
    return visit.page(
        "limits.html",
        here="limits",
        limits=rows,
        levels=[row for row in seen.limits if row.level != "named"],
        following=following,
        first=after is None,
    )


async def pause(visit: Visit) -> Response:
    await limits.pause(visit.core, visit.caller, visit.name("limit"))
    return visit.redirect("limits", notice="limit-paused")


async def resume(visit: Visit) -> Response:
    await limits.resume(visit.core, visit.caller, visit.name("limit"))
    return visit.redirect("limits", notice="limit-resumed")
