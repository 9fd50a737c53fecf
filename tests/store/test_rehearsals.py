"""A rehearsal takes the cost of first calls from tasks, and leaves nothing behind."""

import time

import asyncpg
import pytest

from app.store import rehearsals
from app.store.connecting import connected
from app.store.db import Database

pytestmark = pytest.mark.anyio

TABLES = ("tenants", "handlers", "queues", "lanes", "tasks", "attempts", "task_history", "receipts")


async def test_a_rehearsed_connection_is_about_as_quick_at_first_as_later(database_url: str) -> None:
    """The quickest of several fresh connections each: single times are those of the machine's load as well."""

    async def seconds(*, rehearsed: bool) -> list[float]:
        """How long a way from enqueue to settle takes on a fresh connection, time after time."""
        async with connected(database_url) as connection:
            if rehearsed:
                await rehearsals.rehearse_on(connection)
            took = []
            async with rehearsals.stage(connection) as queue_id:
                for _ in range(4):
                    began = time.perf_counter()
                    await rehearsals.take_through(connection, queue_id)
                    took.append(time.perf_counter() - began)
            return took

    rounds = [(await seconds(rehearsed=False), await seconds(rehearsed=True)) for _ in range(5)]
    cold = min(unrehearsed[0] for unrehearsed, _ in rounds)
    first = min(rehearsed[0] for _, rehearsed in rounds)
    later = min(min(rehearsed[1:]) for _, rehearsed in rounds)
    assert first < 4 * later
    assert cold > 2 * first


async def test_every_work_connection_rehearses_and_nothing_stays(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rehearse_on, rehearsed = rehearsals.rehearse_on, set[int]()

    async def noted(connection: asyncpg.Connection) -> None:
        rehearsed.add(connection.get_server_pid())
        await rehearse_on(connection)

    monkeypatch.setattr(rehearsals, "rehearse_on", noted)
    db = Database(database_url)
    await db.open()
    try:
        before = await _counts(db)
        await rehearsals.rehearse(db)
        assert len(rehearsed) == db.connections.work
        assert await _counts(db) == before
        assert db.checked_out == 0
    finally:
        await db.close()


async def _counts(db: Database) -> list[int]:
    return [await db.fetchval(f"select count(*) from sluice.{table}") for table in TABLES]
