"""Queues: where tasks wait, and the rules by which they leave."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from msgspec import Meta, Struct, structs

from app.domain.backoff import RetryPolicy
from app.domain.bodies import faults, with_more
from app.domain.callbacks import Callbacks, callbacks_to_dict, check_callbacks
from app.domain.conditions import etag_of
from app.domain.errors import FieldError, invalid
from app.domain.handlers import TimeoutSeconds
from app.domain.limits import LimitUse, MaxConcurrency, NamedUses, QueueKey, Rate, check_uses, uses_of
from app.domain.names import Name
from app.domain.retries import DEFAULT_RETRY, Retry, check_retry, effective_retry, retry_to_dict
from app.domain.schemas.rules import check_size, schema_text, schema_value
from app.domain.texts import MAX_DESCRIPTION, Description, check_text

MAX_DEPTH = 1_000_000_000
MAX_RETENTION_DAYS = 90
MAX_IDEMPOTENCY_SECONDS = 90 * 86_400


Days = Annotated[int, Meta(ge=0, le=MAX_RETENTION_DAYS)]
PayloadSchema = Annotated[
    Any,
    Meta(
        description="Payloads are validated against it when they are enqueued; null: anything is accepted.",
        extra_json_schema={
            "anyOf": [{"type": "object", "title": "JSON Schema 2020-12"}, {"type": "boolean"}, {"type": "null"}]
        },
    ),
]


class Retention(Struct, frozen=True, forbid_unknown_fields=True):
    """How many days ended tasks stay readable."""

    succeeded_days: Days = 3
    cancelled_days: Days = 3
    dead_days: Days = 30


class QueueOptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields of a definition that are the same on the wire and internally."""

    handler: Annotated[
        Name | None, Meta(description="The handler that its tasks are delivered to; null: a queue for pull workers.")
    ] = None
    max_concurrency: MaxConcurrency | None = None
    max_depth: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_DEPTH)] | None,
        Meta(description="Exact limit on scheduled and ready tasks."),
    ] = None
    rate: Annotated[Rate | None, Meta(description="How many of its tasks start in a while.")] = None
    key: Annotated[QueueKey | None, Meta(description="What holds for each distinct key of its tasks.")] = None
    timeout_seconds: Annotated[TimeoutSeconds | None, Meta(description="null: the handler's.")] = None
    idempotency_seconds: Annotated[float, Meta(ge=0, le=MAX_IDEMPOTENCY_SECONDS)] = 86_400.0
    retention: Retention = Retention()
    callbacks: Annotated[
        Callbacks, Meta(description="What is enqueued when a task of this queue ends, by the state it ends in.")
    ] = Callbacks()
    encrypt: Annotated[
        bool,
        Meta(description="Whether payload, result and excerpts of its new tasks are encrypted in the database."),
    ] = False
    description: Description | None = None


class QueueDefinition(QueueOptions, frozen=True, kw_only=True):
    retry: RetryPolicy = DEFAULT_RETRY
    payload_schema: str | None = None
    """The schema's JSON text; None: any payload is valid."""
    limits: tuple[LimitUse, ...] = ()
    """What all its tasks take."""

    @property
    def key_limited(self) -> bool:
        """Whether each key has a limit of its own."""
        return self.key is not None and self.key.limited

    def check(self) -> list[FieldError]:
        more = check_retry(retry_to_dict(self.retry)) + check_callbacks(self.callbacks)
        if self.payload_schema is not None:
            more += check_size(self.payload_schema)
        if self.description is not None:
            more += check_text(self.description, "/description", MAX_DESCRIPTION, empty=True)
        more += check_uses(self.limits, "/limits")
        if self.key is not None:
            more += self.key.check("/key")
        return with_more(faults(self), more)


class QueueBody(QueueOptions, frozen=True, kw_only=True):
    """A queue definition as sent: with a partial retry policy, and the schema as JSON."""

    retry: Retry = {}
    payload_schema: PayloadSchema = None
    limits: NamedUses = []

    def definition(self) -> QueueDefinition:
        """Return the definition. Raises Refusal (invalid) if its retry cannot be merged; the service validates the rest."""
        if errors := check_retry(self.retry):
            raise invalid(errors)
        given = structs.asdict(self) | {
            "retry": effective_retry(DEFAULT_RETRY, self.retry),
            "payload_schema": schema_text(self.payload_schema),
            "limits": uses_of(self.limits),
            "key": None if self.key == QueueKey() else self.key,
        }
        return QueueDefinition(**given)


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
    return structs.asdict(definition) | {
        "retention": structs.asdict(definition.retention),
        "callbacks": callbacks_to_dict(definition.callbacks),
        "retry": retry_to_dict(definition.retry),
        "payload_schema": schema_value(definition.payload_schema),
        "rate": None if definition.rate is None else structs.asdict(definition.rate),
        "key": None if definition.key is None else _key_to_dict(definition.key),
        "limits": [structs.asdict(use) for use in definition.limits],
    }


def _key_to_dict(key: QueueKey) -> dict[str, Any]:
    return structs.asdict(key) | {"rate": None if key.rate is None else structs.asdict(key.rate)}


def queue_etag(definition: QueueDefinition) -> str:
    return etag_of(queue_to_dict(definition))
