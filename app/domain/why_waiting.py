"""Blockers in words: each with whom or what it is due to, when it ends by itself, and what would remove it."""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec import UNSET, UnsetType

from app.domain.breakers import Health
from app.domain.instants import instant_text
from app.domain.limits import MAX_CONCURRENCY, MAX_RATE, Rate
from app.domain.plurals import are, counted
from app.domain.tasks import MAX_PRIORITY
from app.domain.waiting import Level, WaitingFacts, WaitingFor, blockers
from app.domain.why import MAX_AHEAD, Blocker, Evidence, FullLimit, NextStep, at_of, path_of, post

Explain = Callable[[WaitingFacts, Evidence], Blocker]


def explain(facts: WaitingFacts, evidence: Evidence) -> list[Blocker]:
    """Return everything that keeps the task from starting, in the order in which a claim meets it."""
    return [EXPLANATIONS[code](facts, evidence) for code in blockers(facts)]


def _now_instead(evidence: Evidence) -> NextStep | UnsetType:
    if evidence.task_id is None:
        return UNSET
    return post("Start it now.", "tasks", evidence.task_id, "retry")


def _run_at(facts: WaitingFacts, evidence: Evidence) -> Blocker:
    until = instant_text(facts.run_at)
    detail = f"It is scheduled for {until}."
    return Blocker(WaitingFor.RUN_AT, detail, until=until or UNSET, next=_now_instead(evidence))


def _retry_backoff(facts: WaitingFacts, evidence: Evidence) -> Blocker:
    until = instant_text(facts.run_at)
    why = f" ({evidence.last_error})" if evidence.last_error else ""
    return Blocker(
        WaitingFor.RETRY_BACKOFF,
        f"Its last attempt failed{why}; it is tried again at {until}.",
        since=at_of(facts.failed_at),
        until=until or UNSET,
        next=_now_instead(evidence),
    )


def _queue_paused(facts: WaitingFacts, _: Evidence) -> Blocker:
    return Blocker(
        WaitingFor.QUEUE_PAUSED,
        f"Queue {facts.queue} is paused.",
        since=at_of(facts.paused_at),
        next=post(f"Resume queue {facts.queue}.", "queues", facts.queue, "resume"),
    )


def _handler_disabled(facts: WaitingFacts, _: Evidence) -> Blocker:
    name = facts.handler or ""
    reason = f": {facts.disabled_reason}" if facts.disabled_reason else ""
    return Blocker(
        WaitingFor.HANDLER_DISABLED,
        f"Handler {name} is disabled{reason}.",
        since=at_of(facts.disabled_at),
        next=post(f"Enable handler {name}.", "handlers", name, "enable"),
    )


def _handler_parked(facts: WaitingFacts, _: Evidence) -> Blocker:
    name, until = facts.handler or "", instant_text(facts.parked_until)
    return Blocker(
        WaitingFor.HANDLER_PARKED,
        f"Handler {name} asked with a Retry-After not to be called before {until}.",
        until=until or UNSET,
        next=post(f"Call handler {name} again now.", "handlers", name, "enable"),
    )


def _breaker_open(facts: WaitingFacts, evidence: Evidence) -> Blocker:
    name, health = facts.handler or "", evidence.health or Health()
    if health.state == "half_open":
        detail = (
            f"The breaker of handler {name} is half open: one probe is under way, and all others wait for how it ends."
        )
    elif health.probe_at is None:
        detail = f"The breaker of handler {name} is open until it is closed by hand."
    else:
        detail = f"The breaker of handler {name} is open: too many of its calls failed."
    return Blocker(
        WaitingFor.BREAKER_OPEN,
        detail,
        since=at_of(health.since),
        until=at_of(health.probe_at),
        next=post(f"Close the breaker of handler {name}.", "handlers", name, "breaker", body={"close": True}),
    )


def _no_engine(facts: WaitingFacts, evidence: Evidence) -> Blocker:
    what = "makes scheduled tasks ready" if facts.pulled else "calls handlers"
    return Blocker(
        WaitingFor.NO_ENGINE,
        f"No replica that {what} is running.",
        since=at_of(evidence.engine_seen_at),
        next=NextStep("Start a replica with the role all or engine: sluice up --role engine."),
    )


def _no_worker(facts: WaitingFacts, evidence: Evidence) -> Blocker:
    return Blocker(
        WaitingFor.NO_WORKER,
        f"Queue {facts.queue} has no handler, and no worker has asked for its tasks for a minute.",
        since=at_of(evidence.worker_asked_at),
        next=NextStep(f"Start a worker: sluice work {facts.queue} --exec COMMAND, or one of your own."),
    )


