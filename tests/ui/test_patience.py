"""Pages do not wait for what takes long."""

import asyncio
import time

import pytest

from app.domain.errors import Refusal
from app.ui import patience
from app.ui.patience import Patience

pytestmark = pytest.mark.anyio


async def test_what_takes_long_is_not_waited_for_and_is_there_once_it_has_ended() -> None:
    slow, ended, calls = Patience(), asyncio.Event(), 0

    async def count() -> int:
        nonlocal calls
        calls += 1
        await ended.wait()
        return calls

    assert [await slow.ask("q", count) for _ in range(3)] == [None, None, None]
    assert calls == 1, "all wait for the same"
    ended.set()
    assert await slow.ask("q", count) == 1


async def test_what_took_long_is_asked_for_less_often_and_what_is_quick_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(patience, "MOMENT_SECONDS", 0.01)
    one, calls = Patience(), 0

    async def count(seconds: float) -> int:
        nonlocal calls
        calls += 1
        await asyncio.sleep(seconds)
        return calls

    assert [await one.ask("quick", lambda: count(0)) for _ in range(3)] == [1, 2, 3]
    while await one.ask("slow", lambda: count(0.05)) is None:
        await asyncio.sleep(0)
    began = time.monotonic()
    assert [await one.ask("slow", lambda: count(0.05)) for _ in range(3)] == [4, 4, 4]
    while await one.ask("slow", lambda: count(0.05)) == 4:
        await asyncio.sleep(0.01)
    assert time.monotonic() - began >= 0.2


async def test_a_refusal_is_passed_on_and_a_database_that_refuses_is_as_one_that_takes_long() -> None:
    one = Patience()

    async def refused(code: str) -> int:
        raise Refusal(code, "no")

    for _ in range(2):
        with pytest.raises(Refusal, match="queue_not_found"):
            await one.ask("q", lambda: refused("queue_not_found"))
    assert await one.ask("q", lambda: refused("unavailable")) is None


async def test_what_nobody_asks_for_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "MOST_KEPT", 3)
    one = Patience()

    async def name() -> str:
        return "x"

    for number in range(10):
        await one.ask(number, name)
    assert len(one._known) <= 3
