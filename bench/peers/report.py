"""The figures of a run: what is made of its turns, the table, and the files."""

import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench import chart
from bench.peers import roster

SUBJECT, YARDSTICK = "sluice", "bare"
LABELS = {SUBJECT: "Sluice", YARDSTICK: "bare loop"}
PARTS = ("worker", "store", "handler")

Turns = dict[str, list[dict[str, Any]]]


def summary(result: dict[str, Any]) -> dict[str, Any]:
    """Of each contestant the medians, and its ratio to Sluice: the median of each round's own."""
    found = {}
    for name in next(iter(result["turns"].values())):
        entry = roster.named(name)
        figures: dict[str, Any] = {
            "store": entry.store if entry else roster.POSTGRES,
            "version": result["versions"].get(name, ""),
            "options": entry.options if entry else "",
        }
        for processes, turns in result["turns"].items():
            figures[processes] = {
                "per_second": _median(turns[name], _rate),
                "to_sluice": _ratio(turns, name, SUBJECT, _rate),
                "to_bare": _ratio(turns, name, YARDSTICK, _rate),
                "cpu_us": {part: _cpu(turns[name], part) for part in PARTS},
            }
        if alone := result["turns"].get("1"):
            figures["enqueues"] = {
                "per_second": _median(alone[name], _enqueues),
                "to_sluice": _ratio(alone, name, SUBJECT, _enqueues),
            }
        found[name] = figures
    return found


def _cpu(turns: Sequence[dict[str, Any]], part: str) -> float | None:
    return _median(turns, lambda turn: turn["cpu_us"][part])


def _rate(turn: dict[str, Any]) -> float | None:
    return turn.get("per_second")


def _enqueues(turn: dict[str, Any]) -> float | None:
    return turn.get("enqueues")


def _median(turns: Sequence[dict[str, Any]], of: Callable[[dict[str, Any]], float | None]) -> float | None:
    values = [value for turn in turns if turn and (value := of(turn)) is not None]
    return statistics.median(values) if values else None


def _ratio(turns: Turns, name: str, base: str, of: Callable[[dict[str, Any]], float | None]) -> float | None:
    pairs = [(of(turn), of(other)) for turn, other in zip(turns[name], turns.get(base, []), strict=False)]
    ratios = [ours / theirs for ours, theirs in pairs if ours is not None and theirs]
    return statistics.median(ratios) if ratios else None


def table(result: dict[str, Any]) -> str:
    """A block per number of processes and one of enqueues; in each the fastest first."""
    figures = summary(result)
    blocks = []
    for count in result["turns"]:
        rows = [
            [_processes(count), "durable", "tasks/s", "to Sluice", "to bare", "CPU us/task: worker", "store", "nginx"]
        ]
        for name, found in _ranked(figures, count):
            of = found[count]
            cpu = [_whole(of["cpu_us"][part]) for part in PARTS]
            rows.append(
                [*_who(name, found), _whole(of["per_second"]), _times(of["to_sluice"]), _times(of["to_bare"]), *cpu]
            )
        blocks.append(_block(rows))
    if "1" in result["turns"]:
        rows = [["single enqueues", "durable", "tasks/s", "to Sluice"]]
        for name, found in _ranked(figures, "enqueues"):
            of = found["enqueues"]
            if of["per_second"]:
                rows.append([*_who(name, found), _whole(of["per_second"]), _times(of["to_sluice"])])
        blocks.append(_block(rows))
    problems = [f"PROBLEM: {problem}" for problem in result["problems"]]
    return "\n\n".join([*blocks, "\n".join([*footer(result), *problems])])


def _ranked(figures: dict[str, Any], measure: str) -> list[tuple[str, dict[str, Any]]]:
    return sorted(figures.items(), key=lambda item: -(item[1][measure]["per_second"] or 0))


def _who(name: str, found: dict[str, Any]) -> list[str]:
    return [f"{LABELS.get(name, name)} {found['version']}".strip(), roster.DURABILITY[found["store"]]]


def _block(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = zip(row, widths, strict=True)
        lines.append(
            "  ".join(cell.ljust(width) if n < 2 else cell.rjust(width) for n, (cell, width) in enumerate(cells))
        )
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def footer(result: dict[str, Any]) -> list[str]:
    about, plan = result["machine"], result["plan"]
    named = " ".join(f"{name} {version}" for name, version in result["versions"].items() if roster.named(name) is None)
    return [
        f"medians of {plan['iterations']} rounds of {plan['jobs']:,} jobs; durable: when writes reach the disk",
        f"{about['cores']} x {about['cpu']}, load before {about['load_before']}, fdatasync {about['fdatasync_us']} us",
        f"Postgres {about['postgres']}, Python {about['python']} ({about.get('python_build', '')}), {named}",
        f"commit {about['commit']}, {about['at']}",
    ]


def drawing(result: dict[str, Any]) -> str:
    """The chart, as SVG."""
    figures = summary(result)
    panels = [
        chart.Panel(f"Delivered and settled, tasks/s, {_processes(count)}", _bars(figures, count))
        for count in result["turns"]
    ]
    if "1" in result["turns"]:
        panels.append(
            chart.Panel("Single enqueues/s (Sluice: over HTTP; peers: in process)", _bars(figures, "enqueues"))
        )
    return chart.svg("Sluice beside other queues", panels, footer(result))


def _bars(figures: dict[str, Any], measure: str) -> list[chart.Bar]:
    bars = []
    for name, found in figures.items():
        rate, ratio = found[measure]["per_second"], found[measure]["to_sluice"]
        if rate is None:
            continue
        note = f"{_times(ratio)} of Sluice" if name != SUBJECT and ratio else ""
        label = LABELS.get(name, name) + (f" ({found['store']})" if found["store"] == roster.REDIS else "")
        bars.append(chart.Bar(label, rate, note, strong=name == SUBJECT, pale=name == YARDSTICK))
    return sorted(bars, key=lambda bar: -(bar.value or 0))


def _processes(count: str) -> str:
    return "1 process" if count == "1" else f"{count} processes"


def _whole(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _times(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def save(result: dict[str, Any], path: Path) -> None:
    """The figures, and beside them the chart."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"summary": summary(result), **result}, indent=2) + "\n")
    path.with_suffix(".svg").write_text(drawing(result))
    print(f"saved as {path} and {path.with_suffix('.svg').name}", file=sys.stderr)
