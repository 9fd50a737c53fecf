"""What Sluice measures, and how Prometheus scrapes it.

Numbers are plain integers and bucket lists in one `Metrics` per Sluice instance, and become Prometheus families only when scraped,
by a collector in a registry of its own. The OpenTelemetry SDK's instruments were measured first: a record costs 6 us and a task
needs three; a bucket here costs 0.3 us. Only the event loop's thread writes, so nothing is locked. A scrape copies what it
iterates over and may run in another thread, which it should with hundreds of queues (0.25 ms per queue).

Gauges of queues come from a snapshot of the whole fleet and are the same on every replica, so charts use `max by (queue)`. Counters
and histograms are this process's own share, so charts use `sum by (queue)`.

A queue has series once it holds tasks or something happens to it, so that thousands of idle queues do not inflate the scrape. Its
gauges are dropped when it has been empty for an hour and nothing has happened to it here. Its counters and histograms stay as long
as the queue exists, because a counter that vanished would come back lower.
"""

import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

SECONDS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0),
)
SIZES: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10000.0)
LAG_WINDOW_SECONDS: Final = 30.0
QUIET_SECONDS: Final = 3600.0
"""How long the gauges of an empty queue are still shown."""


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric, as in the reference page and the golden file."""

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str

    @property
    def family(self) -> str:
        """The name without the suffix that the exposition format adds to counters."""
        return self.name.removesuffix("_total")


TASKS = Definition(
    "sluice_tasks",
    "gauge",
    ("queue", "state", "tenant"),
    "Tasks by state across the whole fleet, for queues that hold tasks or did recently.",
)
OLDEST_READY = Definition(
    "sluice_oldest_ready_age_seconds",
    "gauge",
    ("queue", "tenant"),
    "How long the oldest ready task has been ready; 0 if none is.",
)
WAIT = Definition(
    "sluice_task_wait_seconds", "histogram", ("queue", "tenant"), "From a task's run_at to the start of an attempt."
)
ATTEMPT = Definition(
    "sluice_attempt_seconds",
    "histogram",
    ("queue", "tenant"),
    "From the start of an attempt to its end, or to the end of its hold.",
)
ATTEMPTS = Definition(
    "sluice_attempts_total",
    "counter",
    ("outcome", "queue", "tenant"),
    "Attempts that ended, by outcome: calls and workers' leases. Calls of a killed replica count in leases_reaped instead.",
)
LEASES_LOST = Definition(
    "sluice_leases_lost_total", "counter", (), "Leases this replica lost before it could settle them."
)
LEASES_REAPED = Definition("sluice_leases_reaped_total", "counter", (), "Expired leases that this replica ended.")
FLOWS_RESCUED = Definition(
    "sluice_flows_rescued_total",
    "counter",
    (),
    "Flows that waited beside free room, which this replica found by chance. Always 0, or something is wrong.",
)
GROUP_SIZE = Definition(
    "sluice_group_size", "histogram", ("statement",), "Tasks written together by one grouped statement."
)
SCHEDULE_OVERDUE = Definition(
    "sluice_schedule_overdue_seconds",
    "gauge",
    ("schedule", "tenant"),
    "How long a schedule has been due without firing; above 1,000 schedules, only those that are overdue or have missed times.",
)
SCHEDULE_MISSED = Definition(
    "sluice_schedule_missed_total", "counter", ("schedule", "tenant"), "Nominal times that passed without a run."
)
HANDLER_BREAKER = Definition(
    "sluice_handler_breaker",
    "gauge",
    ("handler", "tenant"),
    "State of a handler's breaker across the whole fleet: 0 closed, 1 half-open, 2 open.",
)
HANDLER_LIMIT = Definition(
    "sluice_handler_limit",
    "gauge",
    ("handler", "tenant"),
    "Concurrent calls allowed now to a handler with a breaker or an adaptive limit; no series without a limit.",
)
LIMIT_USED = Definition(
    "sluice_limit_used",
    "gauge",
    ("limit", "tenant"),
    "Running tasks that take a named limit, over all its keys, across the whole fleet.",
)
LIMIT = Definition(
    "sluice_limit",
    "gauge",
    ("limit", "tenant"),
    "How many tasks a named limit lets run at once, of a keyed one for each key; no series if it has only a rate.",
)
LIMIT_WAITING_KEYS = Definition(
    "sluice_limit_waiting_keys", "gauge", ("limit", "tenant"), "Keys of tasks that wait for room under a named limit."
)
LIMIT_ADMITTED = Definition(
    "sluice_limit_admitted_total",
    "counter",
    ("limit", "tenant"),
    "Attempts that this replica started under a named limit.",
)
LOOP_LAG = Definition(
    "sluice_loop_lag_seconds", "gauge", (), "The worst delay of a loop's wake-up in the last 30 to 60 seconds."
)
DEFINITIONS: Final = (
    TASKS,
    OLDEST_READY,
    WAIT,
    ATTEMPT,
    ATTEMPTS,
    LEASES_LOST,
    LEASES_REAPED,
    FLOWS_RESCUED,
    GROUP_SIZE,
    SCHEDULE_OVERDUE,
    SCHEDULE_MISSED,
    HANDLER_BREAKER,
    HANDLER_LIMIT,
    LIMIT_USED,
    LIMIT,
    LIMIT_WAITING_KEYS,
    LIMIT_ADMITTED,
    LOOP_LAG,
)
BREAKER_STATES: Final = {"closed": 0, "half_open": 1, "open": 2}


@dataclass(frozen=True, slots=True)
class QueueSnapshot:
    """A queue in the latest snapshot."""

    tenant: str
    queue: str
    tasks: Mapping[str, int]
    oldest_ready_age_seconds: float | None


@dataclass(frozen=True, slots=True)
class ScheduleSnapshot:
    tenant: str
    schedule: str
    overdue_seconds: float
    missed: int


@dataclass(frozen=True, slots=True)
class HandlerSnapshot:
    """A handler with a breaker (`state` is not None) or an adaptive limit."""

    tenant: str
    handler: str
    state: str | None
    limit: int | None


@dataclass(frozen=True, slots=True)
class LimitSnapshot:
    """A named limit in the latest snapshot."""

    tenant: str
    limit: str
    max_concurrency: int | None
    used: int
    waiting_keys: int


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

    def cumulated(self) -> list[tuple[str, float]]:
        buckets: list[tuple[str, float]] = []
        seen = 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts.copy(), strict=True):
            seen += count
            buckets.append(("+Inf" if bound == float("inf") else repr(bound), seen))
        return buckets


class QueueMeter:
    """The counts of one queue. A hot caller may keep it while it holds tasks of that queue."""

    __slots__ = ("attempt", "outcomes", "quiet_at", "wait")

    def __init__(self) -> None:
        self.wait = Histogram(SECONDS)
        self.attempt = Histogram(SECONDS)
        self.outcomes: dict[str, int] = {}
        self.quiet_at = -1

    def started(self, wait_seconds: float) -> None:
        self.wait.observe(wait_seconds)

    def ended(self, outcome: str, seconds: float) -> None:
        self.attempt.observe(seconds)
        self.outcomes[outcome] = self.outcomes.get(outcome, 0) + 1

    def events(self) -> int:
        return sum(self.wait.counts) + sum(self.outcomes.values())


class Metrics:
    """All metrics of one Sluice instance."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._queues: dict[tuple[str, str], QueueMeter] = {}
        self._snapshot: Sequence[QueueSnapshot] = ()
        self._held_at: dict[tuple[str, str], float] = {}
        """When each queue last held tasks."""
        self._clock = clock
        self._schedules: Sequence[ScheduleSnapshot] = ()
        self._handlers: Sequence[HandlerSnapshot] = ()
        self._limits: Sequence[LimitSnapshot] = ()
        self._admitted: dict[tuple[str, str], int] = {}
        self._groups: dict[str, Histogram] = {}
        self._leases_lost = 0
        self._leases_reaped = 0
        self._flows_rescued = 0
        self._lag = RecentPeak(clock)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Collector(self))

    def queue(self, tenant: str, queue: str) -> QueueMeter:
        key = (tenant, queue)
        meter = self._queues.get(key)
        if meter is None:
            meter = self._queues[key] = QueueMeter()
        return meter

    def task_started(self, tenant: str, queue: str, wait_seconds: float) -> None:
        self.queue(tenant, queue).started(wait_seconds)

    def limits_taken(self, tenant: str, limits: Iterable[str]) -> None:
        """Count an attempt that has started under these named limits; a name may occur twice."""
        for key in {(tenant, limit) for limit in limits}:
            self._admitted[key] = self._admitted.get(key, 0) + 1

    def attempt_ended(self, tenant: str, queue: str, outcome: str, seconds: float) -> None:
        self.queue(tenant, queue).ended(outcome, seconds)

    def group_written(self, statement: str, size: int) -> None:
        histogram = self._groups.get(statement)
        if histogram is None:
            histogram = self._groups[statement] = Histogram(SIZES)
        histogram.observe(size)

    def leases_lost(self, count: int = 1) -> None:
        self._leases_lost += count

    def leases_reaped(self, count: int = 1) -> None:
        self._leases_reaped += count

    def flows_rescued(self, count: int) -> None:
        self._flows_rescued += count

    def loop_woke(self, late_seconds: float) -> None:
        self._lag.observe(late_seconds)

    def set_queue_snapshot(self, rows: Sequence[QueueSnapshot]) -> None:
        """Take a snapshot, and drop the counts of deleted queues.

        A queue may be newer than the snapshot, so a missing one is dropped only if nothing has happened to it since an earlier
        snapshot that lacked it too.
        """
        now = self._clock()
        alive = {(row.tenant, row.queue) for row in rows}
        held = {key: at for key, at in self._held_at.items() if key in alive and now - at < QUIET_SECONDS}
        self._held_at = held | {(row.tenant, row.queue): now for row in rows if any(row.tasks.values())}
        shown = self._held_at.keys() | self._queues.keys()
        self._snapshot = [row for row in rows if (row.tenant, row.queue) in shown]
        for key, meter in list(self._queues.items()):
            events = -1 if key in alive else meter.events()
            if key not in alive and meter.quiet_at == events:
                del self._queues[key]
            meter.quiet_at = events

    def set_schedule_snapshot(self, rows: Sequence[ScheduleSnapshot]) -> None:
        self._schedules = rows

    def set_handler_snapshot(self, rows: Sequence[HandlerSnapshot]) -> None:
        self._handlers = rows

    def set_limit_snapshot(self, rows: Sequence[LimitSnapshot]) -> None:
        """Take a snapshot, and drop the counts of limits that have been deleted since the last one."""
        for key in {(row.tenant, row.limit) for row in self._limits} - {(row.tenant, row.limit) for row in rows}:
            self._admitted.pop(key, None)
        self._limits = rows

    def render(self) -> tuple[bytes, str]:
        """Return the exposition text and its content type."""
        return generate_latest(self._registry), CONTENT_TYPE_PLAIN_0_0_4

    def families(self) -> Iterator[Metric]:
        rows = self._snapshot
        yield _gauge(TASKS, (((row.queue, state, row.tenant), n) for row in rows for state, n in row.tasks.items()))
        yield _gauge(OLDEST_READY, (((row.queue, row.tenant), row.oldest_ready_age_seconds or 0.0) for row in rows))
        queues = list(self._queues.items())
        yield _histogram(WAIT, (((queue, tenant), meter.wait) for (tenant, queue), meter in queues))
        yield _histogram(ATTEMPT, (((queue, tenant), meter.attempt) for (tenant, queue), meter in queues))
        yield _counter(
            ATTEMPTS,
            (
                ((outcome, queue, tenant), count)
                for (tenant, queue), meter in queues
                for outcome, count in meter.outcomes.copy().items()
            ),
        )
        yield _counter(LEASES_LOST, [((), self._leases_lost)])
        yield _counter(LEASES_REAPED, [((), self._leases_reaped)])
        yield _counter(FLOWS_RESCUED, [((), self._flows_rescued)])
        yield _histogram(GROUP_SIZE, (((statement,), sizes) for statement, sizes in self._groups.copy().items()))
        found = self._schedules
        yield _gauge(SCHEDULE_OVERDUE, (((row.schedule, row.tenant), row.overdue_seconds) for row in found))
        yield _counter(SCHEDULE_MISSED, (((row.schedule, row.tenant), row.missed) for row in found))
        handlers = self._handlers
        yield _gauge(
            HANDLER_BREAKER,
            (((row.handler, row.tenant), BREAKER_STATES[row.state]) for row in handlers if row.state is not None),
        )
        yield _gauge(
            HANDLER_LIMIT, (((row.handler, row.tenant), row.limit) for row in handlers if row.limit is not None)
        )
        limits = self._limits
        yield _gauge(LIMIT_USED, (((row.limit, row.tenant), row.used) for row in limits))
        most = [(row, row.max_concurrency) for row in limits if row.max_concurrency is not None]
        yield _gauge(LIMIT, (((row.limit, row.tenant), limit) for row, limit in most))
        yield _gauge(LIMIT_WAITING_KEYS, (((row.limit, row.tenant), row.waiting_keys) for row in limits))
        admitted = self._admitted.copy().items()
        yield _counter(LIMIT_ADMITTED, (((limit, tenant), count) for (tenant, limit), count in admitted))
        yield _gauge(LOOP_LAG, [((), self._lag.value())])


