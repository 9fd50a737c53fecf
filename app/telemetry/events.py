"""The log events of Sluice: every name, level and set of fields, in one place.

Names are past-tense verbs and never change once released, because alerts depend on them. Tasks and attempts that succeed are not
logged: metrics count them, and attempts are recorded in the database. `replica`, `tenant`, `trace_id`, `correlation_id` and
`request_id` may appear on any line.
"""

import logging
from dataclasses import dataclass
from typing import Final

from structlog.typing import FilteringBoundLogger

COMMON: Final = frozenset(
    {"replica", "tenant", "queue", "task", "attempt", "trace_id", "correlation_id", "request_id", "exc_info"}
)


@dataclass(frozen=True, slots=True)
class Event:
    name: str
    level: int
    meaning: str
    fields: frozenset[str]


def emit(log: FilteringBoundLogger, event: Event, **fields: object) -> None:
    """Log the event. A test of the source checks that every call uses only the fields declared here."""
    log.log(event.level, event.name, **fields)


def _event(name: str, level: int, meaning: str, *fields: str) -> Event:
    return Event(name, level, meaning, frozenset(fields))


DEBUG, INFO, WARNING, ERROR = logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR

# The process
REPLICA_STARTED = _event("replica_started", INFO, "The process started as this replica.", "version", "role", "url")
READY = _event("ready", INFO, "The service is answering at this address, and other wires at theirs.", "url", "wires")
REPLICA_STOPPED = _event("replica_stopped", INFO, "The process is shutting down cleanly.", "uptime_seconds")
LINES_LEFT_OUT = _event(
    "lines_left_out",
    WARNING,
    "This many lines of one event were dropped, about one tenant if it is named: at most 100 per minute are written.",
    "of",
    "lines",
)
DRAIN_STARTED = _event(
    "drain_started", INFO, "Claiming has stopped; calls in flight continue.", "in_flight", "grace_seconds"
)
DRAIN_FINISHED = _event(
    "drain_finished", INFO, "Nothing is in flight any longer.", "seconds", "settled", "released", "abandoned"
)

# Authentication
BOOTSTRAP_KEY_REPLACED = _event(
    "bootstrap_key_replaced", WARNING, "A new bootstrap key is in force; earlier ones are revoked.", "key", "revoked"
)
BOOTSTRAP_KEY_OUTDATED = _event(
    "bootstrap_key_outdated",
    WARNING,
    "This replica was given a bootstrap key that has since been replaced; the key is not accepted.",
    "key",
    "current",
)
NO_KEYS = _event("no_keys", WARNING, "Requests need a key, but no key exists: all are refused.", "hint")

# The database
MIGRATED = _event(
    "migrated", INFO, "The schema was migrated to this revision.", "from_revision", "to_revision", "seconds"
)
DATABASE_STARTED = _event(
    "database_started", INFO, "The embedded Postgres has started.", "data_dir", "version", "seconds"
)
DATABASE_STOPPED = _event("database_stopped", INFO, "The embedded Postgres has stopped.", "seconds")
DATABASE_UNAVAILABLE = _event(
    "database_unavailable", ERROR, "The database cannot be reached; logged once per outage.", "statement", "error"
)
DATABASE_BACK = _event("database_back", INFO, "The database is answering again.", "outage_seconds")
CONNECTIONS_SHORT = _event(
    "connections_short",
    WARNING,
    "The server has fewer connections left than this replica is configured to take; it uses those, or waits for more.",
    "wanted",
    "got",
    "hint",
)
STATEMENT_FAILED = _event(
    "statement_failed",
    WARNING,
    "A grouped statement failed and is being retried in smaller parts.",
    "statement",
    "size",
    "error",
)
LISTENER_LOST = _event("listener_lost", WARNING, "NOTIFY wake-ups have stopped arriving; polling continues.", "error")
LISTENER_BACK = _event("listener_back", INFO, "NOTIFY wake-ups are arriving again.", "outage_seconds")

# The loops
LOOP_FAILED = _event(
    "loop_failed", ERROR, "A loop's tick raised an error; it will be retried.", "loop", "retry_in_seconds", "error"
)
LOOP_DIED = _event("loop_died", ERROR, "A loop ended unexpectedly; liveness fails.", "loop")

