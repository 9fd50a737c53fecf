"""Tasks that sluice.enqueue has added, in transactions of others: a replica counts them and looks for them."""

from dataclasses import dataclass
from datetime import datetime

from app.store.db import Reader
from app.store.statements import sql

_TAKE = sql("take_arrivals")


@dataclass(frozen=True, slots=True)
class Arrival:
    queue_id: int
    handler_id: int
    created: int
    """How many tasks are new; others took the place of one that waited."""
    due_at: datetime | None
    """When the first of them that is not ready becomes so, or the first expires."""
    taken: int
    """How many rows of `arrivals` this stands for."""


async def take(db: Reader, limit: int) -> list[Arrival]:
    """Take note of up to so many tasks, one item for each lane. No other replica takes note of them."""
    return [Arrival(**row) for row in await db.fetch(_TAKE, limit)]
