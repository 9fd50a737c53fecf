"""A task that has been enqueued."""

import asyncio
import logging
from time import monotonic
from typing import Generic, TypeVar

from sluice_client.api.client import Api
from sluice_client.errors import ConnectionFailed, Unavailable
from sluice_client.models import TaskView, WhyTask
from sluice_client.tasks.definitions import Definition
from sluice_client.tasks.durations import Duration, seconds_of
from sluice_client.tasks.failures import TaskFailed, error_of
from sluice_client.tasks.faults import PayloadInvalid

R = TypeVar("R")
log = logging.getLogger("sluice_client.tasks")
LONG_POLL_SECONDS = 50.0
PAUSE_SECONDS = 1.0
"""Between two tries while the service is away."""
UNFINISHED = frozenset({"scheduled", "ready", "running"})


class TaskRef(Generic[R]):
    """A task by its id. It holds no connection and can be kept for as long as you like."""

    __slots__ = ("_api", "_definition", "created", "id")

    def __init__(self, api: Api, definition: Definition[R], task_id: str, *, created: bool = True) -> None:
        self._api = api
        self._definition = definition
        self.id = task_id
        self.created = created
        """False if the idempotency key or the unique key belonged to a task that was there already: then it is that one."""

    def __repr__(self) -> str:
        return f"<TaskRef {self.id} of {self._definition.name}>"

    async def status(self) -> TaskView:
        """Return the task as the service shows it. Raises NotFound when its retention is over."""
        return await self._api.tasks.get(self.id)

    async def wait(self, timeout: Duration | None = None) -> R:
        """Wait for the task to end and return its result; without a timeout, for as long as it takes.

        While the service is away, it goes on trying. Raises TaskFailed if the task is dead or cancelled, TimeoutError,
        NotFound when the task's retention is over, and PayloadInvalid if the result does not fit its annotation.
        """
        deadline = None if timeout is None else monotonic() + seconds_of(timeout)
        while True:
            left = LONG_POLL_SECONDS if deadline is None else deadline - monotonic()
            cause: Exception | None = None
            try:
                task = await self._api.tasks.get(self.id, wait_seconds=max(0.0, min(left, LONG_POLL_SECONDS)))
                if task["state"] not in UNFINISHED:
                    return await self._outcome(task)
            except (ConnectionFailed, Unavailable) as error:
                cause = error
                log.warning("task %s: %s; still waiting for it", self.id, error)
                await asyncio.sleep(max(0.0, min(left, PAUSE_SECONDS)))
            if deadline is not None and monotonic() >= deadline:
                raise TimeoutError(f"task {self.id} has not ended within {timeout}") from cause

    async def cancel(self) -> TaskView:
        """Cancel the task; a running one loses its lease at once. Raises Conflict if it has succeeded or is dead."""
        return await self._api.tasks.cancel(self.id)

    async def why(self) -> WhyTask:
        """Return why the task waits, who has it, or how it ended."""
        return await self._api.tasks.why(self.id)

    async def _outcome(self, task: TaskView) -> R:
        if task["state"] != "succeeded":
            attempts = await self._api.tasks.attempts(self.id).page()
            errors = [error for attempt in attempts["items"] if (error := error_of(attempt))]
            raise TaskFailed(self.id, self._definition.name, task["state"], task["reason"], errors)
        if task["result_truncated"]:
            detail = "is longer than Sluice keeps, and was cut off"
            raise PayloadInvalid([{"pointer": "", "detail": detail}], f"the result of {self._definition.name}")
        return self._definition.decode(task["result"])
