"""Configuration of the edge: authentication, size limits, and access to the process's state."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol

from app.domain.callers import Caller


class Operations(Protocol):
    """The process as an operator sees it; main implements it."""

    def why_not_live(self) -> str | None:
        """Return why the process should be restarted, or None. Never touches the database."""

    def why_not_ready(self) -> str | None: ...

    async def status(self) -> dict[str, Any]:
        """Return what `GET /status` shows, as JSON values."""

    async def metrics(self) -> bytes:
        """Return the metrics as Prometheus text."""


RequestMeter = Callable[[str, str, int], Callable[[float], None]]
"""Returns, for a method, a route and a status, what counts a request by its seconds."""
OTHER = "other"
"""What requests are counted under that no route serves, and methods that none has: a client must not make up series."""


@dataclass(frozen=True, slots=True)
class EdgeConfig:
    operations: Operations
    authenticate: Callable[[str], Awaitable[Caller]]
    """Returns the caller of a bearer token; raises Refusal (unauthenticated)."""
    anonymous: Callable[[], Awaitable[Caller]] | None = None
    """Set when authentication is off: returns the caller of every request. The service then listens on loopback only."""
    max_payload_bytes: int = 1_048_576
    metrics_open: bool = False
    public_url: str = ""
    version: str = "0"
    tracing: bool = False
    """Whether every request passes through the instrumented application. Otherwise the enqueue bypasses the router."""
    operations_only: bool = False
    """Whether only health, status and metrics are served: an engine without an API."""
    request_meter: RequestMeter | None = None

    @property
    def max_body_bytes(self) -> int:
        """Room for a payload and its options, which have limits of their own; escapes make text up to six times as long, and base64
        makes a payload longer by a third."""
        return max(self.max_payload_bytes + 262_144, self.max_payload_bytes * 4 // 3 + 131_072)
