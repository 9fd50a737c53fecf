"""The metrics of /metrics, pushed by OTLP over HTTP: built from the same counters for each export, in a thread of its own.

OpenTelemetry's exporter sends them. Its instruments are not used: recording would cost each task more than everything else that is
measured (metrics.py). Headers, timeouts, compression and resource attributes follow OpenTelemetry's environment variables, and so
does the interval.
"""

import asyncio
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Histogram as OtlpHistogram
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from app.telemetry.metrics import Metrics
from app.telemetry.otlp import resource_of
from app.telemetry.readings import Histogram, Reading

CLOSE_SECONDS: Final = 5.0
DEFAULT_INTERVAL_SECONDS: Final = 60.0


def interval_seconds(environ: Mapping[str, str]) -> float:
    """Return the seconds between two exports; the variable is in milliseconds."""
    try:
        seconds = float(environ["OTEL_METRIC_EXPORT_INTERVAL"]) / 1000
    except (KeyError, ValueError):
        return DEFAULT_INTERVAL_SECONDS
    return seconds if 0 < seconds <= threading.TIMEOUT_MAX else DEFAULT_INTERVAL_SECONDS


class OtlpPush:
    """Exports until it is closed, and once more then."""

    def __init__(self, metrics: Metrics, endpoint: str, interval: float, *, version: str, replica: str) -> None:
        self._metrics = metrics
        self._interval = interval
        self._exporter = OTLPMetricExporter(endpoint=endpoint)
        self._resource = resource_of(version, replica)
        self._scope = InstrumentationScope("sluice", version)
        self._began = time.time_ns()
        self._closing = threading.Event()
        # A daemon, so that a collector that hangs does not delay the process's exit.
        self._thread = threading.Thread(target=self._run, name="metrics-push", daemon=True)
        self._thread.start()

    async def aclose(self) -> None:
        """Send what has been counted since the last export; waits a few seconds at most."""
        self._closing.set()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                while self._thread.is_alive():
                    await asyncio.sleep(0.01)

    def _run(self) -> None:
        closing = False
        while not closing:
            closing = self._closing.wait(self._interval)
            self._exporter.export(self._data(), timeout_millis=CLOSE_SECONDS * 1000)
        self._exporter.shutdown()

    def _data(self) -> MetricsData:
        now = time.time_ns()
        metrics = [self._metric(reading, now) for reading in self._metrics.readings()]
        scope = ScopeMetrics(self._scope, [metric for metric in metrics if metric.data.data_points], "")
        return MetricsData([ResourceMetrics(self._resource, [scope], "")])

    def _metric(self, reading: Reading, now: int) -> Metric:
        numbers: list[NumberDataPoint] = []
        histograms: list[HistogramDataPoint] = []
        kind = reading.metric.kind
        for values, value in reading.points:
            labels = dict(zip(reading.metric.labels, values, strict=True))
            if isinstance(value, Histogram):
                histograms.append(self._histogram(labels, value, now))
            else:
                began = None if kind == "gauge" else self._began
                numbers.append(NumberDataPoint(labels, began, now, float(value)))  # type: ignore[arg-type]
        data: Gauge | Sum | OtlpHistogram = Gauge(numbers)
        if kind == "counter":
            data = Sum(numbers, AggregationTemporality.CUMULATIVE, is_monotonic=True)
        elif kind == "histogram":
            data = OtlpHistogram(histograms, AggregationTemporality.CUMULATIVE)
        return Metric(reading.metric.name, reading.metric.meaning, "", data)

    def _histogram(self, labels: dict[str, str], histogram: Histogram, now: int) -> HistogramDataPoint:
        counts = histogram.counts.copy()
        return HistogramDataPoint(
            attributes=labels,
            start_time_unix_nano=self._began,
            time_unix_nano=now,
            count=sum(counts),
            sum=histogram.total,
            bucket_counts=counts,
            explicit_bounds=histogram.bounds,
            min=None,  # type: ignore[arg-type]
            max=None,  # type: ignore[arg-type]
        )
