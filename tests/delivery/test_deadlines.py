"""Deadlines: each expires at its own instant, and one that is cancelled never does."""

import asyncio

import pytest

from app.delivery.webhook import deadlines as module
from app.delivery.webhook.deadlines import Deadlines

pytestmark = pytest.mark.anyio

SLOT_SECONDS = 0.1


@pytest.fixture(autouse=True)
def short_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLOT_SECONDS", SLOT_SECONDS)


async def test_each_expires_at_its_own_instant_though_they_share_slots() -> None:
    loop, deadlines = asyncio.get_running_loop(), Deadlines()
    begun = loop.time()
    expired: list[tuple[float, float]] = []
    done = asyncio.Event()
    offsets = [0.05, SLOT_SECONDS * 1.1, SLOT_SECONDS * 1.3, SLOT_SECONDS * 2.2]

    def at(offset: float) -> None:
        expired.append((offset, loop.time() - begun))
        if len(expired) == len(offsets):
            done.set()

    for offset in reversed(offsets):
        deadlines.add(begun + offset, lambda offset=offset: at(offset))  # type: ignore[misc]
    async with asyncio.timeout(10):
        await done.wait()
    assert [offset for offset, _ in expired] == offsets
    assert all(came >= offset - 0.002 for offset, came in expired)


@pytest.mark.parametrize("offset", [0.02, SLOT_SECONDS * 1.2])
async def test_one_that_is_cancelled_does_not_expire(offset: float) -> None:
    loop, deadlines = asyncio.get_running_loop(), Deadlines()
    expired: list[str] = []
    last = asyncio.Event()
    cancelled = deadlines.add(loop.time() + offset, lambda: expired.append("cancelled"))
    deadlines.add(loop.time() + offset + 0.01, last.set)
    cancelled.cancel()
    async with asyncio.timeout(10):
        await last.wait()
    assert expired == []
    assert not deadlines._slots


async def test_one_that_is_cancelled_after_its_slot_began_does_not_expire() -> None:
    loop, deadlines = asyncio.get_running_loop(), Deadlines()
    slot = int(loop.time() / SLOT_SECONDS) + 2
    expired: list[str] = []
    last = asyncio.Event()
    late = deadlines.add((slot + 0.8) * SLOT_SECONDS, lambda: expired.append("late"))
    deadlines.add((slot + 0.2) * SLOT_SECONDS, late.cancel)
    deadlines.add((slot + 0.9) * SLOT_SECONDS, last.set)
    async with asyncio.timeout(10):
        await last.wait()
    assert expired == []
