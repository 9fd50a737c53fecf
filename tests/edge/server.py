"""A server around any application, and clients that send bytes as they like."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.types import Receive, Scope, Send

from app.edge.protocol import EdgeServerConfig
from app.edge.server import EdgeServer
from tests.support import poll

App = Callable[[Scope, Receive, Send], Awaitable[None]]


async def answer(send: Send, body: bytes) -> None:
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """The whole body back; a client that has gone gets nothing."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body += message["body"]
        more = message["more_body"]
    await answer(send, body)


@asynccontextmanager
async def serving(
    app: App, *, listener: socket.socket | None = None, **limits: Any
) -> AsyncIterator[tuple[EdgeServer, int]]:
    listener = listener or socket.create_server(("127.0.0.1", 0))
    config = EdgeServerConfig(app, log_config=None, access_log=False, **limits)
    server = EdgeServer(config, catch_signals=False)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await poll(lambda: server.started)
        yield server, listener.getsockname()[1]
    finally:
        server.force_exit = True
        server.stop()
        await task


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def response(self) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(5):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            return int(head[0].split()[1]), headers, await self.reader.readexactly(int(headers["content-length"]))

    async def problem(self) -> tuple[int, str]:
        status, headers, body = await self.response()
        assert headers["content-type"] == "application/problem+json"
        return status, json.loads(body)["code"]

    async def closed(self) -> bytes:
        """What still comes before the server closes."""
        async with asyncio.timeout(5):
            return await self.reader.read()


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Client(reader, writer)
    finally:
        writer.close()
