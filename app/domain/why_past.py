"""Why a task is where it is, if it does not wait: who has it, or how it ended, and what can be done now."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from app.domain.plurals import counted
from app.domain.retries import MAX_ATTEMPTS
from app.domain.tasks import Reason, State
from app.domain.views import AttemptView, TaskView
from app.domain.why import NextStep, post

ENDINGS = {
    Reason.ATTEMPTS_EXHAUSTED: "its last attempt failed",
    Reason.FATAL_STATUS: "the handler answered with one of its fatal_statuses, or a bridge can never take the task",
    Reason.STOPPED_BY_HANDLER: "the handler answered with sluice-retry: no",
    Reason.STOPPED_BY_WORKER: "its worker reported a failure that is not to be tried again",
    Reason.EXPIRED: "expires_at passed while it was waiting",
    Reason.FOLLOWUP_TOO_LARGE: "its answer named more tasks than an answer or a queue can hold",
    Reason.PUSHED_BACK_TOO_LONG: "its handler pushed it back for too long",
    Reason.REQUESTED: "somebody cancelled it, or its batch",
    Reason.PURGED: "its queue was purged",
    Reason.SUPERSEDED: "the next run of its schedule replaced it",
}


def running_verdict(task: TaskView) -> str:
    whose = "a worker" if task.handler is None else f"replica {task.replica}"
    return f"It has been running since {task.started_at}: {whose} has it."


def ended_verdict(task: TaskView) -> str:
    if task.state == State.SUCCEEDED:
        return f"It succeeded at {task.ended_at}, in attempt {task.attempt}."
    why = "" if task.reason is None else f": {ENDINGS[task.reason]}"
    error = f" ({task.last_error})" if task.last_error and task.state == State.DEAD else ""
    return f"It is {task.state} since {task.ended_at}{why}{error}."


def attempt_line(attempt: AttemptView, *, with_error: bool = True) -> str:
    """Return an attempt in a line: number, outcome, status, how long it took, where, when, and its error."""
    parts = [f"{attempt.number}:", str(attempt.outcome or "running")]
    if attempt.status is not None:
        parts.append(str(attempt.status))
    if attempt.ended_at is not None:
        took = datetime.fromisoformat(attempt.ended_at) - datetime.fromisoformat(attempt.started_at)
        parts.append(f"after {took.total_seconds():.3g} s")
    if attempt.replica is not None:
        parts.append(f"on {attempt.replica}")
    parts.append(f"at {attempt.started_at}")
    line = " ".join(parts) + ("" if attempt.counted else " (not counted)")
    return f"{line}: {attempt.error}" if attempt.error and with_error else line


def running_actions(task: TaskView) -> Sequence[NextStep]:
    return [post("Cancel it: its lease is revoked at once.", "tasks", task.id, "cancel")]


def ended_actions(task: TaskView) -> Sequence[NextStep]:
    if task.state == State.SUCCEEDED:
        return [NextStep("Enqueue a new task to run it again.")]
    attempts = "any number of attempts" if task.max_attempts > MAX_ATTEMPTS else counted(task.max_attempts, "attempt")
    again = f"Run it again, with {attempts}."
    return [post(again, "tasks", task.id, "retry")]


def may_have_ended(task: TaskView, action: Mapping[str, Any]) -> bool:
    """Return whether an action on all that match, as the audit has it, can have cancelled this task: by its kind and its queue."""
    kind = {Reason.REQUESTED: "cancel", Reason.PURGED: "purge"}.get(task.reason) if task.reason else None
    return (
        kind is not None
        and action.get("kind") == kind
        and action.get("filter", {}).get("queue", task.queue) == task.queue
    )