def _worker(facts: WaitingFacts, _: Evidence) -> Blocker:
    return Blocker(
        WaitingFor.WORKER,
        f"Queue {facts.queue} has no handler: the task starts when a worker asks for it.",
        next=NextStep("Wait for a worker to ask, or start more of them."),
    )


def _level(code: WaitingFor, what: str, level: Level | None, evidence: Evidence, name: str, then: NextStep) -> Blocker:
    assert level is not None, "its rule holds"
    return Blocker(
        code,
        f"{what} runs {level.used:,} of at most {counted(level.max, 'task')}.",
        limit=FullLimit(name, used=level.used, max=level.max),
        holders=evidence.holders.get(code, ()),
        next=then,
    )


def _global_limit(facts: WaitingFacts, evidence: Evidence) -> Blocker:
    level, given = facts.tenant_limit, evidence.definitions
    most = (level.used if level else 0) + 1
    if given.granted is not None and most > given.granted:
        body: dict[str, Any] = {"max_concurrency": most}
        text = f"Wait for one to end, or let an operator grant tenant {facts.tenant} more."
        then = NextStep(text, "PUT", path_of("tenants", facts.tenant, "limits"), body)
    else:
        then = _raised("the tenant", ("limits",), given.tenant, most)
    return _level(WaitingFor.GLOBAL_LIMIT, f"Tenant {facts.tenant}", level, evidence, facts.tenant, then)


def _handler_limit(facts: WaitingFacts, evidence: Evidence) -> Blocker:
    level, name, given = facts.handler_limit, facts.handler or "", evidence.definitions.handler
    what = f"handler {name}"
    defined = None if given is None else given["max_concurrency"]
    if level is not None and defined is not None and level.max < defined:
        then = NextStep(f"Wait for one to end: {what} has shown that it can take no more at once now.")
    elif level is not None and level.max == 0:
        then = NextStep("Wait for its breaker.")
    else:
        then = _raised(what, ("handlers", name), given, (level.used if level else 0) + 1)
    return _level(WaitingFor.HANDLER_LIMIT, f"Handler {name}", level, evidence, name, then)


def _queue_limit(facts: WaitingFacts, evidence: Evidence) -> Blocker:
    level, given = facts.queue_limit, evidence.definitions.queue
    then = _raised(f"queue {facts.queue}", ("queues", facts.queue), given, (level.used if level else 0) + 1)
    return _level(WaitingFor.QUEUE_LIMIT, f"Queue {facts.queue}", level, evidence, facts.queue, then)


def _raised(what: str, path: Sequence[str], definition: dict[str, Any] | None, most: int) -> NextStep:
    """Return the request that lets one more run."""
    text = f"Wait for one to end, or raise max_concurrency of {what}."
    if definition is None or most > MAX_CONCURRENCY:
        return NextStep(text, "PUT", path_of(*path))
    return NextStep(text, "PUT", path_of(*path), definition | {"max_concurrency": most})


def _rate(code: WaitingFor, what: str, owner: str, path: Sequence[str], given: str) -> Explain:
    """Return how the rate of a level is explained. `owner` is the field with its name, `given` the definition with its rate."""

    def explained(facts: WaitingFacts, evidence: Evidence) -> Blocker:
        name = getattr(facts, owner) or ""
        where = [name if part == "{name}" else part for part in path]
        of = f"{what} {name}"
        until = None if facts.parked is None else facts.parked.until
        return Blocker(
            code,
            f"The rate of {of} is spent.",
            until=at_of(until),
            limit=FullLimit(name),
            next=_raised_burst(of, where, getattr(evidence.definitions, given)),
        )

    return explained


def _raised_burst(what: str, path: Sequence[str], definition: dict[str, Any] | None, field_: str = "rate") -> NextStep:
    """Return the request that lets one more start at once."""
    text = f"Wait until it has come back, or raise the rate of {what}."
    rate = None if definition is None else definition.get(field_)
    if definition is None or rate is None:
        return NextStep(text, "PUT", path_of(*path))
    burst = math.ceil(Rate(**rate).capacity) + 1
    if burst > MAX_RATE:
        return NextStep(text, "PUT", path_of(*path))
    return NextStep(text, "PUT", path_of(*path), definition | {field_: rate | {"burst": burst}})


