"""What is made of samples."""

import statistics
from collections.abc import Sequence
from typing import Any


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which this share of the ordered values lies; nearest rank."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else float("nan")


def paired(base: Sequence[float], ours: Sequence[float], names: tuple[str, str] = ("bare", "sluice")) -> dict[str, Any]:
    """Medians, and the median of each round's own ratio: a slow moment of the machine hits both sides of a pair."""
    return {
        "ratio": statistics.median(b / a for a, b in zip(base, ours, strict=True)),
        names[0]: statistics.median(base),
        names[1]: statistics.median(ours),
        "rounds": {names[0]: list(base), names[1]: list(ours)},
    }


def milliseconds(seconds: Sequence[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        "p50_ms": quantile(ordered, 0.50) * 1000,
        "p99_ms": quantile(ordered, 0.99) * 1000,
        "max_ms": quantile(ordered, 1.0) * 1000,
        "samples": len(ordered),
    }


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """Of the line that fits best: units of `values` per unit of `times`."""
    return statistics.linear_regression(times, values).slope if len(set(times)) > 1 else float("nan")
