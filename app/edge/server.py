"""uvicorn with a graceful end: the first signal starts a drain, the second skips it.

uvicorn alone would stop accepting at once and then wait for every open response. Here the first signal only sets `draining`:
readiness turns 503, long polls are answered, and calls in flight end, while requests are still served. Whoever drains calls
`stop` afterwards.
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
"""Descriptors for everything else: the database, the listener, pipes, files, DNS lookups."""
MAX_BACKLOG = 2048
LEAST_DESCRIPTORS = 256
OPEN_MAX = 10_240
"""The most that macOS grants."""
UNLIMITED = 1_048_576
TICK_SECONDS = 0.1
"""How often uvicorn looks whether to renew the Date header, every tenth time."""


@dataclass(frozen=True, slots=True)
class Descriptors:
    """How the process's file descriptors are divided."""

    limit: int
    connections: int
    """Connections of the server."""
    backlog: int
    """Connections that may be accepted in one loop iteration, before the surplus is closed."""
    calls: int
    """Concurrent deliveries."""
    idle_calls: int
    """Idle connections kept for later deliveries."""


def raise_descriptor_limit() -> int:
    """Raise the limit to what the system grants this process; return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for wanted in (hard, OPEN_MAX):  # a hard limit may be unlimited, which is more than the system grants
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            continue
        return wanted if wanted != resource.RLIM_INFINITY else UNLIMITED
    return soft


def share_out(limit: int, wanted_calls: int) -> Descriptors:
    """Divide `limit` descriptors: the reserve, the backlog, then deliveries up to half of the rest, then connections.

    So neither callers nor handlers can take what the others or the database need.
    """
    left = limit - RESERVED
    backlog = min(MAX_BACKLOG, left // 8)
    left -= backlog
    calls = min(wanted_calls, left * 3 // 8)
    idle_calls = min(wanted_calls, left // 8)
    return Descriptors(limit, min(MAX_CONNECTIONS, left - calls - idle_calls), backlog, calls, idle_calls)


@contextlib.contextmanager
def bound(host: str, port: int, backlog: int) -> Generator[socket.socket, None, None]:
    """Listen until the context ends. Raises OSError, whose file name is the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise OSError(error.errno, error.strerror, f"{host}:{port}") from None
        listener.listen(backlog)
        listener.setblocking(False)
        yield listener


def url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class EdgeServer(uvicorn.Server):
    def __init__(self, config: EdgeServerConfig, *, catch_signals: bool = True) -> None:
        super().__init__(config)
        self.draining = asyncio.Event()
        """Set by the first signal: start to drain."""
        self.hurried = asyncio.Event()
        """Set by the second signal: stop waiting."""
        self._catch_signals = catch_signals
        self._stopped = asyncio.Event()
        self._signals = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    async def main_loop(self) -> None:
        """As uvicorn's, but a stop is noticed at once, not when it looks again."""
        ticks = 0
        while not await self.on_tick(ticks):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_SECONDS):
                    await self._stopped.wait()
            ticks += 1

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        if not self._catch_signals:
            yield
            return
        with super().capture_signals():
            yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal without leaving it for uvicorn to raise again, so that a clean end has exit code 0."""
        self._signals += 1
        # A signal handler runs between any two bytecodes, so let the loop wake the waiters.
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self.draining.set)
        if self._signals > 1:
            self.force_exit = True
            self.should_exit = True
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self.hurried.set)

    def stop(self) -> None:
        """Close the listener and idle connections, let answers in progress finish, and end `serve`."""
        self.should_exit = True
        self._stopped.set()
