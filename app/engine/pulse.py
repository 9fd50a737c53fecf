"""The pulse: reads the database's clock, and records that this replica is alive and who waits for its places."""

import time
from collections.abc import Callable

from app.engine.announcer import Announcer, HintListener
from app.runtime.core import Core
from app.store import replicas
from app.store.migrations import SCHEMA_VERSION
from app.store.replicas import Load

BEAT_SECONDS = 2.0


class Pulse:
    def __init__(
        self,
        core: Core,
        announcer: Announcer,
        listener: HintListener,
        load: Callable[[], Load],
        *,
        roles: str,
        version: str,
    ) -> None:
        self._core = core
        self._announcer = announcer
        self._listener = listener
        self._load = load
        self._roles = roles
        self._version = version
        self.draining = False
        self.outdated = False
        """A newer release has changed the schema so that this one can no longer run on it."""

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
            deaf=self._listener.deaf,
            load=self._load(),
            connections=core.db.connections,
            max_payload_bytes=core.max_payload_bytes,
        )
        core.clock.heard(now, asked, time.monotonic())
        self._announcer.alone = others == 0
        self.outdated = oldest > SCHEMA_VERSION
        if self._roles == "api":
            core.engine_lives = await replicas.engine_lives(core.db)
        await core.stats.flush(core.db)
        await core.keys.note(core.db)
        await core.refusals.note(core.db)
        return BEAT_SECONDS

    async def goodbye(self) -> None:
        await self._core.stats.flush(self._core.db)
        await self._core.keys.note(self._core.db, now=True)
        await self._core.refusals.note(self._core.db, now=True)
        await replicas.gone(self._core.db, self._core.replica.id)
