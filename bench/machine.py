"""The machine and the versions that figures were taken on: without them, and beyond one run, they mean little."""

import os
import platform
import statistics
import subprocess
import sysconfig
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.processes import ROOT

DRIVERS = ("asyncpg", "uvloop", "httptools", "msgspec", "pyreqwest")


def machine(directory: Path, postgres: str, load_before: float) -> dict[str, Any]:
    """`directory` is where durable writes are timed: beside the data of the Postgres under test."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "load_before": round(load_before, 1),
        "fdatasync_us": round(_fdatasync_us(directory)),
        "system": platform.system(),
        "python": platform.python_version(),
        "python_build": python_build(),
        "postgres": postgres,
        "drivers": {name: version(name) for name in DRIVERS},
        "commit": commit(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def python_build() -> str:
    """How the interpreter was built: without profile-guided optimisation (PGO), Python code is up to 1.7 times slower.

    Debian and Ubuntu build with PGO and LTO by other means than configure's options; their own install scheme tells them apart.
    """
    if "deb_system" in sysconfig.get_scheme_names():
        return "Debian's build, PGO, LTO"
    configured = sysconfig.get_config_var("CONFIG_ARGS") or ""
    pgo = "PGO" if "--enable-optimizations" in configured else "no PGO"
    lto = "LTO" if "--with-lto" in configured and "--with-lto=no" not in configured else "no LTO"
    return f"{pgo}, {lto}"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _fdatasync_us(directory: Path) -> float:
    """What one durable write costs here, for without it commits a second mean nothing."""
    block = b"x" * 8192
    times = []
    with tempfile.TemporaryFile(dir=directory, buffering=0) as file:
        for _ in range(100):
            begun = time.perf_counter()
            file.write(block)
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - begun)
    return statistics.median(times) * 1e6


def commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "app", "bench", "requirements")
    return (git("rev-parse", "--short", "HEAD") or "none") + ("+changes" if changed else "")
