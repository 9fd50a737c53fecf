"""What Sluice costs, beside what the machine gives: both in one run, on one durable Postgres, with one minimal handler.

    python -m bench [--short] [--ceilings] [--json FILE]

Rounds are paired and interleaved, and a ratio is the median of each round's own. Enqueue: 64 keep-alive connections,
one POST a task, answered after commit. End to end: tasks wait in a paused queue; from the resume until all have been
delivered and settled. Settling: leased tasks written as succeeded, in groups of 100 over 4 connections; the ceiling here
is Sluice too, with tasks that are of no batch, and beside it as many that are one batch. Start delay: one task at a time
into an idle service, from the POST to the handler's call.
A full run is saved under bench/results.
"""

import argparse
import contextlib
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import uvloop

from app.embedded.directory import EmbeddedError
from app.embedded.postgres import EmbeddedPostgres
from bench import ceiling, firing, measures
from bench.processes import ROOT, Child, ChildFailed
from bench.settling import Settling
from bench.subject import PAYLOAD, HandlerReports, Subject

ROUND_MAX_SECONDS = 60.0
FILL = "insert into bare (id, payload) select gen_random_uuid(), $1 from generate_series(1, $2)"


@dataclass(frozen=True)
class Plan:
    rounds: int
    enqueue_seconds: float
    tasks: int
    delays: int
    settled: int
    settling_rounds: int
    fire_rounds: int


FULL = Plan(rounds=5, enqueue_seconds=3.0, tasks=20_000, delays=200, settled=100_000, settling_rounds=3, fire_rounds=3)
SHORT = Plan(rounds=2, enqueue_seconds=1.5, tasks=4_000, delays=60, settled=10_000, settling_rounds=2, fire_rounds=1)


class Bench:
    def __init__(self, plan: Plan, directory: Path, dsn: str, handler: Child, handler_url: str) -> None:
        self.plan = plan
        self.directory = directory
        self.dsn = dsn
        self.handler = handler
        self.handler_url = handler_url
        self.reports = HandlerReports(handler_url)
        self.problems: list[str] = []

    async def enqueues(self, url: str) -> float:
        load = await Child.python(
            "bench.loadgen",
            *(url, "--seconds", str(self.plan.enqueue_seconds)),
            output=self.directory / "loadgen.log",
        )
        said = await load.heard("loaded", self.plan.enqueue_seconds + 20)
        await load.stop()
        if said["errors"] or said["broken"]:
            self.problems.append(f"{said['errors']} errors, {said['broken']} broken at {url}: {said['first_error']}")
        return float(said["per_second"])

    async def bare_way(self, deliverer: Child, database: asyncpg.Connection) -> float:
        await database.execute("truncate bare")
        await database.execute(FILL, repr(PAYLOAD).encode(), self.plan.tasks)
        await database.execute("analyze bare")
        await self.reports.take()
        deliverer.tell("go")
        said = await deliverer.heard("emptied", ROUND_MAX_SECONDS)
        self._expect(said["tasks"], (await self.reports.take())["count"], "bare")
        return float(said["tasks"] / said["seconds"])

    async def sluice_way(self, subject: Subject) -> float:
        await subject.pause("bench-deliver")
        await subject.preload("bench-deliver", self.plan.tasks)
        await self.reports.take()
        begun = time.monotonic()
        await subject.resume("bench-deliver")
        ended = await subject.until_ended("bench-deliver", ROUND_MAX_SECONDS)
        took = time.monotonic() - begun
        delivered = (await self.reports.take())["count"]
        if ended:
            self._expect(self.plan.tasks, delivered, "sluice")
        else:
            self.problems.append(f"only {delivered} of {self.plan.tasks} delivered within {ROUND_MAX_SECONDS:.0f} s")
        return float(delivered / took)

    def _expect(self, tasks: int, delivered: int, side: str) -> None:
        if tasks != delivered:
            self.problems.append(f"{side}: {tasks} tasks, {delivered} deliveries")

    async def rounds(
        self, bare: Callable[[], Awaitable[float]], ours: Callable[[], Awaitable[float]] | None
    ) -> dict[str, Any]:
        """Pairs, and each round the other side first: whatever the first leaves behind falls on both alike."""
        ceilings: list[float] = []
        sluices: list[float] = []
        # The first of each side meets cold caches and unopened connections, and is not counted.
        await bare()
        if ours:
            await ours()
        for number in range(self.plan.rounds):
            sides = [(bare, ceilings)] + ([(ours, sluices)] if ours else [])
            for run, into in sides if number % 2 == 0 else reversed(sides):
                into.append(await run())
        return measures.paired(ceilings, sluices)


