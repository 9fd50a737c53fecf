"""What the edge is told by whoever builds it: who may enter, how much they may send, whom to ask about the process."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from app.domain.callers import Caller


class Operations(Protocol):
    """The process as an operator sees it; main knows its parts."""

    def why_not_live(self) -> str | None:
        """Never touches the database."""

    def why_not_ready(self) -> str | None: ...

    async def status(self) -> dict[str, Any]:
        """What `GET /status` shows, ready for JSON."""

    async def metrics(self) -> bytes:
        """The Prometheus text."""


@dataclass(frozen=True, slots=True)
class EdgeConfig:
    operations: Operations
    authenticate: Callable[[str], Awaitable[Caller]]
    """A bearer token's caller; raises Refusal (unauthenticated)."""
    anonymous: Callable[[], Awaitable[Caller]] | None = None
    """Given when authentication is off: whom every request acts for. The service is then bound to loopback."""
    max_payload_bytes: int = 1_048_576
    metrics_open: bool = False
    public_url: str = ""
    version: str = "0"
    tracing: bool = False
    """Every request passes the instrumented application; without it the enqueue takes a shortcut around the router."""
    operations_only: bool = False
    """An engine without an API still answers health, status and metrics."""

    @property
    def max_body_bytes(self) -> int:
        """A payload and its options, which have caps of their own; escapes make text up to six times as long."""
        return self.max_payload_bytes + 262_144
