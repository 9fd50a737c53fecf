"""Tells other replicas what they might otherwise learn a poll later, and hears what they tell.

Hints gather while one is on its way, at least 50 ms apart, and none are sent while no other replica is alive.
"""

import asyncio

from app.store.db import Database, Unavailable
from app.store.notify import Hint, Listener, send
from app.telemetry import events
from app.telemetry.logs import get_logger

INTERVAL_SECONDS = 0.05
MAX_RETRY_SECONDS = 5.0

log = get_logger(__name__)


class Announcer:
    def __init__(self, db: Database, replica: str) -> None:
        self._db = db
        self._replica = replica
        self._next = Hint(replica)
        self._pending = asyncio.Event()
        self.alone = False
        """Kept by the pulse: no other replica has been seen lately."""

    def lane(self, queue_id: int, handler_id: int) -> None:
        if not self.alone and (queue_id, handler_id) not in self._next.lanes:
            self._next.lanes = [*self._next.lanes, (queue_id, handler_id)]
            self._pending.set()

    def freed(self) -> None:
        if not self.alone and not self._next.freed:
            self._next.freed = True
            self._pending.set()

    def stir(self) -> None:
        self._next.stir = True
        self._pending.set()

    def revoked(self, task_id: str) -> None:
        self._next.revoked = [*self._next.revoked, task_id]
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


async def listen(listener: Listener) -> None:
    """Keep listening for ever, across outages of the database."""
    wait, said = 0.2, False

    def connected() -> None:
        nonlocal wait, said
        if said:
            events.emit(log, events.LISTENER_BACK)
        wait, said = 0.2, False

    while True:
        error = "the connection was closed"
        try:
            await listener.run(connected)
        except Unavailable as unavailable:
            error = str(unavailable)
        if not said:
            events.emit(log, events.LISTENER_LOST, error=error)
            said = True
        await asyncio.sleep(wait)
        wait = min(MAX_RETRY_SECONDS, wait * 2)
