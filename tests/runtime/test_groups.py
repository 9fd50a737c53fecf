"""The coalescer behind grouped statements: every item gets its own verdict, whatever happens to its group."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence

import pytest

from app.domain.errors import Refusal
from app.runtime.groups import GroupWriter
from app.store.failures import Unavailable
from tests.support import poll

pytestmark = pytest.mark.anyio

Write = Callable[[Sequence[int]], Awaitable[Sequence[str]]]


class Writer:
    """Answers each item with itself, in words. A gate that is shut keeps groups in flight."""

    def __init__(self) -> None:
        self.groups: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.fail: Callable[[Sequence[int]], Exception | None] = lambda items: None
        self.flying = 0
        self.most_flying = 0

    async def __call__(self, items: Sequence[int]) -> list[str]:
        self.groups.append(list(items))
        self.flying += 1
        self.most_flying = max(self.most_flying, self.flying)
        try:
            await self.gate.wait()
        finally:
            self.flying -= 1
        if (error := self.fail(items)) is not None:
            raise error
        return [f"verdict {item}" for item in items]


def writer_over(
    write: Write, *, max_group: int = 500, max_concurrent: int = 2
) -> tuple[GroupWriter[int, str], list[int]]:
    wrote: list[int] = []
    return GroupWriter(write, max_group=max_group, max_concurrent=max_concurrent, wrote=wrote.append), wrote


async def turns(count: int = 10) -> None:
    """Let everything run that could run by now."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_an_idle_lane_adds_no_wait() -> None:
    write = Writer()
    groups, _ = writer_over(write)
    submitted = asyncio.create_task(groups.submit(1))
    await turns(2)
    assert write.groups == [[1]], "written in the turn after it was submitted"
    assert await submitted == "verdict 1"


async def test_items_of_one_turn_are_one_group() -> None:
    write = Writer()
    groups, _ = writer_over(write)
    told: list[object] = []
    for item in range(3):
        groups.post(item, told.append)
    await turns()
    assert write.groups == [[0, 1, 2]]
    assert told == ["verdict 0", "verdict 1", "verdict 2"]


async def test_what_gathers_while_a_group_is_written_becomes_the_next_group() -> None:
    write = Writer()
    write.gate.clear()
    groups, wrote = writer_over(write, max_concurrent=1)
    first = asyncio.create_task(groups.submit(0))
    await turns()
    rest = [asyncio.create_task(groups.submit(item)) for item in range(1, 50)]
    await turns()
    write.gate.set()
    assert await asyncio.gather(first, *rest) == [f"verdict {item}" for item in range(50)]
    assert write.groups == [[0], list(range(1, 50))]
    assert wrote == [1, 49]


async def test_groups_and_concurrent_writes_stay_within_their_limits() -> None:
    write = Writer()
    write.gate.clear()
    groups, _ = writer_over(write, max_group=10, max_concurrent=3)
    submitted = [asyncio.create_task(groups.submit(item)) for item in range(95)]
    await turns()
    write.gate.set()
    await asyncio.gather(*submitted)
    assert write.most_flying == 3
    assert max(map(len, write.groups)) == 10


async def test_a_slow_group_does_not_hold_up_those_behind_it() -> None:
    write = Writer()
    write.gate.clear()
    groups, _ = writer_over(write, max_concurrent=2)
    slow = asyncio.create_task(groups.submit(0))
    await turns()
    behind = asyncio.create_task(groups.submit(1))
    await poll(lambda: write.flying == 2)
    write.gate.set()
    assert list(await asyncio.gather(slow, behind)) == ["verdict 0", "verdict 1"]
    assert write.groups == [[0], [1]]


async def test_groups_that_are_quick_enough_are_written_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.runtime.groups.PATIENCE_SECONDS", 0.2)
    write = Writer()
    write.gate.clear()
    groups, _ = writer_over(write, max_concurrent=2)
    submitted: list[asyncio.Task[str]] = []
    until = asyncio.get_running_loop().time() + 0.5
    while asyncio.get_running_loop().time() < until:  # almost always an item waits, but none for as long as that
        for _ in range(2):
            submitted.append(asyncio.create_task(groups.submit(len(submitted))))
            await turns()
        await asyncio.sleep(0.01)
        write.gate.set()
        await turns()
        write.gate.clear()
    write.gate.set()
    await asyncio.gather(*submitted)
    assert write.most_flying == 1


async def test_a_poisonous_item_fails_alone() -> None:
    write = Writer()
    write.fail = lambda items: ValueError("poison") if 37 in items else None
    groups, wrote = writer_over(write)
    write.gate.clear()
    blocking = [asyncio.create_task(groups.submit(item)) for item in (1000, 1001)]
    await turns()
    submitted = [asyncio.create_task(groups.submit(item)) for item in range(100)]
    await turns()
    write.gate.set()
    async with asyncio.timeout(10):
        verdicts = await asyncio.gather(*submitted, *blocking, return_exceptions=True)
    assert isinstance(verdicts[37], ValueError)
    assert [verdict for item, verdict in enumerate(verdicts[:100]) if item != 37] == [
        f"verdict {item}" for item in range(100) if item != 37
    ]
    assert sum(wrote) == 101
    assert len(write.groups) < 20, "it is found by halving, not one by one"


