"""Every nominal time fires once, whatever happens to the replicas: real processes on one durable Postgres, and a count.

    python -m bench.chaos [--seconds 180] [--schedules 300] [--replicas 5] [--seed N] [--json]

Replicas are killed with kill -9, paused past their leases and restarted at random, all of them at once after a third; the
wall clocks of two are hours off. Which times have to fire is worked out from each definition alone, from its creation to the end.
They are held against the ledger, the tasks, and what a handler received. Ends with 1 if anything is not exact. A run of 180
seconds or more is saved under bench/results.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import httpx2

from app.embedded.directory import EmbeddedError
from app.embedded.postgres import EmbeddedPostgres
from bench import machine, report
from bench.chaos import ledger
from bench.chaos.definitions import Timed, build
from bench.chaos.handler import Call, Received
from bench.chaos.replicas import LEASE_SECONDS, Chaos, ConcurrencySlot, libfaketime
from bench.processes import ROOT, ChildFailed

QUEUE = "chaos"
MAKERS = 8
"""Schedules that are created at once."""
SETTLE_SECONDS = 180.0
PROGRESS_SECONDS = 5.0
MIN_SECONDS, FULL_SECONDS = 20.0, 180.0


class Run:
    def __init__(self, given: argparse.Namespace, directory: Path) -> None:
        self.given = given
        self.directory = directory
        self.begun = time.monotonic()
        self.expected: dict[Timed, list[datetime]] = {}
        self.calls: list[Call] = []

    def progress(self, text: str) -> None:
        print(f"chaos: {time.monotonic() - self.begun:5.1f} s  {text}", file=sys.stderr, flush=True)

    async def whole(self, library: Path | None) -> dict[str, Any]:
        load_before = os.getloadavg()[0]
        async with contextlib.AsyncExitStack() as stack:
            postgres = EmbeddedPostgres(self.directory / "data")
            dsn = await postgres.start()
            stack.push_async_callback(postgres.stop)
            database = await asyncpg.connect(dsn)
            stack.push_async_callback(database.close)
            hook = await self._listen(stack)

            slots = [ConcurrencySlot(number, dsn, self.directory, library) for number in range(self.given.replicas)]
            for slot in slots:
                stack.push_async_callback(slot.kill)
            await slots[0].start()  # it makes the tables
            await asyncio.gather(*(slot.start() for slot in slots[1:]))
            self.progress(f"{len(slots)} replicas, clocks off by {_skews(slots)}")

            end_at = datetime.now(UTC) + timedelta(seconds=self.given.seconds)
            deadline = time.monotonic() + self.given.seconds
            await self._define(slots, hook, end_at)
            self.progress(f"{len(self.expected)} schedules")
            chaos = Chaos(slots, random.Random(self.given.seed), self.progress)
            watching = asyncio.create_task(self._watch(database))
            try:
                await chaos.until(deadline)
                settled = await self._settled(database)
            finally:
                watching.cancel()
            verdict = await ledger.judge(database, self.expected, self.calls)
            if not settled:
                verdict.faults.append(f"not settled {SETTLE_SECONDS:.0f} s after the end")
            return {
                "machine": machine.machine(self.directory, await database.fetchval("show server_version"), load_before),
                "seconds": self.given.seconds,
                "replicas": self.given.replicas,
                "seed": self.given.seed,
                "lease_seconds": LEASE_SECONDS,
                "skews": {slot.number: slot.skew for slot in slots if slot.skew},
                **asdict(chaos.tally),
                **verdict.as_dict(),
                "log_events": _log_events(slots),
                "exact": settled and verdict.total.exact and not verdict.faults,
            }

    async def _listen(self, stack: contextlib.AsyncExitStack) -> str:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Received(self.calls), "127.0.0.1", 0, backlog=1024)
        stack.callback(server.close)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"

    async def _define(self, slots: list[ConcurrencySlot], hook: str, end_at: datetime) -> None:
        """Create all schedules, through all replicas, and work out when each has to fire."""
        async with contextlib.AsyncExitStack() as stack:
            clients = [
                await stack.enter_async_context(httpx2.AsyncClient(base_url=slot.url, timeout=60, trust_env=False))
                for slot in slots
            ]
            await _put(clients[0], "/handlers/chaos", {"url": hook})
            await _put(clients[0], f"/queues/{QUEUE}", {"handler": "chaos"})
            left = enumerate(build(self.given.schedules))

            async def make() -> None:
                for number, timed in left:
                    client = clients[number % len(clients)]
                    before = datetime.now(UTC)
                    made = await _put(client, f"/schedules/{timed.name}", timed.body(QUEUE, end_at))
                    created = datetime.fromisoformat(made["created_at"])
                    if not before <= created <= datetime.now(UTC):
                        raise RuntimeError(f"{timed.name}: created at {created}, which is not when it was")
                    self.expected[timed] = timed.expected(created, end_at)

            await asyncio.gather(*(make() for _ in range(MAKERS)))

    async def _watch(self, database: asyncpg.Connection) -> None:
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            self.progress(f"{len(self.calls):,} deliveries")

    async def _settled(self, database: asyncpg.Connection) -> bool:
        """Wait until nothing is to come and every run has ended."""
        self.progress("the end; waiting for what is under way")
        deadline = time.monotonic() + SETTLE_SECONDS
        while await ledger.left(database):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.25)
        return True


async def _put(client: httpx2.AsyncClient, path: str, body: object) -> Any:
    answer = await client.put(path, json=body)
    if answer.status_code not in (200, 201):
        raise RuntimeError(f"PUT {path}: {answer.status_code} {answer.text[:500]}")
    return answer.json()


def _skews(slots: Iterable[ConcurrencySlot]) -> str:
    return ", ".join(slot.skew for slot in slots if slot.skew) or "nothing"


def _log_events(slots: Iterable[ConcurrencySlot]) -> dict[str, int]:
    """How often the replicas logged each warning and error."""
    counts: dict[str, int] = {}
    for line in (line for slot in slots for log in slot.logs for line in log.read_text(errors="replace").splitlines()):
        with contextlib.suppress(ValueError):
            entry = json.loads(line)
            if isinstance(entry, dict) and entry.get("level") in ("warning", "error", "critical"):
                counts[entry["event"]] = counts.get(entry["event"], 0) + 1
    return counts


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items())) or "none"


def table(result: dict[str, Any]) -> str:
    columns = ("schedules", "expected", "fired", "missed", "double", "unexpected")
    lines = [f"{'':<20}" + "".join(f"{column:>12}" for column in columns)]
    lines.append("-" * len(lines[0]))
    for line in [*result["lines"], result["total"]]:
        lines.append(f"{line['kind']:<20}" + "".join(f"{line[column]:>12,}" for column in columns))
    lag, about = result["lag_seconds"], result["machine"]
    skews = ", ".join(result["skews"].values()) or "none"
    causes = _counted(result["causes"])
    return "\n".join(
        [
            *lines,
            "",
            f"{result['replicas']} replicas for {result['seconds']:.0f} s: {result['kills']} kills, {result['pauses']} pauses"
            f" past a lease of {result['lease_seconds']:.0f} s, {result['restarts']} restarts, {result['outages']} moment(s)"
            f" without any; clocks off: {skews}; seed {result['seed']}",
            f"fired as {causes}; {result['deliveries']:,} deliveries, {result['again']:,} of them repeated",
            *(
                f"lag (fired - nominal), {cause}: p50 {of['p50']:.3f} s, p99 {of['p99']:.3f} s, max {of['max']:.3f} s"
                for cause, of in lag.items()
            ),
            f"{about['cores']} x {about['cpu']}, load before {about['load_before']}, Postgres {about['postgres']},"
            f" commit {about['commit']}, {about['at']}",
            f"warnings in the logs: {_counted(result['log_events'])}",
            *(f"FAULT: {fault}" for fault in result["faults"]),
            "exact" if result["exact"] else "NOT EXACT",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--seconds", type=float, default=FULL_SECONDS, help=f"from the first schedule on, at least {MIN_SECONDS:.0f}"
    )
    parser.add_argument("--schedules", type=int, default=300)
    parser.add_argument("--replicas", type=int, default=5)
    parser.add_argument("--seed", type=int, default=random.randrange(10_000), help="for kills and pauses")
    parser.add_argument("--json", action="store_true", help="say the result as JSON")
    given = parser.parse_args()
    if given.seconds < MIN_SECONDS:
        parser.error(f"--seconds: at least {MIN_SECONDS:.0f}")
    library = libfaketime()
    if library is None:
        print("chaos: without libfaketime (apt-get install libfaketime) all clocks are right", file=sys.stderr)
    # beside the code and not in the temp directory, which may be memory: commits must reach a disk
    (ROOT / "build").mkdir(exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="chaos-", dir=ROOT / "build"))
    try:
        # not uvloop: its transports forget their socket when they are closed, and httpx2 asks idle connections for theirs
        result = asyncio.run(Run(given, directory).whole(library))
    except (ChildFailed, EmbeddedError, RuntimeError, httpx2.HTTPError, ExceptionGroup) as failure:
        first = failure.exceptions[0] if isinstance(failure, ExceptionGroup) else failure
        print(f"chaos: {first!r}; see {directory}", file=sys.stderr)
        return 1
    print(json.dumps(result) if given.json else table(result))
    if given.seconds >= FULL_SECONDS:
        about = result["machine"]
        report.save_json(
            result, ROOT / "bench" / "results" / f"{about['at'][:10]}-{about['commit']}-chaos-schedules.json"
        )
    if result["exact"]:
        shutil.rmtree(directory, ignore_errors=True)
    else:
        print(f"chaos: the logs are in {directory}", file=sys.stderr)
    return 0 if result["exact"] else 1


if __name__ == "__main__":
    sys.exit(main())
