"""Leases on the wire."""

from typing import Any, Literal

from pydantic import Field

from app.api.models.tasks import AnyJson, Label, TaskIn, TaskOut
from app.domain.followups import MAX_CURSOR, MAX_FOLLOWUP_TASKS
from app.domain.outcomes import MAX_LEASE_SECONDS
from app.edge.replies import Instant, Name, RequestBody, ResponseBody
from app.service.leases import MAX_TASKS, MAX_WAIT_SECONDS

MAX_ERROR = 2000


class LeaseIn(RequestBody):
    max_tasks: int = Field(1, ge=1, le=MAX_TASKS)
    wait_seconds: float = Field(0, ge=0, le=MAX_WAIT_SECONDS, description="How long to wait for the first task.")
    lease_seconds: float = Field(30, ge=1, le=MAX_LEASE_SECONDS)


class LeasedTaskOut(TaskOut):
    cursor: str | None = Field(description="For a continuation, the `next` of the page before it.")
    schedule_timezone: str | None = Field(
        description="For a schedule's run, the time zone of the definition that fired."
    )
    scheduled_for_local: str | None = Field(description="`scheduled_for` in that time zone, with its offset.")
    lease_token: str = Field(description="The only credential of this lease; send it as `Sluice-Lease-Token`.")
    lease_expires_at: Instant


class LeasedTasksOut(ResponseBody):
    tasks: list[LeasedTaskOut]


class RenewIn(RequestBody):
    seconds: float = Field(ge=1, le=MAX_LEASE_SECONDS, description="From now; may be earlier than the present end.")
    progress: AnyJson = None


class OnCompleteIn(RequestBody):
    queue: Name
    payload: AnyJson


class FollowUpIn(TaskIn):
    queue: Name
    idempotency_key: Label = Field(description="Unique per root task and queue; the first task with a key wins.")


class CompleteIn(RequestBody):
    """For the document only: the body is validated like a handler's answer, and payloads stay bytes."""

    result: AnyJson = None
    result_encoding: Literal["base64"] | None = Field(
        None, description="`base64`: the result is binary data in base64, and is shown as such."
    )
    result_truncated: bool = Field(False, description="The result was truncated; shown with the task.")
    tasks: list[FollowUpIn] = Field(
        [], max_length=MAX_FOLLOWUP_TASKS, description="Enqueued together with the completion."
    )
    next: str | None = Field(
        None,
        min_length=1,
        max_length=MAX_CURSOR,
        description="Also enqueue this task again with this cursor, as a continuation.",
    )
    on_complete: OnCompleteIn | None = Field(None, description="Enqueued when all tasks of the batch have ended.")


class FailIn(RequestBody):
    error: str = Field(min_length=1, max_length=MAX_ERROR)
    retryable: bool = Field(True, description="false: the task is dead, with reason `stopped_by_worker`.")
    retry_after_seconds: float = Field(
        0, ge=0, description="Minimum delay before the next attempt, up to the queue's retry_after_max_seconds."
    )


def given(body: RequestBody, name: str) -> Any:
    """Return the value of a field that may be null, and whether it was present."""
    return getattr(body, name), name in body.model_fields_set
