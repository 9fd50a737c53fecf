"""How far one request searches: in windows of rows, one statement each, until it has enough, nothing is left, or time is up."""

import time

FIRST_WINDOW = 500
MAX_WINDOW = 16_000
"""In rows; takes tens of milliseconds."""
GROWTH = 8
LOOK_SECONDS = 0.15


class Windows:
    """The windows of one search. `rows` is the size of the next one; a quick window is followed by a larger one."""

    def __init__(self, at_least: int) -> None:
        self.rows = max(FIRST_WINDOW, at_least)
        self._began = self._asked = time.monotonic()

    def looked(self) -> bool:
        """Note that a window has been searched; return whether there is time for another."""
        now = time.monotonic()
        if (now - self._asked) * GROWTH < LOOK_SECONDS:
            self.rows = min(MAX_WINDOW, self.rows * GROWTH)
        self._asked = now
        return now - self._began <= LOOK_SECONDS
