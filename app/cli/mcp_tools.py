"""The tools of `sluice mcp`, each a few calls of the API. What a model reads of a tool is its docstring and its parameters."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Literal

from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from pydantic import Field

from app.cli.mcp_answers import answer
from sluice_client import Api, ApiError, SluiceError
from sluice_client.models import Reason, State

READ = ("overview", "queue_health", "find_tasks", "show_task", "why", "errors")
USE = ("enqueue", "retry", "cancel", "redrive")
MANAGE = ("pause", "resume")

TIMEOUT_SECONDS = 10.0
"""Of each tool, repeats of its requests included: an agent waits for it."""
PAGE = 20
ATTEMPTS = 10
SUMMARY = (
    *(
        "id",
        "queue",
        "type",
        "state",
        "reason",
        "waiting_for",
        "priority",
        "attempt",
        "max_attempts",
        "tags",
        "schedule",
    ),
    *("created_at", "run_at", "started_at", "ended_at", "last_error"),
)
"""What a list shows of a task."""
ERROR_CHARACTERS = 200

Request = Context[Any, Any]
Queue = Annotated[str, Field(min_length=1, description="The queue's name; overview lists them.")]
TaskId = Annotated[str, Field(min_length=1, description="The task's id, a UUID; find_tasks lists them.")]
Died = Literal[
    "attempts_exhausted",
    "expired",
    "fatal_status",
    "followup_too_large",
    "invalid_message",
    "pushed_back_too_long",
    "stopped_by_handler",
    "stopped_by_worker",
]


class Tools:
    """Calls the API at `url`: with the key that a request over HTTP carries, else with `key`."""

    def __init__(self, url: str, key: str | None) -> None:
        self._url = url
        self._key = key

    async def overview(self, request: Request) -> str:
        """Show how Sluice is doing as a whole: whether work flows, succeeds and has someone to do it (the three
        verdicts, each ok, degraded or stuck, with its causes), active alarms, and the counts and rates of queues,
        schedules, limits, handlers and replicas. Begin here, and go on with queue_health or why for what it names."""
        async with self._api(request) as api:
            return answer(await api.overview(), "queue_health shows one queue, find_tasks its tasks.")

    async def queue_health(self, request: Request, queue: Queue) -> str:
        """Show one queue: its definition, counts by state, age of the oldest ready task, tasks per minute, percentiles
        of waiting and running times, why it does not move, and the health of its handler. Use it when a queue is slow,
        stopped or failing."""
        async with self._api(request) as api:
            definition = await api.queues.get(queue)
            found: dict[str, Any] = {
                "queue": definition,
                "stats": await api.queues.stats(queue),
                "why": await api.queues.why(queue),
            }
            if definition["handler"] is not None:
                found["handler"] = await _handler(api, definition["handler"])
            return answer(found, "find_tasks lists the queue's tasks, errors groups why they failed.")

    async def find_tasks(
        self,
        request: Request,
        queue: Annotated[str | None, Field(description="Only tasks of this queue.")] = None,
        state: Annotated[State | None, Field(description="Only tasks in this state.")] = None,
        reason: Annotated[Reason | None, Field(description="Only tasks that ended for this reason.")] = None,
        type: Annotated[str | None, Field(description="Only tasks of this type.")] = None,
        tag: Annotated[str | None, Field(description="Only tasks with this tag.")] = None,
        correlation_id: Annotated[str | None, Field(description="Only tasks with this correlation id.")] = None,
        schedule: Annotated[str | None, Field(description="Only tasks of this schedule.")] = None,
        batch: Annotated[str | None, Field(description="Only tasks of the batch with this id.")] = None,
        ended_from: Annotated[
            str | None, Field(description="Only tasks that ended at this instant (RFC 3339) or later.")
        ] = None,
        ended_to: Annotated[str | None, Field(description="Only tasks that ended before this instant.")] = None,
        limit: Annotated[int, Field(ge=1, le=PAGE, description="At most so many.")] = PAGE,
        cursor: Annotated[str | None, Field(description="next_cursor of the page before, for the next one.")] = None,
    ) -> str:
        """List tasks that match all given filters, newest first, a page at a time: id, state, why each waits or how it
        ended, attempts, times and the beginning of the last error. Payloads are not part of it; show_task has them.
        Pass next_cursor as cursor for the next page."""
        async with self._api(request) as api:
            page = await api.tasks.list(
                queue=queue,
                state=state,
                reason=reason,
                type=type,
                tag=tag,
                correlation_id=correlation_id,
                schedule=schedule,
                batch=batch,
                ended_from=ended_from,
                ended_to=ended_to,
                limit=limit,
                cursor=cursor,
            ).page()
            listed = {"items": [_summary(task) for task in page["items"]], "next_cursor": page["next_cursor"]}
            return answer(listed, "Ask again with a smaller limit: next_cursor goes on after all tasks of this page.")

    async def show_task(self, request: Request, task: TaskId) -> str:
        """Show one task whole: its payload, options, state, times, result or last error, and its newest attempts, each
        with how it ended, its status and an excerpt of the response. Content is missing (content_hidden) if the API key
        may not read it."""
        async with self._api(request) as api:
            shown = await api.tasks.get(task)
            attempts = await api.tasks.attempts(task, limit=ATTEMPTS).page()
            found = {**shown, "attempts": attempts["items"]}
            if attempts["next_cursor"] is not None:
                found["attempts_shown"] = f"the newest {ATTEMPTS}"
            return answer(found, f"The whole task is at GET /tasks/{task} of the API.")

    async def why(
        self,
        request: Request,
        task: Annotated[str | None, Field(min_length=1, description="A task's id.")] = None,
        queue: Annotated[str | None, Field(min_length=1, description="Or a queue's name.")] = None,
        schedule: Annotated[
            str | None, Field(min_length=1, description="Or a schedule's name; overview lists them.")
        ] = None,
        at: Annotated[
            str | None, Field(description="With schedule: why it did or did not fire at this instant (RFC 3339).")
        ] = None,
    ) -> str:
        """Say why a task, a queue or a schedule does not move, or how a task ended: a verdict in one sentence, every
        blocker with its code, since when, who holds what it waits for, and the request that would remove it. Give
        exactly one of task, queue and schedule."""
        if [task, queue, schedule].count(None) != 2:
            raise ToolError("Give exactly one of task, queue and schedule.")
        async with self._api(request) as api:
            if task is not None:
                return answer(await api.tasks.why(task))
            if queue is not None:
                return answer(await api.queues.why(queue))
            assert schedule is not None
            return answer(await api.schedules.why(schedule, at=at))

    async def errors(self, request: Request, queue: Queue) -> str:
        """Group the recent errors of a queue's tasks by signature, most frequent first: how many failed and died of
        each, since when, and an example. Use it to tell one cause from many, before a retry or a redrive."""
        async with self._api(request) as api:
            return answer(await api.queues.errors(queue), "find_tasks with state dead lists the tasks.")

    async def enqueue(
        self,
        request: Request,
        queue: Queue,
        payload: Annotated[Any, Field(description="Any JSON value; the handler or worker receives it.")],
        type: Annotated[str | None, Field(description="What kind of task it is.")] = None,
        delay_seconds: Annotated[float | None, Field(ge=0, description="Start it only after so many seconds.")] = None,
        priority: Annotated[int, Field(ge=-100, le=100, description="Higher starts first.")] = 0,
        idempotency_key: Annotated[
            str | None,
            Field(description="A second enqueue with this key returns the first task. Give one if you may repeat."),
        ] = None,
    ) -> str:
        """Enqueue one task, which will be delivered to the queue's handler or to a worker, at least once. Returns the
        task."""
        async with self._api(request) as api:
            task = await api.tasks.enqueue(
                queue,
                payload=payload,
                type=type,
                delay_seconds=delay_seconds,
                priority=priority,
                idempotency_key=idempotency_key,
            )
            return answer(_summary(task))

    async def retry(self, request: Request, task: TaskId) -> str:
        """Run a dead or cancelled task again with a fresh allowance of attempts, or start a waiting one now. Returns
        the task."""
        async with self._api(request) as api:
            return answer(_summary(await api.tasks.retry(task)))

    async def cancel(self, request: Request, task: TaskId) -> str:
        """Cancel a task that has not ended. A running one loses its lease at once, and its late outcome counts for
        nothing. Returns the task."""
        async with self._api(request) as api:
            return answer(_summary(await api.tasks.cancel(task)))

    async def redrive(
        self,
        request: Request,
        queue: Queue,
        reason: Annotated[Died | None, Field(description="Only tasks that died for this reason.")] = None,
        type: Annotated[str | None, Field(description="Only tasks of this type.")] = None,
        limit: Annotated[int, Field(ge=1, le=10_000, description="At most so many.")] = 1_000,
        dry_run: Annotated[bool, Field(description="Only count what would be moved.")] = True,
    ) -> str:
        """Make dead tasks of a queue ready again, those that match. Without dry_run=false it only counts them: look
        first, and find out with errors whether they can succeed now. Returns how many matched, were moved and
        remain."""
        async with self._api(request) as api:
            return answer(await api.queues.redrive(queue, reason=reason, type=type, limit=limit, dry_run=dry_run))

    async def pause(self, request: Request, queue: Queue) -> str:
        """Pause a queue: its running tasks go on, nothing else of it starts until resume, and tasks are still accepted.
        Returns the queue."""
        async with self._api(request) as api:
            return answer(await api.queues.pause(queue))

    async def resume(self, request: Request, queue: Queue) -> str:
        """Resume a paused queue: its ready tasks start at once, within its limits. Returns the queue."""
        async with self._api(request) as api:
            return answer(await api.queues.resume(queue))

    @asynccontextmanager
    async def _api(self, request: Request) -> AsyncIterator[Api]:
        """The API with the caller's key. What it refuses is told to the model in its words."""
        scheme, _, given = (request.headers or {}).get("authorization", "").partition(" ")
        key = given if scheme.lower() == "bearer" and given else self._key
        try:
            async with Api(self._url, key, timeout=TIMEOUT_SECONDS) as api:
                yield api
        except ApiError as error:
            raise ToolError(str(error)) from None
        except SluiceError as error:
            raise ToolError(f"Sluice at {self._url} does not respond: {error}") from None
        except ValueError as error:  # half a surrogate pair, say
            raise ToolError(f"This cannot be sent: {error}") from None


def _summary(task: Any) -> dict[str, Any]:
    shown = {name: task[name] for name in SUMMARY if task.get(name) is not None}
    if len(error := shown.get("last_error", "")) > ERROR_CHARACTERS:
        shown["last_error"] = f"{error[:ERROR_CHARACTERS]}…"
    return shown


async def _handler(api: Api, name: str) -> Any:
    """Its health; a key that is confined to queues may not read it."""
    try:
        return await api.handlers.health(name)
    except ApiError as error:
        return {"handler": name, "unknown": str(error)}
