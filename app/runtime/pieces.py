"""Long work on the event loop, done in pieces, so that other work runs in between."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

T = TypeVar("T")

PIECE_SECONDS = 0.005
"""How long one request may block the others at a time."""


async def in_pieces(items: Iterable[T]) -> AsyncIterator[T]:
    """Yield the items, and yield to the event loop whenever their processing has taken PIECE_SECONDS."""
    until = time.monotonic() + PIECE_SECONDS
    for item in items:
        yield item
        if time.monotonic() >= until:
            await asyncio.sleep(0)
            until = time.monotonic() + PIECE_SECONDS