def _of_bucket(facts: WaitingFacts, evidence: Evidence) -> tuple[str, tuple[str, ...], FullLimit]:
    """Return the limit that the flow is parked on: in words, its path, and as shown."""
    parked = facts.parked
    assert parked is not None, "its rule holds"
    bucket, key = evidence.bucket, parked.key
    if parked.limit is None:
        shown = FullLimit(facts.queue, UNSET if key is None else key)
        return f"key {key} of queue {facts.queue}", ("queues", facts.queue, "keys", key or ""), shown
    path: tuple[str, ...] = ("limits", parked.limit)
    if key is None or not bucket.keyed:
        return f"limit {parked.limit}", path, FullLimit(parked.limit)
    return f"key {key} of limit {parked.limit}", (*path, "keys", key), FullLimit(parked.limit, key)


def _bucket_definition(facts: WaitingFacts, evidence: Evidence) -> dict[str, Any] | None:
    given, parked = evidence.definitions, facts.parked
    return given.key if parked is not None and (parked.limit is None or evidence.bucket.keyed) else given.limit


def _limit(code: WaitingFor) -> Explain:
    def explained(facts: WaitingFacts, evidence: Evidence) -> Blocker:
        what, path, shown = _of_bucket(facts, evidence)
        if facts.parked is not None and facts.parked.paused:
            return _paused(code, facts, evidence)
        bucket = evidence.bucket
        shown.used = bucket.held
        most = "" if bucket.max is None else f" of at most {bucket.max:,}"
        if bucket.max is not None:
            shown.max = bucket.max
        return Blocker(
            code,
            f"{what[0].upper()}{what[1:]} is full: {counted(bucket.held, 'task')} {are(bucket.held)} running{most}.",
            limit=shown,
            holders=evidence.holders.get(code, ()),
            next=_raised(what, path, _bucket_definition(facts, evidence), bucket.held + 1),
        )

    return explained


def _paused(code: WaitingFor, facts: WaitingFacts, evidence: Evidence) -> Blocker:
    what, path, shown = _of_bucket(facts, evidence)
    if not evidence.bucket.key_paused and facts.parked is not None and facts.parked.limit is not None:
        what, path = f"limit {facts.parked.limit}", ("limits", facts.parked.limit)
    return Blocker(
        code,
        f"{what[0].upper()}{what[1:]} is paused.",
        since=at_of(evidence.bucket.paused_at),
        limit=shown,
        next=post(f"Resume {what}.", *path, "resume"),
    )


def _bucket_rate(code: WaitingFor) -> Explain:
    def explained(facts: WaitingFacts, evidence: Evidence) -> Blocker:
        what, path, shown = _of_bucket(facts, evidence)
        until = None if facts.parked is None else facts.parked.until
        return Blocker(
            code,
            f"The rate of {what} is spent.",
            until=at_of(until),
            limit=shown,
            next=_raised_burst(what, path, _bucket_definition(facts, evidence)),
        )

    return explained


def _ordering(facts: WaitingFacts, evidence: Evidence) -> Blocker:
    what, _, shown = _of_bucket(facts, evidence)
    first = evidence.first
    if first is None or first.task == evidence.task_id:
        return Blocker(
            WaitingFor.ORDERING, f"{what[0].upper()}{what[1:]} is ordered, and its turn comes next.", limit=shown
        )
    return Blocker(
        WaitingFor.ORDERING,
        f"{what[0].upper()}{what[1:]} is ordered: task {first.task} was enqueued before it and has not ended.",
        limit=shown,
        holders=(first,),
        next=post(f"Wait for task {first.task} to end, or cancel it.", "tasks", first.task, "cancel"),
    )


def _sooner(evidence: Evidence) -> NextStep:
    """Return the request that puts the task first."""
    if evidence.task_id is None or evidence.top is None or evidence.top >= MAX_PRIORITY:
        return NextStep("Wait for its turn.")
    path = path_of("tasks", evidence.task_id)
    return NextStep("Wait for its turn, or give it a higher priority.", "PATCH", path, {"priority": evidence.top + 1})


def _fair_share(facts: WaitingFacts, evidence: Evidence) -> Blocker:
    detail = f"Other keys of queue {facts.queue} come first: this one has had its turn."
    return Blocker(WaitingFor.FAIR_SHARE, detail, next=_sooner(evidence))


def _replicas_busy(facts: WaitingFacts, _: Evidence) -> Blocker:
    return Blocker(
        WaitingFor.REPLICAS_BUSY,
        f"No replica has a free call for queue {facts.queue}: all they may make for it are under way.",
        next=NextStep("Wait for a call to end, start another replica, or raise SLUICE_MAX_IN_FLIGHT."),
    )


