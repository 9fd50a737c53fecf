"""Handlers as they are shown, and what may be done with one. domain.handlers declares what defines one."""

from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType, structs

from app.domain.handlers import HIDDEN, HandlerDefinition, HandlerView
from app.domain.instants import Instant, format_instant, instant_text
from app.domain.names import Name
from app.edge.pages import Owner

DEFAULT_OVERLAP_SECONDS = 86_400.0
MAX_OVERLAP_SECONDS = 90 * 86_400


class HandlerOut(HandlerDefinition, frozen=True, kw_only=True):
    headers: Annotated[dict[str, str], Meta(description="The names; each value is shown as `***`.")]
    name: Name
    enabled: bool
    disabled_at: Instant | None
    disabled_reason: str | None
    secrets_lost: Annotated[
        bool | UnsetType,
        Meta(
            description="Its headers and signing secret cannot be read: deliveries fail until it is PUT again, with its headers."
        ),
    ] = UNSET
    created_at: Instant
    updated_at: Instant
    owner: Owner = UNSET


class HandlerSaved(HandlerOut, frozen=True, kw_only=True):
    secret: Annotated[
        str | None, Meta(description="The signing secret when it is new, null otherwise: it is shown once.")
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
        Meta(ge=0, le=MAX_OVERLAP_SECONDS, description="How long deliveries carry a signature of the old secret too."),
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
    """What a signed request sent now met. It counts nowhere."""

    sent: TestSent
    received: TestReceived | None
    outcome: str
    error: str | None
    duration_seconds: float
