"""What Sluice does on this machine, beside what the machine gives: all in one run, on one durable Postgres.

    python -m bench [--only NAME,…] [--long] [--large] [--json FILE]
    python -m bench --readme

Every measure runs real `sluice up` processes on an empty database of their own. Pairs are measured in turns, and a ratio is the
median of each round's own: absolute rates drift with the machine, ratios within a run do not. --long holds a snapshot and
soaks for ten minutes each instead of one; --large has ten million finished tasks instead of one million.
ITERATIONS=1 in the environment runs every measure in its smallest form, to see that all of it still works.

The exit code is 1 if something went wrong: an error, a lost task, a limit that was not exact. A missed target is no error.
A whole run is saved under bench/results, with a chart; --readme writes the newest one into README.md and
docs/concepts/performance.md.
"""

import argparse
import contextlib
import os
import random
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import uvloop

from app.embedded.directory import EmbeddedError
from bench import pages, report
from bench.ground import lay
from bench.machine import machine
from bench.processes import ROOT, ChildFailed
from bench.rows import LeftOut, Measure
from bench.sizes import Size, size
from bench.table import MEASURES


async def run(chosen: list[Measure], sized: Size, directory: Path) -> dict[str, Any]:
    load_before = os.getloadavg()[0]
    found: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    async with contextlib.AsyncExitStack() as stack:
        ground = await lay(sized, directory, stack)
        about = machine(directory, await ground.server.fetchval("show server_version"), load_before)
        for measure in chosen:
            begun = time.monotonic()
            print(f"bench: {measure.name} …", file=sys.stderr, flush=True)
            try:
                found[measure.name] = await measure.run(ground)
            except LeftOut as why:
                print(f"bench: {measure.name} is left out: {why}", file=sys.stderr, flush=True)
                continue
            seconds[measure.name] = round(time.monotonic() - begun, 1)
    return {
        "machine": about,
        "size": asdict(sized),
        "figures": report.figures(found, pages.newest_peers()),
        "problems": ground.problems,
        "seconds": seconds,
        "found": found,
    }


def chosen_of(names: str | None) -> list[Measure]:
    if names is None:
        return list(MEASURES)
    wanted = names.split(",")
    if unknown := set(wanted) - {measure.name for measure in MEASURES}:
        raise SystemExit(f"bench: no such measure: {', '.join(sorted(unknown))}; there are {_names()}")
    return [measure for measure in MEASURES if measure.name in wanted]


def _names() -> str:
    return ", ".join(measure.name for measure in MEASURES)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="NAME,…", help=f"some of {_names()}; saved nowhere by itself")
    parser.add_argument("--long", action="store_true", help="ten minutes of held snapshot, ten of soak")
    parser.add_argument("--large", action="store_true", help="ten million finished tasks")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    parser.add_argument("--readme", action="store_true", help="measure nothing: show the newest figures in the pages")
    given = parser.parse_args()
    if given.readme:
        print(f"bench: the pages show {pages.refresh()}", file=sys.stderr)
        return 0
    iterations = int(os.environ["ITERATIONS"]) if os.environ.get("ITERATIONS") else None
    chosen = chosen_of(given.only)
    # Beside the code and not in the temp directory, which may be memory: commits must reach a disk.
    (ROOT / "build").mkdir(exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="bench-", dir=ROOT / "build"))
    random.seed(1)
    try:
        result = uvloop.run(run(chosen, size(iterations, given.long, given.large), directory))
    except (ChildFailed, EmbeddedError, RuntimeError) as failure:
        print(f"bench: {failure}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print(report.table(result))
    if given.json:
        report.save(result, given.json)
    if given.only is None and iterations != 1:
        about = result["machine"]
        report.save(result, pages.RESULTS / f"{about['at'][:10]}-{about['commit']}.json")
    return 1 if result["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
