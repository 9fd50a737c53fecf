"""What time does to schedules: fire what is due, and write the end of runs.

Every replica does both; compare-and-set decides who was first. The scheduler sleeps until the next schedule is due, and never
longer than its poll interval, which is the truth where a hint was lost: its cost does not grow with the schedules there are.
"""

from app.runtime.core import Core
from app.service import firing

FIRE_LIMIT = 500
FINISH_LIMIT = 200
POLL_SECONDS = 1.0
LOST_SECONDS = 0.02
"""How soon a look is repeated when others were faster with all that was due."""


class Scheduler:
    """A tick for each of two loops."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def fire(self) -> float:
        _, written, next_seconds = await firing.fire(self._core, FIRE_LIMIT)
        if next_seconds is not None and next_seconds <= 0:
            return 0 if written else LOST_SECONDS
        return POLL_SECONDS if next_seconds is None else min(POLL_SECONDS, next_seconds)

    async def finish(self) -> float:
        found = await firing.finish(self._core, FINISH_LIMIT)
        return LOST_SECONDS if found else POLL_SECONDS
