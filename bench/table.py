"""The measures, what each row of the table shows of them, and what it should reach."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from bench.ground import Ground
from bench.measures import crowding, delivering, enqueueing

Found = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Target:
    value: float
    least: bool
    """Whether it is to be reached; otherwise it is not to be exceeded."""

    def share(self, measured: float) -> float:
        """How far the target is reached: 1 and more is met."""
        if self.least:
            return measured / self.value
        return self.value / measured if measured > 0 else float("inf")


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

    def value(self, found: Found) -> float:
        inside: Any = found
        for key in self.path.split("."):
            inside = inside[key]
        return float(inside)


@dataclass(frozen=True, slots=True)
class Measure:
    name: str
    run: Callable[[Ground], Awaitable[Found]]
    rows: tuple[Row, ...]


MEASURES = (
    Measure(
        "end-to-end",
        delivering.end_to_end,
        (Row("end to end, one process, of bare", "ratio", "x", at_least(0.6), "{sluice:,.0f} of {bare:,.0f} tasks/s"),),
    ),
    Measure(
        "limits",
        delivering.limits,
        (
            Row(
                "with limits on queue and tenant, 4 replicas, of unlimited",
                "several.ratio",
                "x",
                at_least(0.9),
                "{several[limited]:,.0f} of {several[unlimited]:,.0f} tasks/s",
            ),
            Row(
                "with limits on queue and tenant, 1 replica, of unlimited",
                "one.ratio",
                "x",
                None,
                "{one[limited]:,.0f} of {one[unlimited]:,.0f} tasks/s",
            ),
            Row("most attempts at once under a limit of 64", "several.most_at_once", "", at_most(64)),
        ),
    ),
    Measure(
        "many-queues",
        delivering.many_queues,
        (
            Row(
                "1,000 active queues, tasks arriving, of one queue",
                "arriving.ratio",
                "x",
                at_least(0.85),
                "{arriving[many]:,.0f} of {arriving[one]:,.0f} tasks/s, {queues:,} queues",
            ),
            Row(
                "1,000 active queues, tasks stored beforehand, of one queue",
                "stored.ratio",
                "x",
                at_least(0.85),
                "{stored[many]:,.0f} of {stored[one]:,.0f} tasks/s",
            ),
        ),
    ),
    Measure(
        "both",
        delivering.both,
        (
            Row(
                "both at once, sustained, of bare doing both",
                "ratio",
                "x",
                at_least(0.4),
                "{per_second:,.0f} of {bare:,.0f} tasks/s; backlog at most {backlog_max:,}",
            ),
            Row(
                "both at once, of bare delivering what is stored",
                "ratio_to_stored",
                "x",
                None,
                "{per_second:,.0f} of {bare_stored:,.0f} tasks/s",
            ),
            Row("both at once: start delay, p99", "start_delay.p99_ms", "ms", None, "p50 {start_delay[p50_ms]:.0f} ms"),
        ),
    ),
    Measure(
        "enqueue",
        enqueueing.single,
        (
            Row("enqueue, one POST per task, 64 connections", "sluice", "/s", at_least(5_000)),
            Row("the same, of a bare route", "ratio", "x", None, "{sluice:,.0f} of {bare:,.0f}/s"),
        ),
    ),
    Measure(
        "bulk",
        enqueueing.bulk,
        (
            Row("enqueue in batches of 1,000, two clients", "two.sluice", "/s", at_least(50_000)),
            Row(
                "the same, of bare inserts without HTTP",
                "two.ratio",
                "x",
                None,
                "{two[sluice]:,.0f} of {two[bare]:,.0f}/s",
            ),
            Row("enqueue in batches of 1,000, one client", "one.sluice", "/s"),
        ),
    ),
    Measure(
        "idle",
        crowding.idle,
        (
            Row(
                "10,000 idle queues, 1,000,000 delayed tasks, of none",
                "end_to_end.ratio",
                "x",
                at_least(0.8),
                "{end_to_end[with]:,.0f} of {end_to_end[none]:,.0f} tasks/s",
            ),
            Row(
                "an idle service: share of a core",
                "idle.service_share",
                "%",
                at_most(0.01),
                "Postgres {idle[postgres_share]:.1%}",
            ),
            Row("an idle service: statements", "idle.statements_per_second", "/s", at_most(5)),
        ),
    ),
)
