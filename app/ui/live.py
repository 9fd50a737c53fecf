"""What is live: a page is told that something has changed, and fetches itself again."""

from starlette.responses import Response

from app.domain.errors import invalid_field
from app.domain.ids import parse_uuid
from app.edge.event_stream import EventStream
from app.service import events
from app.ui.visits import Visit, still_signed_in


async def watch(visit: Visit) -> Response:
    """Send events without their data: a page shows more than they carry, in another form."""

    async def still() -> None:
        await still_signed_in(visit)

    given = visit.query("task")
    task = None if given is None else parse_uuid(given)
    if given is not None and task is None:
        raise invalid_field("/task", "is not the id of a task")
    last = visit.request.headers.get("last-event-id")
    found = events.watch(visit.core, visit.caller, task, last, still, bare=True)
    return await EventStream.begin(found, head_only=visit.request.scope.get("head", False))
