"""Admission: what callers hold of a replica, in connections, requests in progress, and bytes of requests and answers.

What arrives counts against unknown callers until a key or a lease token has been verified, then against its tenant.

1. At the connection limit, a new connection replaces an idle one: first of those whose caller was never known, then of the
others, the one that has been idle longest. If every connection is serving a request, the new one is refused.
2. Bytes of unknown callers have a limit of their own. When it is reached, the connection with the oldest unfinished request is
closed: an honest request is unfinished for milliseconds, so it is hardly ever the oldest.
3. A tenant may hold at most a quarter of all bytes. The last quarter is left to tenants that hold little.
4. A tenant may have at most half as many requests in progress, long polls included, as connections are allowed.

Bytes count from their arrival, not their announcement, until the request is done with them.
"""

import time
from collections.abc import Hashable
from typing import Protocol

from app.domain.errors import Refusal
from app.telemetry.events import CONNECTIONS_FULL, emit
from app.telemetry.logs import get_logger

MAX_CONNECTIONS = 10_000
MAX_BYTES = 268_435_456
"""For all tenants together; a quarter of it exceeds the largest body allowed."""
STRANGERS_BYTES = 33_554_432
LITTLE = 64
"""A tenant holds little if it holds at most one part in this many of all bytes."""
LOG_EVERY_SECONDS = 60.0

log = get_logger(__name__)


class Connection(Protocol):
    def give_way(self) -> None:
        """Close at once; what the connection held is free when this returns."""

    def belongs_to(self, share: "Share") -> None:
        """Note that the caller of a request on this connection is known."""


class Share:
    """What one tenant holds, or all unknown callers together."""

    __slots__ = ("requests", "size")

    def __init__(self) -> None:
        self.requests = 0
        self.size = 0


class Admission:
    """The admission of the servers in one event loop."""

    def __init__(
        self,
        *,
        max_connections: int = MAX_CONNECTIONS,
        max_bytes: int = MAX_BYTES,
        strangers_bytes: int = STRANGERS_BYTES,
    ) -> None:
        self.max_connections = max_connections
        self.connections = 0
        self.max_requests = max_connections // 2
        """Per tenant."""
        self.strangers = Share()
        self.strangers_bytes = strangers_bytes
        self._max_bytes = max_bytes
        self._share_bytes = max_bytes // 4
        self._open_bytes = max_bytes - max_bytes // 4
        self._little_bytes = max_bytes // LITTLE
        self._bytes = 0
        self._shares: dict[Hashable, Share] = {}
        self._silent: dict[Connection, None] = {}
        """Idle connections whose caller was never known, the longest idle first."""
        self._idle: dict[Connection, None] = {}
        """Idle connections whose caller has been known, the longest idle first."""
        self._unfinished: dict[Connection, None] = {}
        """Connections with part of an unknown caller's request, the oldest first."""
        self._logged_at = -LOG_EVERY_SECONDS
        self._closed = self._refused = 0
        """Connections since the last log line."""

    # Connections

    def waits(self, connection: Connection, *, known: bool) -> None:
        """Note that the connection is idle."""
        (self._idle if known else self._silent)[connection] = None

    def serves(self, connection: Connection) -> None:
        """Note that a request has arrived, or that its caller is known."""
        self._silent.pop(connection, None)
        self._idle.pop(connection, None)
        self._unfinished.pop(connection, None)

    def holds_part(self, connection: Connection) -> None:
        """Note that part of an unknown caller's request has arrived."""
        self._unfinished.setdefault(connection)

    def make_room(self) -> bool:
        """Make room for one more connection; return False if all are serving requests."""
        oldest = next(iter(self._silent or self._idle), None)
        if oldest is None:
            self._refused += 1
        else:
            self.serves(oldest)
            oldest.give_way()
            self._closed += 1
        now = time.monotonic()
        if now - self._logged_at >= LOG_EVERY_SECONDS:
            emit(log, CONNECTIONS_FULL, limit=self.max_connections, closed=self._closed, refused=self._refused)
            self._logged_at, self._closed, self._refused = now, 0, 0
        return oldest is not None

    # Bytes

    def share_of(self, tenant: Hashable) -> Share:
        share = self._shares.get(tenant)
        if share is None:
            share = self._shares[tenant] = Share()
        return share

    def take(self, share: Share, size: int, connection: Connection | None = None) -> bool:
        """Add `size` bytes of a request on this connection; return False if they do not fit."""
        after = share.size + size
        if share is self.strangers:
            if after > self.strangers_bytes and not self._make_way(size, connection):
                return False
        else:
            of_all = self._bytes + size
            fits = after <= self._share_bytes and of_all <= self._open_bytes
            if not fits and (after > self._little_bytes or of_all > self._max_bytes):
                return False
            self._bytes = of_all
        share.size += size
        return True

    def take_answer(self, share: Share, size: int) -> bool:
        """Add an answer of any size that waits for its client; return False if the share is used up already."""
        if share.size >= (self.strangers_bytes if share is self.strangers else self._share_bytes):
            return False
        share.size += size
        if share is not self.strangers:
            self._bytes += size
        return True

    def give_back(self, share: Share, size: int) -> None:
        share.size -= size
        if share is not self.strangers:
            self._bytes -= size

    def _make_way(self, size: int, connection: Connection | None) -> bool:
        while self.strangers.size + size > self.strangers_bytes:
            oldest = next(iter(self._unfinished), None)
            if oldest is None or oldest is connection:
                return False
            self.serves(oldest)
            oldest.give_way()
        return True


class Hold:
    """What one request holds: a place among its tenant's requests, and its bytes."""

    __slots__ = ("_admission", "_connection", "expects", "over", "share", "size")

    def __init__(self, admission: Admission, connection: Connection) -> None:
        self._admission = admission
        self._connection = connection
        self.share: Share | None = admission.strangers
        """None once released."""
        self.size = 0
        self.over = False
        """More arrived than there was room for, so the request is refused."""
        self.expects = False
        """The request has `Expect: 100-continue`."""

    def add(self, size: int) -> bool:
        """Count bytes that have arrived. Return False if there is no room for them: the earlier ones are given up too, so that some
        of many simultaneous requests fit."""
        if self.over or self.share is None:
            return False
        if self._admission.take(self.share, size, self._connection):
            self.size += size
            return True
        self.over = True
        self._admission.give_back(self.share, self.size)
        self.size = 0
        return False

    def enter(self, tenant: Hashable) -> None:
        """Charge the request to its tenant. Raises Refusal (unavailable) if the tenant's share is used up."""
        admission, stranger = self._admission, self.share
        if stranger is None:
            return
        share = admission.share_of(tenant)
        if share.requests >= admission.max_requests:
            raise unavailable(f"this tenant already has {share.requests} requests in progress, the most allowed")
        if self.size:
            if not admission.take(share, self.size):
                raise no_room()
            admission.give_back(stranger, self.size)
        self.share = share
        share.requests += 1
        self._connection.belongs_to(share)

    def release(self) -> None:
        """Release everything the request holds. Calling it again does nothing."""
        share, self.share = self.share, None
        if share is None:
            return
        if self.size:
            self._admission.give_back(share, self.size)
        if share is not self._admission.strangers:
            share.requests -= 1


def unavailable(detail: str) -> Refusal:
    return Refusal("unavailable", detail, retry_after_seconds=1)


def no_room() -> Refusal:
    return unavailable("the service is holding too many request bodies to take this one")
