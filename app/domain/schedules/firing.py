"""What happens to a schedule's nominal times: pure decisions, from what is due to rows of the ledger.

Every nominal time ends up in exactly one row. Times are processed in order from the first that is not in a row yet:

1. While the schedule is paused, times that have come are `paused`.
2. A time later than the grace goes to catch-up. Older than the window, it is `missed`. Otherwise mode `none` makes it `missed`,
`latest` runs the newest and makes the others `superseded`, and `all` runs the newest 1,000, one after another, and makes the
others `missed`. A time within the grace fires with cause `cron`.
3. The overlap policy compares a time that fires with the unfinished runs: it starts, waits, or is skipped.
4. After the last run that max_runs allows there are no more nominal times.

Jitter moves the instant of firing but not the nominal time, and never past the next nominal time (the same bound as Temporal's).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import chain, islice
from typing import Literal

from app.domain.schedules.definitions import Overlap, ScheduleDefinition
from app.domain.schedules.times import grid_until, jitter_of, times_after

CATCH_UP_ALL = 1000
"""How many late times mode `all` runs."""
BUFFER_ALL = 100
"""How many starts may wait under buffer_all."""
MAX_TIMES = 20_000
"""How many times one decision covers; the next one continues."""
PAUSED_LOOK = timedelta(seconds=30)
"""How often the times of a paused schedule are recorded."""

Cause = Literal["cron", "catch_up", "backfill", "trigger"]


@dataclass(frozen=True, slots=True)
class Runs:
    """A schedule's unfinished runs at the moment of the decision."""

    running: int = 0
    catching_up: int = 0
    """How many of `running` were started by catch-up."""
    waiting: int = 0


@dataclass(frozen=True, slots=True)
class DueTime:
    """A nominal time that may fire."""

    nominal_at: datetime
    cause: Cause
    jitter_seconds: float = 0.0
    queued: bool = False
    """Run one after another whatever the overlap policy: catch-up with mode `all`."""
    extra: bool = False
    """Outside the sequence of nominal times: a trigger, or a rerun."""


@dataclass(frozen=True, slots=True)
class TimesWithoutRun:
    """Consecutive nominal times without a run."""

    first: datetime
    last: datetime
    count: int
    outcome: str
    cause: Cause = "cron"
    extra: bool = False


@dataclass(frozen=True, slots=True)
class Start:
    due: DueTime
    waiting: bool = False


@dataclass(slots=True)
class DueTimes:
    """The decisions about a schedule."""

    lines: list[DueTime | TimesWithoutRun] = field(default_factory=list)
    next_nominal_at: datetime | None = None
    more: bool = False
    """There is more to process right away."""


@dataclass(slots=True)
class OverlapDecision:
    lines: list[Start | TimesWithoutRun] = field(default_factory=list)
    exhausted: bool = False
    """max_runs is reached, so nothing due later is a nominal time."""
    cancel: bool = False
    """Unfinished runs must be cancelled first."""

    @property
    def runs(self) -> int:
        return sum(isinstance(line, Start) for line in self.lines)


def bounded_jitter(definition: ScheduleDefinition, key: str, nominal: datetime, following: datetime | None) -> float:
    """Return how many seconds after its nominal time a run fires."""
    if definition.jitter_seconds <= 0:
        return 0.0
    jitter = jitter_of(definition, key, nominal)
    if following is not None:
        jitter *= min(1.0, (following - nominal).total_seconds() / definition.jitter_seconds)
    return jitter


def _due(definition: ScheduleDefinition, key: str, first: datetime, now: datetime) -> Iterator[tuple[datetime, float]]:
    """Yield (nominal, jitter) of what is due by now, from `first` on, which is a nominal time of the definition."""
    times = chain((first,), times_after(definition, first))
    nominal: datetime | None = next(times)
    while nominal is not None:
        following = next(times, None) if definition.jitter_seconds > 0 else None
        jitter = bounded_jitter(definition, key, nominal, following)
        if nominal + timedelta(seconds=jitter) > now:
            return
        yield nominal, jitter
        nominal = following if definition.jitter_seconds > 0 else next(times, None)


def fires_at(definition: ScheduleDefinition, key: str, nominal: datetime) -> datetime:
    if definition.jitter_seconds <= 0:
        return nominal
    following = next(times_after(definition, nominal), None)
    return nominal + timedelta(seconds=bounded_jitter(definition, key, nominal, following))


def due_times(
    definition: ScheduleDefinition, key: str, first: datetime, now: datetime, *, grace_seconds: float, paused: bool
) -> DueTimes:
    """Decide about the times that have come. `first` is the first that is not in a row yet; `key` identifies the schedule."""
    if paused:
        return _times_without_run(definition, first, now, "paused")
    due = list(islice(_due(definition, key, first, now), MAX_TIMES + 1))
    more = len(due) > MAX_TIMES
    if more:
        # the times that catch-up would run may be among those not seen yet, and times within the grace fire
        kept = {"none": 0, "latest": 1, "all": CATCH_UP_ALL}[definition.catch_up.mode]
        late_before = now - timedelta(seconds=grace_seconds)
        late = sum(nominal + timedelta(seconds=jitter) < late_before for nominal, jitter in due)
        del due[max(1, min(MAX_TIMES, late) - kept) :]
    last = due[-1][0] if due else None
    return DueTimes(
        list(_classified(definition, due, now, grace_seconds, more=more)),
        first if last is None else next(times_after(definition, last), None),
        more,
    )