def _behind(facts: WaitingFacts, evidence: Evidence) -> Blocker:
    most = f"{evidence.ahead:,}" + (" or more" if evidence.ahead >= MAX_AHEAD else "")
    detail = (
        f"{most} {'task' if evidence.ahead == 1 else 'tasks'} of queue {facts.queue} {are(evidence.ahead)} ahead of it."
    )
    return Blocker(WaitingFor.BEHIND, detail, next=_sooner(evidence))


EXPLANATIONS: Mapping[WaitingFor, Explain] = {
    WaitingFor.RUN_AT: _run_at,
    WaitingFor.RETRY_BACKOFF: _retry_backoff,
    WaitingFor.QUEUE_PAUSED: _queue_paused,
    WaitingFor.HANDLER_DISABLED: _handler_disabled,
    WaitingFor.HANDLER_PARKED: _handler_parked,
    WaitingFor.BREAKER_OPEN: _breaker_open,
    WaitingFor.NO_ENGINE: _no_engine,
    WaitingFor.NO_WORKER: _no_worker,
    WaitingFor.GLOBAL_LIMIT: _global_limit,
    WaitingFor.HANDLER_LIMIT: _handler_limit,
    WaitingFor.QUEUE_LIMIT: _queue_limit,
    WaitingFor.GLOBAL_RATE: _rate(WaitingFor.GLOBAL_RATE, "tenant", "tenant", ("limits",), "tenant"),
    WaitingFor.HANDLER_RATE: _rate(WaitingFor.HANDLER_RATE, "handler", "handler", ("handlers", "{name}"), "handler"),
    WaitingFor.QUEUE_RATE: _rate(WaitingFor.QUEUE_RATE, "queue", "queue", ("queues", "{name}"), "queue"),
    WaitingFor.KEY_PAUSED: lambda facts, evidence: _paused(WaitingFor.KEY_PAUSED, facts, evidence),
    WaitingFor.KEY_LIMIT: _limit(WaitingFor.KEY_LIMIT),
    WaitingFor.KEY_RATE: _bucket_rate(WaitingFor.KEY_RATE),
    WaitingFor.LIMIT: _limit(WaitingFor.LIMIT),
    WaitingFor.LIMIT_RATE: _bucket_rate(WaitingFor.LIMIT_RATE),
    WaitingFor.ORDERING: _ordering,
    WaitingFor.FAIR_SHARE: _fair_share,
    WaitingFor.REPLICAS_BUSY: _replicas_busy,
    WaitingFor.WORKER: _worker,
    WaitingFor.BEHIND: _behind,
}

INDEFINITE = frozenset(
    {
        WaitingFor.QUEUE_PAUSED,
        WaitingFor.HANDLER_DISABLED,
        WaitingFor.NO_ENGINE,
        WaitingFor.NO_WORKER,
        WaitingFor.KEY_PAUSED,
        WaitingFor.ORDERING,
    }
)
"""They end when somebody ends them, and nobody knows when that is."""


def starts_about(found: Sequence[Blocker], facts: WaitingFacts, evidence: Evidence) -> datetime | None:
    """Return when the task will start if all goes on as it does; None if nothing tells.

    The last instant at which a blocker ends, then those that come first, at the rate at which the queue has started tasks lately.
    """
    if any(blocker.code in INDEFINITE for blocker in found) or (facts.parked is not None and facts.parked.paused):
        return None
    at, ahead = evidence.now, evidence.ahead
    for blocker in found:
        if blocker.until is not UNSET:
            at = max(at, datetime.fromisoformat(blocker.until))
        elif blocker.code is WaitingFor.BREAKER_OPEN:
            return None
        elif blocker.code is not WaitingFor.BEHIND:
            ahead = max(ahead, 1)
    if ahead == 0:
        return at
    return None if evidence.starts_per_second <= 0 else at + timedelta(seconds=ahead / evidence.starts_per_second)


def verdict(found: Sequence[Blocker]) -> str:
    """Return one sentence for a waiting task."""
    if not found:
        return "Nothing stops it: a replica is about to claim it."
    more = len(found) - 1
    rest = "" if more == 0 else f" {counted(more, 'more thing')} {'stands' if more == 1 else 'stand'} in its way."
    return found[0].detail + rest


def quiet(blocker: Blocker) -> bool:
    """Whether it is no hindrance of a whole queue, only the turn of one task."""
    return blocker.code in (WaitingFor.BEHIND, WaitingFor.FAIR_SHARE)
