"""One clock: the database's, as last heard, carried on by this machine's monotonic clock."""

import time
from datetime import UTC, datetime


class Clock:
    """Instants made in a replica follow the database's clock, so that a skewed host changes neither signatures nor the order
    of ids. `heard` is told each new reading with the monotonic times around it."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def heard(self, database_now: datetime, asked: float, answered: float) -> None:
        """asked, answered: time.monotonic() seconds before and after the statement that read `database_now`."""
        self._offset = database_now.timestamp() - (asked + answered) / 2

    def seconds(self) -> float:
        """Unix time in seconds."""
        return time.monotonic() + self._offset

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds(), UTC)