async def run(plan: Plan, only_ceilings: bool, directory: Path) -> dict[str, Any]:
    load_before = os.getloadavg()[0]
    async with contextlib.AsyncExitStack() as stack:
        postgres = EmbeddedPostgres(directory / "data")
        own_dsn = await postgres.start()
        stack.push_async_callback(postgres.stop)
        database, dsn = await bare_database(own_dsn)
        stack.push_async_callback(database.close)

        handler, said = await started(stack, directory, "bench.handler")
        bench = Bench(plan, directory, dsn, handler, said["url"])
        bare_enqueue, at = await started(stack, directory, "bench.ceiling", "enqueue", dsn)
        deliverer, _ = await started(stack, directory, "bench.ceiling", "deliver", dsn, f"{said['url']}/count")
        subject = None if only_ceilings else await sluice(stack, bench, own_dsn)

        async def our_enqueues() -> float:
            assert subject is not None
            return await bench.enqueues(subject.tasks_url("bench-enqueue"))

        async def our_way() -> float:
            assert subject is not None
            return await bench.sluice_way(subject)

        progress("enqueue")
        enqueue = await bench.rounds(lambda: bench.enqueues(at["url"]), our_enqueues if subject else None)
        await bare_enqueue.stop()
        progress("end to end")
        end_to_end = await bench.rounds(lambda: bench.bare_way(deliverer, database), our_way if subject else None)
        # before the batch, which leaves the vacuum much to do
        delays = await idle(bench, subject) if subject else None
        settle = await settled(bench, subject, own_dsn) if subject else None
        lags, idle_schedules = await schedules(bench, subject, own_dsn) if subject else (None, None)
        return {
            "machine": measures.machine(directory, await database.fetchval("show server_version"), load_before),
            "plan": vars(plan),
            "enqueue": enqueue,
            "end_to_end": end_to_end,
            "settle_of_one_batch": settle,
            "start_delay": delays,
            "fire_lag": lags,
            "idle_schedules": idle_schedules,
            "memory_mb": subject.child.resident_mb() if subject else None,
            "problems": bench.problems,
        }


async def bare_database(dsn: str) -> tuple[asyncpg.Connection, str]:
    """A database beside Sluice's on the same server, so that both pay for the same disk."""
    server = await asyncpg.connect(dsn)
    await server.execute("create database bare")
    await server.close()
    bare = dsn.replace("/sluice?", "/bare?")
    database = await asyncpg.connect(bare)
    await database.execute(ceiling.SCHEMA)
    return database, bare


async def started(
    stack: contextlib.AsyncExitStack, directory: Path, module: str, *arguments: str
) -> tuple[Child, dict[str, Any]]:
    name = "-".join([module, *arguments[:1]])
    child = await Child.python(module, *arguments, output=directory / f"{name}.log")
    stack.push_async_callback(child.stop)
    return child, await child.heard("ready", 20)


async def sluice(stack: contextlib.AsyncExitStack, bench: Bench, dsn: str) -> Subject:
    subject = await Subject.start(dsn, bench.directory)
    stack.push_async_callback(subject.stop)
    await subject.define(bench.handler_url)
    return subject


async def settled(bench: Bench, subject: Subject, dsn: str) -> dict[str, Any]:
    progress("settling")
    settling = await Settling.on(subject, dsn)
    try:
        await settling.round(bench.plan.settled // 10)  # cold caches and unopened connections
        found = [await settling.round(bench.plan.settled) for _ in range(bench.plan.settling_rounds)]
    finally:
        await settling.close()
    return measures.paired([plain for plain, _ in found], [batch for _, batch in found])


async def idle(bench: Bench, subject: Subject) -> dict[str, Any]:
    progress("start delay")
    await subject.start_delays("bench-idle", 10, bench.reports)
    delays = sorted(await subject.start_delays("bench-idle", bench.plan.delays, bench.reports))
    if len(delays) != bench.plan.delays:
        bench.problems.append(f"{len(delays)} of {bench.plan.delays} single tasks arrived")
    return {
        "p50_ms": measures.quantile(delays, 0.50) * 1000,
        "p99_ms": measures.quantile(delays, 0.99) * 1000,
        "samples": len(delays),
    }


async def schedules(bench: Bench, subject: Subject, dsn: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    database = await asyncpg.connect(dsn)
    try:
        progress("fire lag")
        lags = await firing.lags(subject, database, tuple(firing.PERIODS), bench.plan.fire_rounds)
        bench.problems += [
            f"{lag['schedules']} schedules fired {lag['fired']} times" for lag in lags if not lag["exact"]
        ]
        progress("idle with schedules")
        return lags, await firing.idle_costs(subject, database)
    finally:
        await database.close()


def progress(text: str) -> None:
    print(f"bench: {text} …", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="two rounds, under two minutes, saved nowhere by itself")
    parser.add_argument("--ceilings", action="store_true", help="the bare ceilings alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    given = parser.parse_args()
    # Beside the code and not in the temp directory, which may be memory: commits must reach a disk.
    (ROOT / "build").mkdir(exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="bench-", dir=ROOT / "build"))
    random.seed(1)
    try:
        result = uvloop.run(run(SHORT if given.short else FULL, given.ceilings, directory))
    except (ChildFailed, EmbeddedError, RuntimeError) as failure:
        print(f"bench: {failure}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(measures.table(result))
    if given.json:
        measures.save(result, given.json)
    if not given.short and not given.ceilings:
        about = result["machine"]
        measures.save(result, ROOT / "bench" / "results" / f"{about['at'][:10]}-{about['commit']}.json")
    return 1 if result["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
