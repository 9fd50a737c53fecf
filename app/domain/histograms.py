"""Durations in log-spaced buckets: three per doubling from 1 ms to ten days, so a percentile is off by at most an eighth.

Bucket 0 holds everything up to 1 ms, bucket b the range (1 ms x 2^((b-1)/3), 1 ms x 2^(b/3)], the last one everything above.
Stored counts depend on these numbers, so none of them may change without a migration.
"""

from collections.abc import Iterable, Sequence
from math import log2

LOWEST_SECONDS = 0.001
STEPS_A_DOUBLING = 3
BUCKETS = 91
_LAST = BUCKETS - 1


def bucket_of(seconds: float) -> int:
    if seconds <= LOWEST_SECONDS:
        return 0
    bucket = int(log2(seconds * 1000.0) * STEPS_A_DOUBLING) + 1
    return bucket if bucket < _LAST else _LAST


def summed(histograms: Iterable[Sequence[int]]) -> list[int]:
    """Return the sum of histograms; any of them may be trimmed."""
    total = [0] * BUCKETS
    for histogram in histograms:
        for bucket, count in enumerate(histogram):
            total[bucket] += count
    return total


def trimmed(histogram: Sequence[int]) -> list[int]:
    """Return the histogram without trailing zeros: most queues fill only a third of the buckets."""
    end = len(histogram)
    while end and not histogram[end - 1]:
        end -= 1
    return list(histogram[:end])


def percentile(histogram: Sequence[int], share: float) -> float | None:
    """Return the duration in seconds that `share` (0 to 1) of the counts did not exceed; None without counts."""
    rank = share * sum(histogram)
    seen = 0
    for bucket, count in enumerate(histogram):
        if count and seen + count >= rank:
            return _within(bucket, (rank - seen) / count)
        seen += count
    return None


def _within(bucket: int, fraction: float) -> float:
    if bucket == 0:
        return LOWEST_SECONDS * fraction
    return LOWEST_SECONDS * float(2 ** ((bucket - 1 + fraction) / STEPS_A_DOUBLING))
