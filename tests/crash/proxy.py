"""A way to a Postgres that can be cut: between a statement's commit and its answer, or altogether."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

READY = b"Z\x00\x00\x00\x05I"
"""How the server ends an answer outside a transaction: whatever was asked is committed."""

SHUTDOWN = b"SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0"


class Proxy:
    """Stands on a TCP port before the server of `dsn`."""

    def __init__(self, dsn: str) -> None:
        self._target = urlsplit(dsn)
        self.url = ""
        self.lost = 0
        """Answers that were committed and never arrived."""
        self._asked: list[bytes] = []
        self._answers: list[bytes] = []
        self._away = self._swallows = False
        self._links: set[asyncio.Task[None]] = set()
        self._holed: set[Any] = set()
        self._listening: set[Any] = set()
        self._clients: set[asyncio.StreamWriter] = set()

    def lose_answer(self, mark: str, *, in_answer: bool = False) -> None:
        """Of the next statement that holds the mark, or the next answer that does: the server finishes it, commit and
        all, and the connection ends without a word."""
        (self._answers if in_answer else self._asked).append(mark.encode())

    def cut(self) -> None:
        """From here on the server cannot be reached."""
        self._away = True
        for link in self._links:
            link.cancel()

    def black_hole(self, *, listening: bool = False) -> None:
        """Connections that are there now (or those of them that listen) stay open, and nothing comes through any more, either
        way; new ones are as ever."""
        self._holed |= self._listening if listening else self._links

    def refuse(self) -> None:
        """New connections are turned away; those that are there go on."""
        self._away = True

    def swallow(self) -> None:
        """New connections are taken, and nothing comes through."""
        self._swallows = True

    def announce_end(self) -> None:
        """What a server says when it shuts down, on every connection. The connections are not closed yet."""
        for client in self._clients:
            client.write(b"E" + (len(SHUTDOWN) + 4).to_bytes(4, "big") + SHUTDOWN)

    def mend(self) -> None:
        self._away = self._swallows = False

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["Proxy"]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self.url = self.url_as(self._target.username or "", port)
        try:
            yield self
        finally:
            server.close()
            self.cut()
            await asyncio.gather(*self._links, return_exceptions=True)

    def url_as(self, user: str, port: int | None = None) -> str:
        """The way through it for another user; `user` may be user:password."""
        port = urlsplit(self.url).port if port is None else port
        return f"postgresql://{user}@127.0.0.1:{port}{self._target.path}?sslmode=disable"

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._away:
            writer.close()
            return
        link = asyncio.create_task(self._link(reader, writer))
        self._links.add(link)
        if self._swallows:
            self._holed.add(link)
        link.add_done_callback(self._links.discard)

    async def _link(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host = parse_qs(self._target.query).get("host", [self._target.hostname or ""])[0]
        if host.startswith("/"):
            server = await asyncio.open_unix_connection(f"{host}/.s.PGSQL.5432")
        else:
            server = await asyncio.open_connection(host, self._target.port or 5432)
        losing, link = asyncio.Event(), asyncio.current_task()
        ways = [
            asyncio.create_task(self._ask(reader, server[1], losing, link)),
            asyncio.create_task(self._answer(server[0], writer, losing, link)),
        ]
        self._clients.add(writer)
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._clients.discard(writer)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            writer.transport.abort()
            server[1].transport.abort()

    async def _ask(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, losing: asyncio.Event, link: Any
    ) -> None:
        while data := await reader.read(65536):
            if link in self._holed:
                continue
            if b"LISTEN" in data:
                self._listening.add(link)
            if _strike(self._asked, data):
                losing.set()
            writer.write(data)
            await writer.drain()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, losing: asyncio.Event, link: Any
    ) -> None:
        tail = b""
        while data := await reader.read(65536):
            if link in self._holed:
                continue
            if _strike(self._answers, data):
                losing.set()
            if not losing.is_set():
                writer.write(data)
                await writer.drain()
                continue
            tail = (tail + data)[-len(READY) :]
            if tail == READY:
                self.lost += 1
                return


def _strike(marks: list[bytes], data: bytes) -> bool:
    """Take the marks that the data holds out of the list; whether there were any."""
    found = [mark for mark in marks if mark in data]
    for mark in found:
        marks.remove(mark)
    return bool(found)
