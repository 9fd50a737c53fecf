"""What callers hold of a replica: connections, requests under way, and the bytes of requests and of answers.

What arrives belongs to strangers until a key, or a lease token, is known to be good; from then on it is its tenant's.

1. A connection beyond the most there may be takes the place of one on which nothing is being served: of those whose caller
   was never known, then of the others, the one that has been waited for longest. Where all are being served it is refused.
2. Strangers' bytes have a room of their own. Where it is full, the connection whose unfinished request has been waited for
   longest makes way: an honest request is there for milliseconds, so it is hardly ever the oldest.
3. The bytes of a tenant are at most a quarter of all. The last quarter of all is left to tenants that hold little.
4. The requests under way of a tenant, long polls among them, are at most half as many as there may be connections.

Bytes count from when they have arrived, not when they are announced, until the request is done with them.
"""

import time
from collections.abc import Hashable
from typing import Protocol

from app.domain.errors import Refusal
from app.telemetry.events import CONNECTIONS_FULL, emit
from app.telemetry.logs import get_logger

MAX_CONNECTIONS = 10_000
MAX_BYTES = 268_435_456
"""Of all tenants together; a quarter of it is more than the largest body there is."""
STRANGERS_BYTES = 33_554_432
LITTLE = 64
"""A tenant that holds no more than one part in so many of all bytes holds little."""
SAID_EVERY_SECONDS = 60.0

log = get_logger(__name__)


class Connection(Protocol):
    def give_way(self) -> None:
        """Close at once; what it held is free when this returns."""

    def belongs_to(self, share: "Share") -> None:
        """The caller of a request on it is known."""


class Share:
    """What one tenant holds, or all strangers together."""

    __slots__ = ("requests", "size")

    def __init__(self) -> None:
        self.requests = 0
        self.size = 0


class Admission:
    """Of one server, in one event loop."""

    def __init__(
        self,
        *,
        max_connections: int = MAX_CONNECTIONS,
        max_bytes: int = MAX_BYTES,
        strangers_bytes: int = STRANGERS_BYTES,
    ) -> None:
        self.max_connections = max_connections
        self.max_requests = max_connections // 2
        """Of a tenant."""
        self.strangers = Share()
        self.strangers_bytes = strangers_bytes
        self._max_bytes = max_bytes
        self._share_bytes = max_bytes // 4
        self._open_bytes = max_bytes - max_bytes // 4
        self._little_bytes = max_bytes // LITTLE
        self._bytes = 0
        self._shares: dict[Hashable, Share] = {}
        self._silent: dict[Connection, None] = {}
        """Those on which nothing is being served and whose caller was never known, the one waited for longest first."""
        self._idle: dict[Connection, None] = {}
        """The same, of callers that were known once."""
        self._unfinished: dict[Connection, None] = {}
        """Those that hold a part of a stranger's request, the one waited for longest first."""
        self._said_at = -SAID_EVERY_SECONDS
        self._closed = self._refused = 0
        """Connections, since it was said last."""

    # Connections

    def waits(self, connection: Connection, *, known: bool) -> None:
        """Nothing is being served on it from here on."""
        (self._idle if known else self._silent)[connection] = None

    def serves(self, connection: Connection) -> None:
        """A request of it has arrived, or its caller is known."""
        self._silent.pop(connection, None)
        self._idle.pop(connection, None)
        self._unfinished.pop(connection, None)

    def holds_part(self, connection: Connection) -> None:
        """A part of a stranger's request has arrived on it."""
        self._unfinished.setdefault(connection)

    def make_room(self) -> bool:
        """For one more connection; False where all are being served."""
        oldest = next(iter(self._silent or self._idle), None)
        if oldest is None:
            self._refused += 1
        else:
            self.serves(oldest)
            oldest.give_way()
            self._closed += 1
        now = time.monotonic()
        if now - self._said_at >= SAID_EVERY_SECONDS:
            emit(log, CONNECTIONS_FULL, limit=self.max_connections, closed=self._closed, refused=self._refused)
            self._said_at, self._closed, self._refused = now, 0, 0
        return oldest is not None

    # Bytes

    def share_of(self, tenant: Hashable) -> Share:
        share = self._shares.get(tenant)
        if share is None:
            share = self._shares[tenant] = Share()
        return share

    def take(self, share: Share, size: int, connection: Connection | None = None) -> bool:
        """So many bytes more for a request that has come by this connection; False where they do not fit."""
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
        """An answer of whichever size that waits for its reader; False for one that holds its share already."""
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
    """What one request holds: its place among those of its tenant, and its bytes."""

    __slots__ = ("_admission", "_connection", "expects", "over", "share", "size")

    def __init__(self, admission: Admission, connection: Connection) -> None:
        self._admission = admission
        self._connection = connection
        self.share: Share | None = admission.strangers
        """None once it is released."""
        self.size = 0
        self.over = False
        """More has arrived than there was room for: the request is refused."""
        self.expects = False
        """It came with `Expect: 100-continue`."""

    def add(self, size: int) -> bool:
        """So many bytes have arrived. False where there is no room for them: those that had come before are given up too, so
        that of many that come at once some find room."""
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
        """Its caller is known. Raises Refusal (unavailable) where the tenant holds its share already."""
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
        """The request is done with its bytes, or was never begun. Again, it does nothing."""
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
