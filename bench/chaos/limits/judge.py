"""What the limits promise, held against the record. Nothing here is the product's.

Concurrency is judged in the order of the commits: after each commit that admitted tasks, each limit that these take may have no
more running tasks than it allows. Rates are judged in the order of `at`, with a leaky bucket as a meter: it holds at most the
burst if and only if any window of W seconds admits at most burst + rate x W. From when a change is sent until it is answered,
both the old and the new terms may hold. What a bucket owes when its burst is lowered fills it, and is no more than that.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import groupby

from bench.chaos.limits.record import Event
from bench.chaos.limits.terms import Rate, Task, Terms, Use

ROUNDING = 0.01
"""Units: instants are kept in microseconds."""
TURNS = 3
"""How many tasks of one other key may start between a probe's storing and its start, beyond the claim that is under way."""
SHOWN = 5
"""How many faults of a kind are told one by one."""
ANYTHING = (Terms(),)


class Book:
    """Which terms of each limit may be in force."""

    def __init__(self) -> None:
        self._may: dict[str, tuple[Terms, ...]] = {}

    def note(self, event: Event) -> None:
        assert isinstance(event.body, dict)
        for name, terms in event.body.items():
            before = self._may.get(name, (Terms(removed="/" in name),))
            self._may[name] = (terms,) if event.what == "changed" else (*before, terms)

    def of(self, use: Use) -> list[Terms]:
        """Return all terms that may hold for what a task takes. A pause of the limit holds beside an override."""
        own = self._may.get(use.limit, ANYTHING)
        if use.key is None:
            return list(own)
        found = []
        for override in self._may.get(f"{use.limit}/{use.key}", (Terms(removed=True),)):
            for terms in own:
                found.append(terms if override.removed else _overridden(terms, override))
        return found


def _overridden(terms: Terms, override: Terms) -> Terms:
    return Terms(
        terms.max_concurrency if override.max_concurrency is None else override.max_concurrency,
        override.rate or terms.rate,
        terms.paused or override.paused,
    )


@dataclass
class Meter:
    """How full the bucket of a rate is, in units."""

    level: float = 0.0
    at: datetime | None = None
    fullest: float = 0.0
    """As a share of the burst."""

    def drain(self, at: datetime, per_second: float) -> None:
        if self.at is not None:
            self.level = max(0.0, self.level - (at - self.at).total_seconds() * per_second)
        self.at = at


@dataclass
class Line:
    """A row of the table: one limit, with all its keys."""

    name: str
    admitted: int = 0
    keys: set[str | None] = field(default_factory=set)
    most: int = 0
    """The most that ran at once under one key."""
    over: int = 0
    paused: int = 0
    """Admissions while it, or the key, was paused."""
    above_rate: int = 0
    fullest: float = 0.0


@dataclass
class Verdict:
    lines: dict[str, Line] = field(default_factory=dict)
    stored: int = 0
    admitted: int = 0
    ended: int = 0
    stranded: int = 0
    """Tasks that never ended."""
    overlapping: int = 0
    """Starts of an ordered key while another of its tasks ran."""
    overtaking: int = 0
    """Starts of an ordered key before an earlier task had ended."""
    twice: int = 0
    """Admissions of a task that was running."""
    probes: int = 0
    overtaken: int = 0
    """The most tasks of one other key that went before a probe."""
    faults: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def line(self, name: str) -> Line:
        return self.lines.setdefault(name, Line(name))

    def fault(self, what: str, event: Event, more: str) -> None:
        self.faults[what].append(f"{more} (event {event.number}, task {event.task}, {event.at.isoformat()})")

    def told(self) -> list[str]:
        return [f"{len(found)} x {what}: {'; '.join(found[:SHOWN])}" for what, found in sorted(self.faults.items())]

    @property
    def exact(self) -> bool:
        return not self.faults


Bucket = tuple[str, str | None]