class RecentPeak:
    """The greatest value of the current and the previous window, so that a scrape between two peaks still sees the last."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._window = 0
        self._now = 0.0
        self._before = 0.0

    def observe(self, value: float) -> None:
        window = self._present()
        if window != self._window:
            self._before = self._now if window == self._window + 1 else 0.0
            self._now = 0.0
            self._window = window
        self._now = max(self._now, value)

    def value(self) -> float:
        """Return the peak without changing anything, because the scrape may run in another thread."""
        age = self._present() - self._window
        return max(self._now, self._before) if age == 0 else self._now if age == 1 else 0.0

    def _present(self) -> int:
        return int(self._clock() / LAG_WINDOW_SECONDS)


class _Collector(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics.families()


Samples = Iterable[tuple[tuple[str, ...], float]]


def _gauge(metric: Definition, samples: Samples) -> Metric:
    family = GaugeMetricFamily(metric.name, metric.meaning, labels=metric.labels)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


def _counter(metric: Definition, samples: Samples) -> Metric:
    family = CounterMetricFamily(metric.family, metric.meaning, labels=metric.labels)
    for labels, value in samples:
        family.add_metric(labels, value)
    return family


def _histogram(metric: Definition, samples: Iterable[tuple[tuple[str, ...], Histogram]]) -> Metric:
    family = HistogramMetricFamily(metric.name, metric.meaning, labels=metric.labels)
    for labels, histogram in samples:
        family.add_metric(labels, buckets=histogram.cumulated(), sum_value=histogram.total)
    return family
