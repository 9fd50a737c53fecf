"""Why a schedule did or did not fire at an instant, by the row of its ledger that covers it, and what can still be done."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType

from app.domain.instants import Instant, format_instant
from app.domain.names import Name
from app.domain.plurals import counted
from app.domain.why import NextStep, post


class WhySchedule(Struct, kw_only=True):
    """Why a schedule fired, or did not. What does not apply is absent."""

    schedule: Name
    verdict: Annotated[str, Meta(description="One sentence.")]
    at: Annotated[Instant | UnsetType, Meta(description="The instant that was asked about.")] = UNSET
    next: Annotated[NextStep | UnsetType, Meta(description="What can be done about it.")] = UNSET
    fires_next: Annotated[Instant | UnsetType, Meta(description="Absent if it never fires again, or is paused.")] = (
        UNSET
    )
    paused_at: Instant | UnsetType = UNSET
    as_of: Instant


@dataclass(frozen=True, slots=True)
class ScheduleFacts:
    """What decides about an instant of a schedule. The fields of the row are None without one."""

    name: str
    now: datetime
    created_at: datetime
    at: datetime | None
    """None: the last time is asked about."""
    paused: bool
    paused_reason: str | None
    next_nominal_at: datetime | None
    """The first time that is not in the ledger."""
    is_time: bool
    """Whether the definition as it is has a time at `at`."""
    engine: bool
    outcome: str | None = None
    nominal_at: datetime | None = None
    nominal_until: datetime | None = None
    count: int = 0
    task_id: str | None = None
    extra: bool = False
    """It was triggered, or run again: not one of the definition's times."""


def verdict(facts: ScheduleFacts) -> tuple[str, NextStep | UnsetType]:
    """Return what happened, and what can be done about it."""
    if facts.outcome is not None:
        return _of_row(facts, facts.outcome)
    return _without_row(facts)


def _without_row(facts: ScheduleFacts) -> tuple[str, NextStep | UnsetType]:
    at, coming = facts.at, facts.next_nominal_at
    overdue = coming is not None and coming <= facts.now and (at is None or at >= coming)
    if facts.paused:
        detail = f"Schedule {facts.name} is paused" + (f": {facts.paused_reason}." if facts.paused_reason else ".")
        return detail, post(f"Resume schedule {facts.name}.", "schedules", facts.name, "resume")
    if at is not None and at > facts.now:
        if facts.is_time:
            return f"{format_instant(at)} is still to come; it fires then.", UNSET
        return f"The definition has no time at {format_instant(at)}.", UNSET
    if overdue and not facts.engine:
        return (
            "Nobody has fired it: no replica with an engine is running.",
            NextStep("Start a replica with the role all or engine."),
        )
    if overdue and (at is None or facts.is_time):
        return "It is due now and a replica is about to fire it.", UNSET
    if at is None:
        return "No time of it has come yet.", UNSET
    if at <= facts.created_at:
        return f"The schedule was created at {format_instant(facts.created_at)}, after that instant.", UNSET
    return f"The definition has no time at {format_instant(at)}.", UNSET


def _of_row(facts: ScheduleFacts, outcome: str) -> tuple[str, NextStep | UnsetType]:
    assert facts.nominal_at is not None and facts.nominal_until is not None, "it is a row"
    when = format_instant(facts.nominal_at)
    if facts.count > 1:
        when = f"{counted(facts.count, 'time')} from {when} to {format_instant(facts.nominal_until)}"
    task = f"its task is {facts.task_id}"
    look = NextStep(f"Ask why of the task: GET /tasks/{facts.task_id}/why.")
    again = _again(facts)
    match outcome:
        case "running":
            return f"It fired for {when} and has not ended: {task}.", look
        case "ran_ok":
            return f"It fired for {when} and succeeded: {task}.", UNSET
        case "ran_failed":
            retry = post("Retry what failed of it.", "batches", facts.task_id or "", "retry")
            return f"It fired for {when} and failed: {task}.", retry
        case "cancelled":
            return f"It fired for {when} and was cancelled: {task}.", again
        case "waiting":
            return f"The run for {when} waits until the one before it has ended.", NextStep(
                f"Find that run: GET /schedules/{facts.name}/history?outcome=running."
            )
        case "skipped_overlap":
            return f"It was skipped for {when}: an earlier run had not ended.", again
        case "missed":
            return (
                f"It was missed for {when}: no replica fired it in time, and by then it was older than catch_up reaches.",
                again,
            )
        case "superseded":
            return f"It did not fire for {when}: a later time took its place, or the definition was replaced.", again
        case "paused":
            return f"It did not fire for {when}: the schedule was paused.", again
        case _:
            return f"It did not fire for {when}: it was waiting when the definition was replaced.", again


def _again(facts: ScheduleFacts) -> NextStep:
    if facts.extra:
        text = "Trigger it once more, beside what runs."
        return post(text, "schedules", facts.name, "trigger", body={"overlap": "allow_all"})
    assert facts.nominal_at is not None and facts.nominal_until is not None, "it is a row"
    until = facts.nominal_until + timedelta(microseconds=1)
    body: dict[str, Any] = {
        "from": format_instant(facts.nominal_at),
        "to": format_instant(until),
        "overlap": "allow_all",
    }
    if facts.task_id is not None:
        body["rerun"] = True
    return post("Run it now after all.", "schedules", facts.name, "backfill", body=body)
