"""The group writer: one coalescer behind all grouped statements.

Concurrent callers each submit an item and wait. What gathers while one group is being written becomes the next group, so an idle
system adds no delay and a busy one pays one commit for many items. A group takes its items when it is written, in the turn of the
event loop after its first item: whatever came in the same turn goes with it. Validation comes first: nothing a caller can violate
is left to a constraint. An unexpected error splits the group in two until the faulty item fails alone. Items submitted together
share one future and one group.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Generic, NamedTuple, TypeVar

from app.domain.errors import Refusal
from app.store.failures import Unavailable

Item = TypeVar("Item")
Verdict = TypeVar("Verdict")

MAX_WAITING = 20_000
PATIENCE_SECONDS = 0.02
"""How long an item waits behind a group in progress before another starts beside it: one large group costs less than two."""


class GroupWriter(Generic[Item, Verdict]):
    """Groups items for `write`, which returns a verdict or an exception per item, in order. If it raises, it is called with smaller
    groups."""

    def __init__(
        self,
        write: Callable[[Sequence[Item]], Awaitable[Sequence[Verdict | BaseException]]],
        *,
        max_group: int,
        max_concurrent: int,
        wrote: Callable[[int], None],
    ) -> None:
        self._write = write
        self._max_group = max_group
        self._max_concurrent = max_concurrent
        self._wrote = wrote
        self._waiting: deque[_Submission[Item, Verdict]] = deque()
        self._items_waiting = 0
        self._writes: set[asyncio.Task[None]] = set()
        self._unformed = 0
        """How many writes have not taken their items yet."""
        self._waiting_since = 0.0
        """When the first of the waiting items came, in the event loop's seconds."""
        self._timer: asyncio.TimerHandle | None = None

    async def submit(self, item: Item) -> Verdict:
        """Return the item's verdict. Raises what `write` raises for it; Refusal (unavailable) if too many are waiting."""
        [verdict] = await self.submit_all((item,))
        if isinstance(verdict, BaseException):
            raise verdict
        return verdict

    async def submit_all(self, items: Sequence[Item]) -> Sequence[Verdict | BaseException]:
        """Return one verdict per item, in order, or the exception that submit would raise. At most `max_group` items, which stay
        together."""
        future: asyncio.Future[Sequence[Verdict | BaseException]] = asyncio.get_running_loop().create_future()
        self._join(items, partial(_resolve, future))
        return await future

    def post(self, item: Item, told: Callable[[Verdict | BaseException], None]) -> None:
        """Submit an item whose verdict, or the exception that submit would raise for it, goes to `told`, which must not raise.

        Raises Refusal (unavailable) if too many are waiting.
        """
        self._join((item,), lambda verdicts: told(verdicts[0]))

    def _join(self, items: Sequence[Item], told: Callable[[Sequence[Verdict | BaseException]], None]) -> None:
        if self._items_waiting >= MAX_WAITING:
            raise Refusal(
                "unavailable",
                "too many requests are waiting for the database; try again later",
                retry_after_seconds=1,
            )
        if not self._waiting:
            self._waiting_since = asyncio.get_running_loop().time()
        self._waiting.append(_Submission(items, told))
        self._items_waiting += len(items)
        if not self._writes or self._items_waiting >= self._max_group * (self._unformed + 1):
            self._start_group()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._start_another)

    async def drained(self) -> None:
        """Return once everything submitted before has its verdict, whatever is submitted meanwhile."""
        left: list[asyncio.Future[None]] = [*self._writes]
        for place, submission in enumerate(self._waiting):
            told = asyncio.get_running_loop().create_future()
            self._waiting[place] = submission._replace(told=partial(_tell, submission.told, told))
            left.append(told)
        if left:
            await asyncio.wait(left)

    def _start_group(self) -> None:
        # nothing awaits between reading the waiting items and registering the write, so no wake-up can be lost
        if self._waiting and len(self._writes) < self._max_concurrent:
            self._unformed += 1
            writing = asyncio.get_running_loop().create_task(self._write_group())
            self._writes.add(writing)

    def _next_group(self) -> "list[_Submission[Item, Verdict]]":
        group = [self._waiting.popleft()]
        size = len(group[0].items)
        while self._waiting and size + len(self._waiting[0].items) <= self._max_group:
            group.append(self._waiting.popleft())
            size += len(group[-1].items)
        self._items_waiting -= size
        return group

    def _start_another(self) -> None:
        """Start another group: the one in progress is slow, and may wait for a lock that does not concern the items waiting."""
        self._timer = None
        loop = asyncio.get_running_loop()
        if self._waiting and loop.time() >= self._waiting_since + PATIENCE_SECONDS:
            self._start_group()
            self._waiting_since = loop.time()
        if self._waiting:
            self._timer = loop.call_at(self._waiting_since + PATIENCE_SECONDS, self._start_another)

    async def _write_group(self) -> None:
        writing = asyncio.current_task()
        assert writing is not None
        self._unformed -= 1
        group = self._next_group() if self._waiting else []
        try:
            verdicts = await self._verdicts_on([item for submission in group for item in submission.items])
        finally:
            # the next group does not wait for the work of those that are told
            self._writes.discard(writing)
            self._start_group()
        start = 0
        for submission in group:
            end = start + len(submission.items)
            submission.told(verdicts[start:end])
            start = end

    async def _verdicts_on(self, items: Sequence[Item]) -> Sequence[Verdict | BaseException]:
        if not items:
            return ()
        try:
            verdicts = await self._write(items)
        except Unavailable as error:
            self._fail_waiting(error)
            return [error] * len(items)
        except Exception as error:
            if len(items) == 1:
                return [error]
            middle = len(items) // 2
            return [*await self._verdicts_on(items[:middle]), *await self._verdicts_on(items[middle:])]
        self._wrote(len(items))
        return verdicts

    def _fail_waiting(self, error: Unavailable) -> None:
        """Fail the items that wait behind a failed group: they would wait as long and fail the same way."""
        failing, self._items_waiting = list(self._waiting), 0
        self._waiting.clear()
        for submission in failing:
            submission.told([error] * len(submission.items))


class _Submission(NamedTuple, Generic[Item, Verdict]):
    items: Sequence[Item]
    told: Callable[[Sequence[Verdict | BaseException]], None]
    """Takes the verdicts on the items, in order."""


def _tell(
    tell: Callable[[Sequence[Verdict | BaseException]], None],
    told: "asyncio.Future[None]",
    verdicts: Sequence[Verdict | BaseException],
) -> None:
    tell(verdicts)
    if not told.done():
        told.set_result(None)


def _resolve(
    future: "asyncio.Future[Sequence[Verdict | BaseException]]", verdicts: Sequence[Verdict | BaseException]
) -> None:
    if not future.done():
        future.set_result(verdicts)
