"""Who changed what, when, from where, with what result."""

from typing import Any

import msgspec
from starlette.responses import Response

from app.domain.ids import parse_uuid
from app.domain.instants import format_instant, parse_instant
from app.edge.pages import DEFAULT_LIMIT, binding, next_cursor, position_of
from app.service import audit
from app.store.audit import AuditFilters, AuditRow, Position
from app.ui.screens.tasks import instant, label
from app.ui.visits import Visit

FILTERS = ("actor", "verb", "noun", "name")
BOUNDS = {"from": "from_", "to": "to"}
MAX_NAME = 200


async def show_all(visit: Visit) -> Response:
    given = {name: visit.query(name) for name in (*FILTERS, *BOUNDS)}
    read = label(MAX_NAME)
    faults: dict[str, str] = {}
    found: dict[str, Any] = {}
    for name, text in given.items():
        if text is not None:
            try:
                found[BOUNDS.get(name, name)] = instant(text.strip()) if name in BOUNDS else read(text)
            except ValueError as error:
                faults[name] = str(error)
    filters = AuditFilters(**found)
    bound_to = binding("audit", filters)
    position = position_of(visit.query("cursor"), bound_to, _position)
    rows, last = await audit.list_page(
        visit.core, visit.caller, filters, _position(position) if position else None, DEFAULT_LIMIT
    )
    following = next_cursor(bound_to, f"{format_instant(last[0])} {last[1]}") if last else None
    return visit.page(
        "audit.html",
        here="audit",
        rows=[(row, _changes(row)) for row in rows],
        given=given,
        faults=faults,
        following=following,
        first=position is None,
    )


def _position(text: str) -> Position | None:
    at, _, row_id = text.partition(" ")
    found, parsed = parse_instant(at), parse_uuid(row_id)
    return None if found is None or parsed is None else (found, parsed)


def _changes(row: AuditRow) -> list[tuple[str, str, str]]:
    """Return the fields that changed, as JSON before and after."""
    before, after = (msgspec.json.decode(text) if text else {} for text in (row.before, row.after))
    if not isinstance(before, dict) or not isinstance(after, dict):
        return []

    def shown(document: dict[str, Any], name: str) -> str:
        return msgspec.json.encode(document[name]).decode() if name in document else "–"

    return [(name, shown(before, name), shown(after, name)) for name in {**before, **after}]
