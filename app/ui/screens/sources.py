"""Sources: the queues elsewhere from which tasks come in, and how each fares."""

from typing import Any

from starlette.responses import Response

from app.domain.names import is_name
from app.edge.pages import DEFAULT_LIMIT, binding, next_cursor, position_of
from app.service import sources
from app.ui.visits import ON_OVERVIEW, Visit

LIST = binding("sources")
ALSO_BY_TIME = f"{ON_OVERVIEW}, every 5s"
"""That a source fails, or that more waits there, is no part of an overview."""


async def show_all(visit: Visit) -> Response:
    after = position_of(visit.query("cursor"), LIST, is_name)

    async def find() -> dict[str, Any]:
        views, more = await sources.list_page(visit.core, visit.caller, after, DEFAULT_LIMIT)
        return {
            "sources": views,
            "following": next_cursor(LIST, views[-1].name) if more else None,
            "first": after is None,
        }

    return await visit.live_page("sources.html", "sources", find, on=ALSO_BY_TIME)


async def show(visit: Visit) -> Response:
    name = visit.name("source")

    async def find() -> dict[str, Any]:
        view, _ = await sources.get(visit.core, visit.caller, name)
        return {"view": view}

    return await visit.live_page("source.html", "sources", find, on=ALSO_BY_TIME)


async def test(visit: Visit) -> Response:
    name = visit.name("source")
    found = await sources.test(visit.core, visit.caller, name)
    return visit.page("source_test.html", here="sources", name=name, found=found)


async def pause(visit: Visit) -> Response:
    view = await sources.pause(visit.core, visit.caller, visit.name("source"))
    return visit.redirect("sources", view.name, notice="source-paused")


async def resume(visit: Visit) -> Response:
    view = await sources.resume(visit.core, visit.caller, visit.name("source"))
    return visit.redirect("sources", view.name, notice="source-resumed")
