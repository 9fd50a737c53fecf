"""Sockets of connections: detect dead peers, and record when a connection last answered.

The settings sent to the server (tcp_keepalives_idle …) affect its side of the socket. A lost NAT entry, or a failover behind a
load balancer, leaves the client's side open: without these options, a read on it waits for hours.
"""

import contextlib
import socket
import time
from typing import Any

import asyncpg

CLOSE_SECONDS = 1.0
IDLE_SECONDS = 10
INTERVAL_SECONDS = 3
PROBES = 3
UNACKNOWLEDGED_MS = 8_000
"""How long sent data may stay unacknowledged, however often it is retransmitted."""


class AnsweringConnection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """A connection that records when it last answered, in monotonic seconds."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.answered_at = time.monotonic()
        # The driver would turn jit off for the session before it looks up a type and, behind a pooler, leak that to other clients.
        # Our sessions have it off already (session.SETTINGS).
        self._server_caps = self._server_caps._replace(jit=False)  # type: ignore[has-type]  # asyncpg has no types

    async def close(self, *, timeout: float | None = None) -> None:
        """Close the connection, without waiting long for a server that does not close its side."""
        with contextlib.suppress(TimeoutError):  # the driver has dropped it by then
            await super().close(timeout=CLOSE_SECONDS if timeout is None else timeout)

    async def fetch(self, *args: Any, **kwargs: Any) -> Any:
        rows = await super().fetch(*args, **kwargs)
        self.answered_at = time.monotonic()
        return rows


def keep_alive(connection: AnsweringConnection) -> None:
    """Enable keepalives; a Unix socket needs none."""
    sock = connection._transport.get_extra_info("socket")
    if sock is None or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {
        "TCP_KEEPIDLE": IDLE_SECONDS,
        "TCP_KEEPINTVL": INTERVAL_SECONDS,
        "TCP_KEEPCNT": PROBES,
        "TCP_USER_TIMEOUT": UNACKNOWLEDGED_MS,
    }
    for name, value in options.items():
        if hasattr(socket, name):  # Linux has all of these options, macOS some
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
