"""Batches as rows: a completion with its follow-up work, and the fold that turns deltas into counts."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import msgspec

from app.store.db import Database
from app.store.tasks import COLLISIONS, Entry, Outcome, unless_bare


@dataclass(frozen=True, slots=True)
class Completion:
    """What is enqueued once a batch has completed."""

    queue_id: int
    queue_version: int
    payload: bytes


class Followed(msgspec.Struct):
    """What became of a completion with follow-up work: applied, repeat, stale, unknown, changed, queue_full or too_large."""

    verdict: str
    created: dict[int, int] = {}
    """Queue id -> how many follow-ups were enqueued."""
    queue: str = ""
    """The one whose max_depth refused the page."""


_FOLLOWED = msgspec.json.Decoder(Followed)


async def settle_followups(
    db: Database, outcome: Outcome, entries: Sequence[Entry], next_cursor: str | None, completion: Completion | None
) -> Followed:
    """Complete one task and enqueue what follows, in one transaction.

    A page that met another over a unique key, or a lock, has written nothing: it is run again, and finds the task that was
    faster.
    """
    for _ in range(COLLISIONS):
        try:
            return await _settle_followups(db, outcome, entries, next_cursor, completion)
        except (asyncpg.UniqueViolationError, asyncpg.DeadlockDetectedError):
            continue
    return await _settle_followups(db, outcome, entries, next_cursor, completion)


async def _settle_followups(
    db: Database, outcome: Outcome, entries: Sequence[Entry], next_cursor: str | None, completion: Completion | None
) -> Followed:
    told = await db.fetchval(
        "select sluice.settle_followups_v1"
        "($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)",
        outcome.task_id,
        outcome.token,
        outcome.status,
        outcome.excerpt,
        outcome.result,
        outcome.result_format,
        outcome.result_truncated,
        outcome.trace_id,
        next_cursor,
        [e.task_id for e in entries],
        [e.queue_id for e in entries],
        [e.queue_version for e in entries],
        unless_bare([e.handler_id for e in entries]),
        [e.payload for e in entries],
        [e.key for e in entries],
        unless_bare([e.options for e in entries]),
        unless_bare([e.unique_key for e in entries]),
        completion and completion.queue_id,
        completion and completion.queue_version,
        completion and completion.payload,
    )
    return _FOLLOWED.decode(told)


@dataclass(frozen=True, slots=True)
class Folded:
    batches: int
    completed: list[str] = field(default_factory=list)
    queues: Counter[int] = field(default_factory=Counter)
    """Queue id -> how many tasks that waited for a batch were enqueued."""


async def fold(db: Database, limit: int) -> Folded:
    rows: list[Any] = await db.fetch("select * from sluice.fold_v1($1)", limit)
    return Folded(
        len(rows),
        [str(row["batch_id"]) for row in rows if row["completed"]],
        Counter(queue_id for row in rows for queue_id in row["queues"]),
    )
