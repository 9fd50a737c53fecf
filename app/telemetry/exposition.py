"""Readings in the Prometheus text format, version 0.0.4.

The rendering of `prometheus_client` takes ten times as long, because each sample is an object and each label is formatted again
for each bucket (decision 0097). Tests read this text with that library's parser.
"""

from collections.abc import Iterable, Iterator
from itertools import accumulate

from app.telemetry.readings import Histogram, Reading

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})


def exposition(readings: Iterable[Reading]) -> bytes:
    """Return the text of a scrape."""
    return "".join(line for reading in readings for line in _lines(reading)).encode()


def _lines(reading: Reading) -> Iterator[str]:
    metric = reading.metric
    yield f"# HELP {metric.name} {metric.meaning}\n# TYPE {metric.name} {metric.kind}\n"
    heads: dict[tuple[float, ...], list[str]] = {}
    for values, value in reading.points:
        pairs = ",".join(
            [f'{label}="{text.translate(_ESCAPES)}"' for label, text in zip(metric.labels, values, strict=True)]
        )
        if isinstance(value, Histogram):
            bounds = heads.get(value.bounds)
            if bounds is None:
                bounds = heads[value.bounds] = [f'le="{bound!r}"}} ' for bound in value.bounds] + ['le="+Inf"} ']
            yield _histogram(metric.name, pairs, bounds, value)
        elif pairs:
            yield f"{metric.name}{{{pairs}}} {float(value)!r}\n"
        else:
            yield f"{metric.name} {float(value)!r}\n"


def _histogram(name: str, pairs: str, bounds: list[str], histogram: Histogram) -> str:
    head = f"{name}_bucket{{{pairs}," if pairs else f"{name}_bucket{{"
    counts = list(accumulate(histogram.counts))
    lines = [f"{head}{bound}{count}.0\n" for bound, count in zip(bounds, counts, strict=True)]
    rest = f"{{{pairs}}} " if pairs else " "
    lines.append(f"{name}_count{rest}{counts[-1]}.0\n{name}_sum{rest}{float(histogram.total)!r}\n")
    return "".join(lines)
