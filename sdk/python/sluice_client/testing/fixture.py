"""What the fixture `sluice_test` gives to a test."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sluice_client.testing.blocking import block_on
from sluice_client.testing.clock import Clock
from sluice_client.testing.draining import Ran, run_due
from sluice_client.testing.matching import definition_of, fits, named
from sluice_client.testing.records import Json, Task
from sluice_client.testing.service import MemorySluice

Mode = Literal["manual", "inline"]


class InlineFailure(AssertionError):
    """In mode `inline`, a task failed that a dispatch ran."""


@dataclass(frozen=True)
class Dispatched:
    """A task that was enqueued, as it is now."""

    id: str
    type: str | None
    queue: str
    payload: Json
    state: str
    priority: int
    run_at: datetime
    attempt: int
    result: Json
    error: str | None
    """What its last attempt failed with."""


class SluiceTest:
    """Sluice in memory, for one test. Every `Sluice` and `SyncSluice` of this process talks to it while the test runs.

    In the mode `manual`, a dispatch only stores the task, and `drain` runs what is due. In the mode `inline`, a dispatch also
    runs the task, and all that it leads to, before it returns. Set `mode` to choose; it begins as `manual`.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.mode: Mode = "manual"
        self.sluice = MemorySluice(self.clock)
        """The service in memory."""

    async def drain(self) -> list[Ran]:
        """Run all tasks that are due, and those that become due by that, each until it has ended or waits for a later time.

        Tasks run one after another, higher priorities first. Returns the attempts in their order. A failed one raises nothing
        here: it is in the list, and its traceback is in the log. Raises LookupError for a task that no code is known for.
        """
        return await run_due(self.sluice)

    def drain_sync(self) -> list[Ran]:
        """Do what `drain` does, in a test that is no coroutine."""
        return block_on(self.drain)

    @property
    def dispatched(self) -> list[Dispatched]:
        """All tasks that were enqueued, in their order: by the test, by other tasks, and by batches that have completed."""
        return [self._shown(task) for task in self.sluice.tasks.values()]

    def expect(self, task: Any, /, *args: Any, **arguments: Any) -> list[Dispatched]:
        """Return the tasks that were dispatched with these arguments; an argument that is not given may have any value.

        `task` is what was dispatched: a task function, or a Job class. Raises AssertionError, which shows what was dispatched
        instead, if there is none.
        """
        found, wanted = self._matching(task, args, arguments)
        if not found:
            raise AssertionError(f"expected {wanted} to be dispatched, but it was not. {self._instead()}")
        return found

    def expect_count(self, count: int, task: Any, /, *args: Any, **arguments: Any) -> list[Dispatched]:
        """Return the tasks that were dispatched with these arguments, as `expect` does, if they are exactly so many."""
        found, wanted = self._matching(task, args, arguments)
        if len(found) != count:
            times = f"{count} time{'' if count == 1 else 's'}"
            raise AssertionError(f"expected {wanted} to be dispatched {times}, not {len(found)}. {self._instead()}")
        return found

    def expect_none(self, task: Any = None, /, *args: Any, **arguments: Any) -> None:
        """Check that nothing was dispatched with these arguments; without a task, nothing at all."""
        if task is not None:
            self.expect_count(0, task, *args, **arguments)
        elif self.sluice.tasks:
            raise AssertionError(f"expected nothing to be dispatched. {self._instead()}")

    async def after_request(self) -> None:
        """In the mode `inline`, run what is due. Raises InlineFailure if an attempt fails."""
        if self.mode == "manual":
            return
        for ran in await self.drain():
            if ran.state not in ("succeeded", "cancelled"):
                raise InlineFailure(
                    f"{ran.type} is {ran.state} after attempt {ran.attempt}: {ran.error}. Its traceback is in the log. To test"
                    ' what happens then, use the mode "manual" and drain'
                )

    def _matching(self, task: Any, args: Sequence[Any], arguments: dict[str, Any]) -> tuple[list[Dispatched], str]:
        definition = definition_of(task)
        wanted = named(definition, args, arguments)
        found = [
            one for one in self.dispatched if one.type == definition.name and fits(definition, one.payload, wanted)
        ]
        return found, called(definition.name, wanted)

    def _instead(self) -> str:
        if not self.sluice.tasks:
            return "Nothing was dispatched."
        lines = [_line(one, self.clock.now()) for one in self.dispatched]
        more = [] if len(lines) <= 20 else [f"  and {len(lines) - 20} more"]
        return "\n".join(["Dispatched were:", *lines[:20], *more])

    def _shown(self, task: Task) -> Dispatched:
        return Dispatched(
            id=task.id,
            type=task.fields.get("type"),
            queue=task.queue,
            payload=json.loads(task.payload),
            state=task.state_at(self.clock.now()),
            priority=task.fields.get("priority", 0),
            run_at=task.run_at,
            attempt=task.attempt,
            result=task.result,
            error=task.last_error,
        )


def called(name: str | None, payload: Json) -> str:
    """Return a call as it would be written, such as `send_welcome(user_id=7)`."""
    if not isinstance(payload, dict):
        return f"{name}({payload!r})"
    return f"{name}({', '.join(f'{field}={value!r}' for field, value in payload.items())})"


def _line(task: Dispatched, now: datetime) -> str:
    when = task.state
    if task.state == "scheduled":
        when = f"due in {timedelta(seconds=round((task.run_at - now).total_seconds()))}"
    return f"  {called(task.type, task.payload)} in queue {task.queue}, {when}"
