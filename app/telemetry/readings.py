"""Numbers as they are read for a scrape or an export: a metric's definition, and its points."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Final, NamedTuple

from app.telemetry.definitions import Definition

SECONDS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0),
)
HTTP_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
SIZES: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10000.0)
TALLIED: Final = 1000


class Histogram:
    """Buckets as plain integers; a bound is the upper edge, as in Prometheus."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        # Two clocks may differ slightly; a negative sum would break every average.
        value = max(value, 0.0)
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Tally:
    """A histogram for the hottest places: a value is kept as it is, and a thousand at a time are sorted into the buckets, which
    takes a fifth of the time that `Histogram.observe` takes.

    One thread observes, others may read: the buckets and the values that are not yet in them are replaced together.
    """

    __slots__ = ("_bounds", "_state")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._state: tuple[Histogram, list[float]] = (Histogram(bounds), [])

    def observe(self, value: float) -> None:
        pending = self._state[1]
        pending.append(value)
        if len(pending) >= TALLIED:
            self._state = (self.read(), [])

    def read(self) -> Histogram:
        """Return all values until now, as a histogram of the caller's own."""
        histogram, pending = self._state
        values = sorted(pending)
        found = Histogram(self._bounds)
        below = [bisect_right(values, bound) for bound in self._bounds] + [len(values)]
        found.counts = [
            before + upto - under for before, under, upto in zip(histogram.counts, [0, *below[:-1]], below, strict=True)
        ]
        found.total = histogram.total + sum(values)
        return found


class Reading(NamedTuple):
    """A metric with its points: the values of its labels, in the order of its definition, and the number or histogram."""

    metric: Definition
    points: Iterable[tuple[tuple[str, ...], float | Histogram]]
