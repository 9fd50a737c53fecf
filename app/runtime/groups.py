"""The one coalescer behind grouped statements.

Concurrent callers each submit an item and wait; what has gathered while a group is being written becomes the next group, so
an idle system adds no wait and a busy one pays one commit for many items. Validation comes before: nothing a caller
can violate is left to a constraint. An unexpected error splits the group in two until the item at fault fails alone.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from app.domain.errors import Refusal
from app.store.db import Unavailable

Item = TypeVar("Item")
Verdict = TypeVar("Verdict")

MAX_WAITING = 20_000
PATIENCE_SECONDS = 0.02
"""How long items wait behind a group under way before another departs beside it: one large group costs less than two."""


class GroupWriter(Generic[Item, Verdict]):
    """write(items) answers one verdict an item, in order; it may raise, and is then given smaller groups."""

    def __init__(
        self,
        write: Callable[[Sequence[Item]], Awaitable[Sequence[Verdict]]],
        *,
        max_group: int,
        max_flights: int,
        wrote: Callable[[int], None],
    ) -> None:
        self._write = write
        self._max_group = max_group
        self._max_flights = max_flights
        self._wrote = wrote
        self._waiting: deque[tuple[Item, asyncio.Future[Verdict]]] = deque()
        self._flights: set[asyncio.Task[None]] = set()
        self._patience: asyncio.TimerHandle | None = None

    async def submit(self, item: Item) -> Verdict:
        """Raises what `write` raises for this item; Refusal (unavailable) when too many are waiting."""
        [future] = self._join((item,))
        return await future

    async def submit_all(self, items: Sequence[Item]) -> list[Verdict | BaseException]:
        """One verdict an item, in order, or what submit would raise for it. Meant for no more than a group or two."""
        return await asyncio.gather(*self._join(items), return_exceptions=True)

    def _join(self, items: Sequence[Item]) -> list[asyncio.Future[Verdict]]:
        if len(self._waiting) >= MAX_WAITING:
            raise Refusal(
                "unavailable",
                "too many requests are waiting for the database; try again later; try again later",
                retry_after_seconds=1,
            )
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[Verdict]] = [loop.create_future() for _ in items]
        self._waiting.extend(zip(items, futures, strict=True))
        if not self._flights or len(self._waiting) >= self._max_group:
            self._depart()
        elif self._patience is None:
            self._patience = loop.call_later(PATIENCE_SECONDS, self._impatient)
        return futures

    async def drained(self) -> None:
        """Returns once everything submitted so far has its verdict."""
        while self._flights:
            await asyncio.wait(self._flights)

    def _depart(self) -> None:
        # from the look at the waiting items to the flight's registration nothing awaits: no wake-up can fall between
        if self._waiting and len(self._flights) < self._max_flights:
            group = [self._waiting.popleft() for _ in range(min(self._max_group, len(self._waiting)))]
            flight = asyncio.get_running_loop().create_task(self._fly(group))
            self._flights.add(flight)
            flight.add_done_callback(self._landed)

    def _landed(self, flight: asyncio.Task[None]) -> None:
        self._flights.discard(flight)
        self._depart()

    def _impatient(self) -> None:
        """The flight ahead takes long: it may wait for a lock that concerns nobody here."""
        self._patience = None
        self._depart()
        if self._waiting:
            self._patience = asyncio.get_running_loop().call_later(PATIENCE_SECONDS, self._impatient)

    async def _fly(self, group: list[tuple[Item, asyncio.Future[Verdict]]]) -> None:
        try:
            verdicts = await self._write([item for item, _ in group])
        except Unavailable as error:
            # what waits behind would wait as long and hear the same
            group += self._waiting
            self._waiting.clear()
            for _, future in group:
                if not future.done():
                    future.set_exception(error)
        except Exception as error:
            if len(group) == 1:
                if not group[0][1].done():
                    group[0][1].set_exception(error)
                return
            middle = len(group) // 2
            await self._fly(group[:middle])
            await self._fly(group[middle:])
        else:
            self._wrote(len(group))
            for (_, future), verdict in zip(group, verdicts, strict=True):
                if not future.done():
                    future.set_result(verdict)
