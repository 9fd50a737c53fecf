"""Those who watch events, and the one poller that looks for all of them.

While nobody watches, nothing is read. A viewer is told only that there is something newer, and holds what is newest: one whose
connection is slow passes over what came in between, and costs no more memory than any other.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from app.domain.errors import Refusal
from app.runtime.looks import Look, Looks
from app.store import views
from app.store.db import Database

TICK_SECONDS = 0.5
"""How often the poller asks for fresh looks, which are read when they are due, and reads the tasks that are watched."""
MAX_VIEWERS = 1000
MAX_VIEWERS_OF_TENANT = 200
TASKS = "tasks of viewers"
"""Reading them takes turns like one more tenant."""


@dataclass(slots=True, eq=False)
class Viewer:
    tenant_id: int
    operates: bool
    """Whether it is shown replicas and database."""
    task_id: str | None
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    look: Look | None = None
    """The newest."""
    task: str = ""
    """A digest of the task as it was last read."""
    unreachable: bool = False
    """The last look could not be taken."""


class Viewers:
    def __init__(self, db: Database, looks: Looks) -> None:
        self._db = db
        self._looks = looks
        self._viewers: set[Viewer] = set()
        self._somebody = asyncio.Event()
        self._looking: dict[int, asyncio.Task[None]] = {}
        """By tenant: a look that takes long keeps no other tenant waiting."""
        self.closed = False

    @contextmanager
    def watching(self, tenant_id: int, *, operates: bool, task_id: str | None) -> Iterator[Viewer]:
        """Yield a viewer, whose event is set when there is something newer, and when the replica drains."""
        viewer = Viewer(tenant_id, operates, task_id)
        self._viewers.add(viewer)
        self._somebody.set()
        try:
            yield viewer
        finally:
            self._viewers.discard(viewer)
            if not self._viewers:
                self._somebody.clear()

    def close(self) -> None:
        """End all, and let nobody watch from here on, because the replica is draining."""
        self.closed = True
        for viewer in self._viewers:
            viewer.changed.set()

    async def run(self) -> None:
        """Poll forever, while somebody watches."""
        try:
            while True:
                await self._somebody.wait()
                self._look_at_tenants()
                await self._look_at_tasks()
                await asyncio.sleep(TICK_SECONDS)
        finally:
            for looking in self._looking.values():
                looking.cancel()

    def _look_at_tenants(self) -> None:
        for tenant_id in {viewer.tenant_id for viewer in self._viewers} - self._looking.keys():
            self._looking[tenant_id] = asyncio.ensure_future(self._look(tenant_id))

    async def _look(self, tenant_id: int) -> None:
        operates = any(viewer.operates for viewer in self._of(tenant_id))
        try:
            look = await self._looks.at(tenant_id, operates=operates)
        except Refusal:
            look = None
        finally:
            del self._looking[tenant_id]
        for viewer in self._of(tenant_id):
            if look is None and not viewer.unreachable:
                viewer.unreachable = True
            elif look is not None and (look is not viewer.look or viewer.unreachable):
                viewer.look, viewer.unreachable = look, False
            else:
                continue
            viewer.changed.set()

    def _of(self, tenant_id: int) -> list[Viewer]:
        return [viewer for viewer in self._viewers if viewer.tenant_id == tenant_id]

    async def _look_at_tasks(self) -> None:
        watched = {viewer.task_id for viewer in self._viewers if viewer.task_id is not None}
        if not watched:
            return
        try:
            digests = await views.watched(self._db.reads(TASKS), list(watched))
        except Refusal:
            return  # the looks tell viewers of an outage
        for viewer in self._viewers:
            if viewer.task_id is not None and viewer.task != (digest := digests.get(viewer.task_id, "gone")):
                viewer.task = digest
                viewer.changed.set()
