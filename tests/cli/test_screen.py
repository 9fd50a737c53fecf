"""Rows as people see them: nothing but prose is broken into pieces, however narrow the terminal is."""

import io
import re
from typing import Any

import pytest
from rich.console import Console

from app.cli import queues, status, tasks
from app.cli.screen import Listing

ID = "019333f0-1234-7abc-8def-0123456789ab"
WHY = "waits for run_at · the handler answered 503 with sluice-retry: no"
ROWS: dict[tuple[str, ...], list[Any]] = {
    queues.HEADINGS: ["background", "a-handler", 200, 1200, 53210, 200, 17, 1234.5, "99.8%", "12 min", "paused"],
    tasks.LIST: [ID, "background-processing", "invoice.created", "scheduled", "1/25", "2026-11-25 22:10:11", WHY],
    tasks.ATTEMPTS: [1, "2026-11-25 22:10:11", "12 s", "lease_expired", 503, "vm-0123456789ab-f71625b0", "went silent"],
    status.QUEUES: ["background", "default", "a-handler", 1200, 53210, 200, 17, "12 min", "paused"],
    status.REPLICAS: ["vm-0123456789ab-f71625b0", "all", "0.1.0", "2026-11-25 22:10:11", "draining"],
    ("field", "value"): ["id", ID],
}


def printed(headings: tuple[str, ...], rows: list[list[Any]], width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(Listing(headings, rows))
    return out.getvalue().splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 100, 132, 1000])
@pytest.mark.parametrize("headings", list(ROWS))
def test_no_heading_number_or_name_is_broken(headings: tuple[str, ...], width: int) -> None:
    row = ROWS[headings]
    lines = printed(headings, [row, row], width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    for heading, value in zip(headings, row, strict=True):
        shown = f"{value:,}" if isinstance(value, int | float) else value
        assert heading in text or heading == headings[0], f"{heading!r} in\n{text}"
        if heading not in ("why", "error", "value"):
            assert len(re.findall(re.escape(shown), text)) >= 2, f"{shown!r} in\n{text}"


def test_what_fits_is_a_table_and_what_does_not_is_written_row_by_row() -> None:
    row = ROWS[queues.HEADINGS]
    assert len(printed(queues.HEADINGS, [row, row], 132)) == 3, "headings and two rows"
    assert printed(queues.HEADINGS, [row], 80) == [
        "background  paused",
        "  handler a-handler · limit 200 · scheduled 1,200 · ready 53,210 · running 200",
        "  dead 17 · ended/min 1,234.5 · succeeded 99.8% · p95 wait 12 min",
    ]
    assert printed(tasks.ATTEMPTS, [ROWS[tasks.ATTEMPTS]], 80)[0] == "attempt 1"
