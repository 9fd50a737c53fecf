"""What Sluice says in its log: every event's name, level and fields, in one place.

Names are verbs of the house in the past tense and never change once released: alerts hang on them. There is no line a
task or an attempt that went well; metrics count those, and the attempts are on record in the database. `replica`,
`tenant`, `trace_id` and `correlation_id` may stand on any line.
"""

import logging
from dataclasses import dataclass
from typing import Final

from structlog.typing import FilteringBoundLogger

COMMON: Final = frozenset({"replica", "tenant", "queue", "task", "attempt", "trace_id", "correlation_id", "exc_info"})


@dataclass(frozen=True, slots=True)
class Event:
    name: str
    level: int
    meaning: str
    fields: frozenset[str]


def emit(log: FilteringBoundLogger, event: Event, **fields: object) -> None:
    """Say the event; a test over the source holds every call to the fields declared here."""
    log.log(event.level, event.name, **fields)


def _event(name: str, level: int, meaning: str, *fields: str) -> Event:
    return Event(name, level, meaning, frozenset(fields))


DEBUG, INFO, WARNING, ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR

# The process
REPLICA_STARTED = _event("replica_started", INFO, "The process runs as this replica.", "version", "role", "url")
READY = _event("ready", INFO, "The service answers at this address.", "url")
REPLICA_STOPPED = _event("replica_stopped", INFO, "The process ends in order.", "uptime_seconds")
LINES_LEFT_OUT = _event(
    "lines_left_out",
    WARNING,
    "So many lines of an event, about a tenant if it names one, were not written: a minute has room for 100 of them.",
    "of",
    "lines",
)
DRAIN_STARTED = _event("drain_started", INFO, "Claiming stops; calls in flight go on.", "in_flight", "grace_seconds")
DRAIN_FINISHED = _event(
    "drain_finished", INFO, "Nothing is in flight any more.", "seconds", "settled", "released", "abandoned"
)

# Who may enter
BOOTSTRAP_KEY_REPLACED = _event(
    "bootstrap_key_replaced", WARNING, "A new bootstrap key is in force; those before it are revoked.", "key", "revoked"
)
BOOTSTRAP_KEY_OUTDATED = _event(
    "bootstrap_key_outdated",
    WARNING,
    "This replica was given a bootstrap key that another has replaced: it lets nobody in.",
    "key",
    "current",
)
NO_KEYS = _event("no_keys", WARNING, "Requests need a key and there is none: nobody can enter.", "hint")

# The database
MIGRATED = _event("migrated", INFO, "The schema is at this revision.", "from_revision", "to_revision", "seconds")
DATABASE_STARTED = _event("database_started", INFO, "The embedded Postgres runs.", "data_dir", "version", "seconds")
DATABASE_STOPPED = _event("database_stopped", INFO, "The embedded Postgres has stopped.", "seconds")
DATABASE_UNAVAILABLE = _event(
    "database_unavailable", ERROR, "A statement found no database; said once an outage.", "statement", "error"
)
DATABASE_BACK = _event("database_back", INFO, "The database answers again.", "outage_seconds")
CONNECTIONS_SHORT = _event(
    "connections_short",
    WARNING,
    "The server has fewer connections left than this replica is set to take; it goes on with those, or waits for more.",
    "wanted",
    "got",
    "hint",
)
STATEMENT_FAILED = _event(
    "statement_failed", WARNING, "A grouped statement failed and is repeated in parts.", "statement", "size", "error"
)
LISTENER_LOST = _event("listener_lost", WARNING, "No wake-ups come by NOTIFY; polling goes on.", "error")
LISTENER_BACK = _event("listener_back", INFO, "Wake-ups come by NOTIFY again.", "outage_seconds")

# The loops
LOOP_FAILED = _event(
    "loop_failed", ERROR, "A loop's tick raised; it is tried again later.", "loop", "retry_in_seconds", "error"
)
LOOP_DIED = _event("loop_died", ERROR, "A loop has ended by itself; liveness fails.", "loop")

