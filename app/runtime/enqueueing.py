"""Enqueueing: the write function behind every enqueue.

A group whose answer was lost is run again under its id: the receipt tells what the first run did, and only without one does the
second run insert. So an acknowledged enqueue exists exactly once, and a refused one does not exist.
"""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from app.domain.instants import format_instant, parse_instant
from app.store import enqueues
from app.store.db import Reader
from app.store.enqueues import Entry, KeysHeld, Receipt
from app.store.failures import Unavailable

GROUP_TRIES = 3
GROUP_RETRY_SECONDS = 0.3
REMEMBERED_SECONDS = 5.0
"""How long a key that a transaction in progress had taken is asked for before a group with it is written."""


class Admitted(msgspec.Struct, frozen=True):
    """The database's verdict on one entry."""

    verdict: str
    task_id: str
    at: str
    """The database's current time, RFC 3339."""
    waiting_for: str | None


class GroupRefused(Exception):
    """Raised when an all-or-nothing group stored nothing."""

    def __init__(self, admitted: list[Admitted]) -> None:
        super().__init__("nothing was enqueued")
        self.admitted = admitted


class TakenKeys:
    """Idempotency keys and unique keys that transactions with sluice.enqueue had taken lately, and may still have.

    Nobody waits for such a transaction longer than half a second, and after that, for a while, nobody does for the same key.
    """

    def __init__(self) -> None:
        self._until: dict[tuple[int, str, str], float] = {}
        """Monotonic seconds."""

    async def held(self, db: Reader, entries: Sequence[Entry]) -> set[str]:
        """Return the ids of the tasks of which a key is taken, and remember those. Raises Unavailable."""
        held = [entries[place] for place in await enqueues.held_keys(db, entries)]
        until = time.monotonic() + REMEMBERED_SECONDS
        self._until |= {key: until for entry in held for key in _keys_of(entry)}
        return {entry.task_id for entry in held}

    async def still_held(self, db: Reader, entries: Sequence[Entry]) -> set[str]:
        """Return the same of entries with a key that was taken lately. Raises Unavailable."""
        if not self._until:
            return set()
        now = time.monotonic()
        self._until = {key: until for key, until in self._until.items() if until > now}
        suspected = [entry for entry in entries if any(key in self._until for key in _keys_of(entry))]
        return await self.held(db, suspected) if suspected else set()


def _keys_of(entry: Entry) -> list[tuple[int, str, str]]:
    keys = (("idempotency", entry.key), ("unique", entry.unique_key))
    return [(entry.queue_id, kind, key) for kind, key in keys if key is not None]


def writer(
    db: Reader, taken: TakenKeys, *, atomic: bool = False, batch_id: str | None = None
) -> Callable[[Sequence[Entry]], Awaitable[list[Admitted | BaseException]]]:
    """Return a function that writes a group of entries and returns a verdict for each, in order; KeysHeld for those whose key a
    transaction in progress has taken.

    With `atomic`, a group is all or nothing and may raise GroupRefused and KeysHeld; with a `batch_id`, created tasks join that
    batch.
    """

    async def write(entries: Sequence[Entry]) -> list[Admitted | BaseException]:
        held = await taken.still_held(db, entries)
        for tried in range(1, GROUP_TRIES + 1):
            if held and atomic:
                raise KeysHeld
            free = [entry for entry in entries if entry.task_id not in held] if held else entries
            if not free:
                break
            ordered = enqueues.lock_order(free)
            try:
                receipt = await _written(db, ordered, atomic=atomic, batch_id=batch_id)
            except KeysHeld:
                held |= await taken.held(db, ordered)
                if tried == GROUP_TRIES:
                    raise
                continue
            admitted: list[Any] = _admitted(ordered, receipt)
            if ordered is not entries:
                found = {entry.task_id: verdict for entry, verdict in zip(ordered, admitted, strict=True)}
                admitted = [found.get(entry.task_id) or KeysHeld() for entry in entries]
            if receipt.refused:
                raise GroupRefused(admitted)
            return admitted
        return [KeysHeld() for _ in entries]

    return write


async def _written(db: Reader, entries: Sequence[Entry], *, atomic: bool, batch_id: str | None) -> Receipt:
    """Write a group, which is in lock order. Raises KeysHeld, Unavailable."""
    group_id, tried = str(uuid.uuid4()), 1
    while True:
        try:
            return await enqueues.enqueue(db, group_id, entries, atomic=atomic, batch_id=batch_id)
        except Unavailable:
            if tried == GROUP_TRIES:
                raise
            await asyncio.sleep(GROUP_RETRY_SECONDS * tried)
            tried += 1


def _admitted(entries: Sequence[Entry], receipt: Receipt) -> list[Admitted]:
    at, verdicts, waiting = _instant(receipt.at), receipt.verdicts, receipt.waiting
    admitted = [Admitted("created", entry.task_id, at, waiting.get(entry.queue_id)) for entry in entries]
    for ordinal, verdict in verdicts.items():
        entry = entries[ordinal - 1]
        existing = verdict[1] if len(verdict) == 2 else entry.task_id
        admitted[ordinal - 1] = Admitted(verdict[0], existing, at, waiting.get(entry.queue_id))
    return admitted


def _instant(text: str) -> str:
    """Return an instant in the common format; the database omits trailing zeros."""
    at = parse_instant(text)
    assert at is not None
    return format_instant(at)