def judge(events: Sequence[Event]) -> Verdict:
    """Judge a record that is over: whatever has not ended by then is stranded."""
    verdict = Verdict()
    _judge_concurrency(events, verdict)
    _judge_rates(events, verdict)
    _judge_order(events, verdict)
    _judge_turns(events, verdict)
    _judge_end(events, verdict)
    return verdict


def _judge_concurrency(events: Iterable[Event], verdict: Verdict) -> None:
    book, running, held = Book(), dict[str, Task](), Counter[Bucket]()
    for _, group in groupby(events, key=lambda event: event.commit):
        admitted: dict[Bucket, tuple[Use, Event]] = {}
        for event in group:
            if event.what in ("changing", "changed"):
                book.note(event)
            elif event.what == "ended" and (task := running.pop(str(event.task), None)):
                held.subtract(_buckets(task))
            elif event.what == "admitted":
                assert isinstance(event.body, Task)
                if str(event.task) in running:
                    verdict.twice += 1
                    verdict.fault("admitted while it ran", event, "")
                    held.subtract(_buckets(running[str(event.task)]))
                running[str(event.task)] = event.body
                held.update(_buckets(event.body))
                verdict.admitted += 1
                admitted |= {(use.limit, use.key): (use, event) for use in event.body.uses}
                for use in event.body.uses:
                    line = verdict.line(use.limit)
                    line.admitted += 1
                    line.keys.add(use.key)
        for bucket, (use, event) in admitted.items():
            _judge_bucket(verdict, book.of(use), held[bucket], use, event)


def _judge_bucket(verdict: Verdict, terms: list[Terms], held: int, use: Use, event: Event) -> None:
    line = verdict.line(use.limit)
    line.most = max(line.most, held)
    limits = [one.max_concurrency for one in terms]
    most = None if None in limits else max(limit for limit in limits if limit is not None)
    if most is not None and held > most:
        line.over += 1
        verdict.fault("over a limit", event, f"{held} run under {use.limit} {use.key or ''}, which allows {most}")
    if all(one.paused for one in terms):
        line.paused += 1
        verdict.fault("admitted while paused", event, f"{use.limit} {use.key or ''}")


def _buckets(task: Task) -> list[Bucket]:
    return [(use.limit, use.key) for use in task.uses]


def _judge_rates(events: Iterable[Event], verdict: Verdict) -> None:
    book, meters, uses = Book(), dict[Bucket, Meter](), dict[Bucket, Use]()
    timed = sorted(
        (event for event in events if event.what in ("admitted", "changing", "changed")), key=lambda event: event.at
    )
    for _, group in groupby(timed, key=lambda event: event.at):
        full: dict[Bucket, Event] = {}
        for event in group:
            if event.what != "admitted":
                # drain by the terms so far
                for bucket, meter in meters.items():
                    _drain(meter, event.at, book.of(uses[bucket]))
                book.note(event)
                for bucket, meter in meters.items():
                    _lower(meter, book.of(uses[bucket]))
                continue
            assert isinstance(event.body, Task)
            for use in event.body.uses:
                bucket = (use.limit, use.key)
                meter, uses[bucket] = meters.setdefault(bucket, Meter()), use
                rate = _drain(meter, event.at, book.of(use))
                meter.level += min(use.cost, rate.burst) if rate else 0.0
                full[bucket] = event
        for bucket, event in full.items():
            rate = _drain(meters[bucket], event.at, book.of(uses[bucket]))
            line = verdict.line(bucket[0])
            if rate is None:
                continue
            line.fullest = max(line.fullest, meters[bucket].level / rate.burst)
            if meters[bucket].level > rate.burst + ROUNDING:
                line.above_rate += 1
                level = meters[bucket].level
                verdict.fault("above a rate", event, f"{level:.2f} of {rate.burst:g} in {bucket[0]} {bucket[1] or ''}")
            _lower(meters[bucket], book.of(uses[bucket]))


