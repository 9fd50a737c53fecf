"""What all measures stand on: one durable Postgres, one minimal handler, a bare table beside Sluice's, and fresh subjects.

Each subject has a database of its own, copied from one that was migrated once, so that no measure inherits another's rows.
"""

import contextlib
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import asyncpg

from app.embedded.postgres import EmbeddedPostgres
from bench import ceiling
from bench.figures import milliseconds, paired
from bench.processes import Child, cpu_seconds
from bench.sizes import Size
from bench.statements import StatementLog
from bench.subject import HandlerReports, Replica, Reports, Subject

WAY_MAX_SECONDS = 90.0
HANDLER = "bench"
QUEUE = "bench"
FILL = "insert into bare (id, payload) select gen_random_uuid(), $1 from generate_series(1, $2)"
# Statements are logged only where a measure asks for it.
OPTIONS = {"log_line_prefix": "%m [%p] %d ", "log_parameter_max_length": "0"}

WAL_SEGMENTS = 60
"""Of 16 MB: as many as the server keeps, of which one has been in use."""

KEPT = ("per_second", "delivered", "backlog_max", "backlog_thirds")

Side = Callable[[], Awaitable[float]]


class Way(NamedTuple):
    """What a whole way cost, per task."""

    per_second: float
    service_us: float
    postgres_us: float
    """CPU time while delivering and settling."""
    enqueue_wal_bytes: float
    deliver_wal_bytes: float


def costs(ways: Sequence[Way]) -> dict[str, float]:
    """CPU time per task, in microseconds: medians."""
    return {name: statistics.median(getattr(way, name) for way in ways) for name in ("service_us", "postgres_us")}


