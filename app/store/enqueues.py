"""Inserting tasks: one autocommitted round trip per group. The SQL is in sql/functions."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial
from typing import NamedTuple, TypeVar

import asyncpg
import msgspec

from app.domain.errors import Refusal
from app.store.db import Reader
from app.store.failures import Held
from app.store.statements import call, sql

Written = TypeVar("Written")


class Entry(NamedTuple):
    """A task to insert: the fields of sluice.entry_v1, in order."""

    task_id: str
    queue_id: int
    queue_version: int
    handler_id: int
    """The task's own handler; 0 for the queue's."""
    payload: bytes
    key: str | None
    fingerprint: bytes | None
    unique_key: str | None = None
    priority: int = 0
    run_at: datetime | None = None
    delay_seconds: float | None = None
    expires_at: datetime | None = None
    ttl_seconds: float | None = None
    max_attempts: int | None = None
    options: str | None = None
    """The document of what it carries; None for none."""
    on_duplicate: str | None = None
    """What it does to a waiting task that has its unique key: replace or postpone; None: nothing."""
    debounce_max_seconds: float | None = None
    key_seconds: float | None = None
    """How long its key is kept; None: as long as the queue says."""


class Receipt(msgspec.Struct):
    """The result of an enqueue group; ordinals in `verdicts` count from 1, and an item without a verdict was created."""

    at: str
    verdicts: dict[int, list[str]] = {}
    """[verdict], or [verdict, id of the existing task]."""
    waiting: dict[int, str] = {}
    refused: bool = False
    """Whether an all-or-nothing group wrote nothing."""


_RECEIPT = msgspec.json.Decoder(Receipt)

COLLISIONS = 5
"""How often a group is repeated at once because another one took a unique key first."""
_ENQUEUE = {False: call("enqueue_v1", 2), True: call("enqueue_atomic_v1", 2)}
_ENQUEUE_BATCH = call("enqueue_v1", 3)
_ENQUEUE_PLAIN = call("enqueue_plain_v1", 5)
_HELD_KEYS = call("held_keys_v1", 1)
_FIND_KEY = sql("find_idempotency_key")


class KeysHeld(Refusal):
    """Raised if a transaction that goes on has taken an idempotency key or a unique key of a group. Nothing was written."""

    def __init__(self) -> None:
        super().__init__(
            "unavailable",
            "a transaction in progress has taken this idempotency_key or unique_key; try again when it has ended",
            retry_after_seconds=1,
        )


async def held_keys(db: Reader, entries: Sequence[Entry]) -> set[int]:
    """Return which entries, by their places from 0, have a key that a transaction in progress has taken."""
    return {ordinal - 1 for ordinal in await db.fetchval(_HELD_KEYS, entries)}


async def enqueue(
    db: Reader, group_id: str, entries: Sequence[Entry], *, atomic: bool = False, batch_id: str | None = None
) -> Receipt:
    """Insert a group; with the id of a committed group, only return its receipt. `atomic`: all or nothing. Created tasks join the
    batch; if it takes no more, the whole group is `batch_sealed`.

    `entries` are in the order of `lock_order`. Raises Refusal (unavailable) if others were first each time, Unavailable.
    """
    return await despite_collisions(partial(_enqueue, db, group_id, entries, atomic, batch_id))


async def despite_collisions(write: Callable[[], Awaitable[Written]]) -> Written:
    """Run a write that conflicts with another over a unique key again. It has written nothing, and then finds the other task.

    Raises Refusal (unavailable) if others were first each time, KeysHeld, and what `write` raises.
    """
    for _ in range(COLLISIONS):
        try:
            return await write()
        except Held as error:
            raise KeysHeld from error
        except (asyncpg.UniqueViolationError, asyncpg.DeadlockDetectedError):
            continue
    try:
        return await write()
    except Held as error:
        raise KeysHeld from error
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name != "tasks_unique_key":
            raise
        raise Refusal(
            "unavailable", "too many requests use the same unique_key; try again", retry_after_seconds=1
        ) from error


def lock_order(entries: Sequence[Entry]) -> Sequence[Entry]:
    """Return the entries in the order in which all groups insert unique keys, so that two of them never wait for each other."""
    if not any(entry.unique_key for entry in entries):
        return entries
    return sorted(entries, key=lambda entry: (entry.unique_key is not None, entry.queue_id, entry.unique_key or ""))


async def _enqueue(db: Reader, group_id: str, entries: Sequence[Entry], atomic: bool, batch_id: str | None) -> Receipt:
    if batch_id is not None:
        receipt = await db.fetchval(_ENQUEUE_BATCH, group_id, entries, batch_id)
    elif not atomic and (plain := _plain(entries)) is not None:
        receipt = await db.fetchval(_ENQUEUE_PLAIN, group_id, *plain)
    else:
        receipt = await db.fetchval(_ENQUEUE[atomic], group_id, entries)
    return _RECEIPT.decode(receipt)


def _plain(entries: Sequence[Entry]) -> tuple[Sequence[int], Sequence[int], Sequence[str], Sequence[bytes]] | None:
    """Return what enqueue_plain_v1 takes if all entries have nothing but a payload, None otherwise."""
    first = entries[0]
    if first != Entry(first.task_id, first.queue_id, first.queue_version, 0, first.payload, None, None):
        return None
    ids, queues, versions, handlers, payloads, *rest = zip(*entries, strict=True)
    same = zip((handlers, *rest), first[3:4] + first[5:], strict=True)
    if any(column.count(value) < len(entries) for column, value in same):
        return None
    if queues.count(first.queue_id) == versions.count(first.queue_version) == len(entries):
        return queues[:1], versions[:1], ids, payloads
    return queues, versions, ids, payloads


async def knows_key(db: Reader, queue_id: int, key: str) -> bool:
    """Return whether an idempotency key of the queue is in force."""
    rows = await db.fetch(
        _FIND_KEY,
        queue_id,
        key,
    )
    return bool(rows)
