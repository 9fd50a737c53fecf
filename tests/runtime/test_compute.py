"""Times of schedules that take long to work out: whom they leave room for, and what is not gone through time by time."""

import asyncio
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from app.domain.errors import Refusal
from app.domain.schedules.definitions import ScheduleDefinition
from app.runtime import compute
from app.runtime.compute import ComputePool
from app.service import backfills
from app.store.ledger import LedgerRow
from tests.support import poll

pytestmark = pytest.mark.anyio

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


async def test_one_tenant_s_long_work_leaves_a_thread_to_another_and_those_that_all_share() -> None:
    found, release = ComputePool(), threading.Event()
    try:
        hammering = [asyncio.create_task(found.run("a", release.wait, 20)) for _ in range(5)]
        await poll(lambda: found._turns.taken)
        async with asyncio.timeout(5):
            assert await found.run("b", sum, [1, 2]) == 3
            assert await asyncio.to_thread(sum, [1, 2]) == 3
        assert not any(task.done() for task in hammering)
    finally:
        release.set()
    assert await asyncio.gather(*hammering) == [True] * 5


async def test_so_many_of_a_tenant_wait_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "MAX_WAITING", 2)
    found, release = ComputePool(), threading.Event()
    try:
        hammering = [asyncio.create_task(found.run("a", release.wait, 20)) for _ in range(3)]
        await poll(lambda: found._turns.waiting("a") == 2)
        with pytest.raises(Refusal) as refused:
            await found.run("a", sum, [1])
        assert refused.value.code == "unavailable"
    finally:
        release.set()
    await asyncio.gather(*hammering)


def row(count: int) -> LedgerRow:
    last = BEGIN + (count - 1) * SECOND
    return LedgerRow(
        "r", BEGIN, last, count, "cron", False, "paused", 0.0, None, None, None, task_id=None, replica=None
    )


def test_a_row_of_very_many_times_is_divided_without_going_through_them() -> None:
    definition = ScheduleDefinition("q", b"null", every_seconds=1)
    count = 100_000_000
    out = [BEGIN, BEGIN + 1_000 * SECOND]
    began = time.thread_time()
    pieces = backfills._pieces(definition, row(count), out)
    assert time.thread_time() - began < 1
    assert sum(piece.count for piece in pieces) == count - len(out)
    assert [abs(piece.count - wanted) <= 1 for piece, wanted in zip(pieces, (999, count - 1_001), strict=True)]
    for piece in pieces:
        assert not any(piece.first <= taken <= piece.last for taken in out)


def test_a_row_of_few_times_is_divided_exactly() -> None:
    definition = ScheduleDefinition("q", b"null", every_seconds=1)
    first, second = backfills._pieces(definition, row(10), [BEGIN + 3 * SECOND])
    assert (first.first, first.last, first.count) == (BEGIN, BEGIN + 2 * SECOND, 3)
    assert (second.first, second.last, second.count) == (BEGIN + 4 * SECOND, BEGIN + 9 * SECOND, 6)
