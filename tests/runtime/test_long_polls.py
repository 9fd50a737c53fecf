"""Workers that wait for tasks under limits."""

import asyncio
from typing import Any

import pytest

from app.runtime.core import Core
from app.runtime.long_polls import LongPoll
from app.store.tasks import FLOWS, Claim
from tests.support import poll

pytestmark = pytest.mark.anyio


async def test_a_queue_that_a_rate_blocks_is_tried_once_when_the_rate_may_admit_again(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often hints have led to a claim in the meantime."""
    claims, tries = 0, 0
    polls = core.long_polls
    try_next = polls._try_next

    async def pull(*_: Any) -> Claim:
        nonlocal claims
        claims += 1
        wait = 0.4 if claims <= 20 else 3600.0
        return Claim(0, "full", 1, 0, 0, FLOWS, None, True, None, None, None, None, None, False, None, wait)

    def trying(limit: tuple[str, int]) -> None:
        nonlocal tries
        tries += 1
        try_next(limit)

    monkeypatch.setattr(core.claiming, "pull", pull)
    monkeypatch.setattr(polls, "_try_next", trying)
    waiting = asyncio.create_task(polls.wait(LongPoll(1, 1, 1, 30.0), 20.0, asyncio.Event().wait))
    for _ in range(20):
        await poll(lambda: polls._limits, every_seconds=0)
        polls.hint(1)
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(0.4, over.set)
    await over.wait()
    await poll(lambda: claims == 22)
    assert tries == 1
    waiting.cancel()
