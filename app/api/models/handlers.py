"""Responses and actions of handlers. domain.handlers declares their definitions."""

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType, structs

from app.domain.handlers import HIDDEN, HandlerDefinition, HandlerView
from app.domain.instants import Instant, format_instant, instant_text
from app.domain.names import Name
from app.edge.pages import Owner

DEFAULT_OVERLAP_SECONDS = 86_400.0
MAX_OVERLAP_SECONDS = 90 * 86_400


class HandlerOut(HandlerDefinition, frozen=True, kw_only=True):
    headers: Annotated[dict[str, str], Meta(description="Header names; each value is shown as `***`.")]
    name: Name
    enabled: bool
    disabled_at: Instant | None
    disabled_reason: str | None
    secrets_lost: Annotated[
        bool | UnsetType,
        Meta(
            description="Its headers and signing secret cannot be decrypted; deliveries fail until it is PUT again with them."
        ),
    ] = UNSET
    created_at: Instant
    updated_at: Instant
    owner: Owner = UNSET


class HandlerSaved(HandlerOut, frozen=True, kw_only=True):
    secret: Annotated[
        str | None, Meta(description="The signing secret if it is new, otherwise null; it is shown only once.")
    ]


def handler_out(view: HandlerView) -> HandlerOut:
    return HandlerOut(**_fields(view))


def handler_saved(view: HandlerView, secret: str | None) -> HandlerSaved:
    return HandlerSaved(**_fields(view), secret=secret)


def _fields(view: HandlerView) -> dict[str, Any]:
    return structs.asdict(view.definition) | {
        "headers": dict.fromkeys(view.definition.headers, HIDDEN),
        "name": view.name,
        "enabled": view.enabled,
        "disabled_at": instant_text(view.disabled_at),
        "disabled_reason": view.disabled_reason,
        "secrets_lost": view.secrets_lost or UNSET,
        "created_at": format_instant(view.created_at),
        "updated_at": format_instant(view.updated_at),
        "owner": UNSET if view.owner is None else view.owner,
    }


class RotateSecretBody(Struct, forbid_unknown_fields=True):
    overlap_seconds: Annotated[
        float,
        Meta(ge=0, le=MAX_OVERLAP_SECONDS, description="How long deliveries are also signed with the old secret."),
    ] = DEFAULT_OVERLAP_SECONDS


class SecretOut(Struct):
    secret: Annotated[str, Meta(description="The new signing secret. It is not shown again.")]
    overlap_seconds: float


class TestBody(Struct, forbid_unknown_fields=True):
    payload: Annotated[
        Any,
        Meta(
            description="Sent byte for byte. Without it: the first of the `examples` in the schema of a queue that delivers here,"
            ' else `{"test": true}`.'
        ),
    ] = UNSET


class TestSent(Struct):
    url: str
    headers: dict[str, str]
    body: str


class TestReceived(Struct):
    status: int
    headers: dict[str, str]
    body: str
    truncated: bool


class TestOut(Struct):
    """The result of a signed test request. It does not count in any statistics."""

    sent: TestSent
    received: TestReceived | None
    outcome: str
    error: str | None
    duration_seconds: float