# Claims and attempts
CLAIM_FAILED = _event(
    "claim_failed", ERROR, "A claim's outcome is unknown; whatever it took is being released.", "claim", "error"
)
CLAIM_RELEASED = _event("claim_released", INFO, "Tasks taken by a lost claim are ready again.", "claim", "tasks")
ATTEMPT_FAILED = _event(
    "attempt_failed",
    WARNING,
    "An attempt failed; the task will be retried.",
    "handler",
    "outcome",
    "status",
    "error",
    "retry_in_seconds",
)
EGRESS_DENIED = _event(
    "egress_denied", WARNING, "A handler's host name resolves to an address that is not allowed.", "host", "reason"
)
CALL_FAILED = _event(
    "call_failed", ERROR, "An internal error ended a call; the task runs again when its lease expires."
)
ATTEMPT_STALE = _event(
    "attempt_stale",
    WARNING,
    "An outcome arrived after its lease was lost; it is recorded but not applied.",
    "outcome",
    "status",
)
LEASE_LOST = _event(
    "lease_lost", WARNING, "A renewal was refused or came too late; the call is aborted.", "late_seconds", "reason"
)
TASKS_REAPED = _event("tasks_reaped", WARNING, "Expired leases were ended.", "tasks", "ready", "dead")
TASK_DEAD = _event(
    "task_dead", WARNING, "A task is dead and can be redriven.", "reason", "handler", "outcome", "status", "error"
)
CALLBACK_LEFT_OUT = _event(
    "callback_left_out",
    WARNING,
    "A task ended without the callback it has: eight callbacks in a row led to it (chain), or its queue was deleted (queue_gone).",
    "callback_queue",
    "state",
    "reason",
)
TASKS_EXPIRED = _event("tasks_expired", INFO, "Tasks expired before they started.", "tasks")
TASKS_PURGED = _event("tasks_purged", INFO, "A purge cancelled waiting tasks.", "tasks")
SCHEDULE_MISSED = _event(
    "schedule_missed",
    WARNING,
    "Scheduled times passed without a run.",
    "schedule",
    "times",
    "first",
    "last",
)
SCHEDULE_OVERDUE = _event(
    "schedule_overdue", WARNING, "A schedule is due, but nothing has fired it.", "schedule", "overdue_seconds"
)
SCHEDULE_FAILED = _event(
    "schedule_failed",
    ERROR,
    "A schedule could not be processed because of an internal error; this replica retries it soon.",
    "schedule_id",
)
SCHEDULE_PAUSED = _event("schedule_paused", WARNING, "A schedule was paused after failed runs.", "schedule", "reason")
SOURCE_FAILED = _event(
    "source_failed",
    WARNING,
    "A source cannot be received from, or not acknowledged; this replica tries again. Said once per failure.",
    "source",
    "error",
)
SOURCE_RECOVERED = _event("source_recovered", INFO, "A source that had failed is received from again.", "source")
SOURCE_BROKE = _event(
    "source_broke", ERROR, "Receiving from a source met an internal error; this replica tries again.", "source"
)
BATCH_COMPLETED = _event("batch_completed", DEBUG, "All tasks of a batch have ended.", "batch")
HANDLER_SECRETS_LOST = _event(
    "handler_secrets_lost",
    ERROR,
    "A handler's headers and secret cannot be decrypted; its deliveries fail until it is PUT again.",
    "handler",
)
HANDLER_DISABLED = _event(
    "handler_disabled", WARNING, "A handler answered 410 and was disabled; its tasks wait.", "handler", "reason"
)
HANDLER_PARKED = _event(
    "handler_parked", WARNING, "A handler asked for a pause with Retry-After; its tasks wait.", "handler", "seconds"
)
KEY_PARKED = _event(
    "key_parked", WARNING, "A handler asked for a pause with Retry-After; tasks of that key wait.", "handler", "seconds"
)
BREAKER_OPENED = _event(
    "breaker_opened",
    WARNING,
    "A handler failed too often, or its breaker was opened by hand (open_seconds is null); its tasks wait.",
    "handler",
    "calls",
    "failures",
    "open_seconds",
)
BREAKER_HALF_OPENED = _event("breaker_half_opened", INFO, "A handler's breaker admits a single probe.", "handler")
BREAKER_CLOSED = _event("breaker_closed", INFO, "A handler's tasks are delivered again, few at first.", "handler")
CONCURRENCY_LOWERED = _event(
    "concurrency_lowered", INFO, "A handler's adaptive limit was lowered.", "handler", "before", "after"
)

# Housekeeping
PARTITIONS_MADE = _event("partitions_made", INFO, "History partitions were created for the days ahead.", "partitions")
PARTITIONS_DROPPED = _event(
    "partitions_dropped", INFO, "History partitions past their retention were dropped.", "partitions"
)
JOB_FAILED = _event("job_failed", ERROR, "A housekeeping job failed; its next run retries it.", "job", "error")

# The wire
DESCRIPTORS_SHORT = _event(
    "descriptors_short",
    WARNING,
    "The limit on open files is too low for the usual number of connections and deliveries; raise `ulimit -Hn`.",
    "limit",
    "connections",
    "max_in_flight",
)
CONNECTIONS_FULL = _event(
    "connections_full",
    WARNING,
    "The connection limit is reached; this many were closed to make room, or refused, since the last such line.",
    "limit",
    "closed",
    "refused",
)
REQUEST_FAILED = _event(
    "request_failed", ERROR, "A request failed with an internal error and was answered 500.", "method", "route", "code"
)
REFUSAL_NOT_RECORDED = _event(
    "refusal_not_recorded",
    WARNING,
    "A call that would have changed something was refused, but the database did not take the audit's row of it.",
    "verb",
    "noun",
    "code",
    "error",
)

CATALOGUE: Final = {event.name: event for event in list(globals().values()) if isinstance(event, Event)}
