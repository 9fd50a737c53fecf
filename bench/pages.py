"""The figures that README.md and docs/concepts/performance.md show, written from the newest result that is kept.

What stands between the two comments of a page is generated; a test holds it against the result that it names.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.processes import ROOT
from bench.report import drawing, footer, shown

RESULTS = ROOT / "bench" / "results"
PAGES = {ROOT / "README.md": True, ROOT / "docs" / "concepts" / "performance.md": False}
"""Each page, and whether it shows the headlines alone."""
BLOCK = re.compile(r"<!-- figures of (?P<name>[\w.+-]+) -->\n.*?<!-- end of figures -->", re.DOTALL)


def newest() -> Path:
    """The newest result with figures. Raises RuntimeError if there is none."""
    found = {path: json.loads(path.read_text()) for path in RESULTS.glob("*.json")}
    whole = {path: result["machine"]["at"] for path, result in found.items() if "figures" in result}
    if not whole:
        raise RuntimeError(f"no result with figures in {RESULTS}")
    return max(whole, key=lambda path: whole[path])


def newest_peers() -> dict[str, Any] | None:
    """The newest result of `make bench-peers`, if there is one."""
    found = [json.loads(path.read_text()) for path in RESULTS.glob("*-peers.json")]
    return max(found, key=lambda result: str(result["machine"]["at"]), default=None)


def block(page: Path, result: Mapping[str, Any], name: str) -> str:
    """What the page shows of a result, which is in bench/results under this name."""
    results = "/".join([*[".."] * (len(page.relative_to(ROOT).parts) - 1), "bench", "results"])
    picture = name.removesuffix(".json") + ".svg"
    lines = [f"<!-- figures of {name} -->", "| | target | measured | |", "|---|---|---|---|"]
    lines += [_line(figure) for figure in result["figures"] if figure["headline"] or not PAGES[page]]
    lines += ["", f"[The run]({results}/{name}): {'; '.join(footer(result['machine']))}.", ""]
    return "\n".join([*lines, f"![How far each target is reached]({results}/{picture})", "<!-- end of figures -->"])


def _line(figure: Mapping[str, Any]) -> str:
    measured, target = shown(figure["value"], figure["unit"]), ""
    if "target" in figure:
        target = f"at {figure['at']} {shown(figure['target'], figure['unit'])}"
        measured = f"**{measured}**" if figure["met"] else f"{measured}, missed"
    return f"| {figure['what']} | {target} | {measured} | {figure['beside']} |"


def refresh() -> str:
    """Write the newest result into the pages, and draw its chart; return its name."""
    path = newest()
    result = json.loads(path.read_text())
    path.with_suffix(".svg").write_text(drawing(result))
    for page in PAGES:
        text = page.read_text()
        begin, end = next(BLOCK.finditer(text)).span()
        page.write_text(text[:begin] + block(page, result, path.name) + text[end:])
    return path.name
