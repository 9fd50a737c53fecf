"""Runs of schedules, and what may be done with a schedule. domain.schedules.definitions declares what defines one."""

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from app.domain.bodies import ANY_JSON
from app.domain.errors import FieldError, invalid
from app.domain.instants import Instant, format_instant, instant_text, read_instant
from app.domain.schedules.definitions import Overlap
from app.domain.schedules.firing import Cause
from app.domain.why_schedules import WhySchedule
from app.store.ledger import LedgerRow

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
OverlapGiven = Annotated[Overlap | None, Meta(description="Overrides the schedule's.")]


class TriggerBody(Struct, forbid_unknown_fields=True):
    payload: Annotated[Any | UnsetType, Meta(description=ANY_JSON + " Overrides the schedule's.")] = UNSET
    overlap: OverlapGiven = None


class BackfillBody(Struct, forbid_unknown_fields=True, rename={"from_": "from"}):
    from_: Instant
    to: Annotated[Instant, Meta(description="Exclusive; must not be in the future.")]
    overlap: OverlapGiven = None
    rerun: Annotated[
        bool, Meta(description="Also run times that have a run already: once more each, in a row of its own.")
    ] = False

    def window(self) -> tuple[datetime, datetime]:
        """Raises Refusal (invalid)."""
        errors: list[FieldError] = []
        from_, to = read_instant(self.from_, "/from", errors), read_instant(self.to, "/to", errors)
        if from_ is None or to is None:
            raise invalid(errors)
        return from_, to


class RunOut(Struct):
    """A row of the ledger: one run, or consecutive nominal times without a run."""

    nominal_at: Instant
    nominal_until: Annotated[Instant, Meta(description="The row's last nominal time; for a run, its only one.")]
    count: Annotated[int, Meta(description="Nominal times in the row.")]
    cause: Cause
    fired_at: Instant | None
    started_at: Instant | None
    completed_at: Instant | None
    outcome: Outcome
    lag_seconds: Annotated[
        float | None, Meta(description="fired_at - nominal_at - jitter; null in a row created by a backfill.")
    ]
    task_id: str | None
    batch_id: str | None
    replica: str | None


class WhyScheduleOut(WhySchedule, kw_only=True):
    """Why a schedule fired, or did not. What does not apply is absent."""

    row: Annotated[
        RunOut | UnsetType, Meta(description="The row of the ledger that covers the instant; without `at`, the newest.")
    ] = UNSET


def run_out(row: LedgerRow) -> RunOut:
    lag = None
    if row.fired_at is not None and row.cause != "backfill":  # its time was long past when the backfill was requested
        lag = round((row.fired_at - row.nominal_at).total_seconds() - row.jitter_seconds, 6)
    return RunOut(
        nominal_at=format_instant(row.nominal_at),
        nominal_until=format_instant(row.nominal_until),
        count=row.count,
        cause=row.cause,  # type: ignore[arg-type]  # a constraint of the table
        fired_at=instant_text(row.fired_at),
        started_at=instant_text(row.started_at),
        completed_at=instant_text(row.completed_at),
        outcome=row.outcome,  # type: ignore[arg-type]  # a constraint of the table
        lag_seconds=lag,
        task_id=row.task_id,
        batch_id=row.task_id,
        replica=row.replica,
    )
