"""The audit: who changed what; and which operations leave a row in it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response

from app.api.models.audit import AuditOut, audit_out
from app.domain.errors import FieldError, invalid
from app.domain.ids import parse_uuid
from app.domain.instants import NO_INSTANT, format_instant, parse_instant
from app.edge.auth import CoreDep, Manager
from app.edge.pages import DEFAULT_LIMIT, Cursor, Limit, Page, binding, next_cursor, position_of
from app.edge.problems import problems
from app.edge.replies import reply
from app.edge.strict import StrictRoute
from app.service import audit, queues
from app.service.audit import Audited
from app.store.audit import AuditFilters, Position

AUDITED: Final[Mapping[str, Audited[Any, Any]]] = {
    "put_queue": queues.put,
    "delete_queue": queues.delete,
    "pause_queue": queues.pause,
    "resume_queue": queues.resume,
}
"""By operation: the verb that leaves a row. What is refused before it reaches the verb leaves one, too."""

router = APIRouter(tags=["audit"], route_class=StrictRoute)
Text = Annotated[str | None, Query(min_length=1, max_length=300)]
InstantQuery = Annotated[str | None, Query(max_length=50, json_schema_extra={"format": "date-time"})]


@router.get("/audit", operation_id="list_audit", responses=problems(shows=Page[AuditOut]))
async def list_audit(
    core: CoreDep,
    caller: Manager,
    actor: Annotated[
        str | None, Query(min_length=1, max_length=300, description="The id of a key, or `cli` or `system`.")
    ] = None,
    verb: Text = None,
    noun: Text = None,
    name: Text = None,
    from_: Annotated[str | None, Query(alias="from", max_length=50, json_schema_extra={"format": "date-time"})] = None,
    to: InstantQuery = None,
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> Response:
    """List what was changed, newest first: in the key's tenant, with scope operate in all tenants."""
    span = {"from": from_, "to": to}
    found = {key: None if text is None else parse_instant(text) for key, text in span.items()}
    if errors := [FieldError(f"/{key}", NO_INSTANT) for key, text in span.items() if text and found[key] is None]:
        raise invalid(errors)
    filters = AuditFilters(actor, verb, noun, name, found["from"], found["to"])
    bound_to = binding("audit", filters)
    position = position_of(cursor, bound_to, _position)
    rows, last = await audit.list_page(core, caller, filters, _position(position) if position else None, limit)
    following = next_cursor(bound_to, f"{format_instant(last[0])} {last[1]}") if last else None
    return reply(Page([audit_out(row) for row in rows], following))


def _position(text: str) -> Position | None:
    at, _, row_id = text.partition(" ")
    found: datetime | None = parse_instant(at)
    parsed = parse_uuid(row_id)
    return None if found is None or parsed is None else (found, parsed)
