"""Outages of the database, as seen by the whole replica: logged once at the start and once at the end.

Loops, group writers and routes notice an outage at different moments, and some succeed while it lasts, over a socket that
survived. So an outage begins with the first statement that cannot reach the database, and ends when statements have been answered
for a second without a failure in between.
"""

import time

from app.telemetry import events
from app.telemetry.logs import get_logger

CALM_SECONDS = 1.0

log = get_logger(__name__)


class Outage:
    def __init__(self) -> None:
        self.failures = 0
        """A statement during which this increased says nothing about the end."""
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
        """Note that a statement was answered; `failures_before` is the value of `failures` when it was sent."""
        if self._began is None or failures_before != self.failures:
            return
        now = time.monotonic()
        if self._calm_since is None:
            self._calm_since = now
        elif now - self._calm_since >= CALM_SECONDS:
            self.over()

    def over(self) -> None:
        """End the outage, if there was one: the database is definitely back."""
        if self._began is not None:
            lasted = (self._calm_since or time.monotonic()) - self._began
            self._began = self._calm_since = None
            events.emit(log, events.DATABASE_BACK, outage_seconds=round(lasted, 3))
