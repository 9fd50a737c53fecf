"""How an attempt ends: the exceptions by which a task says so, and what the SDK makes of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MAX_ERROR = 2000
"""Longest error text that Sluice stores, in characters."""
SKIPPED = "skipped"
"""The only field of a skipped task's result: `{"skipped": reason}`."""


class Retry(Exception):
    """Raise it to have the task tried again.

    `after`: seconds until the next attempt at the earliest. The queue's backoff applies as well, and the longer of the two
    decides. The attempt counts like any other failure.
    """

    def __init__(self, reason: str | Exception = "", *, after: float = 0.0) -> None:
        super().__init__(reason)
        if not after >= 0:
            raise ValueError(f"after must be at least 0 seconds, not {after!r}")
        self.reason = _reason(reason)
        self.after = after


class Fatal(Exception):
    """Raise it if trying again cannot help: the task is dead at once, and the text is its error."""

    def __init__(self, reason: str | Exception = "") -> None:
        super().__init__(reason)
        self.reason = _reason(reason)


class Skip(Exception):
    """Raise it if there is nothing left to do: the task has succeeded, and its result is `{"skipped": reason}`."""

    def __init__(self, reason: str | Exception = "") -> None:
        super().__init__(reason)
        self.reason = _reason(reason)


@dataclass(frozen=True)
class Succeeded:
    """The task is done. What it has asked for with its context is enqueued in the transaction that completes it."""

    result: object = None
    """Ready for JSON."""
    follow_ups: Sequence[Mapping[str, object]] = ()
    """Enqueues, each with its `queue` and `idempotency_key`."""
    next: str | None = None
    """The cursor of a continuation."""
    on_complete: Mapping[str, object] | None = None
    """`{queue, payload}` of the task to enqueue when everything has ended."""

    @property
    def follows(self) -> bool:
        """Whether anything is to be enqueued."""
        return bool(self.follow_ups) or self.next is not None or self.on_complete is not None


@dataclass(frozen=True)
class RetryAfter:
    """The attempt failed, and the task is tried again after its backoff, or after `seconds` if that is longer."""

    error: str
    seconds: float = 0.0


@dataclass(frozen=True)
class Failed:
    """The task is dead: trying again cannot help."""

    error: str
    errors: Sequence[Mapping[str, object]] = ()
    """What of the payload, or the result, does not fit: each with a `pointer` and a `detail`."""


@dataclass(frozen=True)
class Skipped:
    """The task has succeeded, because there was nothing left to do."""

    reason: str

    @property
    def result(self) -> dict[str, str]:
        return {SKIPPED: self.reason}


Outcome = Succeeded | RetryAfter | Failed | Skipped


def _reason(reason: object) -> str:
    """Return a reason as a text, whatever somebody has given: `raise Fatal(error)` is what many write."""
    if isinstance(reason, BaseException):
        return error_text(reason)
    return reason if isinstance(reason, str) else repr(reason)


def error_text(error: BaseException) -> str:
    """Return the type and the message of an exception, as long as Sluice can store it."""
    name = type(error).__name__
    try:
        text = str(error)
    except Exception as failure:  # an exception of the task's own may have no text
        text = f"its text cannot be made: {type(failure).__name__}"
    return bounded(f"{name}: {text}" if text else name)


def bounded(text: str) -> str:
    """Return the text without what Postgres cannot store, cut to the longest error."""
    text = text.replace("\x00", "").encode(errors="replace").decode()
    return text if len(text) <= MAX_ERROR else text[: MAX_ERROR - 1] + "…"
