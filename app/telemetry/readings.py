"""Numbers as they are read for a scrape or an export: a metric's definition, and its points."""

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final, NamedTuple

from app.telemetry.definitions import Definition

SECONDS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0),
)
HTTP_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
SIZES: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10000.0)


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


class Reading(NamedTuple):
    """A metric with its points: the values of its labels, in the order of its definition, and the number or histogram."""

    metric: Definition
    points: Iterable[tuple[tuple[str, ...], float | Histogram]]
