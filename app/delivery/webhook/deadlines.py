"""Deadlines of calls, most of which end long before theirs.

A timer of the event loop per call would be made only to be cancelled. So deadlines are kept in slots of half a second, and a call
gets a timer of its own only when its slot begins.
"""

import asyncio
from collections.abc import Callable

SLOT_SECONDS = 0.5


class Deadline:
    """One call's deadline. `expired` is called at `at` (the loop's clock), unless it is cancelled before."""

    __slots__ = ("at", "expired", "slot", "timer")

    def __init__(self, at: float, expired: Callable[[], None]) -> None:
        self.at = at
        self.expired = expired
        self.slot: set[Deadline] | None = None
        self.timer: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        if self.slot is not None:
            self.slot.discard(self)
        if self.timer is not None:
            self.timer.cancel()


class Deadlines:
    """The deadlines in one event loop."""

    def __init__(self) -> None:
        self._slots: dict[int, set[Deadline]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, at: float, expired: Callable[[], None]) -> Deadline:
        loop = asyncio.get_running_loop()
        deadline = Deadline(at, expired)
        number = int(at / SLOT_SECONDS)
        slot = self._slots.get(number)
        if slot is None:
            if number * SLOT_SECONDS <= loop.time():
                deadline.timer = loop.call_at(at, expired)
                return deadline
            slot = self._slots[number] = set()
            self._arm(loop)
        deadline.slot = slot
        slot.add(deadline)
        return deadline

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = loop.call_at(min(self._slots) * SLOT_SECONDS, self._begin_slot, loop) if self._slots else None

    def _begin_slot(self, loop: asyncio.AbstractEventLoop) -> None:
        for deadline in self._slots.pop(min(self._slots)):
            deadline.slot = None
            deadline.timer = loop.call_at(deadline.at, deadline.expired)
        self._arm(loop)
