"""Turns: how tenants share places of one kind, such as connections for reads or schema compilers.

At most `places` are taken at once, and at most `share` of them by one tenant, so that no single tenant takes them all. Callers
that find no place wait. A place that comes free goes to the waiting tenant that holds the fewest, and among equals to the one
served longest ago (max-min fairness; Bertsekas and Gallager, Data Networks, 1992, 6.5.2). Within a tenant, callers are served
first come, first served. The number of waiters is bounded per tenant, so that one tenant's crowd keeps nobody else out.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager

from app.domain.errors import Refusal


class Turns:
    """Places in one event loop. `what` names them in refusals."""

    def __init__(self, what: str, *, places: int, share: int, max_waiting: int) -> None:
        """Let `max_waiting` callers of each tenant wait. With 0 nobody waits, and `what` is a participle."""
        self._what = what
        self._places = places
        self._share = share
        self._max_waiting = max_waiting
        self._held: dict[Hashable, int] = {}
        self._taken = 0
        self._waiting: dict[Hashable, deque[asyncio.Future[None]]] = {}
        """Only tenants with waiting callers, the one served longest ago first."""

    @asynccontextmanager
    async def turn(self, tenant: Hashable, *, patience_seconds: float | None = None) -> AsyncIterator[None]:
        """Wait for a place and hold it. Raises Refusal (unavailable) if too many wait, or after `patience_seconds`."""
        await self._enter(tenant, patience_seconds)
        try:
            yield
        finally:
            self._leave(tenant)

    @property
    def taken(self) -> int:
        return self._taken

    def held(self, tenant: Hashable) -> int:
        return self._held.get(tenant, 0)

    def waiting(self, tenant: Hashable) -> int:
        return len(self._waiting.get(tenant, ()))

    async def _enter(self, tenant: Hashable, patience_seconds: float | None) -> None:
        if not self.waiting(tenant) and self._fits(tenant):
            self._take(tenant)
            return
        if self.waiting(tenant) >= self._max_waiting:
            raise self._refusal(self._too_many())
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(place)
        try:
            async with asyncio.timeout(patience_seconds):
                await place
        except BaseException as error:
            if place.done() and not place.cancelled():
                self._leave(tenant)  # the place was assigned just as the wait ended
            else:
                self._forget(tenant, place)
            if isinstance(error, TimeoutError):
                raise self._refusal(
                    f"this request waited {patience_seconds:g} seconds for its turn at {self._what}"
                ) from None
            raise

    def _fits(self, tenant: Hashable) -> bool:
        return self._taken < self._places and self.held(tenant) < self._share

    def _take(self, tenant: Hashable) -> None:
        self._taken += 1
        self._held[tenant] = self.held(tenant) + 1

    def _leave(self, tenant: Hashable) -> None:
        self._taken -= 1
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]
        self._admit()

    def _admit(self) -> None:
        while self._taken < self._places:
            able = [tenant for tenant in self._waiting if self._fits(tenant)]
            if not able:
                return
            tenant = min(able, key=self.held)
            waiters = self._waiting.pop(tenant)
            place = waiters.popleft()
            if waiters:
                self._waiting[tenant] = waiters
            if not place.done():
                self._take(tenant)
                place.set_result(None)

    def _forget(self, tenant: Hashable, place: asyncio.Future[None]) -> None:
        waiters = self._waiting.get(tenant)
        if waiters is not None and place in waiters:
            waiters.remove(place)
            if not waiters:
                del self._waiting[tenant]

    def _too_many(self) -> str:
        if self._max_waiting == 0:
            return f"too many requests are already {self._what}"
        return f"{self._max_waiting} requests of this tenant are already waiting for {self._what}"

    def _refusal(self, why: str) -> Refusal:
        return Refusal("unavailable", why, retry_after_seconds=1)
