"""Tasks, batches and reasons in the form that the service answers them in."""

import json
from datetime import datetime
from typing import Any

from sluice_client.testing.records import Attempt, Batch, Json, Task, counts, or_null, shown

_CARRIED = ("handler", "type", "target", "correlation_id", "idempotency_key", "unique_key", "timeout_seconds", "key")


def task_view(task: Task, now: datetime) -> dict[str, Json]:
    """Return a task with all of its fields, as `GET /tasks/{id}` does."""
    state = task.state_at(now)
    return {
        **{name: task.fields.get(name) for name in _CARRIED},
        "id": task.id,
        "queue": task.queue,
        "state": state,
        "reason": task.reason,
        "priority": task.fields.get("priority", 0),
        "payload": json.loads(task.payload),
        "content_type": "application/json",
        "headers": task.fields.get("headers") or {},
        "tags": task.fields.get("tags") or [],
        "created_at": shown(task.created_at),
        "run_at": shown(task.run_at),
        "started_at": or_null(task.started_at),
        "ended_at": or_null(task.ended_at),
        "expires_at": or_null(task.expires_at),
        "attempt": task.attempt,
        "max_attempts": task.retry.max_attempts,
        "last_error": task.last_error,
        "result": task.result,
        **({} if task.result_encoding is None else {"result_encoding": task.result_encoding}),
        "result_truncated": task.result_truncated,
        "progress": task.progress,
        "lease": None if task.lease is None else {"expires_at": shown(task.lease[1])},
        "replica": None,
        "schedule": None,
        "scheduled_for": None,
        "batch": task.batch,
        "parent": task.parent,
        "limits": task.fields.get("limits") or [],
        "callbacks": None,
        "waiting_for": _waiting_for(task, state),
        "waiting_on": None,
    }


def attempt_view(attempt: Attempt) -> dict[str, Json]:
    return {
        "number": attempt.number,
        "counted": attempt.counted,
        "replica": None,
        "started_at": shown(attempt.started_at),
        "ended_at": or_null(attempt.ended_at),
        "outcome": attempt.outcome,
        "status": None,
        "error": attempt.error,
        "excerpt": None,
        "trace_id": None,
    }


def batch_view(batch: Batch, now: datetime) -> dict[str, Json]:
    found = counts(batch.tasks, now)
    ended = found["succeeded"] + found["dead"] + found["cancelled"]
    total = len(batch.tasks)
    return {
        "id": batch.id,
        "queue": batch.queue,
        "sealed": batch.sealed,
        "total": total,
        "counts": found,
        "percent": 100.0 if ended == total else round(100 * ended / total, 1),
        "rate": 0.0,
        "eta": None,
        "created_at": shown(batch.created_at),
        "cancelled_at": or_null(batch.cancelled_at),
        "cancel_reason": None if batch.cancelled_at is None else "requested",
        "completed_at": or_null(batch.completed_at),
        "on_complete": [{"queue": then.queue, "task": then.task} for then in batch.on_complete],
    }


def why_view(task: Task, now: datetime) -> dict[str, Json]:
    """Return why a task is where it is: what it waits for, who has it, or how it ended."""
    state = task.state_at(now)
    found: dict[str, Any] = {"task": task.id, "state": state, "blockers": [], "as_of": shown(now)}
    if state in ("scheduled", "ready"):
        code = _waiting_for(task, state)
        blocker = {"code": code, "detail": _DETAILS[code or ""].format(run_at=shown(task.run_at))}
        if state == "scheduled":
            blocker["until"] = shown(task.run_at)
        return {**found, "verdict": blocker["detail"], "blockers": [blocker]}
    if state == "running":
        return {**found, "verdict": f"It has been running since {or_null(task.started_at)}: the test has it."}
    error = f" ({task.last_error})" if task.last_error and state == "dead" else ""
    ended = {"ended_at": or_null(task.ended_at), "attempts": [one.line() for one in reversed(task.attempts)]}
    if task.reason is not None:
        ended["reason"] = task.reason
    return {**found, **ended, "verdict": f"It is {state}{f': {task.reason}' if task.reason else ''}{error}."}


_DETAILS = {
    "run_at": "It is not due before {run_at}.",
    "retry_backoff": "Its last attempt failed. It is tried again at {run_at}.",
    "worker": "It is due, and runs with the next `sluice_test.drain()`.",
}


def _waiting_for(task: Task, state: str) -> str | None:
    if state == "scheduled":
        return "retry_backoff" if task.last_error is not None else "run_at"
    return "worker" if state == "ready" else None
