"""What a row of the table shows, and what it should reach."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from bench.ground import Ground

Found = dict[str, Any]
Run = Callable[[Ground], Awaitable[Found]]
SHARE_MAX = 10.0


class LeftOut(Exception):
    """Raised by a measure that this machine lacks something for, in words for people."""


@dataclass(frozen=True, slots=True)
class Target:
    value: float
    least: bool
    """Whether it is to be reached; otherwise it is not to be exceeded."""

    def share(self, measured: float) -> float:
        """How far the target is reached: 1 and more is met; at most SHARE_MAX."""
        if self.least:
            return min(measured / self.value, SHARE_MAX)
        return min(self.value / measured, SHARE_MAX) if measured > 0 else SHARE_MAX

    def met(self, measured: float) -> bool:
        return measured >= self.value if self.least else measured <= self.value


def at_least(value: float) -> Target:
    return Target(value, True)


def at_most(value: float) -> Target:
    return Target(value, False)


@dataclass(frozen=True, slots=True)
class Row:
    what: str
    path: str
    """Where the figure is in what the measure has found, by keys."""
    unit: str = ""
    target: Target | None = None
    beside: str = ""
    """What else to show of it, as a format of what the measure has found."""
    headline: bool = False
    """Whether the README shows it."""

    def figure(self, measure: str, found: Found) -> dict[str, Any]:
        """What is printed, drawn and kept of it."""
        value = self._value(found)
        figure: dict[str, Any] = {"measure": measure, "what": self.what, "value": value, "unit": self.unit}
        if self.target is not None:
            figure |= {
                "target": self.target.value,
                "at": "least" if self.target.least else "most",
                "of_target": self.target.share(value),
                "met": self.target.met(value),
            }
        return figure | {"beside": self.beside.format_map(found), "headline": self.headline}

    def _value(self, found: Found) -> float:
        inside: Any = found
        for key in self.path.split("."):
            inside = inside[key]
        return float(inside)


@dataclass(frozen=True, slots=True)
class Measure:
    name: str
    run: Run
    rows: tuple[Row, ...]
