"""The names and labels of every metric are a promise to dashboards; the rest is arithmetic."""

import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from msgspec import structs
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from app.telemetry.definitions import DEFINITIONS
from app.telemetry.exposition import CONTENT_TYPE
from app.telemetry.metrics import LAG_WINDOW_SECONDS, QUIET_SECONDS, Metrics
from app.telemetry.readings import HTTP_SECONDS, SECONDS, TALLIED, Histogram, Tally
from app.telemetry.snapshots import (
    FleetSnapshot,
    HandlerSnapshot,
    LimitSnapshot,
    QueueSnapshot,
    ScheduleSnapshot,
    SourceSnapshot,
)

GOLDEN = Path(__file__).parent / "metric_names.txt"


MAIL = QueueSnapshot(1, "default", "mail", {"ready": 3, "dead": 1}, 1.5, max_depth=50)
EMPTY = QueueSnapshot(1, "default", "mail", {"ready": 0}, None)


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
    metrics.tasks_enqueued(1, 4)
    metrics.tasks_ended(1, "dead", "expired")
    metrics.request_meter("POST", "/queues/{name}/tasks", 201)(0.004)
    metrics.limits_taken("t", ["api", "api"])
    metrics.messages_counted("t", "orders", {"received": 2, "enqueued": 1})
    metrics.set_snapshot(
        FleetSnapshot(
            queues=[MAIL],
            schedules=[ScheduleSnapshot("t", "nightly", 2.5, 3)],
            handlers=[HandlerSnapshot("t", "crm", True, "half_open")],
            limits=[LimitSnapshot("named", "t", "api", 20, 3, 1)],
            sources=[SourceSnapshot("t", "orders", 12, 3.5, 0.0)],
            replicas={"all": 2, "api": 0, "engine": 0},
            alarms={"no_engine": False, "old_xmin": True},
            connections=40,
            max_connections=100,
            oldest_xmin_seconds=301.5,
        )
    )
    return metrics


def see(metrics: Metrics, *queues: QueueSnapshot) -> None:
    """Take a snapshot of these queues."""
    metrics.set_snapshot(FleetSnapshot(queues=queues))


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = metrics.render().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(metrics: Metrics, name: str, /, **labels: str) -> float:
    return samples(metrics)[name, tuple(sorted(labels.items()))]


def test_names_kinds_and_labels_are_the_golden_ones() -> None:
    rendered = "\n".join(f"{d.name} {d.kind} {','.join(d.labels)}".rstrip() for d in DEFINITIONS)
    assert rendered + "\n" == GOLDEN.read_text()


def test_a_scrape_shows_exactly_the_defined_metrics_with_the_defined_labels() -> None:
    text = used().render().decode()
    found = {}
    for family in text_string_to_metric_families(text):
        labels = {label for sample in family.samples for label in sample.labels} - {"le"}
        name = family.name + ("_total" if family.type == "counter" else "")
        found[name] = (family.type, tuple(sorted(labels)), family.documentation)
    assert found == {d.name: (d.kind, d.labels, d.meaning) for d in DEFINITIONS}


def test_a_scrape_says_its_content_type_and_carries_no_noise() -> None:
    body = used().render()
    assert CONTENT_TYPE == "text/plain; version=0.0.4; charset=utf-8"
    assert b"otel_scope" not in body and b"target_info" not in body and b"_created" not in body


def test_names_stand_in_a_scrape_before_anything_has_happened() -> None:
    text = Metrics().render().decode()
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
    see(metrics, EMPTY)
    assert value(metrics, "sluice_oldest_ready_age_seconds", queue="mail", tenant="default") == 0


def test_two_instances_share_nothing() -> None:
    first, second = used(), Metrics()
    assert b'queue="mail"' in first.render()
    assert b'queue="mail"' not in second.render()


def test_a_queue_named_like_anothers_of_a_different_tenant_is_counted_apart() -> None:
    metrics = Metrics()
    metrics.task_started("a", "mail", 1)
    metrics.task_started("b", "mail", 1)
    metrics.task_started("b", "mail", 1)
    assert value(metrics, "sluice_task_wait_seconds_count", queue="mail", tenant="a") == 1
    assert value(metrics, "sluice_task_wait_seconds_count", queue="mail", tenant="b") == 2


def test_a_deleted_queue_is_forgotten_once_nothing_happens_to_it_any_more() -> None:
    metrics = used()
    see(metrics)
    metrics.attempt_ended("default", "mail", "failed", 1)
    see(metrics)
    assert b'queue="mail"' in metrics.render()
    see(metrics)
    assert b'queue="mail"' not in metrics.render()


def test_a_queue_younger_than_the_snapshot_keeps_its_counts() -> None:
    metrics = used()
    see(metrics)
    see(metrics, EMPTY)
    see(metrics)
    assert value(metrics, "sluice_attempts_total", outcome="succeeded", queue="mail", tenant="default") == 1


def test_thousands_of_idle_queues_make_no_scrape_large() -> None:
    metrics = used()
    see(metrics, MAIL)
    nothing = len(metrics.render())
    idle = [QueueSnapshot(n + 2, "default", f"idle-{n}", {"ready": 0}, None) for n in range(20_000)]
    see(metrics, *idle, MAIL)
    assert len(metrics.render()) == nothing


def test_the_gauges_of_a_queue_that_has_emptied_are_shown_for_an_hour() -> None:
    clock = Clock()
    metrics = Metrics(clock)
    see(metrics, MAIL)
    clock.now = QUIET_SECONDS - 1
    see(metrics, EMPTY)
    assert value(metrics, "sluice_tasks", state="ready", queue="mail", tenant="default") == 0
    clock.now = QUIET_SECONDS
    see(metrics, EMPTY)
    assert b'queue="mail"' not in metrics.render()


