"""The stream of events, read on after a break."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from time import monotonic

import httpx2

from sluice_client.api.parameters import given
from sluice_client.api.replies import Event
from sluice_client.errors import SluiceError
from sluice_client.retrying import LONGEST_PAUSE_SECONDS, pause_before, repeats_after
from sluice_client.transport import Transport


async def follow(transport: Transport, task: str | None, last_event_id: str | None) -> AsyncIterator[Event]:
    """Yield events until the caller stops. After a break it connects again and goes on after the last event received.

    Raises ApiError if the service refuses, and ConnectionFailed once it has not been reached for the transport's timeout.
    """
    heard, repeat = monotonic(), 0
    while True:
        headers = given({"last-event-id": last_event_id, "accept": "text/event-stream"})
        try:
            async with transport.stream("/events", params=given({"task": task}), headers=headers) as response:
                heard, repeat = monotonic(), 0
                async for event in httpx2.EventSource(response):
                    heard, last_event_id = monotonic(), event.id
                    yield Event(event.event, json.loads(event.data), event.id)
            pause = LONGEST_PAUSE_SECONDS / 10  # the service ended the stream, to stop perhaps
        except SluiceError as error:
            repeat += 1
            asked = repeats_after(error)
            remaining = heard + transport.timeout - monotonic()
            repeated = None if asked is None else pause_before(repeat, asked, remaining, random.random())
            if repeated is None:
                raise
            pause = repeated
        await asyncio.sleep(pause)
