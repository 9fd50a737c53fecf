"""Settling alone, by Sluice's own statements: tasks without a batch, and as many that are all of one batch.

All tasks are stored and leased before the clock starts; then a few connections settle them in groups, while deltas are
folded as the engine folds them. The batch must have completed in the end, with every task counted.
"""

import asyncio
import json
import time
import uuid
from collections.abc import Sequence
from datetime import timedelta

from app.store import batches, sweeps, tasks
from app.store.db import Database
from app.store.tasks import Claimed, Entry, Outcome
from bench.subject import PAYLOAD, Subject

QUEUE = "bench-settle"
MOVED_AT_ONCE = 500
SETTLED_AT_ONCE = 100
CONNECTIONS = 4
LEASE_SECONDS = 600.0
FOLD_SECONDS = 0.05
FOLD_LIMIT = 200


class Settling:
    def __init__(self, subject: Subject, db: Database, queue_id: int, version: int) -> None:
        self._subject = subject
        self._db = db
        self._queue = queue_id, version

    @classmethod
    async def on(cls, subject: Subject, dsn: str) -> "Settling":
        """A queue without a handler, so that nobody else claims from it."""
        await subject.ask("PUT", f"/queues/{QUEUE}", {})
        db = Database(dsn)
        await db.open()
        [row] = await db.fetch("select id, version from sluice.queues where name = $1", QUEUE)
        return cls(subject, db, row["id"], row["version"])

    async def close(self) -> None:
        await self._db.close()

    async def plain(self, count: int) -> float:
        """Tasks settled a second."""
        await self._store(count, None)
        return await self._settle(await self._claim(count))

    async def of_one_batch(self, count: int) -> float:
        """Tasks settled a second. Raises RuntimeError when the batch does not come to the same count."""
        batch = await self._subject.ask("POST", "/batches", {"queue": QUEUE, "sealed": False})
        await self._store(count, batch["id"])
        await self._subject.ask("POST", f"/batches/{batch['id']}/seal")
        rate = await self._settle(await self._claim(count))
        while (await batches.fold(self._db, FOLD_LIMIT)).batches:
            pass
        found = await self._subject.ask("GET", f"/batches/{batch['id']}")
        if found["completed_at"] is None or found["counts"]["succeeded"] != count:
            raise RuntimeError(f"of {count} tasks the batch counts {found}")
        return rate

    async def _store(self, count: int, batch_id: str | None) -> None:
        payload = json.dumps(PAYLOAD).encode()
        for begin in range(0, count, MOVED_AT_ONCE):
            entries = [
                Entry(str(uuid.uuid4()), *self._queue, 0, payload, None, None, None)
                for _ in range(min(MOVED_AT_ONCE, count - begin))
            ]
            await tasks.enqueue(self._db, str(uuid.uuid4()), entries, batch_id=batch_id)

    async def _claim(self, count: int) -> list[Claimed]:
        claimed: list[Claimed] = []
        while len(claimed) < count:
            claim = await tasks.claim(
                self._db,
                queue_id=self._queue[0],
                lane=0,
                want=MOVED_AT_ONCE,
                owner=None,
                replica="bench",
                claim_id=str(uuid.uuid4()),
                not_after=await sweeps.now(self._db) + timedelta(seconds=10),
                lease_seconds=LEASE_SECONDS,
                pull=True,
            )
            if claim.verdict == "empty" and not claim.tasks:
                raise RuntimeError(f"only {len(claimed)} of {count} tasks were there to be claimed")
            claimed += claim.tasks
        return claimed

    async def _settle(self, claimed: Sequence[Claimed]) -> float:
        folding = asyncio.create_task(self._fold())
        shares = [claimed[n::CONNECTIONS] for n in range(CONNECTIONS)]
        begun = time.monotonic()
        await asyncio.gather(*(self._settle_share(share) for share in shares))
        took = time.monotonic() - begun
        folding.cancel()
        await asyncio.wait((folding,))
        return len(claimed) / took

    async def _settle_share(self, share: Sequence[Claimed]) -> None:
        for begin in range(0, len(share), SETTLED_AT_ONCE):
            group = [
                Outcome(task.task_id, task.token, "succeeded", "succeeded", status=200)
                for task in share[begin : begin + SETTLED_AT_ONCE]
            ]
            verdicts = await tasks.settle(self._db, group)
            if set(verdicts.values()) != {"applied"}:
                raise RuntimeError(f"not all of a group was settled: {verdicts}")

    async def _fold(self) -> None:
        while True:
            await batches.fold(self._db, FOLD_LIMIT)
            await asyncio.sleep(FOLD_SECONDS)
