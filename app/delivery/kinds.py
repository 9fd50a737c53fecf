"""The interface of every kind of delivery.

A kind is a folder beside this file; webhook was the first. It knows nothing of the database or of queues. It checks an address when
a definition is saved, and delivers one attempt at a time; domain/outcomes.py decides what an answer means. `Deliveries` picks the
kind of a call.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol, TypeVar

import msgspec

from app.domain.answers import Answer, NoAnswer
from app.domain.bridges import Address
from app.domain.handlers import HandlerDefinition, Kind, Targets
from app.domain.options import Options

T = TypeVar("T")


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one attempt sends. Its repr leaves out what must not be logged."""

    tenant: str
    url: str
    """The handler's; the task's target says more. For a bridge, only what people are shown."""
    kind: Kind = "webhook"
    address: Address | None = None
    """Where a bridge leads; of the kind's own type. None for a webhook."""
    targets: Targets = "own"
    """What its handler lets a task's target name."""
    task_id: str
    queue: str
    attempt: int
    max_attempts: int
    lease_token: str
    task_url: str
    timeout_seconds: float
    payload: bytes
    secrets: tuple[str, ...]
    options: Options = Options()
    """What the task carries. Its trace is the caller's; the attempt's own is `traceparent`."""
    batch: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    handler_headers: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        return f"Call({self.tenant}/{self.queue}, task {self.task_id}, attempt {self.attempt}, {self.url})"


class GroupedCall(msgspec.Struct, frozen=True):
    """One call for several attempts of a queue, which have everything in common but what each task has of its own."""

    group_id: str
    calls: tuple[Call, ...]
    """At least one."""


class Sending(Protocol):
    """A call under way."""

    def cancel(self) -> None:
        """Close the connection, and tell nobody. Only before the call has ended."""


async def outcome_of(send: Callable[[Callable[[T], None]], Sending]) -> T:
    """Send something, and return what came of it. Cancelling it cancels what was sent."""
    ended: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    sending = send(ended.set_result)
    try:
        return await asyncio.shield(ended)
    finally:
        if not ended.done():
            sending.cancel()


class Delivery(Protocol):
    """One kind of delivery, in one event loop. Only webhooks take groups as well."""

    def check(self, definition: HandlerDefinition) -> None:
        """Check where a complete definition of this kind leads, before it is saved, and that its library is installed.

        Raises Refusal: invalid, egress_denied, bridge_unavailable.
        """

    def send(self, call: Call, now: datetime, ended: Callable[[Answer | NoAnswer | Exception], None]) -> Sending:
        """Send the call once, within its timeout_seconds, and tell `ended` later, once, what came of it. An exception is a fault
        of Sluice itself, not of the network or the target.

        Callbacks instead of a coroutine, because a coroutine and a task per call cost more than the rest of it.
        """

    def preview(self, call: Call, now: datetime) -> dict[str, Any]:
        """Return what `send` would send, as url, headers and body for people. Secrets are hidden."""

    async def aclose(self) -> None:
        """Close all connections."""
