"""Once per minute, by one replica: how many tasks of each queue are ready and running, and the past minute summed by tenant."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from app.runtime.core import Core
from app.store import stats
from app.store.stats import QueueOverview

MINUTE = timedelta(minutes=1)
SUMMED_AGAIN = 2
"""How many past minutes are summed each time: a flush that began in one may have ended in the next."""
MOST_SUMMED = 10
"""How many past minutes are summed after a time in which no replica did so."""


class Minutes:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._tried: datetime | None = None
        """The minute in which this replica last tried."""
        self._summed: datetime | None = None
        """The minute before which this replica has summed all."""

    async def sample(self, queues: Sequence[QueueOverview]) -> None:
        """Record this minute, unless another replica has. Raises Unavailable."""
        db, minute = self._core.db, self._core.clock.now().replace(second=0, microsecond=0)
        if minute == self._tried:
            return
        self._tried = minute
        if await stats.sample(db, queues):
            since = minute - SUMMED_AGAIN * MINUTE
            if self._summed is None or self._summed < minute - MINUTE:
                since = max(self._summed or minute - MOST_SUMMED * MINUTE, minute - MOST_SUMMED * MINUTE)
            await stats.fold_minutes(db, since, minute)
            self._summed = minute