def _classified(
    definition: ScheduleDefinition,
    due: Sequence[tuple[datetime, float]],
    now: datetime,
    grace_seconds: float,
    *,
    more: bool,
) -> Iterator[DueTime | TimesWithoutRun]:
    late_before = now - timedelta(seconds=grace_seconds)
    late = sum(nominal + timedelta(seconds=jitter) < late_before for nominal, jitter in due)
    window = definition.catch_up.window_seconds
    mode = definition.catch_up.mode
    taken = 0 if more or mode == "none" else 1 if mode == "latest" else CATCH_UP_ALL
    for n, (nominal, jitter) in enumerate(due):
        if n >= late and not more:
            yield DueTime(nominal, "cron", jitter)
        elif window is not None and (now - nominal).total_seconds() > window:
            yield TimesWithoutRun(nominal, nominal, 1, "missed")
        elif n >= late - taken and not more:
            yield DueTime(nominal, "catch_up", jitter, queued=mode == "all")
        else:
            yield TimesWithoutRun(nominal, nominal, 1, "superseded" if mode == "latest" else "missed")


def _times_without_run(definition: ScheduleDefinition, first: datetime, now: datetime, outcome: str) -> DueTimes:
    if first > now:
        return DueTimes([], first)
    grid = grid_until(definition, first, now)
    if grid is not None:
        following = next(times_after(definition, grid[0]), None)
        return DueTimes([TimesWithoutRun(first, grid[0], grid[1], outcome)], following)
    last, count = first, 1
    for nominal in times_after(definition, first):
        if nominal > now:
            return DueTimes([TimesWithoutRun(first, last, count, outcome)], nominal)
        if count == MAX_TIMES:
            return DueTimes([TimesWithoutRun(first, last, count, outcome)], nominal, more=True)
        last, count = nominal, count + 1
    return DueTimes([TimesWithoutRun(first, last, count, outcome)], None)


def left_over(
    definition: ScheduleDefinition, first: datetime | None, now: datetime, outcome: str
) -> list[TimesWithoutRun]:
    """Return all times that have come but are not in a row when their definition ends, however many they are."""
    held: TimesWithoutRun | None = None
    while first is not None:
        step = _times_without_run(definition, first, now, outcome)
        for line in step.lines:
            assert isinstance(line, TimesWithoutRun)
            held = line if held is None else replace(held, last=line.last, count=held.count + line.count)
        first = step.next_nominal_at if step.more else None
    return [] if held is None else [held]


def apply_overlap(
    lines: Iterable[DueTime | TimesWithoutRun], runs: Runs, overlap: Overlap, remaining: int | None = None
) -> OverlapDecision:
    """Apply the overlap policy in the order of the times. `remaining` is how many runs max_runs still allows."""
    decision = OverlapDecision()
    listed = list(lines)
    running, catching_up, waiting = runs.running, runs.catching_up, runs.waiting
    last = max((n for n, line in enumerate(listed) if isinstance(line, DueTime)), default=-1)
    found: list[Start | TimesWithoutRun] = []
    left = remaining
    for n, line in enumerate(listed):
        if left is not None and left <= 0:
            decision.exhausted = True
            break
        if isinstance(line, TimesWithoutRun):
            found.append(line)
            continue
        ahead = (catching_up if overlap == "allow_all" else running) + waiting
        verdict = _verdict(line, overlap, running, waiting, ahead, is_last=n == last)
        match verdict:
            case "start":
                decision.cancel = decision.cancel or (overlap == "cancel_other" and not line.queued and running > 0)
                found.append(Start(line))
                running += 1
                catching_up += line.cause == "catch_up"
            case "wait":
                found.append(Start(line, waiting=True))
                waiting += 1
            case outcome:
                cause: Cause = line.cause if line.extra else "cron"
                found.append(TimesWithoutRun(line.nominal_at, line.nominal_at, 1, outcome, cause, line.extra))
        if left is not None and verdict in ("start", "wait"):
            left -= 1
    decision.exhausted = decision.exhausted or left == 0
    decision.lines = list(_joined(found))
    return decision


def _verdict(due: DueTime, overlap: Overlap, running: int, waiting: int, ahead: int, *, is_last: bool) -> str:
    """Return `start`, `wait`, or the outcome of a time that does not run."""
    if due.queued:
        return "wait" if ahead else "start"
    if overlap == "allow_all":
        return "start"
    if overlap == "cancel_other":
        return "start" if is_last else "superseded"
    if not running and not waiting:
        return "start"
    room = {"skip": 0, "buffer_one": 1, "buffer_all": BUFFER_ALL}[overlap]
    return "wait" if waiting < room else "skipped_overlap"


def may_start(overlap: Overlap, runs: Runs) -> bool:
    """Return whether the oldest waiting start may run now: one at a time, because it blocks the next."""
    return not (runs.catching_up if overlap == "allow_all" else runs.running)


def _joined(lines: Iterable[Start | TimesWithoutRun]) -> Iterator[Start | TimesWithoutRun]:
    """Merge consecutive times without a run and with the same outcome into one row."""
    held: TimesWithoutRun | None = None
    for line in lines:
        if isinstance(line, TimesWithoutRun) and held is not None and held.outcome == line.outcome and not line.extra:
            held = replace(held, last=line.last, count=held.count + line.count)
            continue
        if held is not None:
            yield held
        held = line if isinstance(line, TimesWithoutRun) else None
        if held is None:
            yield line
    if held is not None:
        yield held
