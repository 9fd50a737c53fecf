"""Handlers as raw TCP servers, so that they can misbehave in every way a socket allows."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

PATIENCE_SECONDS = 5.0
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@dataclass
class Request:
    line: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


class Peer:
    """The server's side of one connection."""

    def __init__(self, server: "Server", reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.server = server
        self.reader = reader
        self.writer = writer

    async def read_head(self) -> Request:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *lines = head[:-4].split("\r\n")
        headers = [(name, value) for name, _, value in (text.partition(": ") for text in lines)]
        request = Request(line, headers, b"")
        self.server.requests.append(request)
        return request

    async def read(self) -> Request:
        request = await self.read_head()
        request.body = await self.reader.readexactly(int(request.header("content-length") or 0))
        return request

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def gone(self) -> None:
        """Wait until the client has closed its side."""
        with suppress(ConnectionError):
            while await self.reader.read(65536):
                pass

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def drip(self, data: bytes, seconds: float = 0.02) -> None:
        """A byte at a time until the client has had enough."""
        with suppress(ConnectionError):
            for byte in data:
                await self.send(bytes([byte]))
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await self.reader.read(1)
                        return


Behaviour = Callable[[Peer], Awaitable[None]]


@dataclass
class Server:
    port: int = 0
    scheme: str = "http"
    connections: int = 0
    requests: list[Request] = field(default_factory=list)
    open_now: int = 0
    emptied: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the last connection has ended."""

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/hook"

    async def wait_until_empty(self) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.emptied.wait()


@asynccontextmanager
async def serve(
    behave: Behaviour, *, address: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Server]:
    """`behave` is run once for each connection; when it returns, the connection is closed."""
    server = Server(scheme="https" if tls else "http")
    running: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        server.connections += 1
        server.open_now += 1
        server.emptied.clear()
        try:
            await behave(Peer(server, reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has gone, or the test is over
        finally:
            running.discard(task)
            writer.transport.abort() if writer.transport.is_closing() else writer.close()
            server.open_now -= 1
            if not server.open_now:
                server.emptied.set()

    listening = await asyncio.start_server(connected, address, 0, ssl=tls, limit=2**22)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for task in list(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def answer_ok(peer: Peer) -> None:
    """A good handler: answers as long as it is asked."""
    while True:
        await peer.read()
        await peer.send(OK)


def answer(reply: bytes, *, keep: bool = True) -> Behaviour:
    """Answers each request with `reply`; closes after the first unless it is to `keep` the connection."""

    async def behave(peer: Peer) -> None:
        while True:
            await peer.read()
            await peer.send(reply)
            if not keep:
                return

    return behave