def _drain(meter: Meter, at: datetime, terms: list[Terms]) -> Rate | None:
    """Let the meter drain by the most generous of the terms that may hold, and return it; None if one has no rate."""
    rates = [one.rate for one in terms]
    if None in rates:
        meter.level, meter.at = 0.0, at
        return None
    known = [rate for rate in rates if rate is not None]
    widest = Rate(max(rate.per_second for rate in known), max(rate.burst for rate in known))
    meter.drain(at, widest.per_second)
    return widest


def _lower(meter: Meter, terms: list[Terms]) -> None:
    """Let the bucket hold no more than its burst: what an earlier, larger one admitted fills it, and is not owed beyond that."""
    meter.level = min([meter.level, *(one.rate.burst for one in terms if one.rate is not None)])


def _judge_order(events: Iterable[Event], verdict: Verdict) -> None:
    """Of keys whose tasks have places: each starts when all earlier ones have ended for good, and while none of the key runs."""
    waiting: dict[tuple[str, str | None], dict[str, int]] = defaultdict(dict)
    keys: dict[str, tuple[str, str | None]] = {}
    running: dict[tuple[str, str | None], str] = {}
    for event in events:
        task = str(event.task)
        if event.what in ("stored", "admitted") and isinstance(event.body, Task) and event.body.place is not None:
            key = keys[task] = (event.body.queue, event.body.key)
            waiting[key].setdefault(task, event.body.place)
            if event.what == "stored":
                continue
            if running.get(key, task) != task:
                verdict.overlapping += 1
                verdict.fault("an ordered key overlaps", event, f"{key} beside {running[key]}")
            running[key] = task
            if earlier := [other for other, place in waiting[key].items() if place < event.body.place]:
                verdict.overtaking += 1
                verdict.fault("an ordered key is overtaken", event, f"{key} before {earlier[0]}")
        elif event.what in ("ended", "gone") and task in keys:
            key = keys[task]
            if event.what == "gone":
                waiting[key].pop(task, None)
            if running.get(key) == task:
                del running[key]


@dataclass
class Waiting:
    """A probe that waits."""

    queue: str
    claims: int = 0
    """Claims of its queue since it was stored. The first may have been under way before."""
    before: Counter[tuple[str | None, tuple[Use, ...]]] = field(default_factory=Counter)
    """Starts after that claim, by key and limits."""


def _judge_turns(events: Iterable[Event], verdict: Verdict) -> None:
    """Count, for each probe, how many tasks of one other key of its queue went before it, however many wait."""
    waiting: dict[str, Waiting] = {}
    for _, group in groupby(events, key=lambda event: event.commit):
        admitted: list[tuple[Event, Task]] = []
        for event in group:
            if event.what == "stored" and isinstance(event.body, Task) and event.body.probe:
                waiting[str(event.task)] = Waiting(event.body.queue)
            elif event.what == "admitted" and isinstance(event.body, Task):
                admitted.append((event, event.body))
        for event, _task in admitted:
            if probe := waiting.pop(str(event.task), None):
                verdict.probes += 1
                ((key, most),) = probe.before.most_common(1) or [((None, ()), 0)]
                verdict.overtaken = max(verdict.overtaken, most)
                if most > TURNS:
                    verdict.fault("a key waits longer than its turn", event, f"{most} tasks of {key} went before")
        for probe in waiting.values():
            started = [task for _, task in admitted if task.queue == probe.queue]
            if probe.claims:
                probe.before.update((task.key, task.uses) for task in started)
            probe.claims += bool(started)


def _judge_end(events: Iterable[Event], verdict: Verdict) -> None:
    left: dict[str, Event] = {}
    for event in events:
        if event.what == "stored":
            verdict.stored += 1
            left[str(event.task)] = event
        elif event.what == "gone" and str(event.task) in left:
            del left[str(event.task)]
            verdict.ended += 1
    verdict.stranded = len(left)
    for event in left.values():
        verdict.fault("stranded", event, f"{event.body}")
