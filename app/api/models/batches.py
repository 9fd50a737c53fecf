"""Batches on the wire. As for tasks, bodies are written directly from the service's values; these models document them."""

from pydantic import Field

from app.api.models.leases import OnCompleteIn
from app.api.models.tasks import RefusedOut, StoredOut, TaskIn
from app.domain.bulk import MAX_BULK_TASKS
from app.edge.replies import Instant, Name, RequestBody, ResponseBody


class BatchIn(RequestBody):
    queue: Name = Field(description="The queue of all its tasks.")
    tasks: list[TaskIn] = Field([], max_length=MAX_BULK_TASKS, description="All tasks, or the first ones.")
    on_complete: OnCompleteIn | None = Field(None, description="Enqueued once, when all tasks of the batch have ended.")
    sealed: bool = Field(
        True, description="false: more tasks will be added; the batch completes only after it has been sealed."
    )


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
    task: str | None = Field(description="The id of the task, once the batch has completed.")


class BatchOut(ResponseBody):
    id: str = Field(json_schema_extra={"format": "uuid"})
    queue: str
    sealed: bool = Field(
        description="No tasks can be added through the API; always true for batches formed by follow-up work."
    )
    total: int
    counts: BatchCountsOut = Field(description="By state; the sum is `total`.")
    percent: float = Field(description="Share of its tasks that have ended; 100 only when all have.")
    rate: float = Field(description="Tasks that end per second, over about the last 30 seconds.")
    eta: Instant | None = Field(
        description="When all tasks will have ended at this rate; null while that cannot be estimated."
    )
    created_at: Instant
    cancelled_at: Instant | None
    cancel_reason: str | None = Field(description="`requested`, or `superseded` by a later run of its schedule.")
    completed_at: Instant | None = Field(
        description="When all tasks had ended for the first time; a retry does not change it."
    )
    on_complete: list[BatchCompletionOut]


class FilledBatchOut(BatchOut):
    results: list[StoredOut | RefusedOut] = Field(description="The result of each task, in order.")


class RetriedBatchOut(BatchOut):
    matched: int = Field(description="Dead tasks of the batch.")
    moved: int = Field(description="Tasks that are ready now.")
    remaining: int = Field(description="Tasks that are still dead.")
