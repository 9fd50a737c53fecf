"""uvicorn under our own idea of an end: the first signal asks for a drain, the second skips it.

uvicorn alone would stop accepting at once and then wait for every open response. Here the first signal only sets
`draining`: readiness turns 503, long polls are answered, calls in flight end, while requests are still served. Whoever
drains calls `stop` when it is done.
"""

import asyncio
import contextlib
import resource
import socket
from collections.abc import Generator
from dataclasses import dataclass
from types import FrameType

import uvicorn

from app.edge.admission import MAX_CONNECTIONS
from app.edge.protocol import EdgeServerConfig

RESERVED = 128
"""Descriptors for all else: the database, the listener, pipes, files, look-ups of names."""
MAX_BACKLOG = 2048
LEAST_DESCRIPTORS = 256
OPEN_MAX = 10_240
"""What macOS grants."""
UNLIMITED = 1_048_576


@dataclass(frozen=True, slots=True)
class Descriptors:
    """How the descriptors that the process may open are shared out."""

    limit: int
    connections: int
    """Of the server."""
    backlog: int
    """Connections that may be accepted in one turn of the loop, before those that are too many are closed."""
    calls: int
    """Deliveries at once."""
    idle_calls: int
    """Connections that are kept for the next delivery."""


def raise_descriptor_limit() -> int:
    """To as many as the system grants this process; how many these are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (hard, OPEN_MAX):  # a hard limit may be unlimited, and more than the system grants
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            continue
        return wanted if wanted != resource.RLIM_INFINITY else UNLIMITED
    return soft


def share_out(limit: int, wanted_calls: int) -> Descriptors:
    """`limit` descriptors: what is reserved, a backlog, then deliveries up to a half of the rest, then connections.

    So neither callers nor handlers can take what the others, or the database, need.
    """
    left = limit - RESERVED
    backlog = min(MAX_BACKLOG, left // 8)
    left -= backlog
    calls = min(wanted_calls, left * 3 // 8)
    idle_calls = min(wanted_calls, left // 8)
    return Descriptors(limit, min(MAX_CONNECTIONS, left - calls - idle_calls), backlog, calls, idle_calls)


class EdgeServer(uvicorn.Server):
    def __init__(self, config: EdgeServerConfig, *, catch_signals: bool = True) -> None:
        super().__init__(config)
        self.draining = asyncio.Event()
        """Set by the first signal."""
        self.hurried = asyncio.Event()
        """Set by the second: whoever waits stops waiting."""
        self._catch_signals = catch_signals
        self._signals = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        if not self._catch_signals:
            yield
            return
        with super().capture_signals():
            yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Signals are not kept for uvicorn to raise again: an orderly end is exit code 0."""
        self._signals += 1
        # A handler of signals runs between two bytecodes of anything; the loop wakes the waiters in its own time.
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.draining.set)
        if self._signals > 1:
            self.force_exit = True
            self.should_exit = True
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self.hurried.set)

    def stop(self) -> None:
        """Close the listener and the idle connections, let answers in flight go out, end `serve`."""
        self.should_exit = True
