"""What Sluice measures, and how it is read for a scrape or an export.

Numbers are plain integers and bucket lists in one `Metrics` per Sluice instance, and get their names only when they are read.
The OpenTelemetry SDK's instruments were measured first: a record costs 6 us and a task needs three; a bucket here costs 0.3 us.
Only the event loop's thread writes, so nothing is locked. A reader copies what it iterates over and may run in another thread,
which it should with hundreds of queues.

Gauges of queues come from a snapshot of the whole fleet and are the same on every replica, so charts use `max by (queue)`. Counters
and histograms are this process's own share, so charts use `sum by (queue)`.

A queue has series once it holds tasks or something happens to it, so that thousands of idle queues do not inflate the scrape. Its
gauges are dropped when it has been empty for an hour and nothing has happened to it here. Its counters and histograms stay as long
as the queue exists, because a counter that vanished would come back lower.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from app.telemetry import definitions as names
from app.telemetry.exposition import exposition
from app.telemetry.readings import HTTP_SECONDS, SECONDS, SIZES, Histogram, Reading, Tally
from app.telemetry.snapshots import FleetSnapshot, LimitSnapshot, QueueSnapshot
from app.version import VERSION

LAG_WINDOW_SECONDS: Final = 30.0
QUIET_SECONDS: Final = 3600.0
"""How long the gauges of an empty queue are still shown."""
BREAKER_STATES: Final = {"closed": 0, "half_open": 1, "open": 2}
ROLES: Final = ("all", "api", "engine")


class QueueMeter:
    """The attempts of one queue. A hot caller may keep it while it holds tasks of that queue."""

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


class TaskMeter:
    """The tasks of one queue that were created and ended here."""

    __slots__ = ("ended", "enqueued")

    def __init__(self) -> None:
        self.enqueued = 0
        self.ended: dict[tuple[str, str], int] = {}
        """By reason and state."""


class Metrics:
    """All metrics of one Sluice instance. `database_up` tells whether the database can be reached now."""

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, database_up: Callable[[], bool] = lambda: True
    ) -> None:
        self._clock = clock
        self._database_up = database_up
        self._queues: dict[tuple[str, str], QueueMeter] = {}
        self._tasks: dict[int, TaskMeter] = {}
        """By the queue's id, as the counts of queues know it; the snapshot knows its name."""
        self._names: dict[int, tuple[str, str]] = {}
        self._nameless: set[int] = set()
        """Queues that were not in the last snapshot."""
        self._held_at: dict[tuple[str, str], float] = {}
        """When each queue last held tasks."""
        self._fleet = FleetSnapshot()
        self._shown: Sequence[QueueSnapshot] = ()
        self._limits: Sequence[LimitSnapshot] = ()
        self._admitted: dict[tuple[str, str], int] = {}
        self._requests: dict[tuple[str, str, int], Tally] = {}
        self._groups: dict[str, Histogram] = {}
        self._messages: dict[tuple[str, str], dict[str, int]] = {}
        self._leases_lost = 0
        self._leases_reaped = 0
        self._flows_rescued = 0
        self._lag = RecentPeak(clock)

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

    def messages_counted(self, tenant: str, source: str, counts: Mapping[str, int]) -> None:
        """Count messages of a source by what became of them."""
        kept = self._messages.setdefault((tenant, source), {})
        for what, count in counts.items():
            kept[what] = kept.get(what, 0) + count

    def attempt_ended(self, tenant: str, queue: str, outcome: str, seconds: float) -> None:
        self.queue(tenant, queue).ended(outcome, seconds)

    def tasks_enqueued(self, queue_id: int, count: int) -> None:
        self._meter(queue_id).enqueued += count

    def tasks_ended(self, queue_id: int, state: str, reason: str, count: int = 1) -> None:
        ended = self._meter(queue_id).ended
        ended[reason, state] = ended.get((reason, state), 0) + count

    def _meter(self, queue_id: int) -> TaskMeter:
        meter = self._tasks.get(queue_id)
        if meter is None:
            meter = self._tasks[queue_id] = TaskMeter()
        return meter

    def request_meter(self, method: str, route: str, status: int) -> Callable[[float], None]:
        """Return what counts a request by its seconds. The caller names a route and a method of the service, nothing that a client
        made up."""
        key = (method, route, status)
        tally = self._requests.get(key)
        if tally is None:
            tally = self._requests[key] = Tally(HTTP_SECONDS)
        return tally.observe

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

    def set_snapshot(self, fleet: FleetSnapshot) -> None:
        """Take a snapshot, and drop the counts of queues, limits and sources that have been deleted."""
        gone = _named(self._fleet.limits) - _named(fleet.limits)
        for source in _sources(self._fleet) - _sources(fleet):
            self._messages.pop(source, None)
        self._fleet = fleet
        for key in gone:
            self._admitted.pop(key, None)
        self._names = {row.queue_id: (row.tenant, row.queue) for row in fleet.queues}
        self._forget_tasks()
        self._forget_attempts(fleet.queues)
        shown = {(row.tenant, row.queue) for row in self._shown}
        self._limits = [row for row in fleet.limits if row.level != "queue" or (row.tenant, row.name) in shown]

    def _forget_tasks(self) -> None:
        """A queue may be newer than the snapshot, so a missing one is dropped only if it was missing in the one before, too."""
        nameless = self._tasks.keys() - self._names.keys()
        for queue_id in nameless & self._nameless:
            del self._tasks[queue_id]
        self._nameless = nameless

    def _forget_attempts(self, rows: Sequence[QueueSnapshot]) -> None:
        """As above; and a missing one is kept as long as something happens to it."""
        now = self._clock()
        alive = {(row.tenant, row.queue) for row in rows}
        held = {key: at for key, at in self._held_at.items() if key in alive and now - at < QUIET_SECONDS}
        self._held_at = held | {(row.tenant, row.queue): now for row in rows if any(row.tasks.values())}
        shown = self._held_at.keys() | self._queues.keys()
        self._shown = [
            row for row in rows if row.paused or row.queue_id in self._tasks or (row.tenant, row.queue) in shown
        ]
        for key, meter in list(self._queues.items()):
            events = -1 if key in alive else meter.events()
            if key not in alive and meter.quiet_at == events:
                del self._queues[key]
            meter.quiet_at = events

    def render(self) -> bytes:
        """Return the text of a scrape (exposition.CONTENT_TYPE)."""
        return exposition(self.readings())

    def readings(self) -> Iterator[Reading]:
        """Yield every metric, those without points included, in the order of their definitions."""
        yield from self._read_queues()
        yield from self._read_counts()
        yield from self._read_fleet()
        yield Reading(names.LOOP_LAG, [((), self._lag.value())])
        requests = self._requests.copy().items()
        yield Reading(
            names.HTTP_REQUEST,
            (((method, route, str(status)), tally.read()) for (method, route, status), tally in requests),
        )
        yield from self._read_database()
        yield Reading(names.BUILD_INFO, [((VERSION,), 1)])

    def _read_queues(self) -> Iterator[Reading]:
        rows = self._shown
        yield Reading(
            names.TASKS, (((row.queue, state, row.tenant), n) for row in rows for state, n in row.tasks.items())
        )
        yield Reading(
            names.OLDEST_READY, (((row.queue, row.tenant), row.oldest_ready_age_seconds or 0.0) for row in rows)
        )
        yield Reading(names.QUEUE_PAUSED, (((row.queue, row.tenant), row.paused) for row in rows))
        depths = ((row, row.max_depth) for row in rows)
        yield Reading(names.QUEUE_MAX_DEPTH, (((row.queue, row.tenant), n) for row, n in depths if n is not None))

    def _read_counts(self) -> Iterator[Reading]:
        known = self._names
        tasks = [(*known[queue_id], meter) for queue_id, meter in self._tasks.copy().items() if queue_id in known]
        yield Reading(names.TASKS_ENQUEUED, (((queue, tenant), meter.enqueued) for tenant, queue, meter in tasks))
        yield Reading(
            names.TASKS_ENDED,
            (
                ((queue, reason, state, tenant), count)
                for tenant, queue, meter in tasks
                for (reason, state), count in meter.ended.copy().items()
            ),
        )
        queues = list(self._queues.items())
        yield Reading(names.WAIT, (((queue, tenant), meter.wait) for (tenant, queue), meter in queues))
        yield Reading(names.ATTEMPT, (((queue, tenant), meter.attempt) for (tenant, queue), meter in queues))
        yield Reading(
            names.ATTEMPTS,
            (
                ((outcome, queue, tenant), count)
                for (tenant, queue), meter in queues
                for outcome, count in meter.outcomes.copy().items()
            ),
        )
        yield Reading(names.LEASES_LOST, [((), self._leases_lost)])
        yield Reading(names.LEASES_REAPED, [((), self._leases_reaped)])
        yield Reading(names.FLOWS_RESCUED, [((), self._flows_rescued)])
        groups = self._groups.copy().items()
        yield Reading(names.GROUP_SIZE, (((statement,), sizes) for statement, sizes in groups))

    def _read_fleet(self) -> Iterator[Reading]:
        found = self._fleet.schedules
        yield Reading(names.SCHEDULE_OVERDUE, (((row.schedule, row.tenant), row.overdue_seconds) for row in found))
        yield Reading(names.SCHEDULE_MISSED, (((row.schedule, row.tenant), row.missed) for row in found))
        handlers = self._fleet.handlers
        yield Reading(names.HANDLER_ENABLED, (((row.handler, row.tenant), row.enabled) for row in handlers))
        states = [((row.handler, row.tenant), BREAKER_STATES[row.state]) for row in handlers if row.state is not None]
        yield Reading(names.HANDLER_BREAKER, states)
        yield Reading(names.BREAKER_OPEN, ((which, state > 0) for which, state in states))
        limits = self._limits
        yield Reading(names.LIMIT_USED, (((row.level, row.name, row.tenant), row.used) for row in limits))
        most = [(row, row.max_concurrency) for row in limits if row.max_concurrency is not None]
        yield Reading(names.LIMIT, (((row.level, row.name, row.tenant), limit) for row, limit in most))
        keys = [(row, row.waiting_keys) for row in limits if row.waiting_keys is not None]
        yield Reading(names.LIMIT_WAITING_KEYS, (((row.name, row.tenant), waiting) for row, waiting in keys))
        yield from self._read_sources()
        admitted = self._admitted.copy().items()
        yield Reading(names.LIMIT_ADMITTED, (((limit, tenant), count) for (tenant, limit), count in admitted))

    def _read_sources(self) -> Iterator[Reading]:
        counted = self._messages.copy().items()
        yield Reading(
            names.SOURCE_MESSAGES,
            (((what, source, tenant), n) for (tenant, source), kept in counted for what, n in kept.copy().items()),
        )
        rows = self._fleet.sources
        lags = [((row.source, row.tenant), row.lag) for row in rows if row.lag is not None]
        yield Reading(names.SOURCE_LAG, lags)
        ages = [
            ((row.source, row.tenant), row.oldest_age_seconds) for row in rows if row.oldest_age_seconds is not None
        ]
        yield Reading(names.SOURCE_OLDEST_AGE, ages)
        yield Reading(names.SOURCE_FAILING, (((row.source, row.tenant), row.failing_seconds) for row in rows))

    def _read_database(self) -> Iterator[Reading]:
        fleet = self._fleet
        yield Reading(names.REPLICAS, (((role,), fleet.replicas.get(role, 0)) for role in ROLES if fleet.replicas))
        yield Reading(names.ALARM, (((code,), on) for code, on in fleet.alarms.items()))
        yield Reading(names.DATABASE_UP, [((), self._database_up())])
        for metric, value in (
            (names.DATABASE_CONNECTIONS, fleet.connections),
            (names.DATABASE_CONNECTIONS_MAX, fleet.max_connections),
            (names.DATABASE_OLDEST_XMIN, fleet.oldest_xmin_seconds),
        ):
            yield Reading(metric, [] if value is None else [((), value)])


def _named(limits: Iterable[LimitSnapshot]) -> set[tuple[str, str]]:
    return {(row.tenant, row.name) for row in limits if row.level == "named"}


def _sources(fleet: FleetSnapshot) -> set[tuple[str, str]]:
    return {(row.tenant, row.source) for row in fleet.sources}


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
