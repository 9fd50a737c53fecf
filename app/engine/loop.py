"""The frame of every loop: a name, and a tick that returns the seconds until the next, or None to wait for a wake-up.

A loop stops by a flag after finishing the current tick; a tick is never cancelled. An error is logged, and the tick is retried
with growing delays. A loop that ends unexpectedly fails liveness.
"""

import asyncio
from collections.abc import Awaitable, Callable

from app.store.failures import Busy, Unavailable
from app.telemetry import events
from app.telemetry.logs import get_logger

FIRST_RETRY_SECONDS = 0.2
MAX_RETRY_SECONDS = 5.0

log = get_logger(__name__)


class Loop:
    def __init__(self, name: str, tick: Callable[[], Awaitable[float | None]]) -> None:
        self.name = name
        self._tick = tick
        self._woken = asyncio.Event()
        self._stopping = False
        self._timer: asyncio.Handle | None = None
        self._timer_at = 0.0
        """When the timer fires; kept because uvloop's handle of an immediate call has no when()."""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"loop {self.name}")
        self._task.add_done_callback(self._ended)

    def wake(self) -> None:
        """Tick now, or once more right after the current tick."""
        self._woken.set()

    def wake_in(self, seconds: float) -> None:
        """Tick in `seconds` at the latest; of several calls, the earliest counts."""
        loop = asyncio.get_running_loop()
        at = loop.time() + max(0.0, seconds)
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer, self._timer_at = loop.call_at(at, self._ring), at

    def _ring(self) -> None:
        self._timer = None
        self._woken.set()

    def give_up(self) -> None:
        """Start no other tick, and do not wait for the current one, which may be cancelled."""
        self._stopping = True

    async def stop(self) -> None:
        """Stop the loop; return when the current tick is done."""
        self.give_up()
        self._woken.set()
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            await self._task

    @property
    def died(self) -> bool:
        return self._task is not None and self._task.done() and not self._stopping

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not self._stopping:
            log_death(self.name, task)

    async def _run(self) -> None:
        failures = 0
        while not self._stopping:
            self._woken.clear()
            try:
                delay = await self._tick()
                failures = 0
            except Exception as error:
                delay = min(MAX_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2**failures)
                failures = min(failures + 1, 10)
                _log_failure(self.name, error, delay)
            if (delay is None or delay > 0) and not self._stopping:
                if delay is not None:
                    self.wake_in(delay)
                await self._woken.wait()


def log_death(name: str, task: asyncio.Task[None]) -> None:
    """Handle the end of a task that should have run until it was stopped. A cancelled one has no exception."""
    error = None if task.cancelled() else task.exception()
    events.emit(log, events.LOOP_DIED, loop=name, exc_info=error)


def _log_failure(name: str, error: Exception, delay: float) -> None:
    """Log a failed tick, except for an unavailable database: the database layer logs each outage once."""
    if isinstance(error, Busy):
        events.emit(log, events.LOOP_FAILED, loop=name, retry_in_seconds=delay, error=str(error))
    elif not isinstance(error, Unavailable):
        events.emit(log, events.LOOP_FAILED, loop=name, retry_in_seconds=delay, exc_info=error)
