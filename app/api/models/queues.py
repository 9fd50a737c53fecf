"""Responses and actions of queues. domain.queues declares their definitions."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct

from app.domain.errors import FieldError, invalid
from app.domain.instants import Instant, format_instant, instant_text, read_instant
from app.domain.limits import LimitUseShown, shown_uses
from app.domain.names import Name
from app.domain.queues import PayloadSchema, QueueOptions, QueueView, queue_to_dict
from app.domain.retries import CompleteRetry
from app.domain.signatures import ErrorGroup
from app.domain.tasks import MAX_LABEL, Label, Reason, TaskFilters
from app.domain.texts import text_problem
from app.edge.pages import Owner

MAX_REDRIVE = 10_000


class QueueOut(QueueOptions, frozen=True, kw_only=True):
    retry: CompleteRetry
    payload_schema: PayloadSchema
    limits: list[LimitUseShown]
    name: Name
    paused: bool
    paused_at: Instant | None
    created_at: Instant
    updated_at: Instant
    owner: Owner = UNSET


def queue_out(view: QueueView) -> QueueOut:
    return QueueOut(
        **queue_to_dict(view.definition) | {"limits": list(shown_uses(view.definition.limits))},
        name=view.name,
        paused=view.paused,
        paused_at=instant_text(view.paused_at),
        created_at=format_instant(view.created_at),
        updated_at=format_instant(view.updated_at),
        owner=UNSET if view.owner is None else view.owner,
    )


class PurgedOut(Struct):
    purged: Annotated[int, Meta(description="How many tasks were cancelled.")]


class RedriveBody(Struct, forbid_unknown_fields=True):
    reason: (
        Literal[
            "attempts_exhausted",
            "fatal_status",
            "stopped_by_handler",
            "stopped_by_worker",
            "expired",
            "followup_too_large",
            "pushed_back_too_long",
            "invalid_message",
        ]
        | None
    ) = None
    type: Label | None = None
    tag: Label | None = None
    handler: Name | None = None
    correlation_id: Label | None = None
    ended_from: Instant | None = None
    ended_to: Instant | None = None
    limit: Annotated[int, Meta(ge=1, le=MAX_REDRIVE, description="Maximum number of tasks to redrive.")] = 1000
    dry_run: Annotated[bool, Meta(description="Only count the matching tasks.")] = False

    def filters(self) -> TaskFilters:
        """Raises Refusal (invalid)."""
        errors = [
            FieldError(f"/{name}", problem)
            for name in ("type", "tag", "correlation_id")
            if (text := getattr(self, name)) is not None and (problem := text_problem(text, MAX_LABEL))
        ]
        ended_from = read_instant(self.ended_from, "/ended_from", errors)
        ended_to = read_instant(self.ended_to, "/ended_to", errors)
        if errors:
            raise invalid(errors)
        return TaskFilters(
            reason=None if self.reason is None else Reason(self.reason),
            type=self.type,
            tag=self.tag,
            handler=self.handler,
            correlation_id=self.correlation_id,
            ended_from=ended_from,
            ended_to=ended_to,
        )


class RedrivenOut(Struct):
    matched: Annotated[int, Meta(description="Dead tasks that matched when the call began.")]
    moved: int
    remaining: Annotated[int, Meta(description="Matched but not redriven: beyond the limit, or impossible to redrive.")]


class QueueErrors(Struct):
    items: Annotated[list[ErrorGroup], Meta(description="The most frequent first.")]
    complete: Annotated[
        bool, Meta(description="Whether all failures of the last day were looked at, not only the newest.")
    ]
    next_cursor: Annotated[None, Meta(description="There is one page.")] = None


class CountsOut(Struct):
    scheduled: int
    ready: int
    running: int
    succeeded: int
    dead: int
    cancelled: int


class RatesOut(Struct):
    enqueued: float
    started: float
    ended: float


class PercentilesOut(Struct):
    p50: float | None
    p95: float | None
    p99: float | None


class KeyCountOut(Struct):
    key: str
    ready: int
    oldest_age_seconds: float


class KeysOut(Struct):
    """The keys that have ready tasks."""

    waiting: int
    blocked: Annotated[int, Meta(description="Of these, how many have no room or are paused.")]
    top: Annotated[list[KeyCountOut], Meta(description="Up to 10 with the most ready tasks.")]


class QueueStatsOut(Struct):
    queue: Name
    counts: CountsOut
    oldest_ready_age_seconds: float | None
    per_minute: RatesOut
    success_share: Annotated[
        float | None, Meta(description="Share of recently ended tasks that succeeded; null if none has ended.")
    ]
    wait_seconds: PercentilesOut
    run_seconds: PercentilesOut
    keys: KeysOut
    as_of: Instant
