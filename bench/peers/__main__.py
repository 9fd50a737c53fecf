"""Sluice beside other queues: the same jobs, each one POST to the same nginx, in rounds that every contestant takes part in.

    python -m bench.peers [--iterations 5] [--jobs 10000] [--only NAME,…] [--processes 1,2] [--json FILE]

A round: every contestant in turn has its jobs put into its store, works until nginx has served them all and the store has
recorded all ends, and, with one process, enqueues one by one for a while. The order rotates with the rounds. Ratios are
medians of each round's own. A full run is saved under bench/results with a chart. bench/peers/README.md says the rest.
"""

import argparse
import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import uvloop

from app.embedded.directory import EmbeddedError
from app.embedded.postgres import EmbeddedPostgres
from bench.ground import keep_wal
from bench.machine import machine
from bench.peers import report, roster
from bench.peers.contestants import Bare, Contestant, Peer, Postgres, Sluice
from bench.peers.servers import Nginx, Redis
from bench.processes import ROOT, ChildFailed, cpu_seconds

ITERATIONS = 5
JOBS = 10_000
NAMES = ("sluice", "bare", *(entry.name for entry in roster.ENTRIES))
MAX_CONNECTIONS = "400"
SLOWEST_PER_SECOND = 50
WARM_UP_SECONDS = 0.3
AFTERWARDS_SECONDS = 0.1
"""How long a job that is delivered twice has to show itself."""


@dataclass(frozen=True)
class Plan:
    iterations: int
    jobs: int
    processes: Sequence[int]
    names: Sequence[str]

    @property
    def enqueue_seconds(self) -> float:
        return min(2.0, max(0.5, self.jobs / 5_000))

    @property
    def turn_max_seconds(self) -> float:
        return 30 + self.jobs / SLOWEST_PER_SECOND


@dataclass
class Bench:
    plan: Plan
    postgres: EmbeddedPostgres
    nginx: Nginx
    redis: Redis | None
    contestants: list[Contestant]
    problems: list[str] = field(default_factory=list)

    async def rounds(self, processes: int) -> dict[str, list[dict[str, Any]]]:
        """The turns of each contestant, one per round; a turn that failed is empty."""
        for contestant in self.contestants:
            while len(contestant.workers) < processes:
                await contestant.add_worker()
            # The first meets cold caches, unopened connections and code that no compiler has seen, and is not counted.
            await self._deliveries(contestant, self.plan.jobs)
            if processes == 1:
                await contestant.enqueue(WARM_UP_SECONDS)
        turns: dict[str, list[dict[str, Any]]] = {contestant.name: [] for contestant in self.contestants}
        for number in range(self.plan.iterations):
            first = number % len(self.contestants)
            for contestant in [*self.contestants[first:], *self.contestants[:first]]:
                progress(f"{processes} process{'es' * (processes > 1)}, round {number + 1}: {contestant.name}")
                turns[contestant.name].append(await self._turn(contestant, processes))
        return turns

    async def _turn(self, contestant: Contestant, processes: int) -> dict[str, Any]:
        turn = await self._deliveries(contestant, self.plan.jobs)
        if turn and processes == 1:
            turn["enqueues"] = await contestant.enqueue(self.plan.enqueue_seconds)
        return turn

    async def _deliveries(self, contestant: Contestant, jobs: int) -> dict[str, Any]:
        await contestant.fill(jobs)
        served, spent = await self.nginx.served(), self._spent(contestant)
        begun = time.perf_counter()
        deadline = begun + self.plan.turn_max_seconds
        contestant.work()
        # The store is asked only when nginx has had all: until then the asking would slow it down.
        while (delivered := await self.nginx.served() - served) < jobs and time.perf_counter() < deadline:
            await asyncio.sleep(0.01)
        while not (settled := await contestant.settled()) and time.perf_counter() < deadline:
            await asyncio.sleep(0.005)
        seconds = time.perf_counter() - begun
        spent_after = self._spent(contestant)
        await contestant.rest()
        await asyncio.sleep(AFTERWARDS_SECONDS)
        delivered = await self.nginx.served() - served
        if delivered != jobs or not settled:
            still = "" if settled else ", and not all settled"
            self.problems.append(f"{contestant.name}: {jobs:,} jobs, {delivered:,} deliveries{still}")
            return {}
        return {
            "per_second": jobs / seconds,
            "cpu_us": {part: (spent_after[part] - spent[part]) / jobs * 1e6 for part in spent},
        }

    def _spent(self, contestant: Contestant) -> dict[str, float]:
        store = self.redis.child.process.pid if contestant.store == roster.REDIS and self.redis else self.postgres.pid
        assert store is not None
        return {
            "worker": sum(worker.cpu_seconds() for worker in contestant.workers),
            "store": cpu_seconds(store) + ended_children_seconds(store),
            "handler": self.nginx.child.cpu_seconds(),
        }


