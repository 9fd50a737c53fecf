"""Keeps one HTTP client for each place that may share its connections: an event loop, or a process."""

import asyncio
import os
from collections.abc import Callable
from typing import Generic, TypeVar

ClientT = TypeVar("ClientT")


class PerLoop(Generic[ClientT]):
    """Connections belong to the event loop that opened them, so each loop gets a client of its own."""

    def __init__(self, build: Callable[[], ClientT]) -> None:
        self._build = build
        self._clients: dict[asyncio.AbstractEventLoop, ClientT] = {}

    def get(self) -> ClientT:
        loop = asyncio.get_running_loop()
        client = self._clients.get(loop)
        if client is None:
            for other in list(self._clients):  # other threads have loops, too
                if other.is_closed():  # its sockets are closed with its client
                    self._clients.pop(other, None)
            client = self._clients[loop] = self._build()
        return client

    def take(self) -> ClientT | None:
        """Return the client of this loop, if there is one, and forget it."""
        return self._clients.pop(asyncio.get_running_loop(), None)


class PerProcess(Generic[ClientT]):
    """Threads share a client. A child made by fork must not write to its parent's sockets, so it gets one of its own."""

    def __init__(self, build: Callable[[], ClientT]) -> None:
        self._build = build
        self._clients: dict[int, ClientT] = {}

    def get(self) -> ClientT:
        process = os.getpid()
        client = self._clients.get(process)
        if client is None:
            client = self._clients.setdefault(process, self._build())
        return client

    def take(self) -> ClientT | None:
        """Return the client of this process, if there is one, and forget it."""
        return self._clients.pop(os.getpid(), None)
