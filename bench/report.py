"""A run as a table, as JSON, and as a chart."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import chart
from bench.rows import Row, at_least
from bench.table import MEASURES

LABELS = 420
DRAWN_MAX = 2.0
BEST_PEER = Row(
    "end to end, of the best other queue",
    "ratio",
    "x",
    at_least(1.5),
    "{name}; measured by make bench-peers",
    headline=True,
)
BEST_ENQUEUE = Row(
    "single enqueues over HTTP, of the best in process on Postgres",
    "ratio",
    "x",
    at_least(4),
    "{name}; measured by make bench-peers",
)


def figures(found: Mapping[str, Any], peers: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """One per row of the table whose measure ran, and the best of the peers, if they have been measured."""
    rows = [
        row.figure(measure.name, found[measure.name])
        for measure in MEASURES
        if measure.name in found
        for row in measure.rows
    ]
    return rows + (_beside_peers(peers["summary"]) if peers else [])


def _beside_peers(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    rows = []
    for row, measure, stores in ((BEST_PEER, "1", {"Postgres", "Redis"}), (BEST_ENQUEUE, "enqueues", {"Postgres"})):
        ratios = {
            name: of[measure]["to_sluice"]
            for name, of in summary.items()
            if name not in ("sluice", "bare") and of["store"] in stores and of.get(measure, {}).get("to_sluice")
        }
        if ratios:
            best = max(ratios, key=lambda name: ratios[name])
            rows.append(row.figure("peers", {"name": best, "ratio": 1 / ratios[best]}))
    return rows


def shown(value: float, unit: str) -> str:
    match unit:
        case "x":
            return f"{value:.2f}"
        case "%":
            return f"{value:.1%}"
        case "ms" | "MB" | "s":
            return f"{value:,.1f} {unit}" if value < 100 else f"{value:,.0f} {unit}"
        case "us" | "B":
            return f"{value:,.0f} {unit}"
        case "/s":
            return f"{value:,.0f}/s" if value >= 100 else f"{value:.1f}/s"
    return f"{value:,g}"


def table(result: Mapping[str, Any]) -> str:
    rows = [("", "target", "measured", "", "")]
    for figure in result["figures"]:
        target = met = ""
        if "target" in figure:
            sign = ">=" if figure["at"] == "least" else "<="
            target, met = f"{sign} {shown(figure['target'], figure['unit'])}", "met" if figure["met"] else "missed"
        rows.append((figure["what"], target, shown(figure["value"], figure["unit"]), met, figure["beside"]))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [_line(row, widths) for row in rows]
    problems = [f"PROBLEM: {problem}" for problem in result["problems"]]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:], "", *footer(result["machine"]), *problems])


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    what, target, measured, met, beside = row
    cells = (what.ljust(widths[0]), target.rjust(widths[1]), measured.rjust(widths[2]), met.ljust(widths[3]), beside)
    return "  ".join(cells).rstrip()


def footer(about: Mapping[str, Any]) -> list[str]:
    return [
        f"{about['cores']} x {about['cpu']}, load before {about['load_before']}, fdatasync {about['fdatasync_us']} us",
        f"Postgres {about['postgres']}, Python {about['python']} ({about['python_build']}), "
        f"commit {about['commit']}, {about['at']}",
    ]


def drawing(result: Mapping[str, Any]) -> str:
    """How far each target is reached, as SVG."""
    bars = [chart.Bar("the target", 1.0, "is 1.00; a longer bar is better", pale=True)]
    for figure in result["figures"]:
        if "target" in figure:
            note = (
                f"{shown(figure['value'], figure['unit'])}, at {figure['at']} {shown(figure['target'], figure['unit'])}"
            )
            bars.append(chart.Bar(figure["what"], min(figure["of_target"], DRAWN_MAX), note, strong=figure["met"]))
    title = f"Of the target; what is beyond {DRAWN_MAX:.0f} times is cut off"
    return chart.svg("Sluice's speed", [chart.Panel(title, bars)], footer(result["machine"]), labels=LABELS)


def save_json(result: Mapping[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"saved as {path}", file=sys.stderr)


def save(result: Mapping[str, Any], path: Path) -> None:
    """The figures, and beside them the chart."""
    save_json(result, path)
    path.with_suffix(".svg").write_text(drawing(result))
