"""Turns: places that tenants share."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from app.domain.errors import Refusal
from app.domain.turns import Turns

pytestmark = pytest.mark.anyio


def turns(places: int = 4, share: int = 2, max_waiting: int = 10) -> Turns:
    return Turns("the places", places=places, share=share, max_waiting=max_waiting)


class Crowd:
    """Callers that take a turn each and keep it until told."""

    def __init__(self, at: Turns) -> None:
        self._at = at
        self.served: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, *names: str) -> None:
        for name in names:
            self._ends[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._caller(name))
        await self.settle()

    async def go(self, *names: str) -> None:
        for name in names:
            self._ends[name].set()
            await self.tasks[name]
        await self.settle()

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def leave(self) -> None:
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)

    async def _caller(self, name: str) -> None:
        async with self._at.turn(name[0]):
            self.served.append(name)
            await self._ends[name].wait()


@asynccontextmanager
async def crowd_at(at: Turns) -> AsyncIterator[Crowd]:
    """Nobody stays behind: a caller that is collected while it waits fails the test that runs then."""
    crowd = Crowd(at)
    try:
        yield crowd
    finally:
        await crowd.leave()
    assert at.taken == 0


async def test_one_tenant_takes_its_share_and_leaves_the_rest_to_others() -> None:
    async with crowd_at(turns(places=4, share=2)) as crowd:
        await crowd.come("a1", "a2", "a3", "a4", "b1", "c1")
        assert crowd.served == ["a1", "a2", "b1", "c1"]


async def test_a_free_place_goes_to_the_tenant_that_holds_the_fewest() -> None:
    async with crowd_at(turns(places=3, share=3)) as crowd:
        await crowd.come("a1", "a2", "a3", "a4", "a5", "b1", "b2")
        await crowd.go("a1")
        assert crowd.served[3:] == ["b1"]
        await crowd.go("a2")
        assert crowd.served[4:] == ["a4"], "equals: the one served longest ago"
        await crowd.go("a3")
        assert crowd.served[5:] == ["b2"]


async def test_a_crowd_of_one_tenant_does_not_keep_another_waiting_behind_it() -> None:
    at = turns(places=2, share=1, max_waiting=50)
    async with crowd_at(at) as crowd:
        await crowd.come(*(f"a{n}" for n in range(40)), "b1")
        assert crowd.served == ["a0", "b1"]
        assert at.waiting("a") == 39


async def test_too_many_waiters_of_a_tenant_are_refused_and_others_are_not() -> None:
    at = turns(places=1, share=1, max_waiting=1)
    async with crowd_at(at) as crowd:
        await crowd.come("a1", "a2", "b1")
        with pytest.raises(Refusal) as refused:
            async with at.turn("a"):
                pass
        assert refused.value.code == "unavailable"
        await crowd.go("a1")
        await crowd.go("a2")
        assert crowd.served == ["a1", "a2", "b1"]


async def test_who_loses_patience_leaves_no_trace() -> None:
    at = turns(places=1, share=1)
    async with at.turn("a"):
        with pytest.raises(Refusal, match=r"waited 0\.01 seconds"):
            async with at.turn("b", patience_seconds=0.01):
                pass
        assert at.waiting("b") == 0
    assert at.taken == 0


async def test_a_caller_cancelled_in_the_instant_it_is_served_gives_its_place_on() -> None:
    at = turns(places=1, share=1)
    async with crowd_at(at) as crowd:
        async with AsyncExitStack() as first:
            await first.enter_async_context(at.turn("a"))
            await crowd.come("b1", "c1")
        crowd.tasks["b1"].cancel()
        await crowd.settle()
        assert crowd.served == ["c1"]
        await crowd.go("c1")
        assert at.taken == 0
