"""Batches: creating, closing and reading them; completions with follow-up work; the fold that turns deltas into counts."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from functools import partial
from typing import Any

import msgspec

from app.domain.batches import BatchCounts, BatchView, CompletionView, Pace, progress
from app.domain.instants import format_instant
from app.store.callbacks import Called, Told, untold
from app.store.db import Reader
from app.store.enqueues import Entry, despite_collisions
from app.store.statements import call, fill, part, sql
from app.store.tasks import AttemptEnd, Cancelled


@dataclass(frozen=True, slots=True)
class Completion:
    """What is enqueued when a batch completes."""

    queue_id: int
    queue_version: int
    digest: bytes
    """What it is compared by: each distinct one is kept once (contents.completion_digest)."""
    payload: bytes
    sealed_for: str | None = None
    """What the payload is encrypted for; None: it is not."""
    type: str | None = None


class Followed(msgspec.Struct):
    """The result of a completion with follow-up work: applied, repeat, stale, unknown, changed, queue_full, key_full, too_large."""

    verdict: str
    created: dict[int, int] = {}
    """Queue id -> how many follow-ups were enqueued."""
    queue: str = ""
    """The queue whose max_depth refused the page."""
    called: list[Called | None] = []


_SETTLE_FOLLOWUPS = call("settle_followups_v1", 9)
_FOLD = call("fold_v1", 1)
_CREATE_BATCH = call("create_batch_v1", 11)
_CLOSE_BATCH = call("close_batch_v1", 3)
_SWEEP_BATCH = call("sweep_batch_v1", 3)
_FOLLOWED = msgspec.json.Decoder(Followed)


async def settle_followups(
    db: Reader,
    outcome: AttemptEnd,
    entries: Sequence[Entry],
    next_cursor: str | None,
    completion: Completion | None,
    *,
    told: Told = untold,
) -> Followed:
    """Complete one task and enqueue its follow-up work, in one transaction. `told` hears of the callbacks of tasks that ended.

    Raises Refusal (unavailable) if others take its unique keys first each time, Unavailable.
    """
    then: tuple[Any, ...] = (None,) * 6 if completion is None else astuple(completion)
    found = await despite_collisions(partial(db.fetchval, _SETTLE_FOLLOWUPS, outcome, entries, next_cursor, *then))
    followed = _FOLLOWED.decode(found)
    for called in followed.called:
        if called is not None:
            told(called)
    return followed


@dataclass(frozen=True, slots=True)
class Folded:
    batches: int
    completed: list[str] = field(default_factory=list)
    queues: Counter[int] = field(default_factory=Counter)
    """Queue id -> how many tasks waiting for a batch were enqueued."""
    more: bool = False
    """There may be more to fold."""


async def fold(db: Reader, limit: int) -> Folded:
    rows: list[Any] = await db.fetch(_FOLD, limit)
    if not rows:
        return Folded(0)
    *rows, last = rows
    return Folded(
        len(rows),
        [str(row["batch_id"]) for row in rows if row["completed"]],
        Counter(queue_id for row in rows for queue_id in row["queues"]),
        last["completed"],
    )


async def create(
    db: Reader,
    tenant_id: int,
    batch_id: str,
    queue: tuple[int, int],
    *,
    sealed: bool,
    completion: Completion | None,
) -> bool:
    """Create an empty batch; return False if a queue has changed since it was read. Repeating it does nothing."""
    then: tuple[Any, ...] = (None,) * 6 if completion is None else astuple(completion)
    made: bool = await db.fetchval(
        _CREATE_BATCH,
        batch_id,
        tenant_id,
        *queue,
        sealed,
        *then,
    )
    return made


async def close(db: Reader, tenant_id: int, batch_id: str, cancel_reason: str | None) -> bool:
    """Seal a batch, and with a `cancel_reason` mark it as cancelled; return False if the tenant has no such batch."""
    found: bool = await db.fetchval(_CLOSE_BATCH, tenant_id, batch_id, cancel_reason)
    return found


_SWEPT_BY_ACTION = sql("leave_batch_to_action")
_UNSWEPT = sql("find_unswept_batches")
UNSWEPT = 100


async def unswept(db: Reader) -> list[str]:
    """Return up to 100 cancelled batches that may have live tasks: one of each tenant, then another of each."""
    return [str(row[0]) for row in await db.fetch(_UNSWEPT, UNSWEPT)]


class Swept(msgspec.Struct):
    done: bool
    tasks: list[Cancelled]
    reason: str = "requested"
    called: list[Called] = []


_SWEPT = msgspec.json.Decoder(Swept)


async def sweep(db: Reader, batch_id: str, limit: int, *, wait: bool, told: Told = untold) -> Swept:
    """Cancel unfinished tasks of a cancelled batch; those locked by others only with `wait`. `told` hears of their callbacks.

    Raises Held.
    """
    swept = _SWEPT.decode(await db.fetchval(_SWEEP_BATCH, batch_id, limit, wait))
    for called in swept.called:
        told(called)
    return swept


async def leave_to_action(db: Reader, batch_id: str) -> None:
    """Note that an action cancels the tasks of this batch, so that the sweeper has nothing to do."""
    await db.fetch(_SWEPT_BY_ACTION, batch_id)


ONE_LOOKED_AT = 100_000
LIST_LOOKED_AT = 1_000
ONE_BATCH = sql(
    "show_batches", source="sluice.batches", looked_at=str(ONE_LOOKED_AT), which="where b.tenant_id = $1 and b.id = $2"
)
_PAGE = sql("show_batches", looked_at=str(LIST_LOOKED_AT), which="order by b.id desc")
BATCHES = fill(_PAGE, source=part("newest_batches", within=""))
BATCHES_ON = fill(_PAGE, source=part("newest_batches", within=" and queue_id = any($4::bigint[])"))
LAST = "ffffffff-ffff-ffff-ffff-ffffffffffff"
"""After every id."""


async def find(db: Reader, tenant_id: int, batch_id: str) -> BatchView | None:
    rows = await db.fetch(ONE_BATCH, tenant_id, batch_id)
    return _view(rows[0]) if rows else None


async def list_page(
    db: Reader, tenant_id: int, before: str | None, limit: int, queue_ids: Sequence[int] | None = None
) -> list[BatchView]:
    """Newest first; with `queue_ids`, those of these queues."""
    page = tenant_id, before or LAST, limit
    if queue_ids is None:
        rows = await db.fetch(BATCHES, *page)
    else:
        rows = await db.fetch(BATCHES_ON, *page, queue_ids)
    return [_view(row) for row in rows]


_COMPLETIONS = msgspec.json.Decoder(list[CompletionView])


def _view(row: Any) -> BatchView:
    ended = {name: row[name] for name in ("succeeded", "dead", "cancelled")}
    live = row["total"] - sum(ended.values())
    counts = {
        "scheduled": row["scheduled"],
        "ready": live - row["scheduled"] - row["running"],
        "running": row["running"],
        **ended,
    }
    pace = Pace(row["now"], row["created_at"], row["recent"], row["recent_at"])
    percent, rate, eta = progress(counts, row["total"], sealed=row["sealed"], pace=pace)
    return BatchView(
        id=str(row["id"]),
        queue=row["queue"],
        sealed=row["sealed"],
        total=row["total"],
        counts=BatchCounts(**counts),
        percent=percent,
        rate=rate,
        eta=eta,
        created_at=format_instant(row["created_at"]),
        cancelled_at=row["cancelled_at"] and format_instant(row["cancelled_at"]),
        cancel_reason=row["cancel_reason"],
        completed_at=row["completed_at"] and format_instant(row["completed_at"]),
        on_complete=_COMPLETIONS.decode(row["on_complete"]),
    )
