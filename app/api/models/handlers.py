"""Responses and actions of handlers. domain.handlers declares their definitions."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from app.domain.bodies import ContentHidden
from app.domain.breakers import Health, effective
from app.domain.errors import FieldError, invalid
from app.domain.handlers import HIDDEN, Grouping, HandlerDefinition, HandlerView, Targets, shown_fields
from app.domain.histograms import percentile
from app.domain.instants import Instant, format_instant, instant_text
from app.domain.limits import LimitUseShown, shown_uses
from app.domain.names import Name
from app.edge.pages import Owner
from app.service.breakers import ShownHealth
from app.store.breakers import HandlerHealth

DEFAULT_OVERLAP_SECONDS = 86_400.0
MAX_OVERLAP_SECONDS = 90 * 86_400


_Headers = Annotated[
    dict[str, str] | UnsetType, Meta(description="Of a webhook: header names; each value is shown as `***`.")
]


class HandlerOut(HandlerDefinition, frozen=True, kw_only=True):
    url: Annotated[str | UnsetType, Meta(description="Of a webhook; absent otherwise.")] = UNSET
    headers: _Headers = UNSET  # type: ignore[assignment]  # absent unless its kind has them, like all that follow
    group: Annotated[Grouping | UnsetType | None, Meta(description="Of a webhook.")] = UNSET  # type: ignore[assignment]
    targets: Annotated[Targets | UnsetType, Meta(description="Of a webhook.")] = UNSET  # type: ignore[assignment]
    queue_url: Annotated[str | UnsetType, Meta(description="Of kind sqs, as the next three.")] = UNSET  # type: ignore[assignment]
    region: str | UnsetType = UNSET  # type: ignore[assignment]
    endpoint_url: str | UnsetType | None = UNSET  # type: ignore[assignment]
    group_id_from: Literal["key"] | UnsetType | None = UNSET  # type: ignore[assignment]
    credentials: Annotated[UnsetType, Meta(description="Never shown.")] = UNSET
    stream: Annotated[str | UnsetType, Meta(description="Of kind redis_stream, as the next one.")] = UNSET  # type: ignore[assignment]
    maxlen: int | UnsetType | None = UNSET  # type: ignore[assignment]
    limits: list[LimitUseShown]  # type: ignore[assignment]  # with every field
    name: Name
    enabled: bool
    disabled_at: Instant | None
    disabled_reason: str | None
    secrets_lost: Annotated[
        bool | UnsetType,
        Meta(
            description="What it keeps secret cannot be decrypted; deliveries fail until it is PUT again with all of it."
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
    fields = shown_fields(view.definition)
    return fields | {
        "headers": UNSET if fields["headers"] is UNSET else dict.fromkeys(view.definition.headers, HIDDEN),
        "limits": list(shown_uses(view.definition.limits)),
        "name": view.name,
        "enabled": view.enabled,
        "disabled_at": instant_text(view.disabled_at),
        "disabled_reason": view.disabled_reason,
        "secrets_lost": view.secrets_lost or UNSET,
        "created_at": format_instant(view.created_at),
        "updated_at": format_instant(view.updated_at),
        "owner": UNSET if view.owner is None else view.owner,
    }


class BreakerBody(Struct, forbid_unknown_fields=True):
    open: Annotated[
        Literal[True] | None, Meta(description="Nothing is delivered until the breaker is closed by hand.")
    ] = None
    close: Annotated[Literal[True] | None, Meta(description="Tasks are delivered again, few at first.")] = None

    @property
    def to_open(self) -> bool:
        """Raises Refusal (invalid) unless exactly one of the two is given."""
        if (self.open is None) == (self.close is None):
            raise invalid([FieldError("", 'send either {"open": true} or {"close": true}')])
        return self.open is not None


class CallsOut(Struct):
    """The calls of the breaker's window, by all replicas. Those before the last change of its state no longer count."""

    seconds: int
    calls: int
    failures: Annotated[int, Meta(description="Unreachable, timed out, 5xx or 429.")]
    pushed_back: Annotated[int, Meta(description="Of these, 429 and 503.")]
    failure_percent: float | None
    calls_per_second: float
    p50_seconds: float | None
    p95_seconds: float | None


class HandlerHealthOut(Struct):
    handler: Name
    state: Annotated[
        Literal["closed", "open", "half_open"] | None,
        Meta(description="Of its breaker: open admits nothing, half_open a single probe. null: it has none."),
    ]
    since: Annotated[Instant | None, Meta(description="null: since the breaker was defined.")]
    next_probe_at: Annotated[Instant | None, Meta(description="While open; null if it was opened by hand.")]
    opened_by_hand: bool
    slow_start: Annotated[bool, Meta(description="It has closed lately; its limit doubles each second.")]
    parked_until: Annotated[Instant | None, Meta(description="A Retry-After asked for no calls before then.")]
    running: Annotated[int | None, Meta(description="Its tasks that run now; null without breaker and adaptive.")]
    max_concurrency: int | None
    effective_max_concurrency: Annotated[
        int | None, Meta(description="The limit now, by the breaker, the slow start and `adaptive`; null: none.")
    ]
    window: Annotated[CallsOut | None, Meta(description="null without breaker and adaptive: nothing is counted.")]


def health_out(shown: ShownHealth) -> HandlerHealthOut:
    found, guard = shown.found, shown.guard
    health = Health() if found is None else found.health
    limits = (effective(health), guard.max_concurrency)
    return HandlerHealthOut(
        handler=shown.name,
        state=None if guard.breaker is None else health.state,
        since=instant_text(health.since),
        next_probe_at=instant_text(health.probe_at),
        opened_by_hand=health.state == "open" and health.probe_at is None,
        slow_start=health.ramp is not None,
        parked_until=instant_text(shown.parked_until),
        running=None if found is None else found.seen.running,
        max_concurrency=guard.max_concurrency,
        effective_max_concurrency=min((limit for limit in limits if limit is not None), default=None),
        window=None if found is None else _calls_out(found),
    )


def _calls_out(found: HandlerHealth) -> CallsOut:
    seconds = found.guard.window_seconds
    return CallsOut(
        seconds=seconds,
        calls=found.calls,
        failures=found.failures,
        pushed_back=found.pushed_back,
        failure_percent=round(100 * found.failures / found.calls, 2) if found.calls else None,
        calls_per_second=found.calls / seconds,
        p50_seconds=percentile(found.durations, 0.5),
        p95_seconds=percentile(found.durations, 0.95),
    )


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
    body: str | None


class TestReceived(Struct):
    status: int
    headers: dict[str, str]
    body: str | None
    truncated: bool


class TestOut(Struct):
    """The result of a signed test request. It does not count in any statistics."""

    sent: TestSent
    received: TestReceived | None
    outcome: str
    error: str | None
    duration_seconds: float
    content_hidden: ContentHidden = UNSET
