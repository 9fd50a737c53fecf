"""What every kind of delivery offers the rest of the house.

A kind is a folder beside this file: webhook is the first. It knows no database and no queue. It judges a definition when that
is saved, and delivers one attempt at a time; what an answer means is decided elsewhere (domain/outcomes.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from app.domain.answers import Answer, NoAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """Everything one attempt sends. What must not reach a log is left out of its repr."""

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
    type: str | None = None
    cursor: str | None = None
    schedule: str | None = None
    scheduled_for: datetime | None = None
    schedule_timezone: str | None = None
    batch: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    correlation_id: str | None = None
    task_headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    handler_headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class Delivery(Protocol):
    """One kind of delivery. For one event loop."""

    def check(self, url: str) -> None:
        """Judge a target before it is saved. Raises Refusal: invalid, egress_denied."""

    async def deliver(self, call: Call, now: datetime) -> Answer | NoAnswer:
        """Send it once, within call.timeout_seconds. Never raises for what the network or the target does.

        Cancelling it closes the connection.
        """

    def preview(self, call: Call, now: datetime) -> dict[str, Any]:
        """What `deliver` would send, for people: the values of the handler's own headers are left out."""

    async def aclose(self) -> None:
        """Close what is open."""
