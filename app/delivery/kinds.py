"""The interface of every kind of delivery.

A kind is a folder beside this file; webhook is the first. It knows nothing of the database or of queues. It checks a target when
a definition is saved, and delivers one attempt at a time; domain/outcomes.py decides what an answer means.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from app.domain.answers import Answer, NoAnswer
from app.domain.options import Options


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Everything one attempt sends. Fields that must not be logged are left out of its repr."""

    tenant: str
    url: str
    task_id: str
    queue: str
    attempt: int
    max_attempts: int
    lease_token: str = field(repr=False)
    task_url: str
    timeout_seconds: float
    payload: bytes = field(repr=False)
    content_type: str = "application/json"
    secrets: tuple[str, ...] = field(repr=False)
    options: Options = field(default=Options(), repr=False)
    """What the task carries. Its trace is the caller's; the attempt's own is `traceparent`."""
    batch: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    handler_headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class Delivery(Protocol):
    """One kind of delivery, in one event loop."""

    def check(self, url: str) -> None:
        """Check a target before it is saved. Raises Refusal: invalid, egress_denied."""

    async def deliver(self, call: Call, now: datetime) -> Answer | NoAnswer:
        """Send the call once, within call.timeout_seconds. Never raises for failures of the network or the target.

        Cancelling it closes the connection.
        """

    def preview(self, call: Call, now: datetime) -> dict[str, Any]:
        """Return what `deliver` would send, for people: the values of the handler's own headers are hidden."""

    async def aclose(self) -> None:
        """Close all connections."""
