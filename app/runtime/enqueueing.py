"""Enqueueing: the write function behind every enqueue.

A group whose answer was lost is run again under its id: the receipt tells what the first run did, and only without one does the
second run insert. So an acknowledged enqueue exists exactly once, and a refused one does not exist.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from app.domain.instants import format_instant, parse_instant
from app.store import enqueues
from app.store.db import Reader
from app.store.enqueues import Entry, Receipt
from app.store.failures import Unavailable

GROUP_TRIES = 3
GROUP_RETRY_SECONDS = 0.3


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


def writer(
    db: Reader, *, atomic: bool = False, batch_id: str | None = None
) -> Callable[[Sequence[Entry]], Awaitable[list[Admitted]]]:
    """Return a function that writes a group of entries and returns a verdict for each, in order.

    With `atomic`, a group is all or nothing and may raise GroupRefused; with a `batch_id`, created tasks join that batch.
    """

    async def write(entries: Sequence[Entry]) -> list[Admitted]:
        group_id = str(uuid.uuid4())
        ordered = enqueues.lock_order(entries)
        for tried in range(1, GROUP_TRIES + 1):
            try:
                receipt = await enqueues.enqueue(db, group_id, ordered, atomic=atomic, batch_id=batch_id)
                break
            except Unavailable:
                if tried == GROUP_TRIES:
                    raise
                await asyncio.sleep(GROUP_RETRY_SECONDS * tried)
        admitted = _admitted(ordered, receipt)
        if ordered is not entries:
            found = {entry.task_id: verdict for entry, verdict in zip(ordered, admitted, strict=True)}
            admitted = [found[entry.task_id] for entry in entries]
        if receipt.refused:
            raise GroupRefused(admitted)
        return admitted

    return write


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
