"""How a task ended badly, and which tasks were not enqueued."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sluice_client.errors import SluiceError


class TaskFailed(SluiceError):
    """The task that was waited for is dead or cancelled."""

    def __init__(self, task_id: str, task_type: str, state: str, reason: str | None, errors: Sequence[str]) -> None:
        super().__init__(task_id, task_type, state, reason, errors)
        self.task_id = task_id
        self.task_type = task_type
        self.state = state
        """`dead` or `cancelled`."""
        self.reason = reason
        """Why, such as `attempts_exhausted` or `requested`."""
        self.errors = list(errors)
        """What its attempts failed with, the last one first."""

    def __str__(self) -> str:
        last = f": {self.errors[0]}" if self.errors else ""
        return f"task {self.task_id} ({self.task_type}) is {self.state}, {self.reason or 'for no known reason'}{last}"


def error_of(attempt: Mapping[str, Any]) -> str | None:
    """Return what an attempt failed with, if it failed: of a mounted task the exception, which is in the handler's answer."""
    if attempt["error"] is None:
        return None
    try:
        said = json.loads(attempt["excerpt"])["error"]
    except (TypeError, ValueError, KeyError, RecursionError):
        said = None  # no answer, a long one that is cut, or not one of a mount
    error: str | None = said if isinstance(said, str) and said else attempt["error"]
    return error


@dataclass(frozen=True)
class Refused:
    """One call that the service did not take."""

    index: int
    """Its place among the calls."""
    call: Any
    status: int
    """HTTP status: 413, 422 or 429."""
    code: str
    detail: str
    errors: Sequence[Any] = ()
    """Pointers into the task, if the service named any."""


class DispatchIncomplete(SluiceError):
    """Not every call was enqueued. `remaining` can be dispatched again: no task is enqueued twice."""

    def __init__(self, refs: Sequence[Any], refused: Sequence[Refused], unsent: Sequence[Any], why: str = "") -> None:
        super().__init__(refs, refused, unsent, why)
        self.refs = list(refs)
        """By place among the calls: the task, or None where there is none or nobody knows."""
        self.refused = list(refused)
        """What the service looked at and did not take."""
        self.unsent = list(unsent)
        """Calls that were not sent, or sent without a response; they may have been enqueued."""
        self.why = why
        """Why the rest was not sent."""

    @property
    def remaining(self) -> list[Any]:
        """The calls that were refused, and those that were not sent."""
        return [one.call for one in self.refused] + self.unsent

    def __str__(self) -> str:
        parts = [f"{sum(ref is not None for ref in self.refs)} calls are enqueued"]
        if self.refused:
            first = self.refused[0]
            codes = sorted({one.code for one in self.refused})
            parts.append(
                f"{len(self.refused)} were refused ({', '.join(codes)}; the first, at index {first.index}: {first.detail})"
            )
        if self.unsent:
            parts.append(f"{len(self.unsent)} were not sent ({self.why})")
        return "; ".join(parts)
