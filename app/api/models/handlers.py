"""Handlers on the wire."""

from typing import Annotated, Any, Self

from pydantic import Field

from app.domain.handlers import (
    HIDDEN,
    MAX_CONCURRENCY,
    MAX_DESCRIPTION,
    MAX_FATAL_STATUSES,
    MAX_TIMEOUT_SECONDS,
    MAX_URL,
    MIN_TIMEOUT_SECONDS,
    SECRET_RULE,
    HandlerDefinition,
    HandlerView,
)
from app.edge.replies import Instant, Name, Owner, RequestBody, ResponseBody

DEFAULT_OVERLAP_SECONDS = 86_400
MAX_OVERLAP_SECONDS = 90 * 86_400

TimeoutSeconds = Annotated[float, Field(ge=MIN_TIMEOUT_SECONDS, le=MAX_TIMEOUT_SECONDS, allow_inf_nan=False)]
MaxConcurrency = Annotated[int, Field(ge=1, le=MAX_CONCURRENCY)]
Description = Annotated[str, Field(max_length=MAX_DESCRIPTION)]
FatalStatus = Annotated[int, Field(ge=100, le=599)]


class HandlerIn(RequestBody):
    url: str = Field(max_length=MAX_URL, description="http or https, without user, password and fragment.")
    timeout_seconds: TimeoutSeconds = 30.0
    headers: dict[str, str] = Field({}, description="Sent with every delivery. Write-only.")
    max_concurrency: MaxConcurrency | None = None
    fatal_statuses: list[FatalStatus] = Field([], max_length=MAX_FATAL_STATUSES)
    secret: str | None = Field(
        None, max_length=100, description=f"The signing secret, {SECRET_RULE}; else one is made."
    )
    description: Description | None = None

    def definition(self) -> HandlerDefinition:
        """As asked for; the service judges it."""
        return HandlerDefinition(
            url=self.url,
            timeout_seconds=self.timeout_seconds,
            headers=self.headers,
            max_concurrency=self.max_concurrency,
            fatal_statuses=tuple(self.fatal_statuses),
            description=self.description,
        )


class HandlerOut(ResponseBody):
    name: Name
    url: str
    timeout_seconds: float
    headers: dict[str, str] = Field(description="The names; each value is shown as `***`.")
    max_concurrency: int | None
    fatal_statuses: list[int]
    description: str | None
    enabled: bool
    disabled_at: Instant | None
    disabled_reason: str | None
    secrets_lost: bool = Field(
        False,
        exclude_if=lambda lost: not lost,
        description="Its headers and signing secret cannot be read: deliveries fail until it is PUT again, with its headers.",
    )
    created_at: Instant
    updated_at: Instant
    owner: Owner = None

    @classmethod
    def of(cls, view: HandlerView, **more: Any) -> Self:
        definition = view.definition
        return cls(
            name=view.name,
            url=definition.url,
            timeout_seconds=definition.timeout_seconds,
            headers=dict.fromkeys(definition.headers, HIDDEN),
            max_concurrency=definition.max_concurrency,
            fatal_statuses=list(definition.fatal_statuses),
            description=definition.description,
            enabled=view.enabled,
            disabled_at=view.disabled_at,
            disabled_reason=view.disabled_reason,
            secrets_lost=view.secrets_lost,
            created_at=view.created_at,
            updated_at=view.updated_at,
            owner=view.owner,
            **more,
        )


class HandlerSaved(HandlerOut):
    secret: str | None = Field(description="The signing secret when it is new, null otherwise: it is shown once.")


class RotateSecretIn(RequestBody):
    overlap_seconds: float = Field(
        DEFAULT_OVERLAP_SECONDS,
        ge=0,
        le=MAX_OVERLAP_SECONDS,
        allow_inf_nan=False,
        description="How long deliveries carry a signature of the old secret too.",
    )


class SecretOut(ResponseBody):
    secret: str = Field(description="The new signing secret. It is not shown again.")
    overlap_seconds: float


class TestIn(RequestBody):
    payload: Any = Field(
        None,
        description="Sent byte for byte. Without it: the first of the `examples` in the schema of a queue that delivers here, else"
        ' `{"test": true}`.',
    )


class TestSent(ResponseBody):
    url: str
    headers: dict[str, str]
    body: str


class TestReceived(ResponseBody):
    status: int
    headers: dict[str, str]
    body: str
    truncated: bool


class TestOut(ResponseBody):
    """What a signed request sent now met. It counts nowhere."""

    sent: TestSent
    received: TestReceived | None
    outcome: str
    error: str | None
    duration_seconds: float
