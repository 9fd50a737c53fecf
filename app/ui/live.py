"""What is live: a page is told that something has changed, and fetches itself again."""

from collections.abc import AsyncGenerator

from starlette.responses import Response

from app.domain.errors import invalid_field
from app.domain.ids import parse_uuid
from app.domain.overviews import Event
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
    found = events.watch(visit.core, visit.caller, task, visit.request.headers.get("last-event-id"), still)
    return await EventStream.begin(_bare(found), head_only=visit.request.scope.get("head", False))


async def _bare(found: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
    try:
        async for event in found:
            yield event._replace(data=b"{}") if event.data else event
    finally:
        await found.aclose()
