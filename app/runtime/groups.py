"""The group writer: one coalescer behind all grouped statements.

Concurrent callers each submit an item and wait. What gathers while one group is being written becomes the next group, so an idle
system adds no delay and a busy one pays one commit for many items. Validation comes first: nothing a caller can violate is left
to a constraint. An unexpected error splits the group in two until the faulty item fails alone.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Generic, TypeVar

from app.domain.errors import Refusal
from app.store.failures import Unavailable

Item = TypeVar("Item")
Verdict = TypeVar("Verdict")

MAX_WAITING = 20_000
PATIENCE_SECONDS = 0.02
"""How long items wait behind a group in progress before another starts beside it: one large group costs less than two."""


class GroupWriter(Generic[Item, Verdict]):
    """Groups items for `write`, which returns one verdict per item, in order. If it raises, it is called with smaller groups."""

    def __init__(
        self,
        write: Callable[[Sequence[Item]], Awaitable[Sequence[Verdict]]],
        *,
        max_group: int,
        max_concurrent: int,
        wrote: Callable[[int], None],
    ) -> None:
        self._write = write
        self._max_group = max_group
        self._max_concurrent = max_concurrent
        self._wrote = wrote
        self._waiting: deque[tuple[Item, Callable[[Verdict | BaseException], None]]] = deque()
        """Each item, and what takes its verdict or the error."""
        self._writes: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    async def submit(self, item: Item) -> Verdict:
        """Return the item's verdict. Raises what `write` raises for it; Refusal (unavailable) if too many are waiting."""
        future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self.post(item, partial(_resolve, future))
        return await future

    def post(self, item: Item, told: Callable[[Verdict | BaseException], None]) -> None:
        """Submit an item whose verdict, or the exception that submit would raise for it, goes to `told`, which must not raise.

        Raises Refusal (unavailable) if too many are waiting.
        """
        self._join(((item, told),))

    async def submit_all(self, items: Sequence[Item]) -> list[Verdict | BaseException]:
        """Return one verdict per item, in order, or the exception that submit would raise. Meant for at most a group or two."""
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Verdict]] = [loop.create_future() for _ in items]
        self._join([(item, partial(_resolve, future)) for item, future in zip(items, futures, strict=True)])
        return await asyncio.gather(*futures, return_exceptions=True)

    def _join(self, items: Sequence[tuple[Item, Callable[[Verdict | BaseException], None]]]) -> None:
        if len(self._waiting) >= MAX_WAITING:
            raise Refusal(
                "unavailable",
                "too many requests are waiting for the database; try again later",
                retry_after_seconds=1,
            )
        self._waiting.extend(items)
        if not self._writes or len(self._waiting) >= self._max_group:
            self._start_group()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._start_another)

    async def drained(self) -> None:
        """Return once everything submitted before has its verdict."""
        while self._writes:
            await asyncio.wait(self._writes)

    def _start_group(self) -> None:
        # nothing awaits between reading the waiting items and registering the write, so no wake-up can be lost
        if self._waiting and len(self._writes) < self._max_concurrent:
            group = [self._waiting.popleft() for _ in range(min(self._max_group, len(self._waiting)))]
            writing = asyncio.get_running_loop().create_task(self._write_group(group))
            self._writes.add(writing)
            writing.add_done_callback(self._group_written)

    def _group_written(self, writing: asyncio.Task[None]) -> None:
        self._writes.discard(writing)
        self._start_group()

    def _start_another(self) -> None:
        """Start another group: the one in progress is slow, and may wait for a lock that does not concern these items."""
        self._timer = None
        self._start_group()
        if self._waiting:
            self._timer = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._start_another)

    async def _write_group(self, group: list[tuple[Item, Callable[[Verdict | BaseException], None]]]) -> None:
        try:
            verdicts = await self._write([item for item, _ in group])
        except Unavailable as error:
            # items waiting behind would wait as long and fail the same way
            group += self._waiting
            self._waiting.clear()
            for _, told in group:
                told(error)
        except Exception as error:
            if len(group) == 1:
                group[0][1](error)
                return
            middle = len(group) // 2
            await self._write_group(group[:middle])
            await self._write_group(group[middle:])
        else:
            self._wrote(len(group))
            for (_, told), verdict in zip(group, verdicts, strict=True):
                told(verdict)


def _resolve(future: asyncio.Future[Verdict], verdict: Verdict | BaseException) -> None:
    if not future.done():
        if isinstance(verdict, BaseException):
            future.set_exception(verdict)
        else:
            future.set_result(verdict)
