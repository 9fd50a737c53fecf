"""Queues: which there are, and what happens in one of them."""

import asyncio
from typing import Any, Literal, NamedTuple

from msgspec import structs
from starlette.responses import Response

from app.domain.actions import ActionRequest
from app.domain.names import is_name
from app.domain.queues import QueueView
from app.domain.tasks import State, TaskFilters
from app.edge.pages import DEFAULT_LIMIT, binding, next_cursor, position_of
from app.service import actions, limits, overview, queues, sources, tasks, why
from app.ui.visits import Visit

LIST = binding("queues")
CHART_MINUTES = 60
SHOWN_TASKS = 10
SHOWN_ERRORS = 10
SHOWN_HOLDERS = 3
SHOWN_SOURCES = 10
COUNT_SECONDS = 0.1
"""How long what an action would touch is counted before it is asked about: then there are at least so many."""


async def show_all(visit: Visit) -> Response:
    after = position_of(visit.query("cursor"), LIST, is_name)

    async def find() -> dict[str, Any]:
        views, more = await queues.list_page(visit.core, visit.caller, after, DEFAULT_LIMIT)
        seen = await visit.look()
        counts = {} if seen is None else {row.queue: row for row in seen.queues}
        return {
            "sparks": await overview.sparklines(visit.core, visit.caller, [view.name for view in views]),
            "queues": [(view, counts.get(view.name)) for view in views],
            "following": next_cursor(LIST, views[-1].name) if more else None,
            "first": after is None,
        }

    return await visit.live_page("queues.html", "queues", find)


async def show(visit: Visit) -> Response:
    name = visit.name("queue")

    async def find() -> dict[str, Any]:
        core, caller = visit.core, visit.caller
        view, _ = await queues.get(core, caller, name)
        filters = TaskFilters(queue=name)
        stats, found, errors, lately = await asyncio.gather(
            visit.soon("stats", lambda: queues.stats(core, caller, name)),
            visit.soon("why", lambda: why.of_queue(core, caller, name)),
            visit.soon("errors", lambda: queues.errors(core, caller, name)),
            visit.soon("tasks", lambda: tasks.list_page(core, caller, filters, None, SHOWN_TASKS, False)),
        )
        return {
            "view": view,
            "stats": stats,
            "points": (await overview.queue_series(core, caller, name, CHART_MINUTES)).points[:-1],
            "why": found,
            "errors": () if errors is None else errors[0][:SHOWN_ERRORS],
            "limits": await _limits(visit, view),
            "fed": await sources.feeding(core, caller, name, SHOWN_SOURCES),
            "tasks": None if lately is None else lately.items,
            "pending": stats is None or found is None or errors is None or lately is None,
        }

    return await visit.live_page("queue.html", "queues", find)


class Held(NamedTuple):
    """A limit that a queue's tasks take."""

    level: str
    name: str
    used: int
    most: int | None
    to: tuple[str, ...] | None
    """Its page."""
    holders: list[str]
    """Ids of running tasks that take it."""
    more: tuple[tuple[str, ...], dict[str, str]]
    """The page that lists all of them."""
    paused: bool = False


async def _limits(visit: Visit, view: QueueView) -> list[Held]:
    """Return the limits that may hold a queue's tasks back, and who has them."""
    core, caller, definition = visit.core, visit.caller, view.definition
    seen = await visit.look()
    if seen is None:
        return []
    rows = []
    own = next((row for row in seen.queues if row.queue == view.name), None)
    running = TaskFilters(queue=view.name, state=State.RUNNING)
    if definition.max_concurrency is not None:
        found = await tasks.list_page(core, caller, running, None, SHOWN_HOLDERS, False)
        listed = (("tasks",), {"queue": view.name, "state": State.RUNNING.value})
        used = own.tasks.running if own else len(found.items)
        ids = [task.id for task in found.items]
        rows.append(Held("queue", view.name, used, definition.max_concurrency, None, ids, listed))
    for row in seen.limits:
        if row.level == "tenant" or (row.level == "handler" and row.name == definition.handler):
            to = ("handlers", row.name) if row.level == "handler" else None
            listed = (("tasks",), {"state": State.RUNNING.value} | ({"handler": row.name} if to else {}))
            rows.append(Held(row.level, row.name, row.used, row.max, to, [], listed))
    for use in definition.limits if caller.queues is None else ():
        limit, taken, _ = await limits.get(core, caller, use.name)
        most = None if limit.definition.keyed else taken.effective_max_concurrency
        to, ids = ("limits", use.name), [holder.task_id for holder in taken.holders]
        rows.append(Held("named", use.name, taken.holding, most, to, ids, (to, {}), limit.paused_at is not None))
    return rows


async def pause(visit: Visit) -> Response:
    view = await queues.pause(visit.core, visit.caller, visit.name("queue"))
    return visit.redirect("queues", view.name, notice="queue-paused")


async def resume(visit: Visit) -> Response:
    view = await queues.resume(visit.core, visit.caller, visit.name("queue"))
    return visit.redirect("queues", view.name, notice="queue-resumed")


async def ask_purge(visit: Visit) -> Response:
    visit.caller.require("manage")
    name = visit.name("queue")
    await queues.get(visit.core, visit.caller, name)
    found = await actions.preview(visit.core, visit.caller, _on_all("purge", name), COUNT_SECONDS)
    return visit.page("queue_purge.html", here="queues", name=name, found=found)


async def purge(visit: Visit) -> Response:
    return await _start(visit, "purge")


async def ask_redrive(visit: Visit) -> Response:
    visit.caller.require("use")
    name = visit.name("queue")
    await queues.get(visit.core, visit.caller, name)
    found = await actions.preview(visit.core, visit.caller, _on_all("redrive", name), COUNT_SECONDS)
    return visit.page("queue_redrive.html", here="queues", name=name, found=found)


async def redrive(visit: Visit) -> Response:
    return await _start(visit, "redrive")


async def _start(visit: Visit, kind: Literal["purge", "redrive"]) -> Response:
    """Start an action on the whole queue; it goes on by itself, however many tasks there are."""
    name = visit.name("queue")
    await queues.get(visit.core, visit.caller, name)
    request = structs.replace(_on_all(kind, name), idempotency_key=visit.once)
    view, _ = await actions.start(visit.core, visit.caller, request)
    return visit.redirect("actions", view.id, notice="action-started")


def _on_all(kind: Literal["purge", "redrive"], name: str) -> ActionRequest:
    return ActionRequest(kind, TaskFilters(queue=name), None, {"queue": name})
