"""Queues on the wire."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, WithJsonSchema

from app.api.models.handlers import Description, MaxConcurrency, TimeoutSeconds
from app.domain.errors import FieldError, invalid
from app.domain.instants import parse_instant
from app.domain.queues import (
    MAX_DEPTH,
    MAX_IDEMPOTENCY_SECONDS,
    MAX_RETENTION_DAYS,
    QueueDefinition,
    QueueView,
    Retention,
    queue_to_dict,
)
from app.domain.retries import (
    DEFAULT_RETRY,
    MAX_ATTEMPTS,
    MAX_BACKOFF_SECONDS,
    MAX_BACKOFF_STEPS,
    MAX_FACTOR,
    check_retry,
    merged,
)
from app.domain.schemas.rules import schema_text
from app.domain.tasks import MAX_LABEL, Reason, TaskFilters
from app.domain.texts import text_problem
from app.edge.replies import Instant, Name, Owner, RequestBody, ResponseBody

MAX_REDRIVE = 10_000
Label = Annotated[str, Field(min_length=1, max_length=MAX_LABEL)]
InstantText = Annotated[str, Field(max_length=50, json_schema_extra={"format": "date-time"})]
_SECONDS = {"type": "number", "minimum": 0, "maximum": MAX_BACKOFF_SECONDS}
# Without `kind` the fields tell it.
_BACKOFF_IN = [
    {
        "title": "Exponential backoff",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "kind": {"type": "string", "const": "exponential"},
            "min_seconds": _SECONDS | {"default": 1},
            "max_seconds": _SECONDS | {"default": 3600},
            "factor": {"type": "number", "minimum": 1, "maximum": MAX_FACTOR, "default": 2},
            "jitter": {"type": "string", "enum": ["full", "equal", "none"], "default": "equal"},
        },
    },
    {
        "title": "Fixed backoff",
        "type": "object",
        "additionalProperties": False,
        "properties": {"kind": {"type": "string", "const": "fixed"}, "seconds": _SECONDS},
        "required": ["seconds"],
    },
    {
        "title": "Backoff by a list",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "kind": {"type": "string", "const": "list"},
            "seconds": {"type": "array", "items": _SECONDS, "minItems": 1, "maxItems": MAX_BACKOFF_STEPS},
        },
        "required": ["seconds"],
    },
]
RETRY_IN_SCHEMA: dict[str, Any] = {
    "title": "RetryIn",
    "description": "Partial: what is absent keeps its default (in a task: the queue's value).",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "max_attempts": {"type": "integer", "minimum": 1, "maximum": MAX_ATTEMPTS, "default": 25},
        "retry_after_max_seconds": _SECONDS | {"default": 3600},
        "backoff": {"oneOf": _BACKOFF_IN},
    },
}

# The domain judges it, with the same words for a queue's retry as for a task's.
RetryIn = Annotated[dict[str, Any], WithJsonSchema(RETRY_IN_SCHEMA)]
RetryOut = Annotated[
    dict[str, Any], WithJsonSchema({**RETRY_IN_SCHEMA, "title": "RetryOut", "description": "Complete."})
]
PayloadSchema = Annotated[
    Any,
    WithJsonSchema(
        {
            "title": "PayloadSchema",
            "anyOf": [{"type": "object", "title": "JSON Schema 2020-12"}, {"type": "boolean"}, {"type": "null"}],
        }
    ),
]
Days = Annotated[int, Field(ge=0, le=MAX_RETENTION_DAYS)]


class RetentionIn(RequestBody):
    """How many days ended tasks stay readable."""

    succeeded_days: Days = 3
    cancelled_days: Days = 3
    dead_days: Days = 30


class QueueIn(RequestBody):
    handler: Name | None = Field(None, description="Where its tasks are delivered; null: a queue for pull workers.")
    max_concurrency: MaxConcurrency | None = None
    max_depth: int | None = Field(None, ge=1, le=MAX_DEPTH, description="Bounds scheduled and ready tasks, exactly.")
    timeout_seconds: TimeoutSeconds | None = Field(None, description="null: the handler's.")
    retry: RetryIn = Field({})
    idempotency_seconds: float = Field(86_400.0, ge=0, le=MAX_IDEMPOTENCY_SECONDS, allow_inf_nan=False)
    payload_schema: PayloadSchema = Field(
        None, description="What payloads must be, checked at enqueue; null: anything."
    )
    retention: RetentionIn = RetentionIn()
    description: Description | None = None

    def definition(self) -> QueueDefinition:
        """As asked for; only what cannot be merged over the defaults is judged here, the rest by the service."""
        if errors := check_retry(self.retry):
            raise invalid(errors)
        return QueueDefinition(
            handler=self.handler,
            max_concurrency=self.max_concurrency,
            max_depth=self.max_depth,
            timeout_seconds=self.timeout_seconds,
            retry=merged(DEFAULT_RETRY, self.retry),
            idempotency_seconds=self.idempotency_seconds,
            payload_schema=schema_text(self.payload_schema),
            retention=Retention(**self.retention.model_dump()),
            description=self.description,
        )


class RetentionOut(ResponseBody):
    succeeded_days: int
    cancelled_days: int
    dead_days: int


class QueueOut(ResponseBody):
    name: Name
    handler: str | None
    max_concurrency: int | None
    max_depth: int | None
    timeout_seconds: float | None
    retry: RetryOut
    idempotency_seconds: float
    payload_schema: PayloadSchema
    retention: RetentionOut
    description: str | None
    paused: bool
    paused_at: Instant | None
    created_at: Instant
    updated_at: Instant
    owner: Owner = None

    @classmethod
    def of(cls, view: QueueView) -> Self:
        return cls(
            name=view.name,
            paused=view.paused,
            paused_at=view.paused_at,
            created_at=view.created_at,
            updated_at=view.updated_at,
            owner=view.owner,
            **queue_to_dict(view.definition),
        )


class PurgedOut(ResponseBody):
    purged: int = Field(description="How many tasks were cancelled.")


class RedriveIn(RequestBody):
    reason: (
        Literal[
            "attempts_exhausted",
            "fatal_status",
            "stopped_by_handler",
            "stopped_by_worker",
            "expired",
            "followup_too_large",
        ]
        | None
    ) = None
    type: Label | None = None
    tag: Label | None = None
    handler: Name | None = None
    correlation_id: Label | None = None
    ended_from: InstantText | None = None
    ended_to: InstantText | None = None
    limit: int = Field(1000, ge=1, le=MAX_REDRIVE, description="How many to move at most.")
    dry_run: bool = Field(False, description="Only count what matches.")

    def filters(self) -> TaskFilters:
        errors = [
            FieldError(f"/{name}", problem)
            for name in ("type", "tag", "correlation_id")
            if (text := getattr(self, name)) is not None and (problem := text_problem(text, MAX_LABEL))
        ]
        span = [None if text is None else parse_instant(text) for text in (self.ended_from, self.ended_to)]
        for name, text, instant in zip(("ended_from", "ended_to"), (self.ended_from, self.ended_to), span, strict=True):
            if text is not None and instant is None:
                errors.append(FieldError(f"/{name}", "expected an RFC 3339 instant with an offset"))
        if errors:
            raise invalid(errors)
        return TaskFilters(
            reason=None if self.reason is None else Reason(self.reason),
            type=self.type,
            tag=self.tag,
            handler=self.handler,
            correlation_id=self.correlation_id,
            ended_from=span[0],
            ended_to=span[1],
        )


class RedrivenOut(ResponseBody):
    matched: int = Field(description="Dead tasks that matched when the call began.")
    moved: int
    remaining: int = Field(description="Matched and not moved: beyond the limit, or unable to come back.")


class CountsOut(ResponseBody):
    scheduled: int
    ready: int
    running: int
    succeeded: int
    dead: int
    cancelled: int


class RatesOut(ResponseBody):
    enqueued: float
    started: float
    ended: float


class PercentilesOut(ResponseBody):
    p50: float | None
    p95: float | None
    p99: float | None


class QueueStatsOut(ResponseBody):
    queue: Name
    counts: CountsOut
    oldest_ready_age_seconds: float | None
    per_minute: RatesOut
    success_share: float | None = Field(description="Succeeded over ended, of late; null when none has ended.")
    wait_seconds: PercentilesOut
    run_seconds: PercentilesOut
    as_of: Instant
