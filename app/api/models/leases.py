"""What pull workers ask for, and what they say of the tasks they hold."""

from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from app.domain.bodies import AnyJson
from app.domain.outcomes import MAX_LEASE_SECONDS
from app.domain.views import LeasedTaskView
from app.service.leases import MAX_TASKS, MAX_WAIT_SECONDS

MAX_ERROR = 2000


class LeaseBody(Struct, forbid_unknown_fields=True):
    max_tasks: Annotated[int, Meta(ge=1, le=MAX_TASKS)] = 1
    wait_seconds: Annotated[
        float, Meta(ge=0, le=MAX_WAIT_SECONDS, description="How long to wait for the first task.")
    ] = 0
    lease_seconds: Annotated[float, Meta(ge=1, le=MAX_LEASE_SECONDS)] = 30


class LeasedTasks(Struct):
    tasks: list[LeasedTaskView]


class RenewBody(Struct, forbid_unknown_fields=True):
    seconds: Annotated[
        float, Meta(ge=1, le=MAX_LEASE_SECONDS, description="From now; may be earlier than the present end.")
    ]
    progress: AnyJson | UnsetType = UNSET


class FailBody(Struct, forbid_unknown_fields=True):
    error: Annotated[str, Meta(min_length=1, max_length=MAX_ERROR)]
    retryable: Annotated[bool, Meta(description="false: the task is dead, with reason `stopped_by_worker`.")] = True
    retry_after_seconds: Annotated[
        float,
        Meta(ge=0, description="Minimum delay before the next attempt, up to the queue's retry_after_max_seconds."),
    ] = 0
