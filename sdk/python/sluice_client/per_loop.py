"""Keeps an HTTP client for each event loop."""

import asyncio
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
