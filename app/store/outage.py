"""Whether the database is away, as everything in a replica that asks it sees together: said once when it begins, once at its end.

Loops, lanes and routes meet an outage at different moments, and some succeed while it lasts: over a socket that was spared,
or by not asking at all. So it begins with the first statement that finds no database, and it is over when statements have been
answered for a second without a failure between them.
"""

import time

from app.telemetry import events
from app.telemetry.logs import get_logger

CALM_SECONDS = 1.0

log = get_logger(__name__)


class Outage:
    def __init__(self) -> None:
        self.failures = 0
        """A statement during which this has grown says nothing about the end."""
        self._began: float | None = None
        self._calm_since: float | None = None

    @property
    def on(self) -> bool:
        return self._began is not None

    def met(self, statement: str, error: str) -> None:
        self.failures += 1
        self._calm_since = None
        if self._began is None:
            self._began = time.monotonic()
            events.emit(log, events.DATABASE_UNAVAILABLE, statement=statement, error=error)

    def answered(self, failures_before: int) -> None:
        """A statement has been answered; `failures_before` is what `failures` was when it was sent."""
        if self._began is None or failures_before != self.failures:
            return
        now = time.monotonic()
        if self._calm_since is None:
            self._calm_since = now
        elif now - self._calm_since >= CALM_SECONDS:
            self.over()

    def over(self) -> None:
        """It is, beyond doubt; nothing happens where there was none."""
        if self._began is not None:
            lasted = (self._calm_since or time.monotonic()) - self._began
            self._began = self._calm_since = None
            events.emit(log, events.DATABASE_BACK, outage_seconds=round(lasted, 3))
