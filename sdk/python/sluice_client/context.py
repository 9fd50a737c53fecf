"""What a task may know of its delivery, and ask for while it runs.

The running task's context is in a context variable, so what it calls finds it with `Context.current()`, in threads too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Generator, Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

MAX_HOLD_SECONDS = 43_200.0
"""How far from now a lease can end."""


@dataclass(frozen=True)
class Delivery:
    """One attempt of one task, however it came here."""

    id: str
    """The task's id, the same on every attempt."""
    queue: str
    type: str | None
    attempt: int
    """From 1."""
    max_attempts: int
    payload: object
    """Parsed JSON, or bytes if the payload is not JSON."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case."""
    deadline: datetime | None = None
    """When the attempt is cut off, by the clock of the service; None: never."""
    seconds: float | None = None
    """How long that was away when the delivery came."""
    cursor: str | None = None
    schedule: str | None = None
    scheduled_for: datetime | None = None
    batch_id: str | None = None
    correlation_id: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    progress: object = None
    """What an earlier attempt reported last; only pull workers are told."""


class Controls(Protocol):
    """How a running task reaches whoever runs it. Called from the task's thread, which need not be that of the event loop."""

    @property
    def cancelled(self) -> bool:
        """Whether the outcome is not wanted any more."""
        ...

    def progress(self, value: object) -> None:
        """Report JSON, sooner or later; only the last report counts."""
        ...

    def hold(self, seconds: float) -> None:
        """Have the lease live that long from now."""
        ...


class FollowUp(Protocol):
    """A call of a task: what `send_welcome.call(7)` returns."""

    @property
    def queue(self) -> str: ...

    def body(self) -> Mapping[str, object]:
        """Return the JSON of an enqueue."""
        ...


class _Noted:
    """Nothing to wait for. It can be awaited all the same: in an async function, many do without looking."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


_NOTED = _Noted()


class Context:
    """The task that is running. A function gets it as its argument `ctx`; anything else asks `Context.current()`."""

    def __init__(self, delivery: Delivery, controls: Controls) -> None:
        self.delivery = delivery
        self._controls = controls
        self.held = False
        """Whether the task has asked for more time than its deadline leaves."""
        self._over = False
        self._follow_ups: list[Mapping[str, object]] = []
        self._next: str | None = None
        self._on_complete: Mapping[str, object] | None = None

    def __repr__(self) -> str:
        return f"<Context of task {self.id}, attempt {self.attempt} of {self.max_attempts}>"

    @staticmethod
    def current() -> Context | None:
        """Return the context of the task that runs here, or None outside of tasks."""
        return _CURRENT.get()

    @property
    def id(self) -> str:
        """The task's id, the same on every attempt."""
        return self.delivery.id

    @property
    def queue(self) -> str:
        return self.delivery.queue

    @property
    def attempt(self) -> int:
        """The number of this attempt, from 1."""
        return self.delivery.attempt

    @property
    def max_attempts(self) -> int:
        return self.delivery.max_attempts

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that the task was enqueued with, and those of its delivery, by names in lower case."""
        return self.delivery.headers

    @property
    def deadline(self) -> datetime | None:
        """When this attempt is cut off, by the service's clock. None: never."""
        return self.delivery.deadline

    @property
    def cursor(self) -> str | None:
        """On a continuation, what the page before it gave to `next`."""
        return self.delivery.cursor

    @property
    def schedule(self) -> str | None:
        """The schedule that enqueued this task."""
        return self.delivery.schedule

    @property
    def scheduled_for(self) -> datetime | None:
        """The nominal time of the schedule, in UTC."""
        return self.delivery.scheduled_for

    @property
    def batch(self) -> str | None:
        """On the task that a batch enqueues when it has completed, the batch's id."""
        return self.delivery.batch_id

    @property
    def correlation_id(self) -> str | None:
        return self.delivery.correlation_id

    @property
    def cancelled(self) -> bool:
        """Whether to stop: the task was cancelled, its lease is lost, its deadline has passed, or the worker is ending.

        An async function is cancelled besides; a sync function has to ask.
        """
        return self._over or self._controls.cancelled

    def progress(self, done: object, note: str | None = None) -> Awaitable[None]:
        """Report how far the task is: a share from 0 to 1, or any JSON of up to 64 KiB. Shown with the task.

        With a note, the report is `{"done": done, "note": note}`. It is sent in the background, at most once per second.
        It needs no `await`, nor do `hold`, `follow_up`, `next` and `on_complete`; with one, they do the same.
        """
        self._controls.progress(done if note is None else {"done": done, "note": note})
        return _NOTED

    def hold(self, seconds: float) -> Awaitable[None]:
        """Go on for longer than the handler's timeout: keep the task for `seconds` from now, at most 43,200.

        A handler answers the call at once and reports the outcome when the function returns. The lease is renewed until then,
        so `seconds` says how soon somebody else takes the task if this process dies. Raises ValueError.
        """
        if not 0 < seconds <= MAX_HOLD_SECONDS:
            raise ValueError(f"a hold lasts more than 0 and at most {MAX_HOLD_SECONDS:.0f} seconds, not {seconds!r}")
        self.held = True
        self._controls.hold(seconds)
        return _NOTED

    def follow_up(self, call: FollowUp) -> Awaitable[None]:
        """Enqueue this call in the transaction that completes the task: with it, or not at all.

        A call without an idempotency key gets one from this task's id and its position, so that none is enqueued twice.
        """
        body = {"queue": call.queue, **call.body()}
        if not body.get("idempotency_key"):
            body["idempotency_key"] = f"{self.id}:{len(self._follow_ups)}"
        self._follow_ups.append(body)
        return _NOTED

    def next(self, cursor: str) -> Awaitable[None]:
        """Enqueue this task once more as a continuation, which receives `cursor` as `ctx.cursor`."""
        self._next = cursor
        return _NOTED

    def on_complete(self, call: FollowUp) -> Awaitable[None]:
        """Enqueue this call when the task, its continuations and all follow-ups have ended. Its queue, type and payload count."""
        body = call.body()
        self._on_complete = {"queue": call.queue, "payload": body["payload"], "type": body.get("type")}
        return _NOTED

    @property
    def followed(self) -> tuple[tuple[Mapping[str, object], ...], str | None, Mapping[str, object] | None]:
        """What has been asked for so far: the follow-ups, the cursor of a continuation, and what comes when all have ended."""
        return tuple(self._follow_ups), self._next, self._on_complete

    def end(self) -> None:
        """From now on `cancelled` is true."""
        self._over = True

    def enter(self) -> Token[Context | None]:
        """Make this the current context."""
        return _CURRENT.set(self)

    @staticmethod
    def leave(token: Token[Context | None]) -> None:
        _CURRENT.reset(token)


_CURRENT: ContextVar[Context | None] = ContextVar("sluice_client.context", default=None)
