"""Handlers: where tasks are delivered, and how well that goes."""

from starlette.responses import Response

from app.delivery.webhook.signing import new_secret
from app.domain.histograms import percentile
from app.domain.names import is_name
from app.edge.pages import DEFAULT_LIMIT, binding, next_cursor, position_of
from app.service import breakers, handlers, overview
from app.ui.visits import Visit

LIST = binding("handlers")
OVERLAP_SECONDS = 86_400.0
CHART_MINUTES = 60
SHOWN_QUEUES = 5
"""Of each handler in the list; its own page shows the first DEFAULT_LIMIT."""


async def show_all(visit: Visit) -> Response:
    after = position_of(visit.query("cursor"), LIST, is_name)
    views, more = await handlers.list_page(visit.core, visit.caller, after, DEFAULT_LIMIT)
    seen = await overview.overview(visit.core, visit.caller)
    queues: dict[str | None, list[str]] = {}
    for row in seen.queues:
        queues.setdefault(row.handler, []).append(row.queue)
    following = next_cursor(LIST, views[-1].name) if more else None
    return visit.page(
        "handlers.html",
        here="handlers",
        handlers=views,
        guarded={row.handler: row for row in seen.handlers},
        queues=queues,
        shown=SHOWN_QUEUES,
        following=following,
        first=after is None,
    )


async def show(visit: Visit) -> Response:
    name = visit.name("handler")
    view, _ = await handlers.get(visit.core, visit.caller, name)
    health = await breakers.get(visit.core, visit.caller, name)
    durations = health.found.durations if health.found is not None else ()
    seen = await overview.overview(visit.core, visit.caller)
    queues = [row for row in seen.queues if row.handler == name]
    series = await overview.handler_series(visit.core, visit.caller, name, CHART_MINUTES)
    return visit.page(
        "handler.html",
        here="handlers",
        view=view,
        health=health,
        points=() if series is None else series.points,
        p50=percentile(durations, 0.5) if durations else None,
        p95=percentile(durations, 0.95) if durations else None,
        queues=queues[:DEFAULT_LIMIT],
        total=len(queues),
    )


async def test(visit: Visit) -> Response:
    name = visit.name("handler")
    found = await handlers.test(visit.core, visit.caller, name, None)
    return visit.page("handler_test.html", here="handlers", name=name, found=found)


async def enable(visit: Visit) -> Response:
    view = await handlers.enable(visit.core, visit.caller, visit.name("handler"))
    return visit.redirect("handlers", view.name, notice="handler-enabled")


async def ask_disable(visit: Visit) -> Response:
    visit.caller.require("manage")
    name = visit.name("handler")
    await handlers.get(visit.core, visit.caller, name)
    seen = await overview.overview(visit.core, visit.caller)
    queues = [row for row in seen.queues if row.handler == name]
    ready = sum(row.tasks.ready for row in queues)
    shown = queues[:SHOWN_QUEUES]
    return visit.page("handler_disable.html", here="handlers", name=name, queues=shown, total=len(queues), ready=ready)


async def disable(visit: Visit) -> Response:
    view = await handlers.disable(visit.core, visit.caller, visit.name("handler"))
    return visit.redirect("handlers", view.name, notice="handler-disabled")


async def ask_rotate(visit: Visit) -> Response:
    visit.caller.require("manage")
    view, _ = await handlers.get(visit.core, visit.caller, visit.name("handler"))
    return visit.page("handler_rotate.html", here="handlers", name=view.name, made=new_secret())


async def rotate(visit: Visit) -> Response:
    """Show the new secret. The form has it, so a form that is sent twice rotates once, and each answer shows what is in force."""
    name = visit.name("handler")
    made = visit.form.get("made", "")
    secret = await handlers.rotate_secret(visit.core, visit.caller, name, OVERLAP_SECONDS, made)
    return visit.page("handler_secret.html", here="handlers", name=name, secret=secret)
