"""Enqueueing: the write function behind every enqueue.

A group whose answer was lost is run again under its id: the receipt tells what the first run did, and only without one does the
second run insert. So an acknowledged enqueue exists exactly once, and a refused one does not exist.
"""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence

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
        self._until: dict[tuple[int, str | None, str | None], float] = {}
        """Monotonic seconds."""

    def note(self, entry: Entry) -> None:
        self._until[_keys_of(entry)] = time.monotonic() + REMEMBERED_SECONDS

    def suspected(self, entries: Sequence[Entry]) -> list[Entry]:
        """Return the entries with such a key."""
        now = time.monotonic()
        self._until = {keys: until for keys, until in self._until.items() if until > now}
        return [entry for entry in entries if _keys_of(entry) in self._until] if self._until else []


def _keys_of(entry: Entry) -> tuple[int, str | None, str | None]:
    return entry.queue_id, entry.key, entry.unique_key


def writer(
    db: Reader, *, atomic: bool = False, batch_id: str | None = None
) -> Callable[[Sequence[Entry]], Awaitable[list[Admitted | BaseException]]]:
    """Return a function that writes a group of entries and returns a verdict for each, in order; KeysHeld for those whose key a
    transaction in progress has taken.

    With `atomic`, a group is all or nothing and may raise GroupRefused and KeysHeld; with a `batch_id`, created tasks join that
    batch.
    """
    taken = TakenKeys()

    async def write(entries: Sequence[Entry]) -> list[Admitted | BaseException]:
        found: dict[str, Admitted | BaseException] = {}
        if not atomic and (suspected := taken.suspected(entries)):
            found = await _held(db, suspected, taken)
        for tried in range(1, GROUP_TRIES + 1):
            rest = enqueues.lock_order([entry for entry in entries if entry.task_id not in found])
            if not rest:
                break
            try:
                receipt = await _written(db, rest, atomic=atomic, batch_id=batch_id)
            except KeysHeld:
                if atomic or tried == GROUP_TRIES:
                    raise
                found |= await _held(db, rest, taken)
                continue
            admitted = {entry.task_id: verdict for entry, verdict in zip(rest, _admitted(rest, receipt), strict=True)}
            if receipt.refused:
                raise GroupRefused([admitted[entry.task_id] for entry in entries])
            found |= admitted
            break
        return [found[entry.task_id] for entry in entries]

    return write


async def _held(db: Reader, entries: Sequence[Entry], taken: TakenKeys) -> dict[str, Admitted | BaseException]:
    """Return the verdicts on those entries whose keys are taken by transactions in progress, by the ids of their tasks."""
    found: dict[str, Admitted | BaseException] = {}
    for place in await enqueues.held_keys(db, entries):
        taken.note(entries[place])
        found[entries[place].task_id] = KeysHeld()
    return found


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
