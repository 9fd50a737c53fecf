"""Handlers that suffer: add this replica's counts of calls to those of the others, and act on all of them.

A loop of every engine. It runs while calls are counted here, and when time alone changes a handler's health: an open breaker lets
a probe through, a slow start doubles. The engine's poll finds what a replica has left that died in between.
"""

import time

from app.domain.breakers import advance
from app.runtime import breakers
from app.runtime.core import Core
from app.store import breakers as store

DUE_LIMIT = 100
WATCH_SECONDS = 3.0
"""How long a handler is looked at after its last call here: the adaptive limit is judged by full seconds."""
WATCH_EVERY_SECONDS = 0.5


class Breakers:
    """A loop of the engine (`tick`)."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._watched: dict[int, float] = {}
        """Handlers with calls counted here lately, and until when they are looked at, in monotonic seconds."""

    async def tick(self) -> float | None:
        await self._add_calls()
        now = time.monotonic()
        self._watched = {handler_id: until for handler_id, until in self._watched.items() if until > now}
        found = await store.look(self._core.db, list(self._watched), DUE_LIMIT)
        for handler in found:
            if advance(handler.health, handler.guard, handler.seen, handler.at) != handler.health:
                await breakers.advanced(self._core, handler.handler_id)
        return WATCH_EVERY_SECONDS if self._watched else await store.next_look(self._core.db)

    async def _add_calls(self) -> None:
        calls = self._core.calls
        counted = calls.take()
        if not counted:
            return
        try:
            await store.add_calls(self._core.db, counted)
        except BaseException:
            calls.take_back(counted)
            raise
        until = time.monotonic() + WATCH_SECONDS
        self._watched.update((count.handler_id, until) for count in counted)
