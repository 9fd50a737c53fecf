"""The documents, and what stands in them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md"))
    if "reference" not in path.parts
)
_FILE = re.compile(r"(?:#|//) ([\w-]+\.(?:py|js|yaml))\b")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(path: Path, language: str) -> list[str]:
    """The fenced blocks of a page in this language, in their order."""
    return [text for found, text in _FENCE.findall(path.read_text()) if found == language]


def files(path: Path) -> dict[str, str]:
    """The page's files: blocks whose first line is a comment that begins with a file's name."""
    named = ((_FILE.match(text), text) for _, text in _FENCE.findall(path.read_text()))
    return {found[1]: text for found, text in named if found}


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    prose = _FENCE.sub("", path.read_text())
    headings = re.findall(r"^#+ (.+)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def links(path: Path) -> list[str]:
    prose = _FENCE.sub("", path.read_text())
    return re.findall(r"\]\(([^)\s]+)\)", prose)
