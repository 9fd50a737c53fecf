"""Settling alone, by Sluice's own statements: tasks without a batch, and as many that are all of one batch.

All tasks are stored and leased before the clock starts; then a few connections settle them in groups, a slice of the one
side and a slice of the other in turn, while deltas are folded as the engine folds them. So whatever else the machine does
falls on both alike. The batch must have completed in the end, with every task counted.
"""

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from app.store import batches, clock, enqueues, tasks
from app.store.db import Database
from app.store.enqueues import Entry
from app.store.tasks import AttemptEnd, Claimed, LaneWant
from bench.figures import paired
from bench.ground import Ground
from bench.subject import PAYLOAD, Subject

QUEUE = "bench-settle"
"""Without a handler, so that nobody else claims from it."""
MOVED_AT_ONCE = 500
SETTLED_AT_ONCE = 100
SLICE = 10_000
CONNECTIONS = 4
LEASE_SECONDS = 600.0
FOLD_SECONDS = 0.05
FOLD_LIMIT = 200
COMPLETE_SECONDS = 10.0


async def settle(ground: Ground) -> dict[str, Any]:
    """Tasks of one batch, beside tasks of none."""
    count = ground.size.settled
    async with ground.subject() as subject:
        settling = await Settling.on(subject)
        try:
            if ground.size.warmed:
                await settling.round(count // 10)  # cold caches and unopened connections
            found = [await settling.round(count) for _ in range(ground.size.few_rounds)]
        finally:
            await settling.close()
    return paired([plain for plain, _ in found], [batch for _, batch in found], ("plain", "batch"))


class Settling:
    def __init__(self, subject: Subject, db: Database, queue_id: int, version: int) -> None:
        self._subject = subject
        self._db = db
        self._queue = queue_id, version

    @classmethod
    async def on(cls, subject: Subject) -> "Settling":
        await subject.queue(QUEUE, None)
        db = Database(subject.dsn)
        await db.open()
        [row] = await db.fetch("select id, version from sluice.queues where name = $1", QUEUE)
        return cls(subject, db, row["id"], row["version"])

    async def close(self) -> None:
        await self._db.close()

    async def round(self, count: int) -> tuple[float, float]:
        """Tasks settled a second: of none, and of one batch, whose time includes the folding of all its deltas.

        Raises RuntimeError when the batch does not come to the same count.
        """
        batch = await self._subject.ask("POST", "/batches", {"queue": QUEUE, "sealed": False})
        await self._store(count, None)
        plain = await self._claim(count)
        await self._store(count, batch["id"])
        await self._subject.ask("POST", f"/batches/{batch['id']}/seal")
        members = await self._claim(count)
        seconds = {"plain": 0.0, "batch": 0.0}
        for begin in range(0, count, SLICE):
            sides = (("plain", plain), ("batch", members))
            for side, claimed in sides if begin // SLICE % 2 else reversed(sides):
                seconds[side] += await self._settle(claimed[begin : begin + SLICE])
        await self._completed(batch["id"], count)
        return count / seconds["plain"], count / seconds["batch"]

    async def _completed(self, batch_id: str, count: int) -> None:
        """The last deltas may be another folder's, who looks each second."""
        until = time.monotonic() + COMPLETE_SECONDS
        while True:
            found = await self._subject.ask("GET", f"/batches/{batch_id}")
            if found["completed_at"] is not None and found["counts"]["succeeded"] == count:
                return
            if time.monotonic() > until:
                raise RuntimeError(f"of {count} tasks the batch counts {found}")
            await asyncio.sleep(FOLD_SECONDS)

    async def _store(self, count: int, batch_id: str | None) -> None:
        payload = json.dumps(PAYLOAD).encode()
        for begin in range(0, count, MOVED_AT_ONCE):
            entries = [
                Entry(str(uuid.uuid4()), *self._queue, 0, payload, None, None, None)
                for _ in range(min(MOVED_AT_ONCE, count - begin))
            ]
            await enqueues.enqueue(self._db, str(uuid.uuid4()), entries, batch_id=batch_id)

    async def _claim(self, count: int) -> list[Claimed]:
        claimed: list[Claimed] = []
        while len(claimed) < count:
            (claim,) = await tasks.claim(
                self._db,
                [LaneWant(self._queue[0], 0, MOVED_AT_ONCE)],
                owner=None,
                replica="bench",
                claim_id=str(uuid.uuid4()),
                not_after=await clock.now(self._db) + timedelta(seconds=10),
                lease_seconds=LEASE_SECONDS,
                pull=True,
            )
            if claim.verdict == "empty" and not claim.tasks:
                raise RuntimeError(f"only {len(claimed)} of {count} tasks were there to be claimed")
            claimed += claim.tasks
        return claimed

    async def _settle(self, claimed: Sequence[Claimed]) -> float:
        """Seconds until all are settled and nothing is left to be folded."""
        ended = asyncio.Event()
        begun = time.monotonic()
        folding = asyncio.create_task(self._fold(ended))
        await asyncio.gather(*(self._settle_share(claimed[n::CONNECTIONS]) for n in range(CONNECTIONS)))
        ended.set()
        await folding
        return time.monotonic() - begun

    async def _settle_share(self, share: Sequence[Claimed]) -> None:
        for begin in range(0, len(share), SETTLED_AT_ONCE):
            group = [
                AttemptEnd(task.task_id, task.token, "succeeded", "succeeded", status=200)
                for task in share[begin : begin + SETTLED_AT_ONCE]
            ]
            verdicts = await tasks.settle(self._db, group)
            if set(verdicts.values()) != {"applied"}:
                raise RuntimeError(f"not all of a group was settled: {verdicts}")

    async def _fold(self, ended: asyncio.Event) -> None:
        while not ended.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FOLD_SECONDS):
                    await ended.wait()
            await batches.fold(self._db, FOLD_LIMIT)
