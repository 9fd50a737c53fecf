"""One clock: the database's, as last read, extrapolated by this machine's monotonic clock."""

import time
from datetime import UTC, datetime

from app.store.db import Reader
from app.store.statements import sql

_CLOCK = sql("read_clock")


async def now(db: Reader) -> datetime:
    """Return the database's present instant."""
    found: datetime = await db.fetchval(_CLOCK)
    return found


class Clock:
    """A replica's clock. It follows the database's, so that a skewed host affects neither signatures nor the order of ids."""

    def __init__(self) -> None:
        self._offset = time.time() - time.monotonic()

    def heard(self, database_now: datetime, asked: float, answered: float) -> None:
        """Record a reading; `asked` and `answered` are time.monotonic() before and after the statement that read it."""
        self._offset = database_now.timestamp() - (asked + answered) / 2

    def seconds(self) -> float:
        """Return the Unix time in seconds."""
        return time.monotonic() + self._offset

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.seconds(), UTC)
