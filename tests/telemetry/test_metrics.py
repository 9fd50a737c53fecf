"""The names and labels of every metric are a promise to dashboards; the rest is arithmetic."""

import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.telemetry.metrics import (
    DEFINITIONS,
    LAG_WINDOW_SECONDS,
    QUIET_SECONDS,
    HandlerSnapshot,
    LimitSnapshot,
    Metrics,
    QueueSnapshot,
    ScheduleSnapshot,
)

GOLDEN = Path(__file__).parent / "metric_names.txt"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def used() -> Metrics:
    """Metrics in which every series has happened once."""
    metrics = Metrics()
    metrics.task_started("default", "mail", 0.004)
    metrics.attempt_ended("default", "mail", "succeeded", 0.02)
    metrics.group_written("settle", 3)
    metrics.leases_lost()
    metrics.leases_reaped(2)
    metrics.flows_rescued(1)
    metrics.loop_woke(0.25)
    metrics.set_queue_snapshot([QueueSnapshot("default", "mail", {"ready": 3, "dead": 1}, 1.5)])
    metrics.set_schedule_snapshot([ScheduleSnapshot("t", "nightly", 2.5, 3)])
    metrics.limits_taken("t", ["api", "api"])
    metrics.set_limit_snapshot([LimitSnapshot("t", "api", 20, 3, 1)])
    metrics.set_handler_snapshot([HandlerSnapshot("t", "crm", "half_open", 1)])
    return metrics


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = metrics.render()[0].decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return samples(metrics)[name, tuple(sorted(labels.items()))]


def test_names_kinds_and_labels_are_the_golden_ones() -> None:
    rendered = "\n".join(f"{d.name} {d.kind} {','.join(d.labels)}".rstrip() for d in DEFINITIONS)
    assert rendered + "\n" == GOLDEN.read_text()


def test_a_scrape_shows_exactly_the_defined_metrics_with_the_defined_labels() -> None:
    text = used().render()[0].decode()
    found = {}
    for family in text_string_to_metric_families(text):
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        name = family.name + ("_total" if family.type == "counter" else "")
        found[name] = (family.type, tuple(sorted(labels)), family.documentation)
    assert found == {d.name: (d.kind, d.labels, d.meaning) for d in DEFINITIONS}


def test_a_scrape_says_its_content_type_and_carries_no_noise() -> None:
    body, content_type = used().render()
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert b"otel_scope" not in body and b"target_info" not in body and b"_created" not in body


def test_names_stand_in_a_scrape_before_anything_has_happened() -> None:
    text = Metrics().render()[0].decode()
    assert all(f"# TYPE {definition.name} " in text for definition in DEFINITIONS)


def test_counts_are_what_happened() -> None:
    metrics = used()
    mail = {"queue": "mail", "tenant": "default"}
    assert value(metrics, "sluice_tasks", state="ready", **mail) == 3
    assert value(metrics, "sluice_tasks", state="dead", **mail) == 1
    assert value(metrics, "sluice_oldest_ready_age_seconds", **mail) == 1.5
    assert value(metrics, "sluice_task_wait_seconds_count", **mail) == 1
    assert value(metrics, "sluice_task_wait_seconds_bucket", le="0.0025", **mail) == 0
    assert value(metrics, "sluice_task_wait_seconds_bucket", le="0.005", **mail) == 1
    assert value(metrics, "sluice_attempt_seconds_sum", **mail) == pytest.approx(0.02)
    assert value(metrics, "sluice_attempts_total", outcome="succeeded", **mail) == 1
    assert value(metrics, "sluice_leases_lost_total") == 1
    assert value(metrics, "sluice_leases_reaped_total") == 2
    assert value(metrics, "sluice_group_size_sum", statement="settle") == 3
    assert value(metrics, "sluice_loop_lag_seconds") == 0.25


def test_a_value_on_a_bound_belongs_to_that_bucket_and_a_huge_one_to_the_last() -> None:
    metrics = Metrics()
    for size in (1, 5, 6, 99_999):
        metrics.group_written("claim", size)
    assert value(metrics, "sluice_group_size_bucket", le="5.0", statement="claim") == 2
    assert value(metrics, "sluice_group_size_bucket", le="10000.0", statement="claim") == 3
    assert value(metrics, "sluice_group_size_bucket", le="+Inf", statement="claim") == 4


def test_a_start_before_its_time_counts_as_no_wait() -> None:
    metrics = Metrics()
    metrics.task_started("default", "mail", -0.3)
    assert value(metrics, "sluice_task_wait_seconds_sum", queue="mail", tenant="default") == 0


def test_an_empty_queue_has_an_oldest_age_of_zero() -> None:
    metrics = used()
    metrics.set_queue_snapshot([QueueSnapshot("default", "mail", {"ready": 0}, None)])
    assert value(metrics, "sluice_oldest_ready_age_seconds", queue="mail", tenant="default") == 0


def test_two_instances_share_nothing() -> None:
    first, second = used(), Metrics()
    assert b'queue="mail"' in first.render()[0]
    assert b'queue="mail"' not in second.render()[0]


