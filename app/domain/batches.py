"""Batches: the requests that create and extend them, and their progress.

A request is validated like a bulk request: the outer object without its tasks, then each task by itself.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from app.domain.bulk import MAX_BULK_TASKS, some, split
from app.domain.errors import invalid_field
from app.domain.followups import OnComplete, OnCompleteBody, validate_on_complete
from app.domain.ids import Uuid
from app.domain.instants import Instant, format_instant
from app.domain.names import Name
from app.domain.tasks import TaskBody

RECENT_SECONDS = 30.0
"""A task that ended this long ago weighs 1/e of one that ends now. fold_v1 uses the same number."""
QUIET_SECONDS = 150.0
"""After this long without an ended task, the rate is the mean since the batch was created."""
MAX_ETA_SECONDS = 10 * 365 * 86_400.0


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """A batch to create, its tasks not validated yet."""

    queue: str
    spans: list[msgspec.Raw]
    sealed: bool
    on_complete: OnComplete | None


class BatchBody(Struct, forbid_unknown_fields=True):
    queue: Annotated[Name, Meta(description="The queue of all its tasks.")]
    tasks: Annotated[list[TaskBody], Meta(max_length=MAX_BULK_TASKS, description="All tasks, or the first ones.")] = []
    on_complete: Annotated[
        OnCompleteBody | None, Meta(description="Enqueued once, when all tasks of the batch have ended.")
    ] = None
    sealed: Annotated[
        bool, Meta(description="false: more tasks will be added; the batch completes only after it has been sealed.")
    ] = True


class BatchTasksBody(Struct, forbid_unknown_fields=True):
    tasks: Annotated[list[TaskBody], Meta(min_length=1, max_length=MAX_BULK_TASKS)]


def split_batch(body: bytes, max_payload_bytes: int) -> BatchRequest:
    """Parse a batch to create, with its tasks (possibly none) as spans. Raises Refusal: malformed, invalid."""
    batch, spans, _ = split(body, BatchBody, MAX_BULK_TASKS)
    if spans is None:
        raise invalid_field("/tasks", f"has more than {MAX_BULK_TASKS} tasks")
    then = batch.on_complete
    return BatchRequest(
        batch.queue,
        spans,
        batch.sealed,
        None if then is None else validate_on_complete(then, max_payload_bytes),
    )


def split_tasks(body: bytes) -> list[msgspec.Raw]:
    """Return the spans of the tasks to add. Raises Refusal: malformed, invalid."""
    _, spans, _ = split(body, BatchTasksBody, MAX_BULK_TASKS)
    return some(spans)


class CompletionView(Struct):
    """What is enqueued when the batch completes."""

    queue: str
    task: Annotated[str | None, Meta(description="The id of the task, once the batch has completed.")]


class BatchCounts(Struct):
    scheduled: int
    ready: int
    running: int
    succeeded: int
    dead: int
    cancelled: int


class BatchView(Struct):
    id: Uuid
    queue: str
    sealed: Annotated[
        bool,
        Meta(description="No tasks can be added through the API; always true for batches formed by follow-up work."),
    ]
    total: int
    counts: Annotated[BatchCounts, Meta(description="By state; the sum is `total`.")]
    percent: Annotated[float, Meta(description="Share of its tasks that have ended; 100 only when all have.")]
    rate: Annotated[float, Meta(description="Tasks that end per second, over about the last 30 seconds.")]
    eta: Annotated[
        Instant | None,
        Meta(description="When all tasks will have ended at this rate; null while that cannot be estimated."),
    ]
    created_at: Instant
    cancelled_at: Instant | None
    cancel_reason: Annotated[
        str | None, Meta(description="`requested`, or `superseded` by a later run of its schedule.")
    ]
    completed_at: Annotated[
        Instant | None, Meta(description="When all tasks had ended for the first time; a retry does not change it.")
    ]
    on_complete: list[CompletionView]


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a batch's tasks end, as the fold recorded it up to `now`."""

    now: datetime
    created_at: datetime
    recent: float
    recent_at: datetime

    def rate(self, ended: int) -> float:
        """Return the rate in tasks per second."""
        age = max((self.now - self.created_at).total_seconds(), 0.001)
        quiet = max((self.now - self.recent_at).total_seconds(), 0.0)
        if quiet > QUIET_SECONDS:
            return ended / age
        return self.recent * math.exp(-quiet / RECENT_SECONDS) / (RECENT_SECONDS * -math.expm1(-age / RECENT_SECONDS))


def progress(counts: Mapping[str, int], total: int, *, sealed: bool, pace: Pace) -> tuple[float, float, str | None]:
    """Return (percent, rate, eta) as shown: 100 only when nothing is left, an eta only while it can be estimated."""
    ended = counts["succeeded"] + counts["dead"] + counts["cancelled"]
    percent = math.floor(10_000 * ended / total) / 100 if total else 100.0 if sealed else 0.0
    rate = round(pace.rate(ended), 3)
    left = total - ended
    if not sealed or left <= 0 or left > rate * MAX_ETA_SECONDS:
        return percent, rate, None
    return percent, rate, format_instant(pace.now + timedelta(seconds=left / rate))
