"""The peers: what starts each of them, what it keeps its jobs in, and what is said of it beside its figures."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

from bench.peers.servers import program
from bench.processes import ROOT

HERE = ROOT / "bench" / "peers"
PYTHON = ROOT / "build" / "peers" / "bin" / "python"
NODES = sorted((HERE / "node_modules").glob("node-linux-*/bin/node"))

POSTGRES = "Postgres"
REDIS = "Redis"
DURABILITY = {POSTGRES: "each commit", REDIS: "once per second"}


@dataclass(frozen=True)
class Entry:
    name: str
    store: str
    language: str
    program: str
    """In bench/peers/programs."""
    unfinished: Sequence[str]
    """Of Postgres: one condition. Of Redis: the keys that hold jobs that have not ended, with the command that counts them."""
    clear: Sequence[str]
    options: str
    """What was chosen for it, and is not its default."""


ENTRIES = (
    Entry(
        "graphile-worker",
        POSTGRES,
        "node",
        "graphile_worker.mjs",
        unfinished=["exists (select from graphile_worker._private_jobs)"],
        clear=["truncate graphile_worker._private_jobs"],
        options="localQueue 500, completions batched",
    ),
    Entry(
        "pg-boss",
        POSTGRES,
        "node",
        "pg_boss.mjs",
        unfinished=["exists (select from pgboss.job where name = 'bench' and state <> 'completed')"],
        clear=["delete from pgboss.job where name = 'bench'"],
        options="2 workers with batches of 500, the next batch at once",
    ),
    Entry(
        "pgqueuer",
        POSTGRES,
        "python",
        "bench.peers.programs.pgqueuer",
        unfinished=["exists (select from pgqueuer)"],
        clear=["truncate pgqueuer, pgqueuer_log"],
        options="",
    ),
    Entry(
        "procrastinate",
        POSTGRES,
        "python",
        "bench.peers.programs.procrastinate",
        unfinished=["exists (select from procrastinate_jobs)"],
        clear=["truncate procrastinate_jobs cascade"],
        options="delete_jobs successful",
    ),
    Entry(
        "bullmq",
        REDIS,
        "node",
        "bullmq.mjs",
        unfinished=["llen bull:bench:wait", "llen bull:bench:active"],
        clear=[],
        options="removeOnComplete",
    ),
    Entry(
        "celery",
        REDIS,
        "python",
        "bench.peers.programs.celery",
        unfinished=["llen bench", "hlen unacked"],
        clear=["del bench", "del enqueue"],
        options="threads, acks late, no results",
    ),
)


def command(entry: Entry) -> list[str]:
    """What starts its program; role, store and handler follow."""
    if entry.language == "node":
        return [node(), str(HERE / "programs" / entry.program)]
    return [str(PYTHON), "-m", entry.program]


def node() -> str:
    """The node that is installed with the peers, for their newest releases need a newer one than many systems have."""
    return str(NODES[0]) if NODES else program("node")


def named(name: str) -> Entry | None:
    return next((entry for entry in ENTRIES if entry.name == name), None)


def versions(names: Sequence[str]) -> dict[str, str]:
    """Of what takes part: the contestants, and what they run on and deliver with."""
    entries = [entry for entry in ENTRIES if entry.name in names]
    found = {"nginx": _said(program("nginx"), "-v").rpartition("/")[2]}
    if any(entry.store == REDIS for entry in entries):
        found["redis"] = _said(program("redis-server"), "--version").partition("v=")[2].split()[0]
    if any(entry.language == "node" for entry in entries):
        found |= {"node": _said(node(), "--version").lstrip("v")} | {name: _of_npm(name) for name in ("undici", "pg")}
    of_python = [entry.name for entry in entries if entry.language == "python"]
    if of_python:
        found |= _of_python([*of_python, "psycopg"])
    found |= {name: version(name) for name in ("asyncpg", "pyreqwest", "uvloop")}
    return found | {entry.name: _of_npm(entry.name) for entry in entries if entry.language == "node"}


def _said(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return (done.stdout or done.stderr).strip()


def _of_npm(name: str) -> str:
    return str(json.loads((HERE / "node_modules" / name / "package.json").read_text())["version"])


def _of_python(names: Sequence[str]) -> dict[str, str]:
    """Installed beside the Python peers, not beside Sluice."""
    code = "import sys, importlib.metadata as m; print(*(m.version(name) for name in sys.argv[1:]))"
    return dict(zip(names, _said(str(PYTHON), "-c", code, *names).split(), strict=True))
