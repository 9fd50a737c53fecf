"""Responses of sources. domain.sources declares their definitions."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from app.domain.handlers import HIDDEN
from app.domain.instants import Instant, format_instant, instant_text
from app.domain.names import Name
from app.domain.sources import SourceDefinition, SourceView, source_to_dict
from app.edge.pages import Owner
from app.service.sources import Tested


class SourceOut(SourceDefinition, frozen=True, kw_only=True):
    """A source: the fields of its kind, and how it fares, over all replicas."""

    queue_url: str | UnsetType = UNSET  # type: ignore[assignment]  # those of the other kind are absent
    region: str | UnsetType = UNSET  # type: ignore[assignment]
    endpoint_url: str | UnsetType | None = UNSET  # type: ignore[assignment]
    credentials: Literal["***"] | UnsetType | None = UNSET  # type: ignore[assignment]
    visibility_seconds: int | UnsetType = UNSET  # type: ignore[assignment]
    url: Literal["***"] | UnsetType = UNSET
    stream: str | UnsetType = UNSET  # type: ignore[assignment]
    group: str | UnsetType = UNSET  # type: ignore[assignment]
    start: Literal["0", "$"] | UnsetType = UNSET  # type: ignore[assignment]
    field: str | UnsetType = UNSET  # type: ignore[assignment]
    claim_idle_seconds: int | UnsetType = UNSET  # type: ignore[assignment]
    name: Name
    paused: bool
    paused_at: Instant | None
    secrets_lost: Annotated[
        bool | UnsetType,
        Meta(description="Its secrets cannot be decrypted; nothing is received until it is PUT again with them."),
    ] = UNSET
    received: Annotated[int, Meta(description="Messages, since the source was created.")]
    enqueued: Annotated[int, Meta(description="Of these, tasks, the invalid ones included.")]
    duplicates: Annotated[int, Meta(description="Received again, although they had been enqueued.")]
    invalid: Annotated[int, Meta(description="Wrapped, dead, or left where they are because they are too large.")]
    lost: Annotated[int, Meta(description="Messages that the source says are gone: entries trimmed from a stream.")]
    in_flight: Annotated[int, Meta(description="Messages that are waiting to be enqueued, because the queue is full.")]
    outstanding: Annotated[int, Meta(description="Its tasks that have not ended.")]
    last_received_at: Annotated[Instant | None, Meta(description="When the last message came; null: none has.")]
    lag: Annotated[int | None, Meta(description="Messages that wait at the source; null: it has not said.")]
    oldest_age_seconds: Annotated[float | None, Meta(description="Of these, the oldest; null: not known.")]
    measured_at: Instant | None
    last_error: str | None
    last_error_at: Instant | None
    failing_since: Annotated[Instant | None, Meta(description="When it last worked on any replica; null: it works.")]
    replicas: Annotated[list[str], Meta(description="Those that receive from it.")]
    created_at: Instant
    updated_at: Instant
    owner: Owner = UNSET


class SourceTested(Struct):
    """What came of looking at a source, without taking a message."""

    ok: bool
    error: str | None
    lag: int | None
    oldest_age_seconds: float | None
    duration_seconds: float


def source_out(view: SourceView) -> SourceOut:
    definition, state = view.definition, view.state
    hidden: dict[str, Any] = (
        {"credentials": HIDDEN if definition.credentials else None} if definition.kind == "sqs" else {"url": HIDDEN}
    )
    return SourceOut(
        **source_to_dict(definition),
        **hidden,
        name=view.name,
        paused=view.paused,
        paused_at=instant_text(view.paused_at),
        secrets_lost=view.secrets_lost or UNSET,
        **state.counts._asdict(),
        in_flight=state.in_flight,
        outstanding=state.outstanding,
        last_received_at=instant_text(state.last_received_at),
        lag=state.lag,
        oldest_age_seconds=state.oldest_age_seconds,
        measured_at=instant_text(state.measured_at),
        last_error=state.last_error,
        last_error_at=instant_text(state.last_error_at),
        failing_since=instant_text(state.failing_since),
        replicas=list(state.replicas),
        created_at=format_instant(view.created_at),
        updated_at=format_instant(view.updated_at),
        owner=UNSET if view.owner is None else view.owner,
    )


def tested_out(tested: Tested) -> SourceTested:
    return SourceTested(
        ok=tested.error is None,
        error=tested.error,
        lag=tested.depth.lag,
        oldest_age_seconds=tested.depth.oldest_age_seconds,
        duration_seconds=tested.duration_seconds,
    )
