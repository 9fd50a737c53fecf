"""Metrics pushed by OTLP are those of a scrape."""

import time
from collections.abc import Iterator

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Metric
from prometheus_client.parser import text_string_to_metric_families

from app.settings import Settings
from app.telemetry import otlp_metrics
from app.telemetry.metrics import Metrics
from app.telemetry.otlp_metrics import OtlpPush, interval_seconds
from app.telemetry.pushing import build_push, metrics_endpoint
from tests.sluices import replica_with
from tests.support import poll
from tests.telemetry.collector import Collector, collecting
from tests.telemetry.test_metrics import used

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

Found = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


def push(metrics: Metrics, collector: Collector, interval: float) -> OtlpPush:
    endpoint = collector.url.replace("/v1/traces", "/v1/metrics")
    return OtlpPush(metrics, endpoint, interval, version="1.2.3", replica="vm-1")


def pushed(metrics: dict[str, Metric]) -> Found:
    """As samples of a scrape."""
    found: Found = {}
    for name, metric in metrics.items():
        for point in (*metric.gauge.data_points, *metric.sum.data_points):
            found[name, labels_of(point)] = point.as_double
        for point in metric.histogram.data_points:
            labels, seen = labels_of(point), 0
            bounds = [*map(repr, point.explicit_bounds), "+Inf"]
            for bound, count in zip(bounds, point.bucket_counts, strict=True):
                seen += count
                found[f"{name}_bucket", labels | {("le", bound)}] = seen
            assert point.count == seen
            found[f"{name}_count", labels], found[f"{name}_sum", labels] = seen, point.sum
    return found


def labels_of(point: object) -> frozenset[tuple[str, str]]:
    return frozenset((a.key, a.value.string_value) for a in point.attributes)  # type: ignore[attr-defined]


def scraped(metrics: Metrics) -> Found:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


async def test_an_export_carries_what_a_scrape_shows(collector: Collector) -> None:
    metrics = used()
    began = push(metrics, collector, 0.02)
    await poll(lambda: collector.metrics)
    await began.aclose()
    found = collector.metrics[0]
    assert pushed(found) == scraped(metrics)
    assert found["sluice_tasks_enqueued_total"].sum.is_monotonic
    cumulative = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    assert found["sluice_http_request_seconds"].histogram.aggregation_temporality == cumulative
    assert found["sluice_tasks"].description.startswith("Tasks by state")


async def test_what_was_counted_last_is_sent_at_the_end(collector: Collector) -> None:
    metrics = used()
    began = push(metrics, collector, 3600)
    metrics.leases_lost(41)
    await began.aclose()
    [found] = collector.metrics
    assert pushed(found)["sluice_leases_lost_total", frozenset()] == 42


async def test_a_collector_that_is_away_delays_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp_metrics, "CLOSE_SECONDS", 0.1)
    began = time.monotonic()
    away = OtlpPush(used(), "http://127.0.0.1:9/v1/metrics", 3600, version="1", replica="vm-1")
    await away.aclose()
    assert time.monotonic() - began < 4


async def test_a_replica_pushes_its_metrics_if_an_endpoint_is_set(
    collector: Collector, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = collector.url.replace("/v1/traces", "/v1/metrics")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", endpoint)
    settings = Settings.model_validate({"database_url": database_url, "port": 0, "drain_grace_seconds": 0})
    async with replica_with(settings) as replica:
        assert (await replica.client.get("/health/live")).status_code == 200
    names = collector.metrics[-1].keys()
    assert names >= {"sluice_build_info", "sluice_database_up", "sluice_http_request_seconds"}


@pytest.mark.parametrize(
    ("environ", "endpoint"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/"}, "http://c:4318/v1/metrics"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://m"}, "http://m"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "true"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_METRICS_EXPORTER": "none"}, None),
    ],
)
def test_the_endpoint_comes_from_opentelemetrys_variables(environ: dict[str, str], endpoint: str | None) -> None:
    assert metrics_endpoint(environ) == endpoint


def test_nothing_is_pushed_unless_it_is_configured() -> None:
    assert build_push({}, Metrics(), version="1", replica="vm-1") is None


@pytest.mark.parametrize(
    ("given", "seconds"),
    [(None, 60), ("250", 0.25), ("soon", 60), ("0", 60), ("-1", 60), ("nan", 60), ("inf", 60), ("1e300", 60)],
)
def test_the_interval_is_opentelemetrys_too(given: str | None, seconds: float) -> None:
    assert interval_seconds({} if given is None else {"OTEL_METRIC_EXPORT_INTERVAL": given}) == seconds
