"""What takes long is waited for a moment only: a page is there at once, with what was known before, however many tasks there are.

Counting a queue of millions takes seconds. It goes on after the page has been sent, one count at a time for all who ask, and what
took long is asked for less often.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, TypeVar

from app.domain.errors import Refusal

MOMENT_SECONDS = 0.12
KEPT_SECONDS = 60.0
SHARE = 0.2
"""How much of the time it may be worked out."""
MOST_KEPT = 1000
T = TypeVar("T")


@dataclass(slots=True)
class _Known:
    making: "asyncio.Future[Any] | None" = None
    value: Any = None
    known: bool = False
    asked_at: float = 0.0
    until: float = 0.0
    """From when on it is worked out again."""


class Patience:
    def __init__(self) -> None:
        self._known: dict[Hashable, _Known] = {}

    async def ask(self, key: Hashable, make: Callable[[], Awaitable[T]]) -> T | None:
        """Return what `make` returns, or what it has returned before if it takes too long; None if that is nothing, or if the
        database refuses to work so long. Raises what else `make` raises."""
        now = time.monotonic()
        one = self._known.get(key)
        if one is None:
            self._forget(now)
            one = self._known[key] = _Known()
        one.asked_at = now
        if one.making is None and now >= one.until:
            one.making = asyncio.ensure_future(self._make(key, one, make))
            one.making.add_done_callback(lambda done: done.cancelled() or done.exception())  # everyone may have gone
        if one.making is not None:
            making = one.making
            done, _ = await asyncio.wait({making}, timeout=MOMENT_SECONDS)
            if done:
                await making
        found: T | None = one.value if one.known else None
        return found

    async def _make(self, key: Hashable, one: _Known, make: Callable[[], Awaitable[Any]]) -> None:
        began = time.monotonic()
        try:
            one.value, one.known = await make(), True
        except Refusal as refusal:
            if refusal.code != "unavailable":
                self._known.pop(key, None)
                raise
        except BaseException:
            self._known.pop(key, None)
            raise
        finally:
            one.making = None
            took = time.monotonic() - began
            # what was there in a moment is worked out for each
            one.until = time.monotonic() + (took / SHARE if took > MOMENT_SECONDS else 0.0)

    def _forget(self, now: float) -> None:
        if len(self._known) >= MOST_KEPT:
            self._known = {key: one for key, one in self._known.items() if now - one.asked_at < KEPT_SECONDS}
        if len(self._known) >= MOST_KEPT:
            self._known.clear()
