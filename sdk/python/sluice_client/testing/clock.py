"""The clock of the fake: it stands still until a test moves it."""

from datetime import datetime, timedelta, timezone

from sluice_client.tasks.durations import Duration, seconds_of


class Clock:
    """Time as the fake sees it. It begins at the present and moves only by `move`."""

    def __init__(self) -> None:
        self._now = datetime.now(timezone.utc)

    def now(self) -> datetime:
        """Return the instant that it is, in UTC."""
        return self._now

    def move(self, by: Duration) -> datetime:
        """Move forward by `"90s"`, `"1d"`, `"1h30m"`, a number of seconds or a timedelta, and return the instant that it is then.

        Nothing runs: `drain` runs what has become due. Raises ValueError for what is not a duration, or is negative.
        """
        self._now += timedelta(seconds=seconds_of(by))
        return self._now