def test_a_queue_named_like_anothers_of_a_different_tenant_is_counted_apart() -> None:
    metrics = Metrics()
    metrics.task_started("a", "mail", 1)
    metrics.task_started("b", "mail", 1)
    metrics.task_started("b", "mail", 1)
    assert value(metrics, "sluice_task_wait_seconds_count", queue="mail", tenant="a") == 1
    assert value(metrics, "sluice_task_wait_seconds_count", queue="mail", tenant="b") == 2


def test_a_deleted_queue_is_forgotten_once_nothing_happens_to_it_any_more() -> None:
    metrics = used()
    metrics.set_queue_snapshot([])
    metrics.attempt_ended("default", "mail", "failed", 1)
    metrics.set_queue_snapshot([])
    assert b'queue="mail"' in metrics.render()[0]
    metrics.set_queue_snapshot([])
    assert b'queue="mail"' not in metrics.render()[0]


def test_a_queue_younger_than_the_snapshot_keeps_its_counts() -> None:
    metrics = used()
    metrics.set_queue_snapshot([])
    metrics.set_queue_snapshot([QueueSnapshot("default", "mail", {}, None)])
    metrics.set_queue_snapshot([])
    assert value(metrics, "sluice_attempts_total", outcome="succeeded", queue="mail", tenant="default") == 1


def test_thousands_of_idle_queues_make_no_scrape_large() -> None:
    metrics = used()
    nothing = len(metrics.render()[0])
    idle = [QueueSnapshot("default", f"idle-{n}", {"ready": 0, "dead": 0}, None) for n in range(20_000)]
    metrics.set_queue_snapshot([*idle, QueueSnapshot("default", "mail", {"ready": 3, "dead": 1}, 1.5)])
    assert len(metrics.render()[0]) == nothing


def test_the_gauges_of_a_queue_that_has_emptied_are_shown_for_an_hour() -> None:
    clock = Clock()
    metrics = Metrics(clock)
    metrics.set_queue_snapshot([QueueSnapshot("default", "mail", {"ready": 1}, 1.5)])
    empty = [QueueSnapshot("default", "mail", {"ready": 0}, None)]
    clock.now = QUIET_SECONDS - 1
    metrics.set_queue_snapshot(empty)
    assert value(metrics, "sluice_tasks", state="ready", queue="mail", tenant="default") == 0
    clock.now = QUIET_SECONDS
    metrics.set_queue_snapshot(empty)
    assert b'queue="mail"' not in metrics.render()[0]


def test_a_queue_that_something_has_happened_to_keeps_its_counters_and_gauges() -> None:
    clock = Clock()
    metrics = Metrics(clock)
    metrics.attempt_ended("default", "mail", "succeeded", 1)
    clock.now = 10 * QUIET_SECONDS
    metrics.set_queue_snapshot([QueueSnapshot("default", "mail", {"ready": 0}, None)])
    assert value(metrics, "sluice_attempts_total", outcome="succeeded", queue="mail", tenant="default") == 1
    assert value(metrics, "sluice_tasks", state="ready", queue="mail", tenant="default") == 0


def test_the_loops_worst_delay_is_seen_for_a_window_and_then_forgotten() -> None:
    clock = Clock()
    metrics = Metrics(clock)
    metrics.loop_woke(0.5)
    metrics.loop_woke(0.1)
    clock.now = LAG_WINDOW_SECONDS
    assert value(metrics, "sluice_loop_lag_seconds") == 0.5
    metrics.loop_woke(0.2)
    assert value(metrics, "sluice_loop_lag_seconds") == 0.5
    clock.now = 2 * LAG_WINDOW_SECONDS
    assert value(metrics, "sluice_loop_lag_seconds") == 0.2
    clock.now = 3 * LAG_WINDOW_SECONDS
    assert value(metrics, "sluice_loop_lag_seconds") == 0


def test_counting_a_task_costs_next_to_nothing() -> None:
    """0.7 us on a quiet machine; the bound is many times that, for a loaded one under coverage."""
    metrics = Metrics()
    best = 1.0
    for _ in range(5):
        begun = time.perf_counter()
        for _ in range(2_000):
            metrics.task_started("default", "mail", 0.004)
            metrics.attempt_ended("default", "mail", "succeeded", 0.02)
        best = min(best, (time.perf_counter() - begun) / 2_000)
    assert best < 5e-5


def test_a_start_counts_once_for_each_limit_until_that_is_deleted() -> None:
    metrics = used()
    metrics.limits_taken("t", ["api", "other"])
    assert value(metrics, "sluice_limit_admitted_total", limit="api", tenant="t") == 2
    assert value(metrics, "sluice_limit", limit="api", tenant="t") == 20
    metrics.set_limit_snapshot([LimitSnapshot("t", "other", None, 0, 0)])
    shown = {name: labels for name, labels in samples(metrics) if name.startswith("sluice_limit")}
    assert "sluice_limit" not in shown and "api" not in str(shown)
    assert value(metrics, "sluice_limit_admitted_total", limit="other", tenant="t") == 1
