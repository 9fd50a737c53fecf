"""Tasks: those that match, and what happened to one of them."""

from collections.abc import Callable
from dataclasses import fields
from datetime import datetime
from typing import Any

from starlette.responses import Response

from app.domain.actions import TAKES
from app.domain.errors import Refusal
from app.domain.ids import SHORT_ID, parse_uuid
from app.domain.instants import NO_INSTANT, parse_instant
from app.domain.names import NAME_RULE, is_name
from app.domain.tasks import MAX_LABEL, MAX_TAG, Reason, State, TaskFilters
from app.domain.texts import check_text
from app.edge.pages import DEFAULT_LIMIT, MAX_LIMIT, binding, next_cursor, position_of
from app.service import tasks, why
from app.ui.texts import text_of
from app.ui.visits import Visit

SHOWN_ATTEMPTS = 50
SHOWN_FOLLOWUPS = 50
ON_TASK = "task from:body"
SEARCHED = 1000
"""Among how many of the newest tasks the end of an id is looked for."""
FILTERS = tuple(field.name for field in fields(TaskFilters))


async def show_all(visit: Visit) -> Response:
    given = {name: visit.query(name) for name in FILTERS}
    filters, faults = filters_of(given)
    kinds = [kind for kind in ("retry", "cancel") if filters.state is None or filters.state in TAKES[kind][0]]
    shown: dict[str, Any] = {"given": given, "faults": faults, "states": list(State), "reasons": list(Reason)}
    shown["kinds"] = kinds
    if faults:
        return visit.page("tasks.html", 422, here="tasks", tasks=[], following=None, first=True, **shown)
    bound_to = binding("tasks", filters)
    after = position_of(visit.query("cursor"), bound_to, parse_uuid)
    page = await tasks.list_page(visit.core, visit.caller, filters, after, DEFAULT_LIMIT, False)
    following = None if page.position is None else next_cursor(bound_to, page.position)
    return visit.page("tasks.html", here="tasks", tasks=page.items, following=following, first=after is None, **shown)


async def find(visit: Visit) -> Response:
    """Go to the task of an id, or of the end of an id as pages show it."""
    given = (visit.query("id") or "").strip().removeprefix("…").lower()
    if not given:
        return visit.redirect("tasks")
    return visit.redirect("tasks", parse_uuid(given) or await _newest_that_ends_with(visit, given))


async def _newest_that_ends_with(visit: Visit, end: str) -> str:
    position = None
    for _ in range(SEARCHED // MAX_LIMIT if len(end) >= SHORT_ID else 0):
        page = await tasks.list_page(visit.core, visit.caller, TaskFilters(), position, MAX_LIMIT, False)
        for task in page.items:
            if task.id.endswith(end):
                return task.id
        position = page.position
        if position is None:
            break
    raise Refusal("task_not_found", f"no task among the newest {SEARCHED:,} has this id; give the whole id")


async def show(visit: Visit) -> Response:
    task = visit.id("task")

    async def find() -> dict[str, Any]:
        view = await tasks.get(visit.core, visit.caller, task)
        attempts, more = await tasks.attempts(visit.core, visit.caller, task, None, SHOWN_ATTEMPTS)
        hidden = view.content_hidden is True
        return {
            "view": view,
            "attempts": attempts,
            "more": more,
            "why": await why.of_task(visit.core, visit.caller, task),
            "family": await tasks.family(visit.core, visit.caller, view, SHOWN_FOLLOWUPS),
            "hidden": hidden,
            "payload": None if hidden else text_of(view.payload),
            "result": text_of(view.result),
            "progress": text_of(view.progress),
        }

    return await visit.live_page("task.html", "tasks", find, on=ON_TASK, watched=task)


async def ask_cancel(visit: Visit) -> Response:
    visit.caller.require("use")
    view = await tasks.get(visit.core, visit.caller, visit.id("task"))
    return visit.page("task_cancel.html", here="tasks", view=view)


async def cancel(visit: Visit) -> Response:
    view = await tasks.cancel(visit.core, visit.caller, visit.id("task"))
    return visit.redirect("tasks", view.id, notice="task-cancelled")


async def retry(visit: Visit) -> Response:
    view = await tasks.retry(visit.core, visit.caller, visit.id("task"))
    return visit.redirect("tasks", view.id, notice="task-retried")


def filters_of(given: dict[str, str | None]) -> tuple[TaskFilters, dict[str, str]]:
    """Return the filters, and what is wrong by field."""
    found: dict[str, Any] = {}
    faults: dict[str, str] = {}
    for name, text in given.items():
        if text is not None:
            try:
                found[name] = READ[name](text.strip())
            except ValueError as error:
                faults[name] = str(error)
    return TaskFilters(**found), faults


def _name(text: str) -> str:
    if not is_name(text):
        raise ValueError(f"is not a name ({NAME_RULE})")
    return text


def label(most: int) -> Callable[[str], str]:
    def read(text: str) -> str:
        errors = check_text(text, "", most)
        if errors:
            raise ValueError(errors[0].detail)
        return text

    return read


def _uuid(text: str) -> str:
    found = parse_uuid(text)
    if found is None:
        raise ValueError("is not an id")
    return found


def instant(text: str) -> datetime:
    """Read an instant; without an offset, as the fields of browsers have it, in UTC."""
    found = parse_instant(text) or parse_instant(text + "Z") or parse_instant(text + ":00Z")
    if found is None:
        raise ValueError(NO_INSTANT)
    return found


def _one_of(kind: type[State] | type[Reason]) -> Callable[[str], State | Reason]:
    def read(text: str) -> State | Reason:
        try:
            return kind(text)
        except ValueError:
            raise ValueError(f"expected one of {', '.join(kind)}") from None

    return read


READ: dict[str, Callable[[str], Any]] = {
    "queue": _name,
    "state": _one_of(State),
    "reason": _one_of(Reason),
    "type": label(MAX_LABEL),
    "tag": label(MAX_TAG),
    "handler": _name,
    "correlation_id": label(MAX_LABEL),
    "schedule": _name,
    "batch": _uuid,
    "ended_from": instant,
    "ended_to": instant,
}
