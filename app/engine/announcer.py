"""Exchange hints with other replicas, which would otherwise learn of changes a poll later.

Hints are collected while one is being sent, are sent at least 50 ms apart, and not at all while no other replica is alive.
"""

import asyncio
import time
from collections.abc import Callable

from app.runtime.signals import ConcurrencySlot
from app.store.db import Database
from app.store.failures import Unavailable
from app.store.notify import Hint, Listener, Silent, send
from app.telemetry import events
from app.telemetry.logs import get_logger

INTERVAL_SECONDS = 0.05
FIRST_RETRY_SECONDS = 0.2
MAX_RETRY_SECONDS = 2.0
PROMPT_SECONDS = 2.0
"""A database that accepts a connection within this time is not overloaded, so older sockets without an answer are dead."""

log = get_logger(__name__)


class Announcer:
    def __init__(self, db: Database, replica: str) -> None:
        self._db = db
        self._replica = replica
        self._next = Hint(replica)
        self._pending = asyncio.Event()
        self.alone = False
        """Set by the pulse: no other replica has been seen lately."""

    def lane(self, queue_id: int, handler_id: int) -> None:
        if not self.alone:
            self._next.lanes.add((queue_id, handler_id))
            self._pending.set()

    def freed(self, slot: ConcurrencySlot) -> None:
        if not self.alone:
            self._next.freed.add(slot)
            self._pending.set()

    def any_lane(self) -> None:
        self._next.any_lane = True
        self._pending.set()

    def revoked(self, task_id: str) -> None:
        self._next.revoked.append(task_id)
        self._pending.set()

    async def run(self) -> None:
        while True:
            await self._pending.wait()
            self._pending.clear()
            hint, self._next = self._next, Hint(self._replica)
            try:
                await send(self._db, hint)
            except Unavailable:
                pass  # the others poll
            await asyncio.sleep(INTERVAL_SECONDS)


class HintListener:
    """Listens forever, across database outages and dead connections."""

    def __init__(self, db: Database, replica: str, heard: Callable[[Hint], None], missed: Callable[[], None]) -> None:
        self._db = db
        self._listener = Listener(db.direct_dsn, replica, heard)
        self._missed = missed
        """Called when listening works again: hints sent in the meantime are lost."""
        self._wait = FIRST_RETRY_SECONDS
        self._tried_at = 0.0
        self._lost_at: float | None = None
        self._silent_since: float | None = None

    @property
    def deaf(self) -> bool:
        return self._lost_at is not None

    async def listen(self) -> None:
        while True:
            self._tried_at = time.monotonic()
            error = "the connection was closed"
            try:
                await self._listener.run(self._connected)
            except Unavailable as unavailable:
                error = str(unavailable)
                if isinstance(unavailable, Silent):
                    self._silent_since = unavailable.asked_at
            if self._lost_at is None:
                self._lost_at = time.monotonic()
                events.emit(log, events.LISTENER_LOST, error=error)
            await asyncio.sleep(self._wait)
            self._wait = min(MAX_RETRY_SECONDS, self._wait * 2)

    def _connected(self) -> None:
        now = time.monotonic()
        if self._silent_since is not None and now - self._tried_at < PROMPT_SECONDS:
            # the database is fine, so the socket was dead; those of the pools took the same route and are likely dead too
            self._db.end_silent(self._silent_since)
        if self._lost_at is not None:
            events.emit(log, events.LISTENER_BACK, outage_seconds=round(now - self._lost_at, 3))
            self._missed()
        self._lost_at = self._silent_since = None
        self._wait = FIRST_RETRY_SECONDS
