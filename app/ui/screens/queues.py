"""Queues: which there are, and what happens in one of them."""

from starlette.responses import Response

from app.domain.names import is_name
from app.domain.tasks import TaskFilters
from app.edge.pages import DEFAULT_LIMIT, binding, next_cursor, position_of
from app.service import overview, queues, sweeps, tasks, why
from app.ui.visits import Visit

LIST = binding("queues")
CHART_MINUTES = 60
SHOWN_TASKS = 10
SHOWN_ERRORS = 10
REDRIVE_LIMIT = 100_000


async def show_all(visit: Visit) -> Response:
    after = position_of(visit.query("cursor"), LIST, is_name)
    views, more = await queues.list_page(visit.core, visit.caller, after, DEFAULT_LIMIT)
    seen = await overview.overview(visit.core, visit.caller)
    counts = {row.queue: row for row in seen.queues}
    following = next_cursor(LIST, views[-1].name) if more else None
    shown = [(view, counts.get(view.name)) for view in views]
    return visit.page("queues.html", here="queues", queues=shown, following=following, first=after is None)


async def show(visit: Visit) -> Response:
    name = visit.name("queue")
    view, _ = await queues.get(visit.core, visit.caller, name)
    stats = await queues.stats(visit.core, visit.caller, name)
    series = await overview.queue_series(visit.core, visit.caller, name, CHART_MINUTES)
    found = await why.of_queue(visit.core, visit.caller, name)
    errors, _ = await queues.errors(visit.core, visit.caller, name)
    lately = await tasks.list_page(visit.core, visit.caller, TaskFilters(queue=name), None, SHOWN_TASKS, False)
    return visit.page(
        "queue.html",
        here="queues",
        live=visit.to("queues", name),
        view=view,
        stats=stats,
        points=series.points,
        why=found,
        errors=errors[:SHOWN_ERRORS],
        tasks=lately.items,
    )


async def pause(visit: Visit) -> Response:
    view = await queues.pause(visit.core, visit.caller, visit.name("queue"))
    return visit.redirect("queues", view.name, notice="queue-paused")


async def resume(visit: Visit) -> Response:
    view = await queues.resume(visit.core, visit.caller, visit.name("queue"))
    return visit.redirect("queues", view.name, notice="queue-resumed")


async def ask_purge(visit: Visit) -> Response:
    visit.caller.require("manage")
    name = visit.name("queue")
    counts = (await queues.stats(visit.core, visit.caller, name))["counts"]
    return visit.page("queue_purge.html", here="queues", name=name, waiting=counts["scheduled"] + counts["ready"])


async def purge(visit: Visit) -> Response:
    name = visit.name("queue")
    purged = await sweeps.purge(visit.core, visit.caller, name)
    return visit.redirect("queues", name, notice="purged", n=purged)


async def ask_redrive(visit: Visit) -> Response:
    visit.caller.require("use")
    name = visit.name("queue")
    matched, _, _ = await sweeps.redrive(visit.core, visit.caller, name, TaskFilters(), REDRIVE_LIMIT, True)
    return visit.page(
        "queue_redrive.html", here="queues", name=name, matched=matched, moves=min(matched, REDRIVE_LIMIT)
    )


async def redrive(visit: Visit) -> Response:
    name = visit.name("queue")
    _, moved, _ = await sweeps.redrive(visit.core, visit.caller, name, TaskFilters(), REDRIVE_LIMIT, False)
    return visit.redirect("queues", name, notice="redriven", n=moved)