@dataclass(slots=True)
class Ground:
    size: Size
    directory: Path
    stack: contextlib.AsyncExitStack
    """Ends what was started."""
    postgres: EmbeddedPostgres
    server: asyncpg.Connection
    bare: asyncpg.Connection
    handler_url: str
    reports: HandlerReports
    deliverer: Child
    problems: list[str] = field(default_factory=list)
    """Errors, lost tasks, limits that were not exact: not missed targets."""
    subjects: int = 0

    def database(self, name: str) -> str:
        return database(self.postgres, name)

    @property
    def statements(self) -> StatementLog:
        return StatementLog(self.server, self.postgres.directory.log_file)

    async def child(self, module: str, *arguments: str) -> tuple[Child, dict[str, Any]]:
        """A process that runs until the end, and what it said when it was ready."""
        return await started(self.stack, self.directory, module, *arguments)

    @contextlib.asynccontextmanager
    async def subject(self, role: str = "all", path: str = "/count", **settings: str) -> AsyncIterator[Subject]:
        """One replica on an empty database, with the queue `bench` and its handler `bench`, at this path. `settings` are variables
        of its environment."""
        self.subjects += 1
        name = f"subject_{self.subjects}"
        await self.server.execute(f"create database {name} template sluice")
        subject = await Subject.start(self.database(name), self.directory, name, role, **settings)
        try:
            await subject.handler(HANDLER, self.handler_url + path)
            await subject.queue(QUEUE, HANDLER)
            yield subject
        finally:
            await subject.stop()
            await self.server.execute(f"drop database {name} with (force)")

    async def rounds(
        self, base: Side, ours: Side, count: int, names: tuple[str, str] = ("bare", "sluice")
    ) -> dict[str, Any]:
        """Pairs, and each round the other side first: whatever the first leaves behind falls on both alike."""
        found: tuple[list[float], list[float]] = ([], [])
        # The first of each side meets cold caches and unopened connections, and is not counted.
        if self.size.warmed:
            await base()
            await ours()
        for number in range(count):
            sides = list(zip((base, ours), found, strict=True))
            for run, into in sides if number % 2 == 0 else reversed(sides):
                into.append(await run())
        return paired(*found, names)

    async def bare_way(self, at_once: int = ceiling.WORKERS * ceiling.CLAIM_GROUP) -> float:
        """Tasks/s of the bare loop from a table that holds all of them, with at most so many between their claim and their
        settle."""
        await self.bare.execute("truncate bare")
        await self.bare.execute(FILL, ceiling.PAYLOAD, self.size.tasks)
        await self.bare.execute("vacuum (analyze) bare")
        return await self._bare(f"0 {at_once // ceiling.WORKERS}")

    async def bare_both(self, seconds: float) -> float:
        """Tasks/s of the bare loop that inserts and delivers at once."""
        await self.bare.execute("truncate bare")
        return await self._bare(f"{seconds} {ceiling.CLAIM_GROUP}", seconds)

    async def _bare(self, line: str, seconds: float = 0.0) -> float:
        await self.reports.take()
        self.deliverer.tell(line)
        said = await self.deliverer.heard("emptied", seconds + WAY_MAX_SECONDS)
        self.expect(said["tasks"], (await self.reports.take())["count"], "bare")
        return float(said["tasks"] / said["seconds"])

    async def way(self, subject: Subject, queues: Sequence[str] = (QUEUE,)) -> float:
        """Tasks/s from opening the handler, with fewer tasks stored, until all have been delivered and settled."""
        return (await self.whole_way(subject, self.size.fewer_tasks, queues)).per_second

    async def whole_way(
        self,
        subject: Subject,
        tasks: int,
        queues: Sequence[str] = (QUEUE,),
        keys: int = 0,
        handler: str = HANDLER,
        reports: Reports | None = None,
    ) -> Way:
        """`tasks` is a multiple of the number of queues. With `keys`, they have so many, in turns. `reports` are those of what
        `handler` leads to; without them, it leads to the minimal handler."""
        reports = reports or self.reports
        await subject.close(handler)
        began = await self._wal()
        await subject.preload(list(queues), tasks, keys)
        stored = await self._wal()
        await subject.settle_down()
        await reports.take()
        cpu, wal, begun = self._cpu(subject), await self._wal(), time.monotonic()
        await subject.open(handler)
        ended = await subject.until_settled(list(queues), tasks, reports, WAY_MAX_SECONDS)
        took = time.monotonic() - begun
        service, postgres = (after - before for after, before in zip(self._cpu(subject), cpu, strict=True))
        settled = await self._wal()
        delivered = (await reports.take())["count"]
        if not ended:
            self.problems.append(f"only {delivered} of {tasks} tasks settled within {WAY_MAX_SECONDS:.0f} s")
        self.expect(tasks, delivered, "sluice")
        return Way(
            tasks / took,
            service / tasks * 1e6,
            postgres / tasks * 1e6,
            (stored - began) / tasks,
            (settled - wal) / tasks,
        )

    def _cpu(self, subject: Subject) -> tuple[float, float]:
        """Seconds that the service and Postgres have used."""
        return sum(replica.child.cpu_seconds() for replica in subject.replicas), cpu_seconds(self.postgres.pid or 0)

    async def _wal(self) -> int:
        """Bytes of WAL that the server has written."""
        return int(await self.server.fetchval("select pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))

    async def paced(
        self, subject: Subject, seconds: float, rate: float | None = None, queues: int = 0
    ) -> dict[str, Any]:
        """Enqueue and deliver at once, at this rate or at the one that the subject can drain; what came of it.

        With `queues`, the tasks go to bench-0, bench-1 and so on, in turns.
        """
        options = ["--seconds", str(seconds), "--find-seconds", str(self.size.find_seconds)]
        options += ["--rate", str(rate)] if rate else []
        options += ["--queues", str(queues)] if queues else []
        url = subject.tasks_url(f"{QUEUE}-{{}}" if queues else QUEUE)
        load = await Child.python("bench.pace", url, self.handler_url, *options, output=self.directory / "pace.log")
        found = await load.heard("paced", seconds + self.size.find_seconds + 80)
        await load.stop()
        if found["errors"]:
            self.problems.append(f"{found['errors']} errors at {url}: {found['first_error']}")
        self.expect(found["acknowledged"], found["delivered"], "enqueued and delivered at once")
        delays = [nanoseconds / 1e9 for nanoseconds in found.pop("delays_ns")]
        return {name: found[name] for name in KEPT} | {"start_delay": milliseconds(delays)}

    def expect(self, tasks: int, delivered: int, side: str) -> None:
        if tasks != delivered:
            self.problems.append(f"{side}: {tasks} tasks, {delivered} deliveries")


async def lay(size: Size, directory: Path, stack: contextlib.AsyncExitStack) -> Ground:
    """Start what all measures share; `stack` ends it."""
    postgres = EmbeddedPostgres(directory / "data", options=OPTIONS)
    dsn = await postgres.start()
    stack.push_async_callback(postgres.stop)
    server = await asyncpg.connect(database(postgres, "postgres"))
    stack.push_async_callback(server.close)
    migrated = await Replica.start(dsn, directory, "sluice-migrated")
    await migrated.stop()
    await keep_wal(server)
    await server.execute("create database bare")
    bare = await asyncpg.connect(database(postgres, "bare"))
    stack.push_async_callback(bare.close)
    await bare.execute(ceiling.SCHEMA)
    _, said = await started(stack, directory, "bench.handler")
    url = said["url"]
    deliverer, _ = await started(
        stack, directory, "bench.ceiling", "deliver", database(postgres, "bare"), f"{url}/count"
    )
    return Ground(size, directory, stack, postgres, server, bare, url, HandlerReports(url), deliverer)


async def keep_wal(server: asyncpg.Connection) -> None:
    """Let the server have WAL files to use again, as any has after its first gigabyte. A new one writes each file anew before it is
    used, and all commits wait for that, so a rate would depend on the WAL that was written before."""
    for _ in range(WAL_SEGMENTS):
        await server.execute("select pg_logical_emit_message(false, '', '')")
        await server.execute("select pg_switch_wal()")
    await server.execute("checkpoint")


def database(postgres: EmbeddedPostgres, name: str) -> str:
    return postgres.dsn.replace("/sluice?", f"/{name}?")


async def started(
    stack: contextlib.AsyncExitStack, directory: Path, module: str, *arguments: str
) -> tuple[Child, dict[str, Any]]:
    name = "-".join([module, *arguments[:1]])
    child = await Child.python(module, *arguments, output=directory / f"{name}.log")
    stack.push_async_callback(child.stop)
    return child, await child.heard("ready", 20)
