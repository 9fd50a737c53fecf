"""Who is compared: each fills its store with jobs, works until they are settled, and enqueues one by one.

Workers are started once and keep their connections; `work` and `rest` say when they may take jobs, so that a round pays
neither for a start nor for another contestant's polling.
"""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import asyncpg

from bench import ceiling
from bench.ground import FILL
from bench.peers import roster
from bench.peers.roster import Entry
from bench.peers.servers import Redis
from bench.processes import Child, ChildFailed
from bench.subject import Subject

QUEUE, ENQUEUE_QUEUE = "bench", "bench-enqueue"
START_SECONDS = 60.0
FILL_SECONDS = 120.0
REST_SECONDS = 60.0
TIDY = "vacuum (analyze)"
"""Leaves the tables as autovacuum would, so that it does not come in the middle of a round."""


class Contestant(Protocol):
    name: str
    store: str
    workers: list[Child]

    async def add_worker(self) -> None:
        """Start one more worker process, which rests."""

    async def fill(self, jobs: int) -> None:
        """Make this many jobs ready, and none else. The figures do not cover it."""

    def work(self) -> None:
        """Let all workers take jobs."""

    async def settled(self) -> bool:
        """Whether the store has recorded the end of every job."""

    async def rest(self) -> None:
        """Let no worker take jobs any more."""

    async def enqueue(self, seconds: float) -> float | None:
        """Single enqueues per second of 64 callers; None where that is measured elsewhere."""

    async def stop(self) -> None: ...


class Sluice:
    name = "sluice"
    store = roster.POSTGRES

    def __init__(self, dsn: str, directory: Path, handler_url: str) -> None:
        self.workers: list[Child] = []
        self._dsn = dsn
        self._directory = directory
        self._handler_url = handler_url
        self._subject: Subject | None = None
        self._resuming: asyncio.Task[None] | None = None

    @property
    def subject(self) -> Subject:
        assert self._subject is not None
        return self._subject

    async def add_worker(self) -> None:
        if self._subject is None:
            self._subject = await Subject.start(self._dsn, self._directory, "sluice")
            await self.subject.handler("bench", self._handler_url)
            for queue in (QUEUE, ENQUEUE_QUEUE):
                await self.subject.queue(queue, "bench")
                await self.subject.pause(queue)
        else:
            await self.subject.add_replicas(1)
        self.workers = [replica.child for replica in self.subject.replicas]

    async def fill(self, jobs: int) -> None:
        # what single enqueues have left in the other queue
        await self.subject.database.execute("delete from sluice.tasks")
        await self.subject.preload([QUEUE], jobs)
        await self.subject.database.execute(TIDY)

    def work(self) -> None:
        self._resuming = asyncio.ensure_future(self.subject.resume(QUEUE))

    async def settled(self) -> bool:
        ids = await self.subject.queue_ids([QUEUE])
        return not await self.subject.database.fetchval(
            "select exists (select from sluice.tasks where queue_id = any($1))", ids
        )

    async def rest(self) -> None:
        assert self._resuming is not None
        await self._resuming
        await self.subject.pause(QUEUE)

    async def enqueue(self, seconds: float) -> float:
        load = await Child.python(
            "bench.loadgen",
            *(self.subject.tasks_url(ENQUEUE_QUEUE), "--seconds", str(seconds)),
            output=self._directory / "loadgen.log",
        )
        said = await load.heard("loaded", seconds + REST_SECONDS)
        await load.stop()
        if said["errors"] or said["broken"]:
            raise ChildFailed(f"{said['errors']} errors, {said['broken']} broken: {said['first_error']}")
        return float(said["per_second"])

    async def stop(self) -> None:
        if self._subject is not None:
            await self._subject.stop()


