"""Leases on the wire."""

from typing import Any

from pydantic import Field

from app.api.models.tasks import AnyJson, TaskOut
from app.api.models.wire import Instant, RequestBody, ResponseBody
from app.service.leases import MAX_LEASE_SECONDS, MAX_TASKS, MAX_WAIT_SECONDS

MAX_ERROR = 2000


class LeaseIn(RequestBody):
    max_tasks: int = Field(1, ge=1, le=MAX_TASKS)
    wait_seconds: float = Field(0, ge=0, le=MAX_WAIT_SECONDS, description="How long to wait for a first task.")
    lease_seconds: float = Field(30, ge=1, le=MAX_LEASE_SECONDS)


class LeasedTaskOut(TaskOut):
    lease_token: str = Field(description="The only credential for this lease: send it as `Sluice-Lease-Token`.")
    lease_expires_at: Instant


class LeasedTasksOut(ResponseBody):
    tasks: list[LeasedTaskOut]


class RenewIn(RequestBody):
    seconds: float = Field(ge=1, le=MAX_LEASE_SECONDS, description="From now; sooner than before is possible.")
    progress: AnyJson = None


class CompleteIn(RequestBody):
    result: AnyJson = None


class FailIn(RequestBody):
    error: str = Field(min_length=1, max_length=MAX_ERROR)
    retryable: bool = Field(True, description="false: dead, `stopped_by_worker`.")
    retry_after_seconds: float = Field(
        0, ge=0, description="At least so long, within the queue's retry_after_max_seconds."
    )


def given(body: RequestBody, name: str) -> Any:
    """The value of a field that may be null, and whether it was there at all."""
    return getattr(body, name), name in body.model_fields_set
