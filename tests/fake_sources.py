"""A source in memory that fails as a test says, for faults that no real server shows when asked."""

import asyncio
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from app.domain.callers import Caller
from app.domain.conditions import ANY
from app.domain.sources import SourceDefinition
from app.runtime.core import Core
from app.service import sources
from app.sources.kinds import Depth, Kinds, Message, SourceError
from tests.support import poll


class FakeQueue:
    """A queue elsewhere. A message received is hidden until it is acknowledged or given back, or a test brings it again."""

    def __init__(self) -> None:
        self.waiting: list[Message] = []
        self.hidden: dict[str, Message] = {}
        self.acknowledged: list[str] = []
        self.extended: list[str] = []
        self.given_back: list[str] = []
        self.asked: list[int] = []
        """How many messages each receive asked for."""
        self.fails: Exception | None = None
        self.acknowledge_fails: SourceError | None = None
        self.lost = 0
        self.extend_seconds: float | None = 0.05
        self.receiving = 0
        self.closed = 0
        self.may_answer = asyncio.Event()
        """A receive waits for it."""
        self.may_answer.set()
        self._came = asyncio.Event()
        self._numbers = itertools.count(1)

    def put(self, *bodies: bytes, group: str | None = None, headers: dict[str, str] | None = None) -> list[str]:
        """Add messages; return their keys."""
        keys = [f"fake:{next(self._numbers)}" for _ in bodies]
        for key, body in zip(keys, bodies, strict=True):
            self.waiting.append(Message(key=key, body=body, handle=key, group=group, headers=headers or {}))
        self._came.set()
        return keys

    def bring_again(self) -> None:
        """Let the time of all hidden messages run out."""
        self.waiting += self.hidden.values()
        self.hidden.clear()
        self._came.set()

    async def take(self, most: int) -> list[Message]:
        self._came.clear()
        if not self.waiting:
            try:
                async with asyncio.timeout(0.05):
                    await self._came.wait()
            except TimeoutError:
                return []
        taken, self.waiting = self.waiting[:most], self.waiting[most:]
        self.hidden |= {message.key: message for message in taken}
        return taken


class FakeSource:
    def __init__(self, queue: FakeQueue) -> None:
        self._queue = queue
        self.extend_seconds = queue.extend_seconds

    async def receive(self, most: int) -> list[Message]:
        queue = self._queue
        queue.asked.append(most)
        if queue.fails is not None:
            raise queue.fails
        queue.receiving += 1
        try:
            taken = await queue.take(most)
            await queue.may_answer.wait()
            return taken
        finally:
            queue.receiving -= 1

    async def extend(self, messages: Sequence[Message]) -> None:
        self._queue.extended += [message.key for message in messages]

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        if self._queue.acknowledge_fails is not None:
            raise self._queue.acknowledge_fails
        for message in messages:
            self._queue.acknowledged.append(message.key)
            self._queue.hidden.pop(message.key, None)

    async def give_back(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self._queue.given_back.append(message.key)
            self._queue.hidden.pop(message.key, None)
        self._queue.waiting[:0] = messages

    def take_lost(self) -> int:
        lost, self._queue.lost = self._queue.lost, 0
        return lost

    async def measure(self) -> Depth:
        return Depth(len(self._queue.waiting) + len(self._queue.hidden), 1.5)

    async def check(self) -> None:
        if self._queue.fails is not None:
            raise self._queue.fails

    async def aclose(self) -> None:
        self._queue.closed += 1


class FakeKind:
    """Stands in for redis_stream; each stream is a queue."""

    def __init__(self, queues: Mapping[str, FakeQueue]) -> None:
        self._queues = queues

    def check(self, definition: SourceDefinition) -> None:
        pass

    def open(self, definition: SourceDefinition, name: str, tenant: str) -> FakeSource:
        return FakeSource(self._queues[definition.stream or ""])

    async def aclose(self) -> None:
        pass


def install(core: Core, queues: Mapping[str, FakeQueue] | None = None) -> None:
    """Give a replica the fake kind, for tests of what needs no server; each stream is empty unless it is given."""
    core.sources = Kinds({"redis_stream": FakeKind(defaultdict(FakeQueue) if queues is None else queues)})


@asynccontextmanager
async def installed(core: Core) -> AsyncIterator[None]:
    """Give it to a replica that other tests share, and take it away again, with all sources."""
    before = core.sources
    install(core)
    try:
        yield
        await remove_all(core)
    finally:
        core.sources = before


async def remove_all(core: Core) -> None:
    """Delete all sources of a replica that other tests share, so that nothing receives any longer."""
    tenants_of = "select distinct t.id, t.name from sluice.sources s join sluice.tenants t on t.id = s.tenant_id"
    for tenant_id, tenant in await core.db.fetch(tenants_of):
        caller = Caller(tenant_id, tenant, "operate")
        for source in (await sources.list_page(core, caller, None, 100))[0]:
            await sources.delete(core, caller, source.name, ANY)


async def failing_for_an_hour(core: Core, name: str) -> None:
    """Wait until a source fails, and let it have failed for an hour."""
    changed = (
        "update sluice.source_receivers r set failing_since = failing_since - interval '1 hour' from sluice.sources s "
        "where s.id = r.source_id and s.name = $1 and r.failing_since is not null returning 1"
    )

    async def failing() -> bool:
        return bool(await core.db.fetch(changed, name))

    await poll(failing)


def definition(queue: str, **given: Any) -> dict[str, Any]:
    """Return a definition as it is sent."""
    address = {"kind": "redis_stream", "url": "redis://127.0.0.1", "stream": "orders", "group": "sluice"}
    return {"queue": queue, **address, **given}
