"""How long a failed task waits before it is tried again."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sluice_client.tasks.durations import Duration, seconds_of

Backoff = Mapping[str, Any] | Sequence[Duration]
Jitter = Literal["full", "equal", "none"]


def exponential(
    first: Duration = 1, longest: Duration = 3600, *, factor: float = 2, jitter: Jitter = "equal"
) -> Mapping[str, Any]:
    """Wait `first`, then `factor` times as long after each further failure, at most `longest`.

    `jitter`: `equal` waits half of that and a random part of the other half, `full` a random part of all of it.
    """
    least, most = seconds_of(first), seconds_of(longest)
    if least > most:
        raise ValueError(f"exponential: the first wait ({least} s) is longer than the longest ({most} s)")
    if factor < 1:
        raise ValueError(f"exponential: the factor is {factor}, and must be at least 1")
    return {"kind": "exponential", "min_seconds": least, "max_seconds": most, "factor": factor, "jitter": jitter}


def fixed(wait: Duration) -> Mapping[str, Any]:
    """Wait the same time after every failure."""
    return {"kind": "fixed", "seconds": seconds_of(wait)}


def backoff_of(backoff: Backoff) -> dict[str, Any]:
    """Return a backoff as the service takes it. A list has the wait after each failure; its last one repeats.

    Raises ValueError.
    """
    if isinstance(backoff, Mapping):
        return dict(backoff)
    if isinstance(backoff, str) or not isinstance(backoff, Sequence):
        raise ValueError("backoff: write exponential(1, 600), fixed(60) or a list such as [60, 300, 900]")
    if not backoff:
        raise ValueError("backoff: an empty list says nothing")
    return {"kind": "list", "seconds": [seconds_of(wait) for wait in backoff]}