def test_a_queue_that_something_has_happened_to_keeps_its_counters_and_gauges() -> None:
    clock = Clock()
    metrics = Metrics(clock)
    metrics.attempt_ended("default", "mail", "succeeded", 1)
    clock.now = 10 * QUIET_SECONDS
    see(metrics, EMPTY)
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
    assert value(metrics, "sluice_limit", level="named", name="api", tenant="t") == 20
    metrics.set_snapshot(FleetSnapshot(limits=[LimitSnapshot("named", "t", "other", None, 0, 0)]))
    shown = {name: labels for name, labels in samples(metrics) if name.startswith("sluice_limit")}
    assert "sluice_limit" not in shown and "api" not in str(shown)
    assert value(metrics, "sluice_limit_admitted_total", limit="other", tenant="t") == 1


def test_tasks_are_counted_by_the_name_of_their_queue_once_a_snapshot_knows_it() -> None:
    metrics = Metrics()
    metrics.tasks_enqueued(1, 3)
    metrics.tasks_ended(1, "succeeded", "", 2)
    metrics.tasks_ended(1, "dead", "expired")
    assert "sluice_tasks_enqueued_total" not in {name for name, _ in samples(metrics)}
    see(metrics, EMPTY)
    mail = {"queue": "mail", "tenant": "default"}
    assert value(metrics, "sluice_tasks_enqueued_total", **mail) == 3
    assert value(metrics, "sluice_tasks_ended_total", state="succeeded", reason="", **mail) == 2
    assert value(metrics, "sluice_tasks_ended_total", state="dead", reason="expired", **mail) == 1
    assert value(metrics, "sluice_queue_paused", **mail) == 0, "something has happened to it"


def test_tasks_of_a_deleted_queue_are_forgotten_and_those_of_a_new_one_are_not() -> None:
    metrics = Metrics()
    metrics.tasks_enqueued(1, 3)
    see(metrics)
    see(metrics, EMPTY)
    assert value(metrics, "sluice_tasks_enqueued_total", queue="mail", tenant="default") == 3
    see(metrics)
    see(metrics)
    see(metrics, EMPTY)
    assert "sluice_tasks_enqueued_total" not in {name for name, _ in samples(metrics)}


def test_an_idle_queue_shows_that_it_is_paused_and_no_limit_otherwise() -> None:
    metrics = Metrics()
    limit = LimitSnapshot("queue", "default", "mail", 5, 0)
    metrics.set_snapshot(FleetSnapshot(queues=[EMPTY], limits=[limit]))
    assert b'"mail"' not in metrics.render()
    metrics.set_snapshot(FleetSnapshot(queues=[structs.replace(EMPTY, paused=True)], limits=[limit]))
    assert value(metrics, "sluice_queue_paused", queue="mail", tenant="default") == 1
    assert value(metrics, "sluice_limit", level="queue", name="mail", tenant="default") == 5


def test_whether_the_database_is_up_is_asked_at_each_scrape() -> None:
    up = [True]
    metrics = Metrics(database_up=lambda: up[0])
    assert value(metrics, "sluice_database_up") == 1
    up[0] = False
    assert value(metrics, "sluice_database_up") == 0


def test_labels_are_escaped() -> None:
    metrics = Metrics()
    see(metrics, structs.replace(MAIL, queue='a"b\\c\nd'))
    assert value(metrics, "sluice_tasks", queue='a"b\\c\nd', state="ready", tenant="default") == 3


def test_a_thousand_queues_take_less_time_than_the_librarys_rendering() -> None:
    """35 ms, against 340 ms by prometheus_client, on a quiet machine."""
    metrics = Metrics()
    queues = [structs.replace(MAIL, queue_id=n, queue=f"queue-{n}") for n in range(1_000)]
    for row in queues:
        metrics.task_started("default", row.queue, 0.004)
        metrics.attempt_ended("default", row.queue, "succeeded", 0.02)
        metrics.tasks_enqueued(row.queue_id, 1)
        metrics.tasks_ended(row.queue_id, "succeeded", "", 1)
    see(metrics, *queues)
    ours = least_seconds(metrics.render)
    family = HistogramMetricFamily("sluice_task_wait_seconds", "", labels=("queue", "tenant"))
    buckets = [(repr(bound), 1.0) for bound in (*SECONDS, float("inf"))]
    for row in queues:
        family.add_metric(("default", row.queue), buckets=buckets, sum_value=1.0)
    theirs = least_seconds(lambda: generate_latest(cast(CollectorRegistry, SimpleNamespace(collect=lambda: [family]))))
    print(f"1,000 queues: {ours * 1000:.0f} ms; one of their histograms by prometheus_client: {theirs * 1000:.0f} ms")
    assert ours < theirs


def least_seconds(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(3):
        begun = time.thread_time()
        work()
        best = min(best, time.thread_time() - begun)
    return best


def test_a_tally_counts_as_a_histogram_does() -> None:
    tally, histogram = Tally(HTTP_SECONDS), Histogram(HTTP_SECONDS)
    values = [n / 400 for n in range(2 * TALLIED + 7)] + list(HTTP_SECONDS)
    for value in values:
        tally.observe(value)
        histogram.observe(value)
    for _ in range(2):
        found = tally.read()
        assert found.counts == histogram.counts and found.total == pytest.approx(histogram.total)
