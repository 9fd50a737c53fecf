"""Numbers of a run, the machine they were taken on, and the table."""

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.processes import ROOT


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which this share of the ordered values lies; nearest rank."""
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else float("nan")


def paired(ceilings: Sequence[float], ours: Sequence[float]) -> dict[str, Any]:
    """Medians, and the median of each round's own ratio: a slow moment of the machine hits both sides of a pair."""
    return {
        "ceiling": statistics.median(ceilings) if ceilings else None,
        "sluice": statistics.median(ours) if ours else None,
        "ratio": statistics.median(b / a for a, b in zip(ceilings, ours, strict=True)) if ours and ceilings else None,
        "ceiling_rounds": list(ceilings),
        "sluice_rounds": list(ours),
    }


def machine(directory: Path, postgres: str, load_before: float) -> dict[str, Any]:
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "load_before": round(load_before, 1),
        "fdatasync_us": round(_fdatasync_us(directory)),
        "system": platform.system(),
        "python": platform.python_version(),
        "postgres": postgres,
        "commit": _commit(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


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


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--untracked-files=no", "--", "app", "bench", "requirements")
    return (git("rev-parse", "--short", "HEAD") or "none") + ("+changes" if changed else "")


def table(result: dict[str, Any]) -> str:
    rows = [("", "bare ceiling", "Sluice", "ratio", "rounds (ceiling | Sluice)")]
    for label, key in (
        ("enqueues/s, one POST a task", "enqueue"),
        ("tasks/s end to end", "end_to_end"),
        ("settled/s, plain | of one batch", "settle_of_one_batch"),
    ):
        measure = result[key]
        if measure is None:
            continue
        rounds = " | ".join(" ".join(_whole(v) for v in measure[side]) for side in ("ceiling_rounds", "sluice_rounds"))
        rows.append((label, _whole(measure["ceiling"]), _whole(measure["sluice"]), _share(measure["ratio"]), rounds))
    delays = result["start_delay"]
    if delays:
        rows.append(("start delay when idle, p50", "", f"{delays['p50_ms']:.1f} ms", "", "POST sent to handler called"))
        rows.append(("start delay when idle, p99", "", f"{delays['p99_ms']:.1f} ms", "", f"{delays['samples']} tasks"))
    rows += _schedules(result["fire_lag"] or [], result["idle_schedules"])
    if result["memory_mb"]:
        rows.append(("memory of the process after it", "", f"{result['memory_mb']:.0f} MB", "", "resident"))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = [_line(row, widths) for row in rows]
    about = result["machine"]
    footer = (
        f"{about['cores']} x {about['cpu']}, load before {about['load_before']}, "
        f"fdatasync {about['fdatasync_us']} us, Postgres {about['postgres']}, Python {about['python']}, "
        f"commit {about['commit']}, {about['at']}"
    )
    problems = [f"PROBLEM: {problem}" for problem in result["problems"]]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:], "", footer, *problems])


def _schedules(lags: Sequence[dict[str, Any]], idle: dict[str, Any] | None) -> list[tuple[str, str, str, str, str]]:
    rows = []
    for lag in lags:
        what = f"fire lag, {lag['schedules']:,} due at once"
        rows.append(
            (f"{what}, p50", "", f"{lag['p50_ms']:.0f} ms", "", f"nominal time to fired, {lag['rounds']} rounds")
        )
        rows.append((f"{what}, p99", "", f"{lag['p99_ms']:.0f} ms", "", f"latest {lag['max_ms']:.0f} ms"))
    if idle:
        with_one = f"with {idle['schedules']:,} schedules that are not due; ratio to one"
        for label, measure, ratio in (
            ("idle transactions/s", "transactions_per_second", "transactions_ratio"),
            ("idle CPU ms/s", "cpu_ms_per_second", "cpu_ratio"),
        ):
            rows.append((label, "", f"{idle['many'][measure]:.1f}", f"{idle[ratio]:.2f}", with_one))
    return rows


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *middle, last = row
    cells = [
        first.ljust(widths[0]),
        *(cell.rjust(width) for cell, width in zip(middle, widths[1:4], strict=True)),
        last,
    ]
    return "  ".join(cells)


def _whole(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def save(result: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"saved as {path}", file=sys.stderr)
