"""Messages of SQS clients: what their receipt handles still do after a lease has run out."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from app.store.callbacks import Told, decoded, untold
from app.store.db import Reader
from app.store.statements import call, sql

_SETTLE_LAPSED = call("settle_lapsed_v1", 3)
_FIRST_RECEIVES = sql("find_first_receives")


class Handle(NamedTuple):
    """What a receipt handle says."""

    queue_id: int
    task_id: str
    token: str
    received_at: float
    """Unix seconds. The client may have changed it: it only serves to count, and to refuse what the client had agreed to."""


class Acted(NamedTuple):
    """A message on which a handle has acted."""

    token: str
    ended: bool


async def settle_lapsed(
    db: Reader, handles: Sequence[Handle], seconds: Sequence[float | None], *, told: Told = untold
) -> list[Acted]:
    """Delete messages (None), or hide them so many seconds. Those whose handle is not their last are not returned. `told` hears of
    the callbacks of tasks that ended.

    Raises Held.
    """
    rows = await db.fetch(
        _SETTLE_LAPSED, [handle.task_id for handle in handles], [handle.token for handle in handles], list(seconds)
    )
    if rows and rows[-1]["token"] is None:
        told(decoded(rows.pop()["callbacks"]))
    return [Acted(str(row["token"]), row["ended"]) for row in rows]


async def first_receives(db: Reader, task_ids: Sequence[str]) -> dict[str, datetime]:
    """Return when these tasks were leased first, of those that have been leased before."""
    return {str(row["task_id"]): row["started_at"] for row in await db.fetch(_FIRST_RECEIVES, list(task_ids))}
