"""What fired, read from the database when all is over, against what had to."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import asyncpg

from bench.chaos.definitions import Timed
from bench.chaos.handler import Call
from bench.figures import quantile

_ROWS = """
select s.name, r.nominal_at, r.nominal_until, r.count, r.cause, r.outcome, r.task_id::text as task,
  extract(epoch from r.fired_at - r.nominal_at)::float8 - r.jitter_seconds as lag
from sluice.schedule_runs r join sluice.schedules s on s.id = r.schedule_id
"""
_TASKS = """
select t.options ->> 'schedule' as schedule, (t.options ->> 'scheduled_for')::timestamptz as scheduled_for, t.id::text as task
from (select options, id from sluice.tasks union all select options, id from sluice.task_history) t
where t.options ? 'schedule'
"""
_LEFT = """
select (select count(*) from sluice.schedules where look_at is not null)
     + (select count(*) from sluice.schedule_runs where outcome in ('running', 'waiting'))
"""
SHOWN = 5
"""How many faults of a sort are told one by one."""

Runs = dict[tuple[str, datetime], list[str]]
"""The ids of tasks by schedule and nominal time."""


@dataclass
class Line:
    """A row of the table, of one kind of schedule."""

    kind: str
    schedules: int = 0
    expected: int = 0
    fired: int = 0
    missed: int = 0
    double: int = 0
    unexpected: int = 0

    @property
    def exact(self) -> bool:
        return self.expected == self.fired and not (self.missed or self.double or self.unexpected)


@dataclass
class Verdict:
    lines: list[Line]
    total: Line
    lag_seconds: dict[str, dict[str, float]]
    """Quantiles by cause."""
    causes: dict[str, int]
    outcomes: dict[str, int]
    deliveries: int
    again: int
    """Deliveries beyond the first of a task, as at-least-once allows."""
    faults: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


async def left(database: asyncpg.Connection) -> int:
    """Schedules with times to come, and runs that have not ended."""
    return int(await database.fetchval(_LEFT))


async def judge(
    database: asyncpg.Connection, expected: Mapping[Timed, list[datetime]], delivered: list[Call]
) -> Verdict:
    rows = await database.fetch(_ROWS)
    ledger: Runs = defaultdict(list)
    for row in rows:
        if row["task"] is not None:
            ledger[row["name"], row["nominal_at"]].append(row["task"])
    tasks: Runs = defaultdict(list)
    for row in await database.fetch(_TASKS):
        tasks[row["schedule"], row["scheduled_for"]].append(row["task"])
    calls = Counter(delivered)
    called: Runs = defaultdict(list)
    for call in calls:
        called[call.schedule, call.nominal_at].append(call.task)

    faults = Faults()
    lines: dict[str, Line] = {}
    for timed, times in expected.items():
        line = lines.setdefault(timed.kind, Line(timed.kind))
        line.schedules += 1
        line.expected += len(times)
        fired = {at for name, at in ledger if name == timed.name}
        line.fired += len(fired)
        for at in sorted(fired - set(times)):
            line.unexpected += 1
            faults.add("unexpected", timed.name, at)
        for at in times:
            key = (timed.name, at)
            if at not in fired:
                line.missed += 1
                faults.add("missed", *key)
            if max(len(ledger[key]), len(tasks[key]), len(called[key])) > 1:
                line.double += 1
                faults.add("double", *key)
            elif at in fired and not ledger[key] == tasks[key] == called[key]:
                faults.add("row, task and delivery do not agree", *key)
    for row in rows:
        if row["task"] is None or row["count"] != 1 or row["nominal_at"] != row["nominal_until"]:
            faults.add(f"{row['count']} times in a row without a run, {row['outcome']}", row["name"], row["nominal_at"])
        elif row["outcome"] != "ran_ok":
            faults.add(f"a run that is {row['outcome']}", row["name"], row["nominal_at"])
    causes = Counter(row["cause"] for row in rows)
    return Verdict(
        list(lines.values()),
        _total(lines.values()),
        {cause: _quantiles([row["lag"] for row in rows if row["cause"] == cause]) for cause in sorted(causes)},
        dict(causes),
        dict(Counter(row["outcome"] for row in rows)),
        len(delivered),
        len(delivered) - len(calls),
        faults.told(),
    )


def _quantiles(lags: list[float | None]) -> dict[str, float]:
    known = sorted(lag for lag in lags if lag is not None)
    return {"p50": quantile(known, 0.5), "p99": quantile(known, 0.99), "max": quantile(known, 1.0)}


class Faults:
    def __init__(self) -> None:
        self._found: dict[str, list[str]] = defaultdict(list)

    def add(self, what: str, name: str, at: datetime) -> None:
        self._found[what].append(f"{name} at {at.isoformat()}")

    def told(self) -> list[str]:
        return [f"{len(found)} x {what}: {', '.join(found[:SHOWN])}" for what, found in self._found.items()]


def _total(lines: Any) -> Line:
    total = Line("all")
    for line in lines:
        for name in ("schedules", "expected", "fired", "missed", "double", "unexpected"):
            setattr(total, name, getattr(total, name) + getattr(line, name))
    return total
