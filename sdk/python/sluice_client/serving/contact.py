"""Whether the service can be reached: told in the log when that changes, not at every request."""

import logging
import random
from time import monotonic

from sluice_client.errors import ApiError, ConnectionFailed

log = logging.getLogger("sluice_client.worker")

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 5.0


class Contact:
    """Shared by everything that speaks to one service for one worker."""

    def __init__(self) -> None:
        self._lost_at: float | None = None

    def failed(self, error: Exception) -> None:
        """Note that the service did not answer, or answered that it cannot now."""
        if self._lost_at is None:
            self._lost_at = monotonic()
            log.warning("Sluice is away: %s. Trying again until it is back", error)

    def reached(self) -> None:
        """Note that it answered."""
        if self._lost_at is not None:
            log.warning("Sluice is back after %.1f s", monotonic() - self._lost_at)
            self._lost_at = None


def will_pass(error: Exception) -> bool:
    """Whether it is worth asking again: nothing came, or nothing of Sluice's, or it said not now."""
    if isinstance(error, ApiError):
        return error.status in (408, 429) or error.status >= 500
    return isinstance(error, ConnectionFailed)


def pause(failures: int, error: Exception) -> float:
    """Return how many seconds to wait after so many failures in a row.

    Uniform between half and all of a time that doubles, so that workers which lost the service together do not come back
    together; at least what the service asked for.
    """
    longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(failures - 1, 16))
    asked: float | None = getattr(error, "retry_after", None)
    return max(random.uniform(longest / 2, longest), min(asked or 0.0, 60.0))
