"""What people see: tables and lines. What tasks carry was written by others, so nothing of it reaches the terminal raw."""

import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPED_WIDTH = 1_000
"""What is piped is not cut: the next program wants whole lines."""
STYLES = {
    "succeeded": "green",
    "running": "cyan",
    "dead": "red",
    "cancelled": "dim",
    "paused": "yellow",
    "failed": "red",
    "disabled": "red",
    "silent": "red",
    "draining": "yellow",
}


def console(*, stderr: bool = False) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, highlight=False, width=None if stream.isatty() else PIPED_WIDTH)


def plain(value: object) -> str:
    """One line of text that moves no cursor and rings no bell."""
    text = value if isinstance(value, str) else "" if value is None else str(value)
    return "".join(letter if letter.isprintable() else "�" if letter not in "\n\t" else " " for letter in text)


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    made = Table(box=None, pad_edge=False, header_style="bold")
    for number, heading in enumerate(headings):
        made.add_column(heading, no_wrap=number == 0, overflow="fold")
    for row in rows:
        made.add_row(*(cell(value) for value in row))
    return made


def cell(value: object) -> Text:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Text(f"{value:,.10g}" if isinstance(value, float) else f"{value:,}", justify="right")
    text = plain(value)
    return Text(text, style=STYLES.get(text, ""))


def instant(text: str | None) -> str:
    return "" if text is None else text[:19].replace("T", " ")


def seconds(value: float | None) -> str:
    """As people say it: 0.3 s, 12 s, 5 min, 3.1 h, 2.5 d."""
    if value is None:
        return ""
    for unit, size, until in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172_800)):
        if value < until:
            return f"{value / size:.2g} {unit}" if value / size < 10 else f"{value / size:.0f} {unit}"
    return f"{value / 86_400:.3g} d"


def say_json(value: Any) -> None:
    """Letters as they are. What is not printed but obeyed (controls, what turns the direction of writing) stays an escape."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    print(_BEYOND_ASCII.sub(lambda found: _escaped(found[0]), text), flush=True)


_BEYOND_ASCII = re.compile(r"[^\n\x20-\x7e]")


def _escaped(letter: str) -> str:
    return letter if letter.isprintable() else json.dumps(letter)[1:-1]
