"""Those who wait for tasks to end: none of them holds a database connection.

What this replica ends itself it tells them at once. For what others end, one statement asks about all watched tasks
together, a few times a second and only while somebody waits; a hint that is lost costs that long.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from app.store import views
from app.store.db import Database, Unavailable

POLL_SECONDS = 0.2
AWAY_SECONDS = 1.0


class TaskWaiters:
    def __init__(self) -> None:
        self.watched: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        """By task id; empty while nobody waits, which is all that a settling group looks at."""
        self._somebody = asyncio.Event()
        self._look = asyncio.Event()
        self.closed = False

    @contextmanager
    def watching(self, task_id: str) -> Iterator[asyncio.Event]:
        """The event is set when the task may have ended, and when the replica drains."""
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
        """Tasks have ended, it is not known which: ask now."""
        self._look.set()

    def close(self) -> None:
        """Everybody is answered now, and whoever comes from here on does not wait: the replica drains."""
        self.closed = True
        self.ended(self.watched)

    async def run(self, db: Database) -> None:
        """For ever: wake those whose tasks have ended anywhere."""
        while True:
            await self._somebody.wait()
            self._look.clear()  # before the question: an end that is told during it may be too late for its snapshot
            try:
                self.ended(await views.not_live(db, list(self.watched)))
                pause = POLL_SECONDS
            except Unavailable:
                pause = AWAY_SECONDS  # those who wait hear of it when they read their task
            try:
                async with asyncio.timeout(pause):
                    await self._look.wait()
            except TimeoutError:
                pass
