"""Long work in pieces: how often whatever else there is to do gets its turn."""

import asyncio

import pytest

from app.runtime import pieces
from app.runtime.pieces import in_pieces

pytestmark = pytest.mark.anyio


async def rounds(count: int) -> int:
    """How often another task gets its turn while so many items are gone through."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    await asyncio.sleep(0)
    turns = 0
    assert [item async for item in in_pieces(range(count))] == list(range(count))
    task.cancel()
    return turns


async def test_others_get_their_turn_when_a_piece_has_taken_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_SECONDS", 0)
    assert await rounds(20) == 20


async def test_what_is_done_soon_is_done_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pieces, "PIECE_SECONDS", 60)
    assert await rounds(20) == 0
