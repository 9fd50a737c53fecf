"""Tasks and attempts as the API shows them."""

import base64
from typing import Any

import msgspec


class Lease(msgspec.Struct):
    expires_at: str


class TaskView(msgspec.Struct, omit_defaults=False):
    """A task as every route shows it. `payload` is the stored bytes, inserted unchanged; instants are RFC 3339 text."""

    id: str
    queue: str
    handler: str | None
    type: str | None
    state: str
    reason: str | None
    priority: int
    payload: msgspec.Raw | msgspec.UnsetType
    content_type: str
    headers: dict[str, str]
    tags: list[str] | tuple[str, ...]
    correlation_id: str | None
    idempotency_key: str | None
    unique_key: str | None
    created_at: str
    run_at: str
    started_at: str | None
    ended_at: str | None
    expires_at: str | None
    attempt: int
    max_attempts: int
    timeout_seconds: float | None
    last_error: str | None = None
    result: Any = None
    result_encoding: str | msgspec.UnsetType = msgspec.UNSET
    result_truncated: bool = False
    progress: Any = None
    lease: Lease | None = None
    replica: str | None = None
    schedule: str | None = None
    scheduled_for: str | None = None
    batch: str | None = None
    parent: str | None = None
    waiting_for: str | None = None


class LeasedTaskView(TaskView, kw_only=True):
    """A task for its present holder. `cursor` is where a continuation resumes."""

    cursor: str | None
    schedule_timezone: str | None
    scheduled_for_local: str | None
    lease_token: str
    lease_expires_at: str


class AttemptView(msgspec.Struct):
    """One claim of a task; `outcome` is null while it runs."""

    number: int
    counted: bool
    replica: str | None
    started_at: str
    ended_at: str | None
    outcome: str | None
    status: int | None
    error: str | None
    excerpt: str | None
    trace_id: str | None


def shown_result(result: bytes | None, result_format: str | None) -> tuple[Any, str | None]:
    """Return (`result`, `result_encoding`) as JSON values."""
    match result_format:
        case None:
            return None, None
        case "json":
            return msgspec.Raw(result or b"null"), None
        case "text":
            return (result or b"").decode("utf-8", "ignore"), None
        case _:
            return base64.b64encode(result or b"").decode(), "base64"
