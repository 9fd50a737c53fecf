"""Batches: how far each fan-out is."""

from typing import Any

from starlette.responses import Response

from app.domain.ids import parse_uuid
from app.domain.tasks import TaskFilters
from app.edge.pages import DEFAULT_LIMIT, binding, next_cursor, position_of
from app.service import batches, tasks
from app.ui.visits import Visit

LIST = binding("batches")
SHOWN_TASKS = 20


async def show_all(visit: Visit) -> Response:
    after = position_of(visit.query("cursor"), LIST, parse_uuid)
    views, more = await batches.list_page(visit.core, visit.caller, after, DEFAULT_LIMIT)
    following = next_cursor(LIST, views[-1].id) if more else None
    return visit.page("batches.html", here="batches", batches=views, following=following, first=after is None)


async def show(visit: Visit) -> Response:
    batch = visit.id("batch")

    async def find() -> dict[str, Any]:
        view = await batches.get(visit.core, visit.caller, batch)
        page = await tasks.list_page(visit.core, visit.caller, TaskFilters(batch=batch), None, SHOWN_TASKS, False)
        return {"view": view, "tasks": page.items}

    return await visit.live_page("batch.html", "batches", find)


async def ask_cancel(visit: Visit) -> Response:
    visit.caller.require("use")
    view = await batches.get(visit.core, visit.caller, visit.id("batch"))
    return visit.page("batch_cancel.html", here="batches", view=view)


async def cancel(visit: Visit) -> Response:
    view = await batches.cancel(visit.core, visit.caller, visit.id("batch"))
    return visit.redirect("batches", view.id, notice="batch-cancelled")


async def retry(visit: Visit) -> Response:
    view, _, moved = await batches.retry(visit.core, visit.caller, visit.id("batch"))
    return visit.redirect("batches", view.id, notice="redriven", n=moved)
