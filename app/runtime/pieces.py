"""Long work in the event loop, done in pieces: between them whatever else there is to do gets its turn."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

T = TypeVar("T")

PIECE_SECONDS = 0.005
"""What all others wait for one request at a time; a request that is served takes a few pieces of its own."""


async def in_pieces(items: Iterable[T]) -> AsyncIterator[T]:
    """The items. Whenever what is done with them has taken PIECE_SECONDS, the loop goes round before the next."""
    until = time.monotonic() + PIECE_SECONDS
    for item in items:
        yield item
        if time.monotonic() >= until:
            await asyncio.sleep(0)
            until = time.monotonic() + PIECE_SECONDS
