"""Batches on the wire. As with tasks, bodies are written straight from what the service gives; these models are the document."""

from pydantic import Field

from app.api.models.leases import OnCompleteIn
from app.api.models.tasks import RefusedOut, StoredOut, TaskIn
from app.domain.bulk import MAX_BULK_TASKS
from app.edge.replies import Instant, Name, RequestBody, ResponseBody


class BatchIn(RequestBody):
    queue: Name = Field(description="Where all its tasks go.")
    tasks: list[TaskIn] = Field([], max_length=MAX_BULK_TASKS, description="The first of them, or all.")
    on_complete: OnCompleteIn | None = Field(None, description="Enqueued once, when all tasks of the batch have ended.")
    sealed: bool = Field(True, description="false: more tasks are to come; it completes only after it has been sealed.")


class BatchTasksIn(RequestBody):
    tasks: list[TaskIn] = Field(min_length=1, max_length=MAX_BULK_TASKS)


class BatchCountsOut(ResponseBody):
    scheduled: int
    ready: int
    running: int
    succeeded: int
    dead: int
    cancelled: int


class BatchCompletionOut(ResponseBody):
    queue: str
    task: str | None = Field(description="The task, once the batch has completed.")


class BatchOut(ResponseBody):
    id: str = Field(json_schema_extra={"format": "uuid"})
    queue: str
    sealed: bool = Field(description="Nothing is added to it by API: always so when it was formed by follow-up work.")
    total: int
    counts: BatchCountsOut = Field(description="By state; they add up to `total`.")
    percent: float = Field(description="Of its tasks that have ended: 100 only when all have.")
    rate: float = Field(description="Tasks that end in a second, over the last half minute or so.")
    eta: Instant | None = Field(description="When all will have ended at this rate; null while that cannot be told.")
    created_at: Instant
    cancelled_at: Instant | None
    cancel_reason: str | None = Field(description="`requested`, or `superseded` by a later run of its schedule.")
    completed_at: Instant | None = Field(description="When all had first ended; a retry does not change it.")
    on_complete: list[BatchCompletionOut]


class FilledBatchOut(BatchOut):
    results: list[StoredOut | RefusedOut] = Field(description="What became of each task, in order.")


class RetriedBatchOut(BatchOut):
    matched: int = Field(description="Its dead tasks.")
    moved: int = Field(description="Those that are ready now.")
    remaining: int = Field(description="Those that stay dead.")
