"""Where the contract tests play: on the fake, and on a real service with a worker beside it."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from sluice_client import Sluice, TaskRef
from sluice_client.testing import SluiceTest
from tests.support import poll
from tests.wire.api import UNFINISHED, fresh

T = TypeVar("T")
MOVES = 50
"""How often the fake's clock is moved to the next time that a task is due, before a test gives up."""


class Stage(ABC):
    """A service, fake or real, as the tests see it. Nothing runs before the first `until`."""

    def __init__(self, sluice: Sluice) -> None:
        self.sluice = sluice
        self.queues: list[str] = []

    async def new_queue(self, **definition: Any) -> str:
        """The name of a new queue."""
        name = fresh("q")
        await self.sluice.queues.put(name, **definition)
        self.queues.append(name)
        return name

    async def read(self, *refs: TaskRef[Any] | str | None) -> list[dict[str, Any]]:
        """These tasks as they are now."""
        ids = [ref.id if isinstance(ref, TaskRef) else str(ref) for ref in refs]
        return [dict(await self.sluice.tasks.get(task_id)) for task_id in ids]

    async def settled(self, *refs: TaskRef[Any] | str | None) -> list[dict[str, Any]]:
        """These tasks, once they have ended: run everything, one task at a time, and let time pass as long as it takes."""

        async def ended() -> list[dict[str, Any]] | None:
            views = await self.read(*refs)
            return None if any(view["state"] in UNFINISHED for view in views) else views

        return await self.until(ended)

    async def completed(self, batch_id: str) -> dict[str, Any]:
        """This batch, once it has completed."""

        async def there() -> dict[str, Any] | None:
            batch = dict(await self.sluice.batches.get(batch_id))
            return batch if batch["completed_at"] else None

        return await self.until(there)

    @abstractmethod
    async def until(self, condition: Callable[[], Awaitable[T | None]]) -> T:
        """Run what is due, and let time pass, until the condition returns something; return that."""

    @abstractmethod
    def now(self) -> datetime:
        """The present, by the service's clock."""


class FakeStage(Stage):
    def __init__(self, sluice: Sluice, test: SluiceTest) -> None:
        super().__init__(sluice)
        self.test = test

    async def until(self, condition: Callable[[], Awaitable[T | None]]) -> T:
        for _ in range(MOVES):
            await self.test.drain()
            found = await condition()
            if found is not None:
                return found
            next_at = min(one.run_at for one in self.test.dispatched if one.state == "scheduled")
            self.test.clock.move((next_at - self.now()).total_seconds())
        raise AssertionError(f"not so after {MOVES} moves of the clock: {self.test.dispatched}")

    def now(self) -> datetime:
        return self.test.clock.now()


class RealStage(Stage):
    """From the first `until` on, a worker runs what is due."""

    working: asyncio.Task[None] | None = None

    async def until(self, condition: Callable[[], Awaitable[T | None]]) -> T:
        if self.working is None:
            self.working = asyncio.create_task(self.sluice.worker(queues=self.queues, concurrency=1).run())
        return await poll(condition, 20)

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def close(self) -> None:
        if self.working is not None:
            self.working.cancel()
            await asyncio.gather(self.working, return_exceptions=True)
