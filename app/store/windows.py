"""How far one answer looks: windows of rows, each a statement, until there is enough, nothing is left, or time is over."""

import time

FIRST_WINDOW = 500
MAX_WINDOW = 16_000
"""Rows; tens of milliseconds."""
GROWTH = 8
LOOK_SECONDS = 0.15


class Windows:
    """`rows` is the size of the next window. A window that was quick is followed by a larger one."""

    def __init__(self, at_least: int) -> None:
        self.rows = max(FIRST_WINDOW, at_least)
        self._began = self._asked = time.monotonic()

    def looked(self) -> bool:
        """One has been looked through; whether there is time for another."""
        now = time.monotonic()
        if (now - self._asked) * GROWTH < LOOK_SECONDS:
            self.rows = min(MAX_WINDOW, self.rows * GROWTH)
        self._asked = now
        return now - self._began <= LOOK_SECONDS
