"""The pulse: hears the database's clock, shows that this replica is alive, measures the event loop, takes the snapshots."""

import time

from app.engine.announcer import Announcer
from app.service import status
from app.service.context import Core
from app.store import replicas
from app.store.migrations import SCHEMA_VERSION

BEAT_SECONDS = 2.0
SNAPSHOT_SECONDS = 10.0


class Pulse:
    def __init__(self, core: Core, announcer: Announcer, *, roles: str, version: str) -> None:
        self._core = core
        self._announcer = announcer
        self._roles = roles
        self._version = version
        self._snapshot_at = 0.0
        self.draining = False
        self.outdated = False
        """A newer release has changed the schema beyond what this one can run on."""

    async def beat(self) -> float:
        core = self._core
        asked = time.monotonic()
        now, others, oldest = await replicas.beat(
            core.db, core.replica.id, core.replica.name, self._roles, self._version, draining=self.draining
        )
        core.clock.heard(now, asked, time.monotonic())
        self._announcer.alone = others == 0
        self.outdated = oldest > SCHEMA_VERSION
        await core.stats.flush(core.db)
        if asked - self._snapshot_at >= SNAPSHOT_SECONDS:
            self._snapshot_at = asked
            core.metrics.set_queue_snapshot(await status.snapshot(core.db))
        return BEAT_SECONDS

    async def goodbye(self) -> None:
        await self._core.stats.flush(self._core.db)
        await replicas.gone(self._core.db, self._core.replica.id)
