"""Requests that wait for tasks to end, without holding a database connection.

They learn at once of tasks that this replica ends. For tasks that others end, one statement checks all watched tasks together, a
few times per second and only while someone waits; a lost hint costs that long.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from app.store import views
from app.store.db import Database
from app.store.failures import Unavailable

POLL_SECONDS = 0.2
AWAY_SECONDS = 1.0


class TaskWaiters:
    def __init__(self) -> None:
        self.watched: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        """By task id; empty while nobody waits, which is all that a settling group checks."""
        self._somebody = asyncio.Event()
        self._look = asyncio.Event()
        self.closed = False

    @contextmanager
    def watching(self, task_id: str) -> Iterator[asyncio.Event]:
        """Yield an event that is set when the task may have ended, and when the replica drains."""
        event = asyncio.Event()
        self.watched[task_id].add(event)
        self._somebody.set()
        try:
            yield event
        finally:
            self.watched[task_id].discard(event)
            if not self.watched[task_id]:
                del self.watched[task_id]
            if not self.watched:
                self._somebody.clear()

    def ended(self, task_ids: Iterable[str]) -> None:
        for task_id in task_ids:
            for event in self.watched.get(task_id, ()):
                event.set()

    def look(self) -> None:
        """Check now: tasks have ended, but it is not known which."""
        self._look.set()

    def close(self) -> None:
        """Answer everyone now, and let nobody wait from here on, because the replica is draining."""
        self.closed = True
        self.ended(self.watched)

    async def run(self, db: Database) -> None:
        """Run forever, waking those whose tasks have ended on any replica."""
        while True:
            await self._somebody.wait()
            self._look.clear()  # before the query: a task that ends during it may be missing from its snapshot
            try:
                self.ended(await views.not_live(db, list(self.watched)))
                pause = POLL_SECONDS
            except Unavailable:
                pause = AWAY_SECONDS  # those who wait notice the outage when they read their task
            try:
                async with asyncio.timeout(pause):
                    await self._look.wait()
            except TimeoutError:
                pass
