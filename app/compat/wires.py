"""Other wires: protocols of other services, each on a port of its own, over the same queues."""

import asyncio
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from app.compat.sqs.app import SqsWire
from app.edge.config import EdgeConfig
from app.edge.protocol import EdgeServerConfig
from app.edge.server import EdgeServer
from app.runtime.core import Core


@dataclass(frozen=True, slots=True)
class Wire:
    name: str
    port: int
    """0: a free one."""
    build: Callable[[Core, EdgeConfig], Any]
    """Makes its ASGI application."""


def wires(*, sqs_port: int | None) -> list[Wire]:
    """Return the wires that have a port."""
    return [] if sqs_port is None else [Wire("sqs", sqs_port, SqsWire)]


class WireServers:
    """The servers of wires, in this event loop."""

    def __init__(self, configs: Iterable[EdgeServerConfig], listeners: Sequence[socket.socket]) -> None:
        self._servers = [EdgeServer(config, catch_signals=False) for config in configs]
        self._listeners = listeners
        self._serving: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Return once all are serving."""
        for server, listener in zip(self._servers, self._listeners, strict=True):
            self._serving.append(asyncio.create_task(server.serve(sockets=[listener]), name="wire"))
        for server, serving in zip(self._servers, self._serving, strict=True):
            while not server.started and not serving.done():
                await asyncio.sleep(0.005)

    async def stop(self, hurried: asyncio.Event) -> None:
        """Close the listeners, and let answers in progress finish, unless `hurried` is set meanwhile."""
        for server in self._servers:
            server.stop()
        hurry = asyncio.create_task(hurried.wait())
        pending = set(self._serving)
        while pending:
            _, waiting = await asyncio.wait({*pending, hurry}, return_when=asyncio.FIRST_COMPLETED)
            pending &= waiting
            for server in self._servers:
                server.force_exit = hurried.is_set()
            if hurried.is_set():
                break
        hurry.cancel()
        await asyncio.gather(*self._serving)
