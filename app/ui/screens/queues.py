"""Queues: which there are, and what happens in one of them."""

from starlette.responses import Response

from app.domain.names import is_name
from app.edge.pages import DEFAULT_LIMIT, binding, next_cursor, position_of
from app.service import overview, queues
from app.ui.visits import Visit

LIST = binding("queues")


async def show_all(visit: Visit) -> Response:
    after = position_of(visit.query("cursor"), LIST, is_name)
    views, more = await queues.list_page(visit.core, visit.caller, after, DEFAULT_LIMIT)
    seen = await overview.overview(visit.core, visit.caller)
    counts = {row.queue: row for row in seen.queues}
    following = next_cursor(LIST, views[-1].name) if more else None
    shown = [(view, counts.get(view.name)) for view in views]
    return visit.page("queues.html", here="queues", queues=shown, following=following, first=after is None)
