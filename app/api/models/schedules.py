"""Schedules on the wire."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from app.domain.errors import FieldError, invalid
from app.domain.instants import parse_instant
from app.domain.schedules.definitions import CatchUpMode, Overlap
from app.domain.schedules.firing import Cause
from app.edge.replies import Instant, Name, Owner, RequestBody, ResponseBody
from app.service.backfills import Backfilled
from app.store.ledger import LedgerRow

AnyJson = Annotated[Any, Field(description="Any JSON (I-JSON, at most 128 levels deep).")]
DATE_TIME: dict[str, Any] = {"format": "date-time"}
NO_INSTANT = "expected an RFC 3339 instant with an offset"

Outcome = Literal[
    "running",
    "waiting",
    "ran_ok",
    "ran_failed",
    "cancelled",
    "skipped_overlap",
    "missed",
    "superseded",
    "paused",
    "dropped",
]


class CatchUpIn(RequestBody):
    window_seconds: float | None = Field(None, description="Times older than this are missed; null: no limit.")
    mode: CatchUpMode = Field("latest", description="Which late times run.")


class OnCompleteIn(RequestBody):
    queue: Name
    payload: AnyJson


class ScheduleIn(RequestBody):
    """Exactly one of `cron`, `every_seconds` and `at`."""

    queue: Name
    payload: AnyJson
    cron: str | None = Field(
        None,
        description="Five fields as in Debian's cron, an alias such as `@daily`, or an interval such as `every 15 minutes`.",
    )
    every_seconds: float | None = None
    phase_seconds: float = Field(0, description="Times are epoch + n x every + phase.")
    at: Instant | None = None
    seconds: bool = Field(False, description="`cron` may have six fields, the first for seconds.")
    timezone: str = Field("UTC", description="An IANA time zone.")
    type: str | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    tags: list[str] = Field(default_factory=list)
    priority: int = 0
    retry: dict[str, Any] | None = None
    timeout_seconds: float | None = None
    handler: Name | None = None
    dst: Literal["once", "skip", "twice"] = "once"
    overlap: Overlap = "skip"
    catch_up: CatchUpIn = CatchUpIn(window_seconds=None, mode="latest")
    jitter_seconds: float = 0
    start_at: Instant | None = None
    end_at: Instant | None = None
    max_runs: int | None = None
    pause_after_failures: int | None = Field(
        None, description="The number of failed runs in a row that pauses the schedule."
    )
    on_complete: OnCompleteIn | None = None


class TimeOut(ResponseBody):
    at: Instant
    local: str = Field(description="In the schedule's time zone, with its offset.")


class PreviewOut(ResponseBody):
    times: list[TimeOut]
    reading: str = Field(description="The definition in plain English.")


class ScheduleOut(ScheduleIn):
    id: Name
    paused: bool
    paused_at: Instant | None
    paused_reason: str | None
    next_nominal_at: Instant | None = Field(description="The first nominal time that is not in the ledger yet.")
    created_at: Instant
    updated_at: Instant
    owner: Owner = None
    times: list[TimeOut] = Field(description="The next five times.")
    reading: str


class PreviewIn(ScheduleIn):
    queue: Name = "preview"
    payload: AnyJson = None
    count: int = Field(10, ge=1, le=1000)
    after: Instant | None = None


class TriggerIn(RequestBody):
    payload: AnyJson = Field(None, description="Overrides the schedule's.")
    overlap: Overlap | None = Field(None, description="Overrides the schedule's.")


class BackfillIn(RequestBody):
    from_: str = Field(alias="from", max_length=50, json_schema_extra=DATE_TIME)
    to: str = Field(max_length=50, description="Exclusive; must not be in the future.", json_schema_extra=DATE_TIME)
    overlap: Overlap | None = Field(None, description="Overrides the schedule's.")
    rerun: bool = Field(
        False, description="Also run times that have a run already: once more each, in a row of its own."
    )

    def window(self) -> tuple[datetime, datetime]:
        """Raises Refusal (invalid)."""
        found = {"from": parse_instant(self.from_), "to": parse_instant(self.to)}
        if errors := [FieldError(f"/{name}", NO_INSTANT) for name, at in found.items() if at is None]:
            raise invalid(errors)
        return found["from"], found["to"]  # type: ignore[return-value]  # neither is None


class BackfilledOut(ResponseBody):
    matched: int = Field(description="Nominal times in the window.")
    started: int
    waiting: int
    passed_over: int = Field(description="Times that already have a run, or are about to fire.")
    skipped: int = Field(description="Times that the overlap policy kept from running; they stay as they were.")

    @classmethod
    def of(cls, found: Backfilled) -> "BackfilledOut":
        return cls(
            matched=found.matched,
            started=found.started,
            waiting=found.waiting,
            passed_over=found.passed_over,
            skipped=found.skipped,
        )


class RunOut(ResponseBody):
    """A row of the ledger: one run, or consecutive nominal times without a run."""

    nominal_at: Instant
    nominal_until: Instant = Field(description="The row's last nominal time; for a run, its only one.")
    count: int = Field(description="Nominal times in the row.")
    cause: Cause
    fired_at: Instant | None
    started_at: Instant | None
    completed_at: Instant | None
    outcome: Outcome
    lag_seconds: float | None = Field(
        description="fired_at - nominal_at - jitter; null in a row created by a backfill."
    )
    task_id: str | None
    batch_id: str | None
    replica: str | None

    @classmethod
    def of(cls, row: LedgerRow) -> "RunOut":
        lag = None
        if (
            row.fired_at is not None and row.cause != "backfill"
        ):  # its time was in the distant past when the backfill was requested
            lag = round((row.fired_at - row.nominal_at).total_seconds() - row.jitter_seconds, 6)
        return cls.model_construct(
            nominal_at=row.nominal_at,
            nominal_until=row.nominal_until,
            count=row.count,
            cause=row.cause,
            fired_at=row.fired_at,
            started_at=row.started_at,
            completed_at=row.completed_at,
            outcome=row.outcome,
            lag_seconds=lag,
            task_id=row.task_id,
            batch_id=row.task_id,
            replica=row.replica,
        )