class Bare:
    """The loop of bench/ceiling.py: what is left without any feature."""

    name = "bare"
    store = roster.POSTGRES

    def __init__(self, dsn: str, directory: Path, handler_url: str) -> None:
        self.workers: list[Child] = []
        self._dsn = dsn
        self._directory = directory
        self._handler_url = handler_url
        self._database: Postgres | None = None

    async def add_worker(self) -> None:
        if self._database is None:
            self._database = await Postgres.open(self._dsn)
            await self._database.connection.execute(ceiling.SCHEMA)
        output = self._directory / f"bare-{len(self.workers) + 1}.log"
        child = await Child.python("bench.ceiling", "deliver", self._dsn, self._handler_url, output=output)
        await child.heard("ready", START_SECONDS)
        self.workers.append(child)

    async def fill(self, jobs: int) -> None:
        assert self._database is not None
        await self._database.clear(["truncate bare"])
        await self._database.connection.execute(FILL, ceiling.PAYLOAD, jobs)
        await self._database.tidy()

    def work(self) -> None:
        for worker in self.workers:
            worker.tell("0")

    async def settled(self) -> bool:
        assert self._database is not None
        return not await self._database.any_of(["exists (select from bare where state <> 2)"])

    async def rest(self) -> None:
        for worker in self.workers:
            await worker.heard("emptied", REST_SECONDS)

    async def enqueue(self, seconds: float) -> None:
        return None

    async def stop(self) -> None:
        for worker in self.workers:
            await worker.stop()
        if self._database is not None:
            await self._database.close()


class Peer:
    """A peer's program (bench/peers/programs), once as the client that enqueues and once per worker."""

    def __init__(self, entry: Entry, database: "Postgres | Redis", directory: Path, handler_url: str) -> None:
        self.name = entry.name
        self.store = entry.store
        self.workers: list[Child] = []
        self._entry = entry
        self._database = database
        self._directory = directory
        self._handler_url = handler_url
        self._client: Child | None = None

    async def add_worker(self) -> None:
        if self._client is None:
            # The client makes the schema, which the workers expect to be there.
            self._client = await self._start("client")
        self.workers.append(await self._start("worker"))

    async def _start(self, role: str) -> Child:
        words = [*roster.command(self._entry), role, self._database.address, self._handler_url]
        child = await Child.start(words, self._directory / f"{self.name}-{role}-{len(self.workers) + 1}.log")
        try:
            await child.heard("ready", START_SECONDS)
        except ChildFailed:
            await child.stop()
            raise
        return child

    async def fill(self, jobs: int) -> None:
        await self._database.clear(self._entry.clear)
        await self._ask(self._client, FILL_SECONDS, do="fill", jobs=jobs)
        await self._database.tidy()

    def work(self) -> None:
        for worker in self.workers:
            worker.tell(json.dumps({"do": "work"}))

    async def settled(self) -> bool:
        return not await self._database.any_of(self._entry.unfinished)

    async def rest(self) -> None:
        for worker in self.workers:
            await worker.heard("work", REST_SECONDS)
            await self._ask(worker, REST_SECONDS, do="rest")

    async def enqueue(self, seconds: float) -> float:
        said = await self._ask(self._client, seconds + REST_SECONDS, do="enqueue", seconds=seconds)
        await self._database.clear(self._entry.clear)
        return float(said["enqueued"] / said["seconds"])

    async def stop(self) -> None:
        for child in [self._client, *self.workers]:
            if child is not None:
                await child.stop()
        await self._database.close()

    async def _ask(self, child: Child | None, within: float, **asked: Any) -> dict[str, Any]:
        assert child is not None
        child.tell(json.dumps(asked))
        return await child.heard(asked["do"], within)


class Postgres:
    """One contestant's database, looked at from outside."""

    def __init__(self, address: str, connection: asyncpg.Connection) -> None:
        self.address = address
        self.connection = connection

    @classmethod
    async def open(cls, dsn: str) -> Self:
        return cls(dsn, await asyncpg.connect(dsn))

    async def any_of(self, conditions: Sequence[str]) -> bool:
        return bool(await self.connection.fetchval(f"select {' or '.join(conditions)}"))

    async def clear(self, statements: Sequence[str]) -> None:
        for statement in statements:
            await self.connection.execute(statement)

    async def tidy(self) -> None:
        await self.connection.execute(TIDY)

    async def close(self) -> None:
        await self.connection.close()
