"""What people see: tables and lines. Others wrote what tasks contain, so none of it reaches the terminal raw."""

import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from app.domain.ids import SHORT_ID

PIPED_WIDTH = 1_000
"""Piped output is not wrapped: the next program wants whole lines."""
PROSE = frozenset({"why", "error", "value"})
"""Headings of columns whose text may wrap."""
PROSE_WIDTH = 24
BETWEEN = 2
INDENT = 2
SEPARATOR = " · "
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
    """One line of text, without control characters."""
    text = value if isinstance(value, str) else "" if value is None else str(value)
    return "".join(letter if letter.isprintable() else "�" if letter not in "\n\t" else " " for letter in text)


class Listing:
    """Rows under headings. Columns of prose get the remaining width; nothing else ever wraps.

    If a table does not fit, each row is written as its first cell, with its other cells below, each with its heading.
    """

    def __init__(self, headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        self._headings = headings
        self._rows = [[cell(value) for value in row] for row in rows]

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        if self._least_width() <= options.max_width:
            yield self._table()
        else:
            for row in self._rows:
                yield from self._written(row, options.max_width)

    def _least_width(self) -> int:
        widths: list[int] = [
            max(len(heading), *(text.cell_len for text in column))
            for heading, *column in zip(self._headings, *self._rows, strict=True)
        ]
        least = [min(width, PROSE_WIDTH) if self._is_prose(n) else width for n, width in enumerate(widths)]
        return sum(least) + BETWEEN * (len(least) - 1)

    def _is_prose(self, number: int) -> bool:
        return self._headings[number] in PROSE

    def _table(self) -> Table:
        made = Table(box=None, pad_edge=False, padding=(0, BETWEEN, 0, 0), header_style="bold")
        for number, heading in enumerate(self._headings):
            made.add_column(heading, no_wrap=not self._is_prose(number), overflow="fold")
        for row in self._rows:
            made.add_row(*row)
        return made

    def _written(self, row: list[Text], width: int) -> Iterator[RenderableType]:
        head, parts = row[0].copy(), []
        if head.justify == "right":
            head = Text(f"{self._headings[0]} {head.plain}")
        for heading, text in zip(self._headings[1:], row[1:], strict=True):
            if text and heading:
                parts.append(Text.assemble((f"{heading} ", "dim"), text))
            elif text:
                head.append("  ").append_text(text)
        yield head
        line = Text()
        for part in parts:
            if line and line.cell_len + len(SEPARATOR) + part.cell_len > width - INDENT:
                yield Padding(line, (0, 0, 0, INDENT), expand=False)
                line = Text()
            line = Text(SEPARATOR).join([line, part]) if line else part
        if line:
            yield Padding(line, (0, 0, 0, INDENT), expand=False)


def cell(value: object) -> Text:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Text(f"{value:,.10g}" if isinstance(value, float) else f"{value:,}", justify="right")
    text = plain(value)
    return Text(text, style=STYLES.get(text, ""))


def shown_id(text: str | None) -> str:
    """An id as the screen shows it: on a terminal its last part, which commands accept, too; to a pipe the whole id."""
    return "" if text is None else text[-SHORT_ID:] if sys.stdout.isatty() else text


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


def span(began: str | None, ended: str | None) -> str:
    """From one instant to another, as `seconds` says it."""
    if began is None or ended is None:
        return ""
    return seconds((datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds())


def say_json(value: Any) -> None:
    """Printable characters as they are. Control characters, and those that change the writing direction, stay escaped."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    print(_BEYOND_ASCII.sub(lambda found: _escaped(found[0]), text), flush=True)


_BEYOND_ASCII = re.compile(r"[^\n\x20-\x7e]")


def _escaped(letter: str) -> str:
    return letter if letter.isprintable() else json.dumps(letter)[1:-1]