def ended_children_seconds(pid: int) -> float:
    """What the children of a process had used that have ended: connections that were closed, autovacuum."""
    # cutime and cstime, fields 16 and 17 of stat; the name, field 2, is in brackets and may hold anything
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")


async def run(plan: Plan, directory: Path) -> dict[str, Any]:
    load_before = os.getloadavg()[0]
    async with contextlib.AsyncExitStack() as stack:
        postgres = EmbeddedPostgres(directory / "data", options={"max_connections": MAX_CONNECTIONS})
        dsn = await postgres.start()
        stack.push_async_callback(postgres.stop)
        server = await asyncpg.connect(dsn)
        stack.push_async_callback(server.close)
        await keep_wal(server)
        nginx = await Nginx.start(directory)
        stack.push_async_callback(nginx.stop)
        redis = None
        if any(entry.store == roster.REDIS for entry in roster.ENTRIES if entry.name in plan.names):
            redis = await Redis.start(directory, stack.enter_context(short_directory()) / "redis.sock")
            stack.push_async_callback(redis.stop)
        contestants = [await contestant(name, dsn, redis, directory, nginx.url) for name in plan.names]
        for each in contestants:
            stack.push_async_callback(each.stop)
        bench = Bench(plan, postgres, nginx, redis, contestants)
        turns = {str(processes): await bench.rounds(processes) for processes in plan.processes}
        postgres_version = await server.fetchval("show server_version")
        return {
            "machine": machine(directory, postgres_version, load_before),
            "versions": roster.versions(plan.names),
            "plan": {"iterations": plan.iterations, "jobs": plan.jobs, "enqueue_seconds": plan.enqueue_seconds},
            "turns": turns,
            "problems": bench.problems,
        }


async def contestant(name: str, dsn: str, redis: Redis | None, directory: Path, handler_url: str) -> Contestant:
    if name == Sluice.name:
        return Sluice(dsn, directory, handler_url)
    entry = roster.named(name)
    if entry is not None and entry.store == roster.REDIS:
        assert redis is not None
        return Peer(entry, redis, directory, handler_url)
    database = await database_of(name, dsn)
    if entry is None:
        return Bare(database, directory, handler_url)
    return Peer(entry, await Postgres.open(database), directory, handler_url)


async def database_of(name: str, dsn: str) -> str:
    """A database of its own on the one server; its address."""
    database = name.replace("-", "_")
    server = await asyncpg.connect(dsn)
    await server.execute(f"create database {database}")
    await server.close()
    return dsn.replace("/sluice?", f"/{database}?")


@contextlib.contextmanager
def short_directory() -> Any:
    """For a Unix socket, whose path may have 107 characters at most."""
    with tempfile.TemporaryDirectory(prefix="bench-") as path:
        yield Path(path)


def progress(text: str) -> None:
    print(f"bench-peers: {text}", file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--iterations", type=int, default=ITERATIONS, help="rounds; fewer than 5 are saved nowhere by themselves"
    )
    parser.add_argument("--jobs", type=int, default=JOBS, help="per contestant and round")
    parser.add_argument("--processes", default="1,2", help="numbers of worker processes")
    parser.add_argument("--only", default=",".join(NAMES), help="contestants, by name")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    given = parser.parse_args()
    given.names = [name for name in NAMES if name in given.only.split(",")]
    if unknown := set(given.only.split(",")) - set(NAMES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    return given


def main() -> int:
    given = arguments()
    plan = Plan(given.iterations, given.jobs, [int(count) for count in given.processes.split(",")], given.names)
    # Beside the code and not in the temp directory, which may be memory: commits must reach a disk.
    (ROOT / "build").mkdir(exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="bench-peers-", dir=ROOT / "build"))
    try:
        result = uvloop.run(run(plan, directory))
    except (ChildFailed, EmbeddedError, RuntimeError) as failure:
        print(f"bench-peers: {failure}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(report.table(result))
    if given.json:
        report.save(result, given.json)
    if plan.iterations >= ITERATIONS and plan.jobs >= JOBS and len(plan.names) == len(NAMES):
        about = result["machine"]
        report.save(result, ROOT / "bench" / "results" / f"{about['at'][:10]}-{about['commit']}-peers.json")
    return 1 if result["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
