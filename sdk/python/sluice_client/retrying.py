"""When a request is sent again, and how long to wait before it is. Pure functions: no clock, no network.

A request is repeated if the service can tell that it is the same one: GET, an enqueue whose tasks have idempotency keys,
and what a lease token settles. Nothing else is, because nobody knows whether the first one was carried out.
"""

from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any

from sluice_client.errors import ApiError, ConnectionFailed, NotSluice, SluiceError

REPEATED_STATUSES = frozenset({429, 502, 503, 504})
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0


def is_keyed(body: Mapping[str, Any]) -> bool:
    """Whether an enqueue can be repeated: its task, or each of its tasks, has an idempotency key."""
    tasks = body.get("tasks")
    if tasks is None:
        return bool(body.get("idempotency_key"))
    return all(task.get("idempotency_key") for task in tasks)


def repeats_after(error: SluiceError) -> float | None:
    """Return how long the service asked to wait (0.0: it did not) after an error that may pass, and None after any other."""
    if isinstance(error, (ApiError, NotSluice)):
        return (error.retry_after or 0.0) if error.status in REPEATED_STATUSES else None
    return 0.0 if isinstance(error, ConnectionFailed) else None


def pause_before(repeat: int, retry_after: float, remaining: float, chance: float) -> float | None:
    """Return the seconds to wait before a repeat (1 is the first), or None if there is no time left for it.

    The pause doubles from repeat to repeat. Its second half is random (`chance` is uniform in 0..1), so that callers that
    failed together do not come back together. It is never shorter than what the service asked for.
    """
    full = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(repeat - 1, 16))
    pause = max(full * (1 + chance) / 2, retry_after)
    return pause if pause < remaining else None


def retry_after_seconds(value: str | None, now: datetime) -> float | None:
    """Read a `Retry-After` header (RFC 9110, section 10.2.3): seconds, or a date. None if there is none, or no sense in it."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    if date.tzinfo is None:  # RFC 5322 reads "-0000" so
        date = date.replace(tzinfo=timezone.utc)
    return max(0.0, (date - now).total_seconds())