async def test_a_database_that_is_away_fails_the_flight_and_all_that_wait_behind_it() -> None:
    write = Writer()
    write.gate.clear()
    groups, wrote = writer_over(write, max_group=2, max_concurrent=1)
    submitted = [asyncio.create_task(groups.submit(item)) for item in range(9)]
    await turns()
    away = Unavailable("gone")
    write.fail = lambda items: away
    write.gate.set()
    assert await asyncio.gather(*submitted, return_exceptions=True) == [away] * 9
    assert write.groups == [[0, 1]], "those behind would have waited as long and heard the same"
    assert wrote == []
    write.fail = lambda items: None
    assert await groups.submit(9) == "verdict 9"


async def test_no_wake_up_is_lost_in_ten_thousand_racing_submits() -> None:
    dice = random.Random(7)

    async def write(items: Sequence[int]) -> list[str]:
        for _ in range(dice.randrange(3)):
            await asyncio.sleep(0)
        return [f"verdict {item}" for item in items]

    groups, wrote = writer_over(write, max_group=7)

    async def caller(first: int) -> None:
        for item in range(first, first + 100):
            assert await groups.submit(item) == f"verdict {item}"
            for _ in range(dice.randrange(3)):
                await asyncio.sleep(0)

    async with asyncio.timeout(30):
        await asyncio.gather(*(caller(first) for first in range(0, 10_000, 100)))
    assert sum(wrote) == 10_000


async def test_a_caller_that_has_gone_costs_no_other_its_verdict() -> None:
    write = Writer()
    write.gate.clear()
    groups, _ = writer_over(write, max_concurrent=1)
    submitted = [asyncio.create_task(groups.submit(item)) for item in range(5)]
    await turns()
    submitted[0].cancel()
    submitted[3].cancel()
    await turns()
    write.gate.set()
    verdicts = await asyncio.gather(*submitted, return_exceptions=True)
    assert [str(verdict) for verdict in verdicts if isinstance(verdict, str)] == ["verdict 1", "verdict 2", "verdict 4"]
    assert sorted(item for group in write.groups for item in group) == [0, 1, 2, 3, 4], (
        "what was submitted is written all the same"
    )


async def test_drained_waits_for_everything_submitted_before_it() -> None:
    write = Writer()
    write.gate.clear()
    groups, wrote = writer_over(write, max_group=2, max_concurrent=1)
    submitted = [asyncio.create_task(groups.submit(item)) for item in range(7)]
    await turns()
    drained = asyncio.create_task(groups.drained())
    await turns()
    assert not drained.done()
    write.gate.set()
    await drained
    assert sum(wrote) == 7
    await asyncio.gather(*submitted)


async def test_drained_does_not_wait_for_what_is_submitted_meanwhile() -> None:
    groups, _ = writer_over(Writer(), max_group=2, max_concurrent=1)
    told: list[int] = []
    stopped = False

    async def submit_again_and_again() -> None:
        while not stopped:
            await groups.submit(0)

    arriving = [asyncio.create_task(submit_again_and_again()) for _ in range(8)]
    await turns()
    before = [asyncio.create_task(groups.submit(item)) for item in range(5)]
    for submitted in before:
        submitted.add_done_callback(lambda _: told.append(1))
    await turns(1)
    async with asyncio.timeout(5):
        await groups.drained()
    await turns(2)
    assert len(told) == 5
    assert not any(task.done() for task in arriving), "they go on meanwhile"
    stopped = True
    await asyncio.gather(*before, *arriving)


async def test_a_writer_that_cannot_keep_up_refuses_instead_of_growing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.runtime.groups.MAX_WAITING", 3)
    write = Writer()
    write.gate.clear()
    groups, _ = writer_over(write, max_concurrent=1)
    flying = asyncio.create_task(groups.submit(0))
    await turns()
    waiting = [asyncio.create_task(groups.submit(item)) for item in range(1, 4)]
    await turns()
    with pytest.raises(Refusal) as refused:
        await groups.submit(4)
    assert (refused.value.code, refused.value.retry_after_seconds) == ("unavailable", 1)
    write.gate.set()
    await asyncio.gather(flying, *waiting)


async def test_items_submitted_together_stay_in_one_group_and_get_their_verdicts_in_order() -> None:
    write = Writer()
    write.gate.clear()
    write.fail = lambda items: ValueError("poison") if 6 in items else None
    groups, wrote = writer_over(write, max_group=8, max_concurrent=1)
    first = asyncio.create_task(groups.submit(0))
    await turns()
    rest = [asyncio.create_task(groups.submit_all(items)) for items in ([1, 2], [3, 4, 5, 6, 7], [8, 9])]
    await turns()
    write.gate.set()
    assert await first == "verdict 0"
    pair, several, last = await asyncio.gather(*rest)
    assert write.groups[1] == [1, 2, 3, 4, 5, 6, 7]
    assert list(pair) == ["verdict 1", "verdict 2"]
    assert [str(verdict) for verdict in several] == ["verdict 3", "verdict 4", "verdict 5", "poison", "verdict 7"]
    assert list(last) == ["verdict 8", "verdict 9"]
    assert sum(wrote) == 9
