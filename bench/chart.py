"""Bar charts as SVG, for the files of bench/results: plain text, readable on a light page and on a dark one.

    panels = [Panel("tasks/s, one worker process", [Bar("Sluice", 5_100, "1.00"), Bar("bare", 9_000, "1.76", pale=True)])]
    Path("rates.svg").write_text(svg("Sluice beside other queues", panels, ["2 x some CPU, commit abc1234"]))

Panels stand one below the other, each with a scale of its own from zero. `Bar.note` is written behind the value. A bar
without a value is a label with "-".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from textwrap import wrap

WIDTH = 760
LABELS = 170
NOTES = 210
ROW = 24
BAR = 16
TITLE = 34
PANEL_TITLE = 30
FOOTER_LINE = 16
FOOTER_LETTERS = 125
MARGIN = 16

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-size: 16px; font-weight: 600 }
.panel { font-weight: 600 }
.note, .footer { fill: #656d76 }
.footer { font-size: 11px }
.bar { fill: #8c959f }
.strong { fill: #0969da }
.pale { fill: #d0d7de }
.ground { fill: #ffffff }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .note, .footer { fill: #8d96a0 }
  .bar { fill: #6e7681 }
  .strong { fill: #4493f8 }
  .pale { fill: #3d444d }
  .ground { fill: #0d1117 }
}
"""


@dataclass(frozen=True)
class Bar:
    label: str
    value: float | None
    note: str = ""
    strong: bool = False
    """The subject of the chart."""
    pale: bool = False
    """A yardstick, and not one of those compared."""


@dataclass(frozen=True)
class Panel:
    title: str
    bars: Sequence[Bar]


def svg(title: str, panels: Sequence[Panel], footer: Sequence[str] = (), labels: int = LABELS) -> str:
    """The whole file; wider, if `labels` need more room."""
    width = WIDTH + labels - LABELS
    parts = [_text(MARGIN, MARGIN + 16, title, "title")]
    y = MARGIN + TITLE
    for panel in panels:
        parts.append(_text(MARGIN, y + 14, panel.title, "panel"))
        y += PANEL_TITLE
        most = max((bar.value for bar in panel.bars if bar.value), default=1.0)
        for bar in panel.bars:
            parts += _row(bar, y, most, labels)
            y += ROW
        y += MARGIN
    for line in (short for long in footer for short in wrap(long, FOOTER_LETTERS)):
        parts.append(_text(MARGIN, y + 8, line, "footer"))
        y += FOOTER_LINE
    height = y + MARGIN // 2
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{escape(title)}">'
    )
    ground = f'<rect class="ground" width="{width}" height="{height}"/>'
    return "\n".join([head, f"<style>{STYLE}</style>", ground, *parts, "</svg>"]) + "\n"


def _row(bar: Bar, y: int, most: float, labels: int) -> list[str]:
    length = (bar.value or 0) / most * (WIDTH - LABELS - NOTES - 2 * MARGIN)
    shade = "strong" if bar.strong else "pale" if bar.pale else "bar"
    value = "-" if bar.value is None else f"{bar.value:,.0f}" if bar.value >= 10 else f"{bar.value:.2f}"
    begin = MARGIN + labels
    note = f'<tspan class="note" dx="8">{escape(bar.note)}</tspan>' if bar.note else ""
    return [
        _text(begin - 8, y + 13, bar.label, "", 'text-anchor="end"'),
        f'<rect class="{shade}" x="{begin}" y="{y}" width="{length:.1f}" height="{BAR}" rx="2"/>',
        f'<text x="{begin + length + 6:.1f}" y="{y + 13}">{value}{note}</text>',
    ]


def _text(x: int, y: int, text: str, style: str, more: str = "") -> str:
    attributes = " ".join(filter(None, [f'x="{x}" y="{y}"', f'class="{style}"' if style else "", more]))
    return f"<text {attributes}>{escape(text)}</text>"
