"""Lengths of time as people write them: `"5m"`, `"1h30m"`, a timedelta, or seconds."""

import re
from datetime import timedelta

Duration = float | str | timedelta

_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


def seconds_of(duration: Duration) -> float:
    """Return a duration in seconds. Raises ValueError for a text that is not one, for a negative one, and for NaN."""
    if isinstance(duration, timedelta):
        seconds = duration.total_seconds()
    elif isinstance(duration, str):
        text = duration.replace(" ", "")
        parts = _PART.findall(text)
        if not parts or "".join(number + unit for number, unit in parts) != text:
            raise ValueError(
                f'{duration!r} is not a duration; write "90s", "5m", "1h30m", "2d", a timedelta or seconds'
            )
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    elif isinstance(duration, (int, float)) and not isinstance(duration, bool):
        seconds = float(duration)
    else:
        raise ValueError(f"{duration!r} is not a duration")
    if not 0 <= seconds < float("inf"):
        raise ValueError(f"{duration!r} is not a duration: it must be finite and not negative")
    return int(seconds) if seconds == int(seconds) else seconds
