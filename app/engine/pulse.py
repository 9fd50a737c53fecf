"""The pulse: hears the database's clock, shows that this replica is alive and who waits for its places.

Beside it, the snapshot of all queues."""

import asyncio
import time
from collections.abc import Callable

from app.domain.errors import Refusal
from app.engine.announcer import Announcer, Ear
from app.runtime.core import Core
from app.service import status
from app.store import replicas
from app.store.migrations import SCHEMA_VERSION
from app.store.replicas import Load

BEAT_SECONDS = 2.0
SNAPSHOT_SECONDS = 10.0
SNAPSHOT_SHARE = 0.05
"""The part of its time that a replica may spend on counting: over a deep backlog it counts less often."""


class Pulse:
    def __init__(
        self, core: Core, announcer: Announcer, ear: Ear, load: Callable[[], Load], *, roles: str, version: str
    ) -> None:
        self._core = core
        self._announcer = announcer
        self._ear = ear
        self._load = load
        self._roles = roles
        self._version = version
        self.draining = False
        self.outdated = False
        """A newer release has changed the schema beyond what this one can run on."""
        self.counted = asyncio.Event()
        """The first snapshot has been taken, or tried."""

    async def beat(self) -> float:
        core = self._core
        asked = time.monotonic()
        now, others, oldest = await replicas.beat(
            core.db,
            core.replica.id,
            core.replica.name,
            self._roles,
            self._version,
            draining=self.draining,
            deaf=self._ear.deaf,
            load=self._load(),
            connections=core.db.connections,
        )
        core.clock.heard(now, asked, time.monotonic())
        self._announcer.alone = others == 0
        self.outdated = oldest > SCHEMA_VERSION
        if self._roles == "api":
            core.engine_lives = await replicas.engine_lives(core.db)
        await core.stats.flush(core.db)
        return BEAT_SECONDS

    async def snapshot(self) -> float:
        """A loop of its own: counting millions takes seconds, and a heartbeat that waits for it looks like a dead replica."""
        began = time.monotonic()
        try:
            self._core.metrics.set_queue_snapshot(await status.snapshot(self._core.db))
            self._core.metrics.set_schedule_snapshot(await status.schedule_snapshot(self._core))
        except Refusal:
            pass  # the heartbeat tells of an outage; a count that took too long is not tried again at once
        self.counted.set()
        return max(SNAPSHOT_SECONDS, (time.monotonic() - began) / SNAPSHOT_SHARE)

    async def goodbye(self) -> None:
        await self._core.stats.flush(self._core.db)
        await replicas.gone(self._core.db, self._core.replica.id)
