"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html) as an answer."""

import random
from collections.abc import AsyncGenerator, AsyncIterator

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from app.domain.overviews import Event

EVENT_STREAM = "text/event-stream"
HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}
"""The second keeps nginx, and proxies that follow it, from holding events back."""
HEARTBEAT = b": heartbeat\n\n"
RETRY_MS = (1000, 5000)
"""When viewers come back from a replica that drains: not all at the same time."""


def encoded(event: Event) -> bytes:
    if event.kind == "heartbeat":
        return HEARTBEAT
    if event.kind == "drain":
        return b"retry: %d\n\n" % random.randint(*RETRY_MS)
    # JSON has no line breaks outside of strings, and none unescaped inside
    return b"id: %s\nevent: %s\ndata: %s\n\n" % (event.id.encode(), event.kind.encode(), event.data)


class EventStream(StreamingResponse):
    """An answer that ends with its events, or when the client has gone. What the client does not read is not made."""

    def __init__(self, events: AsyncGenerator[Event, None], first: Event) -> None:
        super().__init__(self._chunks(first), media_type=EVENT_STREAM, headers=HEADERS)
        self._events = events

    @classmethod
    async def begin(cls, events: AsyncGenerator[Event, None], *, head_only: bool) -> Response:
        """Return the answer once there is a first event, so that a refusal is still an answer of its own. Raises what it raises."""
        first = await anext(events)
        if head_only:
            await events.aclose()
            return Response(media_type=EVENT_STREAM, headers=HEADERS)
        return cls(events, first)

    async def _chunks(self, first: Event) -> AsyncIterator[bytes]:
        yield encoded(first)
        async for event in self._events:
            yield encoded(event)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()
