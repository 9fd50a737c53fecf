"""What a database has to carry that has run for long: history, and a transaction that somebody forgot."""

import contextlib
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from app.store import partitions
from app.store.db import Database
from bench import filling
from bench.figures import quantile
from bench.ground import Ground
from bench.statements import claims_ms
from bench.subject import Subject

KEPT_DAYS = 2
HALF = 0.5


async def history(ground: Ground) -> dict[str, Any]:
    """End to end beside millions of tasks that have ended, and beside none; then a day of them passes and is dropped."""
    size = ground.size
    async with ground.subject() as full:
        await ground.way(full)
        await filling.history(full, size.history, KEPT_DAYS)
        async with ground.subject() as empty:
            rates = await ground.rounds(
                lambda: ground.way(empty), lambda: ground.way(full), size.rounds, ("empty", "full")
            )
        dropping = await _dropped(full, size.history // KEPT_DAYS)
    if not dropping["tables"]:
        ground.problems.append("a day of history that has passed was not dropped")
    return {"tasks": size.history, "end_to_end": rates, "dropping": dropping}


async def _dropped(subject: Subject, tasks: int) -> dict[str, Any]:
    """Fill a day that has passed, and drop it as a replica does each hour."""
    day = (datetime.now(UTC) - timedelta(days=3)).date()
    name = f"task_history_{day:%Y%m%d}"
    database = subject.database
    await database.execute(f"create table sluice.{name} (like sluice.task_history including all)")
    await database.execute(
        f"alter table sluice.task_history attach partition sluice.{name} "
        f"for values from ('{day} 00:00:00+00') to ('{day + timedelta(days=1)} 00:00:00+00')"
    )
    await filling.history(subject, tasks, 1, f"timestamptz '{day} 12:00:00+00'")
    db = Database(subject.dsn)
    await db.open()
    try:
        begun = time.perf_counter()
        tables = await partitions.drop_expired(db)
        took = time.perf_counter() - begun
    finally:
        await db.close()
    return {"tasks": tasks, "tables": tables, "ms": took * 1000}


async def held_xmin(ground: Ground) -> dict[str, Any]:
    """Claims at half the rate that the service can drain: before, while an idle transaction holds its snapshot, and after."""
    size = ground.size
    async with ground.subject(path="/stamp") as subject:
        top = await ground.paced(subject, size.load_seconds)
        rate = HALF * top["per_second"]
        # of the time with the snapshot only the last part counts, when most dead rows are kept
        part = min(20.0, size.xmin_seconds)
        before = await _claims(ground, subject, part, rate)
        async with _idle_transaction(subject.dsn):
            if size.xmin_seconds > part:
                await ground.paced(subject, size.xmin_seconds - part, rate)
            during = await _claims(ground, subject, part, rate)
        await ground.paced(subject, part / 2, rate)
        after = await _claims(ground, subject, part, rate)
    return {
        "seconds": size.xmin_seconds,
        "rate": rate,
        "before": before,
        "during": during,
        "after": after,
        "during_to_before": during["p99_ms"] / before["p99_ms"],
        "after_to_before": after["p99_ms"] / before["p99_ms"],
    }


async def _claims(ground: Ground, subject: Subject, seconds: float, rate: float) -> dict[str, Any]:
    """What the server says that the service's claims took."""
    log = ground.statements
    async with log.on():
        paced = await ground.paced(subject, seconds, rate)
        statements = log.taken(await subject.database.fetchval("select current_database()"))
    claims = claims_ms(statements)
    return {
        "p50_ms": quantile(claims, 0.50),
        "p99_ms": quantile(claims, 0.99),
        "claims": len(claims),
        "start_delay": paced["start_delay"],
        "backlog_max": paced["backlog_max"],
    }


@contextlib.asynccontextmanager
async def _idle_transaction(dsn: str) -> AsyncIterator[None]:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("set idle_in_transaction_session_timeout = 0")
        await connection.execute("begin isolation level repeatable read")
        await connection.fetchval("select count(*) from sluice.queues")
        yield
        await connection.execute("rollback")
    finally:
        await connection.close()
