"""Every metric: name, kind, labels and meaning, as in the reference page and the golden file."""

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["gauge", "counter", "histogram"]


@dataclass(frozen=True, slots=True)
class Definition:
    """One metric. Labels are in the order in which its points give them."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    meaning: str


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
TASKS_ENQUEUED = Definition(
    "sluice_tasks_enqueued_total",
    "counter",
    ("queue", "tenant"),
    "Tasks that this replica created, whoever asked: callers, schedules, follow-up work, callbacks.",
)
TASKS_ENDED = Definition(
    "sluice_tasks_ended_total",
    "counter",
    ("queue", "reason", "state", "tenant"),
    "Tasks that this replica ended, by state and reason; a succeeded one has no reason.",
)
QUEUE_PAUSED = Definition("sluice_queue_paused", "gauge", ("queue", "tenant"), "1 if the queue is paused, otherwise 0.")
QUEUE_MAX_DEPTH = Definition(
    "sluice_queue_max_depth",
    "gauge",
    ("queue", "tenant"),
    "How many scheduled and ready tasks the queue may hold; no series without such a limit.",
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
HANDLER_ENABLED = Definition(
    "sluice_handler_enabled",
    "gauge",
    ("handler", "tenant"),
    "1 if the handler is enabled, 0 if it is disabled; above 1,000 handlers, those in trouble come first.",
)
BREAKER_OPEN = Definition(
    "sluice_breaker_open",
    "gauge",
    ("handler", "tenant"),
    "1 while a handler's breaker is open or half-open, otherwise 0; no series without a breaker.",
)
LIMIT_USED = Definition(
    "sluice_limit_used",
    "gauge",
    ("level", "name", "tenant"),
    "Running tasks that a limit counts, across the whole fleet; of a keyed limit, over all its keys.",
)
LIMIT = Definition(
    "sluice_limit",
    "gauge",
    ("level", "name", "tenant"),
    "How many tasks may run at once, by level: tenant, handler, queue, or named; no series for a limit by key or by rate alone.",
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
SOURCE_MESSAGES = Definition(
    "sluice_source_messages_total",
    "counter",
    ("outcome", "source", "tenant"),
    "Messages of a source on this replica: received, enqueued, duplicates, invalid, lost.",
)
SOURCE_LAG = Definition(
    "sluice_source_lag",
    "gauge",
    ("source", "tenant"),
    "Messages that wait at a source; no series while it has not said.",
)
SOURCE_OLDEST_AGE = Definition(
    "sluice_source_oldest_age_seconds",
    "gauge",
    ("source", "tenant"),
    "Age of the oldest message that waits at a source; no series while it has not said.",
)
SOURCE_FAILING = Definition(
    "sluice_source_failing_seconds",
    "gauge",
    ("source", "tenant"),
    "How long a source has failed, on any replica, or its messages have found no room; 0: it works.",
)
LOOP_LAG = Definition(
    "sluice_loop_lag_seconds", "gauge", (), "The worst delay of a loop's wake-up in the last 30 to 60 seconds."
)
REPLICAS = Definition(
    "sluice_replicas", "gauge", ("role",), "Replicas that are alive and not draining, by role: all, api, engine."
)
ALARM = Definition(
    "sluice_alarm", "gauge", ("code",), "1 while GET /status shows an alarm with this code, otherwise 0."
)
HTTP_REQUEST = Definition(
    "sluice_http_request_seconds",
    "histogram",
    ("method", "route", "status"),
    "From a request's head to the end of its response, waits for tasks and results included.",
)
DATABASE_UP = Definition("sluice_database_up", "gauge", (), "1 if this replica can reach the database, otherwise 0.")
DATABASE_CONNECTIONS = Definition(
    "sluice_database_connections", "gauge", (), "Sessions of clients on the database server, whoever they are."
)
DATABASE_CONNECTIONS_MAX = Definition("sluice_database_connections_max", "gauge", (), "The server's max_connections.")
DATABASE_OLDEST_XMIN = Definition(
    "sluice_database_oldest_xmin_seconds",
    "gauge",
    (),
    "Age of the oldest transaction that keeps vacuum from cleaning up; 0 if there is none.",
)
BUILD_INFO = Definition("sluice_build_info", "gauge", ("version",), "Always 1; the label is the version.")
DEFINITIONS: Final = (
    TASKS,
    OLDEST_READY,
    QUEUE_PAUSED,
    QUEUE_MAX_DEPTH,
    TASKS_ENQUEUED,
    TASKS_ENDED,
    WAIT,
    ATTEMPT,
    ATTEMPTS,
    LEASES_LOST,
    LEASES_REAPED,
    FLOWS_RESCUED,
    GROUP_SIZE,
    SCHEDULE_OVERDUE,
    SCHEDULE_MISSED,
    HANDLER_ENABLED,
    HANDLER_BREAKER,
    BREAKER_OPEN,
    LIMIT_USED,
    LIMIT,
    LIMIT_WAITING_KEYS,
    SOURCE_MESSAGES,
    SOURCE_LAG,
    SOURCE_OLDEST_AGE,
    SOURCE_FAILING,
    LIMIT_ADMITTED,
    LOOP_LAG,
    HTTP_REQUEST,
    REPLICAS,
    ALARM,
    DATABASE_UP,
    DATABASE_CONNECTIONS,
    DATABASE_CONNECTIONS_MAX,
    DATABASE_OLDEST_XMIN,
    BUILD_INFO,
)