# Claims and attempts
CLAIM_FAILED = _event("claim_failed", ERROR, "A claim's outcome is unknown; it is released.", "claim", "error")
CLAIM_RELEASED = _event("claim_released", INFO, "What a lost claim had taken is ready again.", "claim", "tasks")
ATTEMPT_FAILED = _event(
    "attempt_failed",
    WARNING,
    "An attempt did not succeed; the task is tried again.",
    "handler",
    "outcome",
    "status",
    "error",
    "retry_in_seconds",
)
EGRESS_DENIED = _event(
    "egress_denied", WARNING, "A handler's name leads to an address that may not be called.", "host", "reason"
)
CALL_FAILED = _event("call_failed", ERROR, "An error of ours ended a call; its lease runs out and the task runs again.")
ATTEMPT_STALE = _event(
    "attempt_stale", WARNING, "An outcome came after its lease was lost: recorded, not applied.", "outcome", "status"
)
LEASE_LOST = _event(
    "lease_lost", WARNING, "A renewal was refused or came too late; the call is cut.", "late_seconds", "reason"
)
TASKS_REAPED = _event("tasks_reaped", WARNING, "Leases of silent holders have ended.", "tasks", "ready", "dead")
TASK_DEAD = _event(
    "task_dead", WARNING, "A task is given up and waits for redrive.", "reason", "handler", "outcome", "status", "error"
)
TASKS_EXPIRED = _event("tasks_expired", INFO, "Tasks passed expires_at before they started.", "tasks")
TASKS_PURGED = _event("tasks_purged", INFO, "Waiting tasks were cancelled by a purge.", "tasks")
SCHEDULE_MISSED = _event(
    "schedule_missed",
    WARNING,
    "Nominal times of a schedule passed without a run.",
    "schedule",
    "times",
    "first",
    "last",
)
SCHEDULE_OVERDUE = _event(
    "schedule_overdue", WARNING, "A schedule should have fired, and nothing has done it.", "schedule", "overdue_seconds"
)
SCHEDULE_FAILED = _event(
    "schedule_failed", ERROR, "An error of ours met a schedule; this replica tries it again soon.", "schedule_id"
)
SCHEDULE_PAUSED = _event("schedule_paused", WARNING, "A schedule has paused itself.", "schedule", "reason")
BATCH_COMPLETED = _event("batch_completed", DEBUG, "All tasks of a batch have ended.", "batch")
HANDLER_SECRETS_LOST = _event(
    "handler_secrets_lost", ERROR, "A handler's headers and secret do not open: its deliveries fail.", "handler"
)
HANDLER_DISABLED = _event("handler_disabled", WARNING, "A handler said 410: its tasks wait.", "handler", "reason")

# Housekeeping
PARTITIONS_MADE = _event("partitions_made", INFO, "History has room for the days to come.", "partitions")
PARTITIONS_DROPPED = _event("partitions_dropped", INFO, "History past its retention is gone.", "partitions")
JOB_FAILED = _event("job_failed", ERROR, "A housekeeping job raised; its next run tries again.", "job", "error")

# The wire
DESCRIPTORS_SHORT = _event(
    "descriptors_short",
    WARNING,
    "The process may open so few files that it takes fewer connections, or delivers less at once, than it would.",
    "limit",
    "connections",
    "max_in_flight",
)
CONNECTIONS_FULL = _event(
    "connections_full",
    WARNING,
    "There are as many connections as there may be: since the last such line so many were closed for new ones, or refused.",
    "limit",
    "closed",
    "refused",
)
REQUEST_FAILED = _event(
    "request_failed", ERROR, "A request met an error of ours and was answered 500.", "method", "route", "code"
)

CATALOGUE: Final = {event.name: event for event in list(globals().values()) if isinstance(event, Event)}
