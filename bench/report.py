"""A run as a table, and as JSON."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.table import MEASURES, Row


def figures(found: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One per row of the table whose measure ran."""
    return [
        _figure(measure.name, row, found[measure.name])
        for measure in MEASURES
        if measure.name in found
        for row in measure.rows
    ]


def _figure(measure: str, row: Row, found: Mapping[str, Any]) -> dict[str, Any]:
    value = row.value(dict(found))
    figure: dict[str, Any] = {"measure": measure, "what": row.what, "value": value, "unit": row.unit}
    if row.target is not None:
        share = row.target.share(value)
        figure |= {
            "target": row.target.value,
            "at": "least" if row.target.least else "most",
            "of_target": share,
            "met": share >= 1,
        }
    return figure | {"beside": row.beside.format_map(found)}


def shown(value: float, unit: str) -> str:
    match unit:
        case "x":
            return f"{value:.2f}"
        case "%":
            return f"{value:.1%}"
        case "ms" | "MB" | "s":
            return f"{value:,.1f} {unit}" if value < 100 else f"{value:,.0f} {unit}"
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
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:], "", footer(result["machine"]), *problems])


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    what, target, measured, met, beside = row
    cells = (what.ljust(widths[0]), target.rjust(widths[1]), measured.rjust(widths[2]), met.ljust(widths[3]), beside)
    return "  ".join(cells).rstrip()


def footer(about: Mapping[str, Any]) -> str:
    return (
        f"{about['cores']} x {about['cpu']}, load before {about['load_before']}, fdatasync {about['fdatasync_us']} us, "
        f"Postgres {about['postgres']}, Python {about['python']} ({about['python_build']}), "
        f"commit {about['commit']}, {about['at']}"
    )


def save(result: Mapping[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"saved as {path}", file=sys.stderr)
