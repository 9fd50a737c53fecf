"""Keeps an HTTP client for each process. In a file of its own, because what blocks needs no asyncio."""

import os
from collections.abc import Callable
from typing import Generic, TypeVar

ClientT = TypeVar("ClientT")


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
