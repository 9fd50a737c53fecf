"""uvicorn under our own idea of an end: the first signal asks for a drain, the second skips it.

uvicorn alone would stop accepting at once and then wait for every open response. Here the first signal only sets
`draining`: readiness turns 503, long polls are answered, calls in flight end, while requests are still served. Whoever
drains calls `stop` when it is done.
"""

import asyncio
import contextlib
import socket
from collections.abc import Generator
from types import FrameType

import uvicorn

from app.api.protocol import EdgeServerConfig


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
