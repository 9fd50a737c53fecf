"""Queues: where tasks wait, and the rules by which they leave."""

from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

from app.domain.backoff import RetryPolicy
from app.domain.conditions import etag_of
from app.domain.errors import FieldError
from app.domain.handlers import MAX_DESCRIPTION, check_max_concurrency, check_timeout
from app.domain.names import NAME_RULE, is_name
from app.domain.retries import DEFAULT_RETRY, check_retry, retry_to_dict
from app.domain.schemas.rules import check_size, schema_value
from app.domain.texts import check_text

MAX_DEPTH = 1_000_000_000
MAX_RETENTION_DAYS = 90
MAX_IDEMPOTENCY_SECONDS = 90 * 86_400


@dataclass(frozen=True, slots=True)
class Retention:
    """How long ended tasks stay readable."""

    succeeded_days: int = 3
    cancelled_days: int = 3
    dead_days: int = 30

    def check(self) -> list[FieldError]:
        return [
            FieldError(f"/retention/{name}", f"expected days from 0 to {MAX_RETENTION_DAYS}")
            for name, days in asdict(self).items()
            if not 0 <= days <= MAX_RETENTION_DAYS
        ]


@dataclass(frozen=True, slots=True)
class QueueDefinition:
    handler: str | None = None
    """None: a queue for pull workers."""
    max_concurrency: int | None = None
    max_depth: int | None = None
    timeout_seconds: float | None = None
    """None: the handler's."""
    retry: RetryPolicy = DEFAULT_RETRY
    idempotency_seconds: float = 86_400.0
    payload_schema: str | None = None
    """Its JSON text; None: payloads may be anything."""
    retention: Retention = field(default_factory=Retention)
    description: str | None = None

    def check(self) -> list[FieldError]:
        errors: list[FieldError] = []
        if self.handler is not None and not is_name(self.handler):
            errors.append(FieldError("/handler", f"is not a name ({NAME_RULE})"))
        errors += check_max_concurrency(self.max_concurrency)
        if self.max_depth is not None and not 1 <= self.max_depth <= MAX_DEPTH:
            errors.append(FieldError("/max_depth", f"expected 1 to {MAX_DEPTH}, or null for no limit"))
        if self.timeout_seconds is not None:
            errors += check_timeout(self.timeout_seconds)
        errors += check_retry(retry_to_dict(self.retry))
        if not 0 <= self.idempotency_seconds <= MAX_IDEMPOTENCY_SECONDS:
            errors.append(FieldError("/idempotency_seconds", f"expected seconds from 0 to {MAX_IDEMPOTENCY_SECONDS}"))
        if self.payload_schema is not None:
            errors += check_size(self.payload_schema)
        errors += self.retention.check()
        if self.description is not None:
            errors += check_text(self.description, "/description", MAX_DESCRIPTION, empty=True)
        return errors


@dataclass(frozen=True, slots=True)
class QueueView:
    """A queue: its definition, and whether it is paused."""

    name: str
    definition: QueueDefinition
    created_at: datetime
    updated_at: datetime
    paused: bool = False
    paused_at: datetime | None = None
    owner: str | None = None
    """The owner that the definitions document managing it names."""


def queue_to_dict(definition: QueueDefinition) -> dict[str, Any]:
    """Return the complete definition as JSON values."""
    return asdict(definition) | {
        "retry": retry_to_dict(definition.retry),
        "payload_schema": schema_value(definition.payload_schema),
    }


def queue_etag(definition: QueueDefinition) -> str:
    return etag_of(queue_to_dict(definition))
