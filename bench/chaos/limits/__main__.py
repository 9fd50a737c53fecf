"""No limit is ever exceeded and nothing waits beside free room, whatever happens to the replicas: real processes, and a record.

    python -m bench.chaos.limits [--seconds 180] [--replicas 4] [--seed N] [--json]

Replicas are killed with kill -9, paused past their leases and restarted at random while tasks of 200 keys take named, keyed and
costly limits. These limits change meanwhile, keys and queues are paused, and the handler asks for many calls again. For the
first half, queues and the tenant have limits too. The rows that a claim locks for these would hide a missing lock elsewhere, so
there are none in the second half. Triggers record admissions and ends in the order of the commits (record.py); code that shares
nothing with the product judges the record when all is over (judge.py). Ends with 1 if anything is not exact. A run of 180
seconds or more is saved under bench/results.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import asyncpg
import httpx2

from app.embedded.directory import EmbeddedError
from app.embedded.postgres import EmbeddedPostgres
from bench import machine, report
from bench.chaos.limits import record
from bench.chaos.limits.handler import Trying
from bench.chaos.limits.judge import Verdict, judge
from bench.chaos.limits.load import Api, Editor, Operator, Puller, Senders
from bench.chaos.replicas import LEASE_SECONDS, Chaos, ConcurrencySlot
from bench.processes import ROOT, ChildFailed

MIN_SECONDS, FULL_SECONDS = 20.0, 180.0
HARMED = 2
"""Replicas that are killed or paused at a time: the others go on claiming."""
DRAIN_SECONDS = 120.0
STILL_SECONDS = 20.0
"""With nothing harmed, paused or sent any more, tasks of which none starts or ends for so long are stranded."""
PROGRESS_SECONDS = 5.0
LOOK_SECONDS = 0.25
SCRAPE_SECONDS = 1.0
RESCUED = re.compile(r"^sluice_flows_rescued_total(?:\{[^}]*\})? (\S+)$", re.MULTILINE)
_LEFT = "select count(*), (select max(n) from chaos.events) from sluice.tasks"
_DEADLOCKS = "select deadlocks from pg_stat_database where datname = current_database()"


class Run:
    def __init__(self, given: argparse.Namespace, directory: Path) -> None:
        self.given = given
        self.directory = directory
        self.begun = time.monotonic()
        self.left = 0
        self.events: int | None = None
        self.rescued: dict[Path, float] = {}
        """By process, as last seen."""

    def progress(self, text: str) -> None:
        print(f"chaos-limits: {time.monotonic() - self.begun:5.1f} s  {text}", file=sys.stderr, flush=True)

    async def whole(self) -> dict[str, Any]:
        load_before = os.getloadavg()[0]
        dice = random.Random(self.given.seed)
        async with contextlib.AsyncExitStack() as stack:
            postgres = EmbeddedPostgres(self.directory / "data")
            dsn = await postgres.start()
            stack.push_async_callback(postgres.stop)
            databases = [await asyncpg.connect(dsn) for _ in range(2)]
            for database in databases:
                stack.push_async_callback(database.close)
            slots = [ConcurrencySlot(number, dsn, self.directory, None) for number in range(self.given.replicas)]
            for slot in slots:
                stack.push_async_callback(slot.kill)
            await slots[0].start()  # it makes the tables
            await record.install(databases[0])
            await asyncio.gather(*(slot.start() for slot in slots[1:]))

            client = await stack.enter_async_context(httpx2.AsyncClient(trust_env=False))
            api = Api(slots, client, dice)
            operator = Operator(api, databases[0])
            await operator.set_up(await self._listen(stack, dice))
            self.progress(f"{len(slots)} replicas")
            chaos = Chaos(slots, random.Random(self.given.seed), self.progress, at_once=HARMED)
            settled = await self._harm(chaos, api, operator, databases[1])
            events = await record.read(databases[0])
            verdict = judge(events)
            return {
                "machine": machine.machine(
                    self.directory, await databases[0].fetchval("show server_version"), load_before
                ),
                "seconds": self.given.seconds,
                "replicas": self.given.replicas,
                "seed": self.given.seed,
                "lease_seconds": LEASE_SECONDS,
                **asdict(chaos.tally),
                "changes": operator.changes,
                "deadlocks": await databases[0].fetchval(_DEADLOCKS),
                "rescued": sum(self.rescued.values()),
                **_figures(verdict, settled),
            }

    async def _listen(self, stack: contextlib.AsyncExitStack, dice: random.Random) -> str:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Trying(dice), "127.0.0.1", 0, backlog=1024)
        stack.callback(server.close)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"

    async def _harm(self, chaos: Chaos, api: Api, operator: Operator, database: asyncpg.Connection) -> bool:
        """Send, change and harm for the given time; then let all that waits go on, and return whether it ended."""
        senders = Senders(api, lambda: self.left)
        beside = [self._watch(database), self._scrape(api), Puller(api).run(), Editor(api, senders).run()]
        async with asyncio.TaskGroup() as group:
            always = [group.create_task(work) for work in beside]
            sending = group.create_task(senders.run())
            changing = group.create_task(operator.run(self.given.seconds))
            await chaos.until(time.monotonic() + self.given.seconds)
            self.progress("the end; waiting for what is left")
            senders.stopping = True
            await asyncio.gather(sending, changing)
            settled = await self._settled()
            await asyncio.sleep(2 * SCRAPE_SECONDS)
            for task in always:
                await _stop(task)
        return settled

    async def _watch(self, database: asyncpg.Connection) -> None:
        last = 0.0
        while True:
            self.left, self.events = await database.fetchrow(_LEFT)
            if time.monotonic() > last + PROGRESS_SECONDS:
                last = time.monotonic()
                self.progress(f"{self.left:,} tasks left, {self.events or 0:,} events")
            await asyncio.sleep(LOOK_SECONDS)

    async def _scrape(self, api: Api) -> None:
        """Keep what each process has counted: the figures of one that is killed would be lost."""
        while True:
            for slot in api.slots:
                with contextlib.suppress(httpx2.HTTPError):
                    answer = await api.text("/metrics", slot)
                    self.rescued[slot.logs[-1]] = sum(float(value) for value in RESCUED.findall(answer))
            await asyncio.sleep(SCRAPE_SECONDS)

    async def _settled(self) -> bool:
        """Wait until every task has ended; return False once nothing happens any more, or it takes too long."""
        begun = still_at = time.monotonic()
        events = self.events
        while (now := time.monotonic()) < begun + DRAIN_SECONDS and now < still_at + STILL_SECONDS:
            if self.left == 0 and now > begun + 2 * LOOK_SECONDS:
                return True
            if self.events != events:
                events, still_at = self.events, now
            await asyncio.sleep(LOOK_SECONDS)
        return False


async def _stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _figures(verdict: Verdict, settled: bool) -> dict[str, Any]:
    lines = [
        {**asdict(line), "keys": len(line.keys), "fullest": round(line.fullest, 3)}
        for _, line in sorted(verdict.lines.items())
    ]
    totals = ("stored", "admitted", "ended", "stranded", "overlapping", "overtaking", "twice", "probes", "overtaken")
    return {
        "lines": lines,
        **{name: getattr(verdict, name) for name in totals},
        "over": sum(line["over"] for line in lines),
        "while_paused": sum(line["paused"] for line in lines),
        "above_rate": sum(line["above_rate"] for line in lines),
        "settled": settled,
        "faults": verdict.told(),
    }


def problems(result: dict[str, Any]) -> list[str]:
    """What a run that is not exact has found."""
    counted = [f"{result[what]:g} {what}" for what in ("deadlocks", "rescued") if result[what]]
    return [*result["faults"], *counted, *([] if result["settled"] else ["not settled"])]


def table(result: dict[str, Any]) -> str:
    columns = ("keys", "admitted", "most", "over", "paused", "above_rate")
    lines = [f"{'':<18}" + "".join(f"{column.replace('_', ' '):>12}" for column in columns) + f"{'fullest':>12}"]
    lines.append("-" * len(lines[0]))
    for line in result["lines"]:
        cells = "".join(f"{line[column]:>12,}" for column in columns)
        lines.append(f"{line['name']:<18}{cells}" + (f"{line['fullest']:>12.1%}" if line["fullest"] else ""))
    about, faults = result["machine"], problems(result)
    return "\n".join(
        [
            *lines,
            "",
            f"{result['admitted']:,} admissions of {result['stored']:,} tasks, {result['ended']:,} ended:"
            f" {result['over']} over a limit, {result['while_paused']} while paused, {result['above_rate']} above a rate,"
            f" {result['overlapping']} overlapping and {result['overtaking']} overtaking in order,"
            f" {result['twice']} twice, at most {result['overtaken']} of one key before one of {result['probes']} probes,"
            f" {result['stranded']} stranded, {result['rescued']:g} rescued,"
            f" {result['deadlocks']} deadlocks",
            f"{result['replicas']} replicas for {result['seconds']:.0f} s: {result['kills']} kills, {result['pauses']} pauses"
            f" past a lease of {result['lease_seconds']:.0f} s, {result['restarts']} restarts, {result['outages']} moment(s)"
            f" without any; {result['changes']} changes of limits and pauses; seed {result['seed']}",
            f"{about['cores']} x {about['cpu']}, load before {about['load_before']}, Postgres {about['postgres']},"
            f" commit {about['commit']}, {about['at']}",
            *(f"FAULT: {fault}" for fault in faults),
            "NOT EXACT" if faults else "exact",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=FULL_SECONDS, help=f"at least {MIN_SECONDS:.0f}")
    parser.add_argument("--replicas", type=int, default=4)
    parser.add_argument("--seed", type=int, default=random.randrange(10_000), help="for kills, pauses and changes")
    parser.add_argument("--json", action="store_true", help="say the result as JSON")
    given = parser.parse_args()
    if given.seconds < MIN_SECONDS:
        parser.error(f"--seconds: at least {MIN_SECONDS:.0f}")
    # beside the code and not in the temp directory, which may be memory: commits must reach a disk
    (ROOT / "build").mkdir(exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="chaos-limits-", dir=ROOT / "build"))
    try:
        # not uvloop: its transports forget their socket when they are closed, and httpx2 asks idle connections for theirs
        result = asyncio.run(Run(given, directory).whole())
    except (ChildFailed, EmbeddedError, RuntimeError, httpx2.HTTPError, ExceptionGroup) as failure:
        print(f"chaos-limits: {_first(failure)!r}; see {directory}", file=sys.stderr)
        return 1
    print(json.dumps(result) if given.json else table(result))
    if given.seconds >= FULL_SECONDS:
        about = result["machine"]
        report.save_json(result, ROOT / "bench" / "results" / f"{about['at'][:10]}-{about['commit']}-chaos-limits.json")
    if problems(result):
        print(f"chaos-limits: the logs are in {directory}", file=sys.stderr)
        return 1
    shutil.rmtree(directory, ignore_errors=True)
    return 0


def _first(failure: BaseException) -> BaseException:
    while isinstance(failure, ExceptionGroup):
        failure = failure.exceptions[0]
    return failure


if __name__ == "__main__":
    sys.exit(main())
