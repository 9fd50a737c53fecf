"""Actions on all tasks that match: counted first, then started, then followed."""

from typing import Any

from msgspec import structs
from starlette.responses import Response

from app.domain.actions import MAX_ERROR, TAKES, ActionBody, FilterBody, request_of
from app.domain.errors import Refusal, invalid_field
from app.domain.ids import parse_uuid
from app.domain.instants import format_instant
from app.edge.pages import DEFAULT_LIMIT, binding, next_cursor, position_of
from app.service import actions
from app.ui.screens.queues import COUNT_SECONDS
from app.ui.screens.tasks import FILTERS, filters_of
from app.ui.visits import Visit

LIST = binding("actions")
KINDS = ("cancel", "retry", "redrive")
"""Those that a page offers; the API has more."""


async def show_all(visit: Visit) -> Response:
    after = position_of(visit.query("cursor"), LIST, parse_uuid)
    views, more = await actions.list_page(visit.core, visit.caller, after, DEFAULT_LIMIT)
    following = next_cursor(LIST, views[-1].id) if more else None
    return visit.page("actions.html", here="actions", actions=views, following=following, first=after is None)


async def show(visit: Visit) -> Response:
    view = await actions.get(visit.core, visit.caller, visit.id("action"))

    async def find() -> dict[str, Any]:
        return {"view": view, "filter": view.filter}

    if view.state != "running":
        return visit.page("action.html", here="actions", layout="base.html", **await find())
    return await visit.live_page("action.html", "actions", find, on="every 2s")


async def ask(visit: Visit) -> Response:
    """Show what an action would act on."""
    visit.caller.require("use")
    given = {name: visit.query(name) for name in (*FILTERS, "error")}
    body = _body(visit.query("kind"), given)
    found = await actions.preview(visit.core, visit.caller, request_of(body, visit.core.clock.now()), COUNT_SECONDS)
    return visit.page("action_ask.html", here="tasks", kind=body.kind, given=given, found=found)


async def start(visit: Visit) -> Response:
    body = _body(visit.form.get("kind"), {name: visit.form.get(name) or None for name in (*FILTERS, "error")})
    body.reason = visit.form.get("note") or None
    request = structs.replace(request_of(body, visit.core.clock.now()), idempotency_key=visit.once)
    view, _ = await actions.start(visit.core, visit.caller, request)
    return visit.redirect("actions", view.id, notice="action-started")


async def cancel(visit: Visit) -> Response:
    view = await actions.cancel(visit.core, visit.caller, visit.id("action"))
    return visit.redirect("actions", view.id, notice="action-cancelled")


def _body(kind: str | None, given: dict[str, str | None]) -> ActionBody:
    if kind not in KINDS or kind not in TAKES:
        raise invalid_field("/kind", f"expected one of {', '.join(KINDS)}")
    error = given.get("error")
    filters, faults = filters_of({name: given[name] for name in FILTERS})
    if error is not None and len(error) > MAX_ERROR:
        faults["error"] = f"is longer than {MAX_ERROR} characters"
    if faults:
        name, detail = next(iter(faults.items()))
        raise invalid_field(f"/{name}", detail)
    named: dict[str, Any] = {name: value for name in FILTERS if (value := getattr(filters, name)) is not None}
    for name in ("ended_from", "ended_to"):
        if name in named:
            named[name] = format_instant(named[name])
    if error is not None:
        named["error"] = error
    if not named:
        raise Refusal("invalid", "an action never takes all tasks: choose a filter first")
    return ActionBody(kind=kind, filter=FilterBody(**named))  # type: ignore[arg-type]  # one of KINDS
