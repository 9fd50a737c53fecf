"""Batches: the requests that create and extend them, and their progress.

A request is validated like a bulk request: the outer object without its tasks, then each task by itself.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec

from app.domain.bulk import MAX_BULK_TASKS, outer_errors, task_spans
from app.domain.errors import Refusal, invalid, invalid_field
from app.domain.followups import OnComplete, OnCompleteBody, judge_around, judge_on_complete
from app.domain.ijson import parse_ijson
from app.domain.instants import format_instant
from app.domain.names import NAME_RULE, is_name

RECENT_SECONDS = 30.0
"""A task that ended this long ago weighs 1/e of one that ends now. fold_v1 uses the same number."""
QUIET_SECONDS = 150.0
"""After this long without an ended task, the rate is the mean since the batch was created."""
MAX_ETA_SECONDS = 10 * 365 * 86_400.0


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """A batch to create, its tasks not validated yet."""

    queue: str
    spans: list[msgspec.Raw]
    sealed: bool
    on_complete: OnComplete | None


class _BatchBody(msgspec.Struct, forbid_unknown_fields=True):
    queue: str
    tasks: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    on_complete: OnCompleteBody | None = None
    sealed: bool = True


class _TasksBody(msgspec.Struct, forbid_unknown_fields=True):
    tasks: msgspec.Raw


_BATCH_BODY = msgspec.json.Decoder(_BatchBody)
_TASKS_BODY = msgspec.json.Decoder(_TasksBody)


def split_batch(body: bytes, max_payload_bytes: int) -> BatchRequest:
    """Parse a batch to create, with its tasks (possibly none) as spans. Raises Refusal: malformed, invalid."""
    batch, spans = _split(body, _BATCH_BODY)
    if spans is None:
        raise invalid_field("/tasks", f"has more than {MAX_BULK_TASKS} tasks")
    if not is_name(batch.queue):
        raise invalid_field("/queue", f"is not a name ({NAME_RULE})")
    then = batch.on_complete
    return BatchRequest(
        batch.queue,
        spans,
        batch.sealed,
        None if then is None else judge_on_complete(then, max_payload_bytes),
    )


def split_tasks(body: bytes) -> list[msgspec.Raw]:
    """Return the spans of the tasks to add. Raises Refusal: malformed, invalid."""
    _, spans = _split(body, _TASKS_BODY)
    if not spans:
        raise invalid_field("/tasks", f"expected 1 to {MAX_BULK_TASKS} tasks")
    return spans


def _split(body: bytes, decoder: Any) -> tuple[Any, list[msgspec.Raw] | None]:
    """Return the body, and its tasks as spans or None if there are too many."""
    try:
        found = decoder.decode(body)
        spans = [] if isinstance(found.tasks, msgspec.UnsetType) else task_spans(found.tasks, MAX_BULK_TASKS)
    except msgspec.ValidationError as error:
        raise invalid(outer_errors(str(error))) from None
    except (msgspec.DecodeError, RecursionError):
        parse_ijson(body)  # its refusal says where and why
        raise Refusal("malformed", "the body is not JSON, or is nested too deeply") from None
    judge_around(body, found.tasks)
    return found, spans


class CompletionView(msgspec.Struct):
    """What is enqueued when the batch completes; `task` is the task's id from then on."""

    queue: str
    task: str | None


class BatchView(msgspec.Struct):
    """A batch as every route shows it. Instants are RFC 3339 text."""

    id: str
    queue: str
    sealed: bool
    total: int
    counts: dict[str, int]
    percent: float
    rate: float
    eta: str | None
    created_at: str
    cancelled_at: str | None
    cancel_reason: str | None
    completed_at: str | None
    on_complete: list[CompletionView]


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a batch's tasks end, as the fold recorded it up to `now`."""

    now: datetime
    created_at: datetime
    recent: float
    recent_at: datetime

    def rate(self, ended: int) -> float:
        """Return the rate in tasks per second."""
        age = max((self.now - self.created_at).total_seconds(), 0.001)
        quiet = max((self.now - self.recent_at).total_seconds(), 0.0)
        if quiet > QUIET_SECONDS:
            return ended / age
        return self.recent * math.exp(-quiet / RECENT_SECONDS) / (RECENT_SECONDS * -math.expm1(-age / RECENT_SECONDS))


def progress(counts: Mapping[str, int], total: int, *, sealed: bool, pace: Pace) -> tuple[float, float, str | None]:
    """Return (percent, rate, eta) as shown: 100 only when nothing is left, an eta only while it can be estimated."""
    ended = counts["succeeded"] + counts["dead"] + counts["cancelled"]
    percent = math.floor(10_000 * ended / total) / 100 if total else 100.0 if sealed else 0.0
    rate = round(pace.rate(ended), 3)
    left = total - ended
    if not sealed or left <= 0 or left > rate * MAX_ETA_SECONDS:
        return percent, rate, None
    return percent, rate, format_instant(pace.now + timedelta(seconds=left / rate))
