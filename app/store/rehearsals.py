"""Rehearsals: the hot statements run once on each new connection, so that no task waits for what a first call costs.

A session reads the catalog, compiles a function and plans its statements when it first calls it: tens of milliseconds each for
enqueue, claim and settle. A rehearsal makes these calls in a transaction that is rolled back, with a queue that nobody else ever
sees. It leaves a few dead rows.
"""

import random
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg

from app.store import enqueues, tasks
from app.store.db import Database
from app.store.enqueues import Entry
from app.store.statements import sql
from app.store.tasks import AttemptEnd, LaneWant

CALLS = 6
"""Postgres plans a statement anew for its first five calls, then considers a plan for good."""
_STAGE = sql("make_stage")
_CLOCK = sql("read_clock")


async def rehearse(db: Database) -> None:
    """Rehearse on each connection, one at a time. Raises Unavailable, the driver's errors.

    Behind a transaction pooler, sessions belong to others and statements are prepared anew each time, so nothing is done.
    """
    if not db.borrows:
        await db.on_each_connection(rehearse_on)


async def rehearse_on(connection: asyncpg.Connection) -> None:
    async with stage(connection) as queue_id:
        for _ in range(CALLS):
            await take_through(connection, queue_id)


@asynccontextmanager
async def stage(connection: asyncpg.Connection) -> AsyncIterator[int]:
    """Yield the id of a queue in a transaction that is rolled back afterwards. Raises the driver's errors."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        queue_id = -random.randrange(1, 2**31)
        await connection.fetch(_STAGE, queue_id)
        yield queue_id
    finally:
        await transaction.rollback()


async def take_through(connection: asyncpg.Connection, queue_id: int) -> None:
    """Take two tasks from enqueue to settle, a plain one and one with a priority: each has an insert of its own."""
    for priority in (0, 1):
        entry = Entry(str(uuid.uuid4()), queue_id, 1, 0, b"null", None, None, priority=priority)
        await enqueues.enqueue(connection, str(uuid.uuid4()), [entry])
    claimer: Any = {
        "owner": str(uuid.uuid4()),
        "replica": "rehearsal",
        "claim_id": str(uuid.uuid4()),
        "not_after": await connection.fetchval(_CLOCK) + timedelta(hours=1),
        "lease_seconds": 30,
    }
    (claim,) = await tasks.claim(connection, [LaneWant(queue_id, 0, 2)], **claimer)
    ends = [
        AttemptEnd(t.task_id, t.token, kind, kind)
        for t, kind in zip(claim.tasks, ("succeeded", "refund"), strict=False)
    ]
    await tasks.settle(connection, ends[:1])
    await tasks.settle_and_claim(connection, ends[1:], [LaneWant(queue_id, 0, 0)], **claimer)
