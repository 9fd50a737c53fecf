"""What a claim tells others."""

from typing import Any

import pytest

from app.runtime.core import Core
from app.store import tasks
from app.store.tasks import Claim, LaneWant

pytestmark = pytest.mark.anyio


def found(*opened: tuple[int, int]) -> Claim:
    """Nothing, but lanes that were opened on the way."""
    return Claim(
        0, "full", 1, 1, 1, "flows", None, True, None, None, None, None, None, False, None, opened=list(opened)
    )


async def test_lanes_that_a_claim_opened_are_hinted_unless_it_looks_at_them_afterwards(
    core: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lane whose turn in the same claim is over goes on with the next claim, as those of others do."""
    hinted: list[tuple[int, int]] = []
    core.signals.lane_ready = lambda *lane: hinted.append(lane)

    async def claim(*_: Any, **__: Any) -> list[Claim]:
        return [found((1, 0), (2, 0), (3, 7)), found((1, 0), (2, 0), (9, 0)), found()]

    monkeypatch.setattr(tasks, "claim", claim)
    await core.claiming.claim([LaneWant(1, 0, 5), LaneWant(2, 0, 5), LaneWant(3, 7, 5)], 30)
    assert sorted(hinted) == [(1, 0), (9, 0)]
