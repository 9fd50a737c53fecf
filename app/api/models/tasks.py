"""Tasks and attempts on the wire.

These models document the bodies: tasks are written directly from the service's values, because payloads must stay byte for
byte. Tests compare the two.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, WithJsonSchema

from app.domain.bulk import MAX_BULK_TASKS
from app.domain.handlers import MAX_TIMEOUT_SECONDS, MIN_TIMEOUT_SECONDS
from app.domain.retries import _RETRY
from app.domain.tasks import (
    MAX_DELAY_SECONDS,
    MAX_LABEL,
    MAX_PRIORITY,
    MAX_TAG,
    MAX_TAGS,
    MAX_TTL_SECONDS,
    MIN_PRIORITY,
    Outcome,
    Reason,
    State,
    WaitingFor,
)
from app.edge.replies import Instant, Name, Problem, RequestBody, ResponseBody

TimeoutSeconds = Annotated[float, Field(ge=MIN_TIMEOUT_SECONDS, le=MAX_TIMEOUT_SECONDS)]
RetryIn = Annotated[dict[str, Any], WithJsonSchema(_RETRY)]
Label = Annotated[str, Field(min_length=1, max_length=MAX_LABEL)]
Tag = Annotated[str, Field(min_length=1, max_length=MAX_TAG)]
AnyJson = Annotated[Any, Field(description="Any JSON (I-JSON, at most 128 levels deep).")]


class TaskIn(RequestBody):
    payload: Any = Field(description="Any JSON, including null. It reaches the handler byte for byte.")
    type: Label | None = None
    delay_seconds: float | None = Field(
        None, ge=0, le=MAX_DELAY_SECONDS, description="Cannot be combined with `run_at`."
    )
    run_at: Instant | None = Field(
        None, description="Cannot be combined with `delay_seconds`; a time in the past means now."
    )
    ttl_seconds: float | None = Field(
        None, gt=0, le=MAX_TTL_SECONDS, description="Cannot be combined with `expires_at`."
    )
    expires_at: Instant | None = Field(
        None,
        description="Cannot be combined with `ttl_seconds`. No attempt starts after it; running ones are not aborted.",
    )
    priority: int = Field(0, ge=MIN_PRIORITY, le=MAX_PRIORITY, description="Higher priorities always start first.")
    idempotency_key: Label | None = Field(None, description="Can also be sent in the header `Idempotency-Key`.")
    unique_key: Label | None = Field(None, description="At most one unfinished task per queue can have it.")
    retry: RetryIn | None = Field(None, description="Partial; merged over the queue's.")
    timeout_seconds: TimeoutSeconds | None = Field(None, description="null: the queue's, else the handler's.")
    correlation_id: Label | None = None
    headers: dict[str, str] | None = Field(None, description="Sent with every delivery of this task.")
    tags: list[Tag] | None = Field(None, max_length=MAX_TAGS, json_schema_extra={"uniqueItems": True})
    handler: Name | None = Field(None, description="Overrides the queue's handler, on a queue that has one.")


class TaskPatch(RequestBody):
    """A merge patch: absent fields are kept, null resets to the default."""

    payload: Any = Field(None, description="Replaced as a whole, never merged; null is a valid payload.")
    type: Label | None = None
    run_at: Instant | None = Field(None, description="null: now. Cannot be combined with `delay_seconds`.")
    delay_seconds: float | None = Field(
        None, ge=0, le=MAX_DELAY_SECONDS, description="From now. Cannot be combined with `run_at`."
    )
    expires_at: Instant | None = None
    priority: int | None = Field(None, ge=MIN_PRIORITY, le=MAX_PRIORITY)
    retry: dict[str, Any] | None = Field(None, description="Merged field by field; a backoff is replaced as a whole.")
    timeout_seconds: TimeoutSeconds | None = None
    headers: dict[str, str | None] | None = Field(None, description="Merged by name; null removes a header.")
    tags: list[Tag] | None = Field(None, max_length=MAX_TAGS)
    correlation_id: Label | None = None
    handler: Name | None = Field(None, description="null: the queue's.")


PATCH_SCHEMA = TaskPatch.model_json_schema()


class BulkIn(RequestBody):
    tasks: list[TaskIn] = Field(min_length=1, max_length=MAX_BULK_TASKS)
    atomic: bool = Field(
        False, description="All or nothing: if any task is refused, the answer is 422 and nothing is stored."
    )


class StoredOut(ResponseBody):
    status: Literal[200, 201] = Field(
        description="200: a task with this idempotency key or unique key existed already."
    )
    id: str = Field(json_schema_extra={"format": "uuid"})
    unique_held: bool = Field(False, description="`true` if an unfinished task has its unique key; otherwise absent.")


class RefusedOut(ResponseBody):
    status: int = Field(
        description="413, 422 or 429; 503 if the database became unavailable after earlier tasks were stored."
    )
    problem: Problem


class BulkOut(ResponseBody):
    results: list[StoredOut | RefusedOut]


class LeaseOut(ResponseBody):
    expires_at: Instant


class TaskOut(ResponseBody):
    id: str = Field(json_schema_extra={"format": "uuid"})
    queue: Name
    handler: str | None
    type: str | None
    state: State
    reason: Reason | None
    priority: int
    payload: AnyJson = None
    """Absent in lists without `include=payload`."""
    content_type: str
    headers: dict[str, str]
    tags: list[str]
    correlation_id: str | None
    idempotency_key: str | None
    unique_key: str | None
    created_at: Instant
    run_at: Instant
    started_at: Instant | None
    ended_at: Instant | None
    expires_at: Instant | None
    attempt: int
    max_attempts: int
    timeout_seconds: float | None
    last_error: str | None
    result: AnyJson
    result_encoding: Literal["base64"] | None = None
    result_truncated: bool
    progress: AnyJson
    lease: LeaseOut | None
    replica: str | None
    schedule: str | None
    scheduled_for: Instant | None
    batch: str | None
    parent: str | None
    waiting_for: WaitingFor | None = Field(None, description="Unfinished tasks only.")


class AttemptOut(ResponseBody):
    number: int
    counted: bool
    replica: str | None
    started_at: Instant
    ended_at: Instant | None
    outcome: Outcome | None = Field(description="null while the attempt is running.")
    status: int | None
    error: str | None
    excerpt: str | None
    trace_id: str | None
