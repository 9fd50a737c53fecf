"""Three verdicts on a tenant's work: does what is ready start, does what starts succeed, and are those there who do it?

Pure rules over counts; docs/concepts/verdicts.md lists them in this order, and tests/domain/test_verdicts.py has a row for each.
The first rule that holds decides.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from msgspec import Struct

from app.domain.plurals import are, counted

WINDOW_MINUTES = 5
"""What has started and ended is counted over this many full minutes and the current one."""
STALLED_SECONDS = 60.0
"""A queue whose oldest ready task waits this long, while nothing runs and nothing has started, stands still."""
SLOW_SECONDS = 300.0
LEAST_OUTCOMES = 10
"""With fewer there is no judging how many fail."""
FAILING_SHARE = 0.1
BEHIND_SECONDS = 10.0
"""How late expired leases are taken away, and due tasks made ready, if the loops keep up."""
SLOW_ANSWER_SECONDS = 1.0
NAMED_QUEUES = 3
"""A sentence names at most this many."""

State = Literal["ok", "degraded", "stuck"]


class Verdict(Struct, frozen=True):
    """`rule` names the rule that decided, `judged_by` is what it looked at."""

    state: State
    rule: str
    sentence: str
    judged_by: dict[str, int | float | None]
    queues: tuple[str, ...] = ()
    """The queues concerned, by name."""


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """A queue as the verdicts see it; what has happened is counted over the window."""

    name: str
    ready: int = 0
    oldest_ready_seconds: float | None = None
    running: int = 0
    enqueued: int = 0
    started: int = 0
    succeeded: int = 0
    retried: int = 0
    dead: int = 0
    paused: bool = False

    @property
    def waits(self) -> bool:
        return self.ready > 0 and (self.oldest_ready_seconds or 0.0) >= STALLED_SECONDS

    @property
    def moves(self) -> bool:
        return self.running > 0 or self.started > 0

    @property
    def outcomes(self) -> int:
        return self.succeeded + self.retried + self.dead


def flow(queues: Sequence[QueueFacts]) -> Verdict:
    """Does what is ready start?"""
    waiting = [queue for queue in queues if queue.waits and not queue.paused]
    still = [queue for queue in waiting if not queue.moves]
    shut = [queue for queue in queues if queue.paused and queue.ready]
    slow = [q for q in waiting if (q.oldest_ready_seconds or 0.0) >= SLOW_SECONDS and q.enqueued > q.started]
    ready, started = sum(queue.ready for queue in queues), sum(queue.started for queue in queues)
    ages = [q.oldest_ready_seconds for q in queues if q.ready and not q.paused and q.oldest_ready_seconds is not None]
    oldest = max(ages, default=None)
    judged: dict[str, int | float | None] = {
        "ready": ready,
        "oldest_ready_seconds": oldest,
        "started": started,
        "queues_still": len(still),
        "queues_paused_with_work": len(shut),
        "queues_falling_behind": len(slow),
    }
    if still and not any(queue.moves for queue in queues):
        sentence = f"Nothing starts: {_tasks(still)} {are(_ready(still))} ready in {_names(still)}."
        return Verdict("stuck", "nothing_starts", sentence, judged, _all(still))
    if still:
        sentence = _capital(f"{_names(still)} {_stands(still)} still with {_tasks(still)} ready; other queues move.")
        return Verdict("degraded", "queues_stand_still", sentence, judged, _all(still))
    if slow:
        longest = max(queue.oldest_ready_seconds or 0.0 for queue in slow)
        sentence = f"More arrives than starts in {_names(slow)}: the oldest task has waited {_age(longest)}."
        return Verdict("degraded", "falling_behind", sentence, judged, _all(slow))
    if shut:
        sentence = _capital(f"{_names(shut)} {are(len(shut))} paused with {_tasks(shut)} ready.")
        return Verdict("degraded", "paused_with_work", sentence, judged, _all(shut))
    if not ready:
        return Verdict("ok", "nothing_waits", "Nothing is ready that has not started.", judged)
    sentence = f"What is ready starts: the oldest of {counted(ready, 'task')} has waited {_age(oldest)}."
    return Verdict("ok", "flowing", sentence, judged)


def execution(queues: Sequence[QueueFacts], breakers_open: int) -> Verdict:
    """Does what starts succeed?"""
    outcomes = sum(queue.outcomes for queue in queues)
    succeeded, dead = sum(queue.succeeded for queue in queues), sum(queue.dead for queue in queues)
    failing = [q for q in queues if q.outcomes >= LEAST_OUTCOMES and not q.succeeded]
    dying = [queue for queue in queues if queue.dead]
    failed = outcomes - succeeded
    judged: dict[str, int | float | None] = {
        "outcomes": outcomes,
        "failed": failed,
        "dead": dead,
        "success_share": round(succeeded / outcomes, 4) if outcomes else None,
        "queues_failing": len(failing),
        "breakers_open": breakers_open,
    }
    if outcomes >= LEAST_OUTCOMES and not succeeded:
        sentence = f"Nothing succeeds: all of {counted(outcomes, 'attempt')} in the last minutes failed."
        return Verdict("stuck", "nothing_succeeds", sentence, judged, _all([q for q in queues if q.outcomes]))
    if failing:
        sentence = f"Every attempt fails in {_names(failing)}; other queues succeed."
        return Verdict("degraded", "queues_fail", sentence, judged, _all(failing))
    if outcomes >= LEAST_OUTCOMES and failed >= FAILING_SHARE * outcomes:
        sentence = f"{failed:,} of {counted(outcomes, 'attempt')} in the last minutes failed."
        return Verdict("degraded", "many_fail", sentence, judged, _all([q for q in queues if q.retried or q.dead]))
    if breakers_open:
        handlers = counted(breakers_open, "handler")
        sentence = f"{handlers} failed so often that {'its' if breakers_open == 1 else 'their'} breaker is open."
        return Verdict("degraded", "breaker_open", sentence, judged)
    if dying:
        sentence = f"{counted(dead, 'task')} died in the last minutes, in {_names(dying)}."
        return Verdict("degraded", "tasks_die", sentence, judged, _all(dying))
    if not outcomes:
        return Verdict("ok", "nothing_ended", "Nothing has ended in the last minutes.", judged)
    sentence = f"What starts succeeds: {succeeded:,} of {counted(outcomes, 'attempt')} in the last minutes."
    return Verdict("ok", "succeeding", sentence, judged)


@dataclass(frozen=True, slots=True)
class FleetFacts:
    """The replicas, what their loops have left undone, and how the database answers."""

    replicas: int
    """Those that have sent a heartbeat lately and are not draining."""
    engines: int
    """Of these, those that deliver and fire."""
    silent: int = 0
    deaf: int = 0
    """Those that receive no NOTIFY."""
    lapsed_seconds: float | None = None
    """How long ago the first lease expired that nobody has taken away."""
    due_seconds: float | None = None
    """How long ago the first task was due that nobody has made ready."""
    late_schedules: int = 0
    """Schedules late by more than the grace."""
    answer_seconds: float = 0.0


def liveness(fleet: FleetFacts) -> Verdict:
    """Are replicas, loops and the database there?"""
    behind = max(fleet.lapsed_seconds or 0.0, fleet.due_seconds or 0.0)
    judged: dict[str, int | float | None] = {
        "replicas": fleet.replicas,
        "engines": fleet.engines,
        "silent": fleet.silent,
        "deaf": fleet.deaf,
        "behind_seconds": round(behind, 3),
        "late_schedules": fleet.late_schedules,
        "database_answer_seconds": round(fleet.answer_seconds, 3),
    }
    if not fleet.replicas:
        return Verdict("stuck", "no_replica", "No replica has sent a heartbeat lately.", judged)
    if not fleet.engines:
        sentence = "No replica with the role engine or all is there: nothing is delivered or fired."
        return Verdict("stuck", "no_engine", sentence, judged)
    if behind > BEHIND_SECONDS:
        what = "leases that have expired" if behind == fleet.lapsed_seconds else "tasks that are due"
        return Verdict("degraded", "loops_behind", f"The loops are {_age(behind)} behind with {what}.", judged)
    if fleet.late_schedules:
        late = counted(fleet.late_schedules, "schedule")
        return Verdict("degraded", "schedules_late", f"{late} should have fired already.", judged)
    if fleet.silent:
        gone = counted(fleet.silent, "replica")
        return Verdict("degraded", "replica_silent", f"{gone} went silent without a shutdown.", judged)
    if fleet.deaf:
        lost = counted(fleet.deaf, "replica")
        sentence = f"{lost} {'learns' if fleet.deaf == 1 else 'learn'} of changes by polling alone."
        return Verdict("degraded", "listener_lost", sentence, judged)
    if fleet.answer_seconds > SLOW_ANSWER_SECONDS:
        sentence = f"The database took {_age(fleet.answer_seconds)} to answer."
        return Verdict("degraded", "database_slow", sentence, judged)
    keep = "is alive and keeps" if fleet.replicas == 1 else "are alive and keep"
    sentence = f"{counted(fleet.replicas, 'replica')} {keep} up; the database answers."
    return Verdict("ok", "alive", sentence, judged)


def _all(queues: Sequence[QueueFacts]) -> tuple[str, ...]:
    return tuple(sorted(queue.name for queue in queues))


def _names(queues: Sequence[QueueFacts]) -> str:
    if len(queues) > NAMED_QUEUES:
        return counted(len(queues), "queue")
    names = sorted(queue.name for queue in queues)
    listed = names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]
    return ("queue " if len(names) == 1 else "queues ") + listed


def _capital(sentence: str) -> str:
    return sentence[0].upper() + sentence[1:]


def _stands(queues: Sequence[QueueFacts]) -> str:
    return "stands" if len(queues) == 1 else "stand"


def _ready(queues: Sequence[QueueFacts]) -> int:
    return sum(queue.ready for queue in queues)


def _tasks(queues: Sequence[QueueFacts]) -> str:
    return counted(_ready(queues), "task")


def _age(seconds: float | None) -> str:
    seconds = seconds or 0.0
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
