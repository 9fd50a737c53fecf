"""Handlers that suffer: when a breaker opens and closes, and how many calls at once an adaptive handler gets.

Pure tables over what all replicas have counted. A handler's `Health` changes only under its exclusive lock, like its definition,
and each change of the breaker's state begins a new period. A call counts in the period in which it was admitted, so a late
failure of an earlier one changes nothing.

closed     a failure share of `failure_percent` among at least `min_calls` calls of the window opens it
open       nothing is admitted; a probe is after `open_seconds`, or not until it is closed, if it was opened by hand
half_open  the handler's limit is 1, so all replicas together admit one call, the probe. Its failure opens the breaker for twice
           as long as before (at most `open_max_seconds`), its success closes it. Anything else proves nothing, and the next call
           is the probe.
slow start a closed breaker admits a tenth of what the handler had before at first, at least 1, and twice as many each second

The adaptive limit is TCP's (additive increase, multiplicative decrease; Chiu and Jain 1989), judged once per second.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Literal

from msgspec import Meta, Struct, structs

from app.domain.answers import Answer, NoAnswer
from app.domain.histograms import percentile
from app.domain.limits import MaxConcurrency

MAX_WINDOW_SECONDS = 3600
MAX_OPEN_SECONDS = 86_400.0
PUSHING_BACK = frozenset({429, 503})
"""The statuses by which a service says that it has too much to do."""
LOWER, RAISE = 0.7, 0.05
IN_USE = 0.8
"""The share of an adaptive limit that must be in use before it is raised."""
SLOW_START = 0.1
STEP = timedelta(seconds=1)
"""How often a slow start doubles."""

State = Literal["closed", "open", "half_open"]
CallKind = Literal["ok", "failed", "pushed_back"]
Park = Literal["task", "key", "handler"]


class Breaker(Struct, frozen=True, forbid_unknown_fields=True):
    """When to stop calling a service that fails."""

    window_seconds: Annotated[int, Meta(ge=1, le=MAX_WINDOW_SECONDS)] = 30
    min_calls: Annotated[
        int, Meta(ge=1, le=1_000_000, description="With fewer calls in the window it stays closed.")
    ] = 10
    failure_percent: Annotated[float, Meta(gt=0, le=100)] = 50.0
    open_seconds: Annotated[float, Meta(ge=0.1, le=MAX_OPEN_SECONDS, description="Until the first probe.")] = 10.0
    open_max_seconds: Annotated[
        float, Meta(ge=0.1, le=MAX_OPEN_SECONDS, description="Each failed probe doubles the time, up to this.")
    ] = 300.0


class Adaptive(Struct, frozen=True, forbid_unknown_fields=True):
    """How to find the number of concurrent calls that a service bears, between `min` and the handler's `max_concurrency`."""

    min: MaxConcurrency = 1
    target_seconds: Annotated[
        Annotated[float, Meta(gt=0, le=43_200)] | None,
        Meta(description="The limit is lowered while the 95th percentile of the calls' durations is above this."),
    ] = None


@dataclass(frozen=True, slots=True)
class Guard:
    """The parts of a handler's definition that decide."""

    breaker: Breaker | None = None
    adaptive: Adaptive | None = None
    max_concurrency: int | None = None

    @property
    def window_seconds(self) -> int:
        """The window in which calls are counted, for a handler without a breaker a breaker's default."""
        return (self.breaker or Breaker()).window_seconds

    @property
    def on(self) -> bool:
        return self.breaker is not None or self.adaptive is not None


class Health(Struct, frozen=True, omit_defaults=True):
    """What is known of a handler. It is stored as one document."""

    state: State = "closed"
    since: datetime | None = None
    """None: always."""
    period: int = 0
    probe_at: datetime | None = None
    """Open: when a probe is admitted; None until it is closed by hand."""
    open_seconds: float = 0.0
    """How long it was opened for."""
    ceiling: int | None = None
    """How many calls ran when it opened, for a slow start without max_concurrency."""
    ramp: int | None = None
    """The limit of a slow start; None once that is over."""
    ramp_at: datetime | None = None
    """When the slow start doubles next."""
    limit: int | None = None
    """The adaptive limit; None: max_concurrency."""
    judged: int = 0
    """The last second, in Unix time, by which the adaptive limit was judged."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What all replicas have counted of a handler's calls."""

    calls: int = 0
    """In the window and in this period, as `failures`."""
    failures: int = 0
    running: int = 0
    """Calls under way now."""
    new_calls: int = 0
    """In the seconds that the adaptive limit was not judged by yet, as the others."""
    new_pushed_back: int = 0
    new_full: bool = False
    """A claim found the limit reached."""
    new_durations: tuple[int, ...] = ()
    """A histogram (domain/histograms.py)."""
    last_second: int = 0
    """The last of these seconds."""


