"""The one frame of every loop: it backs off, finishes the tick in hand, and its death fails liveness."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app.engine.loop import Loop
from app.store.failures import Busy, Unavailable
from app.telemetry import events
from tests.sluices import Replica
from tests.support import poll

pytestmark = pytest.mark.anyio

NEVER = 3600.0


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the frame logs."""
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr(events, "emit", lambda log, event, **fields: lines.append(fields))
    return lines


class Ticks:
    """A tick that does what the test has put in line, then waits for ever; each one is counted at its start."""

    def __init__(self, *steps: Callable[[], Awaitable[float]] | Exception) -> None:
        self.steps = list(steps)
        self.begun = 0
        self.ended = 0

    async def __call__(self) -> float:
        self.begun += 1
        step = self.steps.pop(0) if self.steps else None
        if isinstance(step, Exception):
            raise step
        delay = NEVER if step is None else await step()
        self.ended += 1
        return delay


async def test_a_failing_tick_is_tried_again_after_a_growing_wait_with_a_cap(said: list[dict[str, Any]]) -> None:
    tick = Ticks(*[RuntimeError("no")] * 7)
    loop = Loop("worker", tick)
    loop.start()
    for number in range(1, 8):
        await poll(lambda number=number: len(said) == number)  # type: ignore[misc]
        loop.wake()
    await poll(lambda: tick.ended == 1)
    await loop.stop()
    assert [line["retry_in_seconds"] for line in said] == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert {line["loop"] for line in said} == {"worker"}
    assert not loop.died


async def test_the_wait_starts_small_again_after_a_tick_that_went_well(said: list[dict[str, Any]]) -> None:
    async def well() -> float:
        return NEVER

    tick = Ticks(RuntimeError("no"), RuntimeError("no"), well, RuntimeError("no"))
    loop = Loop("worker", tick)
    loop.start()
    for number in range(1, 5):
        await poll(lambda number=number: tick.begun == number)  # type: ignore[misc]
        loop.wake()
    await poll(lambda: tick.begun == 5)
    await loop.stop()
    assert [line["retry_in_seconds"] for line in said] == [0.2, 0.4, 0.2]


async def test_of_a_database_that_is_away_a_loop_is_silent_for_the_database_has_said_so(
    said: list[dict[str, Any]],
) -> None:
    tick = Ticks(Unavailable("gone"), Unavailable("gone"), Busy("canceling statement due to statement timeout"))
    loop = Loop("worker", tick)
    loop.start()
    for begun in (1, 2, 3):
        await poll(lambda begun=begun: tick.begun == begun)  # type: ignore[misc]
        loop.wake()
    await poll(lambda: tick.ended == 1)
    await loop.stop()
    assert [(line["loop"], line["error"]) for line in said] == [
        ("worker", "canceling statement due to statement timeout")
    ]


async def test_a_stop_finishes_the_tick_in_hand() -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow() -> float:
        begun.set()
        await go.wait()
        return 0

    tick = Ticks(slow)
    loop = Loop("worker", tick)
    loop.start()
    await begun.wait()
    stopping = asyncio.create_task(loop.stop())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not stopping.done() and not loop.died
    go.set()
    await stopping
    assert (tick.begun, tick.ended) == (1, 1), "the tick was neither cancelled nor followed by another"


async def test_a_stop_ends_a_wait_at_once() -> None:
    tick = Ticks()
    loop = Loop("worker", tick)
    loop.start()
    await poll(lambda: tick.ended == 1)
    async with asyncio.timeout(5):
        await loop.stop()
    assert not loop.died


async def test_wakes_during_a_tick_are_one_more_tick_right_after_it() -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow() -> float:
        begun.set()
        await go.wait()
        return NEVER

    tick = Ticks(slow)
    loop = Loop("worker", tick)
    loop.start()
    await begun.wait()
    for _ in range(3):
        loop.wake()
    go.set()
    await poll(lambda: tick.ended == 2)
    for _ in range(10):
        await asyncio.sleep(0)
    assert tick.begun == 2
    await loop.stop()


async def test_of_many_timed_wakes_the_earliest_counts() -> None:
    tick = Ticks()
    loop = Loop("worker", tick)
    loop.start()
    await poll(lambda: tick.ended == 1)
    loop.wake_in(NEVER)
    loop.wake_in(0.01)
    loop.wake_in(NEVER)
    await poll(lambda: tick.ended == 2)
    await loop.stop()


async def test_a_wake_that_is_due_at_once_can_be_followed_by_others() -> None:
    tick = Ticks()
    loop = Loop("worker", tick)
    loop.start()
    await poll(lambda: tick.ended == 1)
    for seconds in (-1.0, 0.0, NEVER, 0.0):
        loop.wake_in(seconds)
    await poll(lambda: tick.ended == 2)
    await loop.stop()


async def test_a_loop_that_ends_by_itself_has_died_and_the_log_names_it(said: list[dict[str, Any]]) -> None:
    async def cancelled() -> float:
        raise asyncio.CancelledError

    loop = Loop("worker", Ticks(cancelled))
    assert not loop.died
    loop.start()
    await poll(lambda: loop.died)
    assert said == [{"loop": "worker", "exc_info": None}]


async def test_a_loop_that_was_given_up_has_not_died(said: list[dict[str, Any]]) -> None:
    ticking = asyncio.Event()

    async def hang() -> float:
        ticking.set()
        await asyncio.Event().wait()
        return NEVER

    loop = Loop("worker", Ticks(hang))
    loop.start()
    await ticking.wait()
    loop.give_up()
    [task] = [task for task in asyncio.all_tasks() if task.get_name() == "loop worker"]
    task.cancel()
    await asyncio.wait([task])
    assert not loop.died and not said


@pytest.mark.parametrize("name", ["loop reaper", "listener"])
async def test_a_dead_loop_fails_liveness_and_is_named(
    start_replica: Callable[..., Awaitable[Replica]], said: list[dict[str, Any]], name: str
) -> None:
    before = asyncio.all_tasks()
    replica = await start_replica()
    assert (await replica.client.get("/health/live")).status_code == 200
    loop = next(task for task in asyncio.all_tasks() - before if task.get_name() == name)
    loop.cancel()
    await asyncio.wait([loop])
    answer = await replica.client.get("/health/live")
    assert answer.status_code == 503
    assert name.removeprefix("loop ") in answer.text
    assert {"loop": name.removeprefix("loop "), "exc_info": None} in said