def call_of(answer: Answer | NoAnswer) -> CallKind | None:
    """Return what a call says about the service; None if nothing, because nothing was sent or its answer was not readable."""
    if isinstance(answer, NoAnswer):
        return "failed" if answer.outcome in ("timeout", "unreachable") else None
    if answer.unsent:
        return None
    if answer.status in PUSHING_BACK:
        return "pushed_back"
    return "failed" if answer.status >= 500 else "ok"


def effective(health: Health) -> int | None:
    """Return the limit that the breaker and the adaptive limit impose; None if none. 0 admits nothing."""
    if health.state == "open":
        return 0
    if health.state == "half_open":
        return 1
    return min((limit for limit in (health.ramp, health.limit) if limit is not None), default=None)


def look_at(health: Health) -> datetime | None:
    """Return when time alone changes it; None if it does not."""
    return health.probe_at if health.state == "open" else health.ramp_at


def advance(health: Health, guard: Guard, seen: Seen, now: datetime) -> Health:
    """Return the health that time and calls have brought about. Repeated with the same arguments it changes nothing more."""
    if health.state == "open" and health.probe_at is not None and health.probe_at <= now:
        return _next(health, "half_open", now)
    breaker = guard.breaker
    if health.state == "closed" and breaker is not None and _trips(breaker, seen):
        return opened(health, now, seconds=breaker.open_seconds, running=seen.running)
    if health.ramp is not None and health.ramp_at is not None and health.ramp_at <= now:
        health = _ramped(health, guard, now)
    return _adapted(health, guard, seen)


def judge_probe(health: Health, guard: Guard, seen: Seen, now: datetime, *, period: int, ok: bool) -> Health:
    """Return the health after the probe of a half-open period; unchanged if that period is over."""
    if health.state != "half_open" or health.period != period or guard.breaker is None:
        return health
    if ok:
        return closed(health, guard, now)
    seconds = min(2 * health.open_seconds, guard.breaker.open_max_seconds)
    return opened(health, now, seconds=max(seconds, guard.breaker.open_seconds), running=health.ceiling)


def opened(health: Health, now: datetime, *, seconds: float | None, running: int | None) -> Health:
    """Open the breaker for `seconds`; None: until it is closed by hand."""
    return structs.replace(
        _next(health, "open", now),
        probe_at=None if seconds is None else now + timedelta(seconds=seconds),
        open_seconds=seconds or 0.0,
        ceiling=running,
    )


def closed(health: Health, guard: Guard, now: datetime) -> Health:
    """Close the breaker with a slow start."""
    ceiling = _ceiling(health, guard)
    ramp = max(1, int(ceiling * SLOW_START))
    ramping = ramp < ceiling
    return structs.replace(
        _next(health, "closed", now), ramp=ramp if ramping else None, ramp_at=now + STEP if ramping else None
    )


def fitted(health: Health, guard: Guard, now: datetime) -> Health:
    """Return the health under a changed definition."""
    if guard.breaker is None:
        if health.state != "closed":
            health = _next(health, "closed", now)
        health = structs.replace(health, ramp=None, ramp_at=None)
    if guard.adaptive is None or guard.max_concurrency is None:
        return structs.replace(health, limit=None)
    limit = guard.max_concurrency if health.limit is None else health.limit
    return structs.replace(health, limit=max(guard.adaptive.min, min(limit, guard.max_concurrency)))


def _next(health: Health, state: State, now: datetime) -> Health:
    """Begin a new period."""
    return structs.replace(
        health, state=state, since=now, period=health.period + 1, probe_at=None, ramp=None, ramp_at=None
    )


def _trips(breaker: Breaker, seen: Seen) -> bool:
    return seen.calls >= breaker.min_calls and seen.failures * 100 >= breaker.failure_percent * seen.calls


def _ceiling(health: Health, guard: Guard) -> int:
    """Return how many calls a slow start leads up to."""
    known = health.limit or guard.max_concurrency or health.ceiling or 1
    return min(known, guard.max_concurrency or known)


def _ramped(health: Health, guard: Guard, now: datetime) -> Health:
    ramp, at = health.ramp or 1, health.ramp_at or now
    while at <= now and ramp < _ceiling(health, guard):
        ramp, at = 2 * ramp, at + STEP
    over = ramp >= _ceiling(health, guard)
    return structs.replace(health, ramp=None if over else ramp, ramp_at=None if over else at)


def _adapted(health: Health, guard: Guard, seen: Seen) -> Health:
    adaptive, most = guard.adaptive, guard.max_concurrency
    if adaptive is None or most is None or not (seen.new_calls or seen.new_full) or seen.last_second <= health.judged:
        return health
    limit = min(most if health.limit is None else health.limit, most)
    slowest = percentile(seen.new_durations, 0.95)
    slow = adaptive.target_seconds is not None and slowest is not None and slowest > adaptive.target_seconds
    if seen.new_pushed_back or slow:
        limit = max(adaptive.min, int(limit * LOWER))
    elif health.ramp is None and (seen.new_full or seen.running >= IN_USE * limit):
        limit = min(most, limit + max(1, int(limit * RAISE)))
    return structs.replace(health, limit=limit, judged=seen.last_second)
