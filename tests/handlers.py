"""A webhook handler on a real socket that answers as the test says and remembers what it received."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Received:
    """One request as it stood on the wire. `at` is monotonic, `arrived_at` the wall clock's."""

    number: int
    method: str
    path: str
    headers: Mapping[str, str]
    raw_headers: tuple[tuple[str, str], ...]
    body: bytes
    at: float
    arrived_at: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def task(self) -> str:
        return self.headers["webhook-id"]


@dataclass(frozen=True)
class Reply:
    """`until` holds the answer back until it is set. `raw` is sent as it stands and closes the connection."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"ok"
    until: asyncio.Event | None = None
    raw: bytes | None = None


Script = Callable[[Received], "Reply | Awaitable[Reply]"]


class Handler:
    """Answers with the queued replies first, one a request, then by the script, else 200."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[Received] = []
        self.open_calls = 0
        self.most_open_calls = 0
        self._queued: list[Reply] = []
        self._script: Script = lambda request: Reply()
        self._news = asyncio.Condition()
        self._calls: set[asyncio.Task[None]] = set()

    def answer(self, *replies: Reply) -> None:
        """Answer the next requests with these, in order of arrival."""
        self._queued.extend(replies)

    def script(self, answer: Script | Reply) -> None:
        """Answer every further request so; a function is given the request, and may be a coroutine function."""
        self._script = (lambda request: answer) if isinstance(answer, Reply) else answer

    async def received(
        self, count: int = 1, timeout_seconds: float = 10.0, *, task: str | None = None
    ) -> list[Received]:
        """Wait until so many requests (of the task) have arrived, and return them."""

        def found() -> list[Received]:
            return [request for request in self.requests if task is None or request.headers.get("webhook-id") == task]

        try:
            async with asyncio.timeout(timeout_seconds), self._news:
                await self._news.wait_for(lambda: len(found()) >= count)
        except TimeoutError:
            raise AssertionError(f"{len(found())} of {count} requests arrived in {timeout_seconds} s") from None
        return found()

    async def idle(self, timeout_seconds: float = 10.0) -> None:
        """Wait until no request is being answered."""
        async with asyncio.timeout(timeout_seconds), self._news:
            await self._news.wait_for(lambda: self.open_calls == 0)

    @contextlib.asynccontextmanager
    async def serving(self, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator["Handler"]:
        server = await asyncio.start_server(self._connected, host, port, limit=8 * 1024 * 1024)
        port = server.sockets[0].getsockname()[1]
        self.url = f"http://{host}:{port}/hook"
        try:
            yield self
        finally:
            server.close()
            for call in tuple(self._calls):
                call.cancel()
            await asyncio.gather(*self._calls, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        call = asyncio.create_task(self._converse(reader, writer))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        line, *lines = head[:-4].decode("latin-1").split("\r\n")
        raw = tuple((name, value) for name, _, value in (text.partition(": ") for text in lines))
        headers = {name.lower(): value for name, value in raw}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        method, path, _ = line.split(" ", 2)
        request = Received(len(self.requests) + 1, method, path, headers, raw, body, time.monotonic(), time.time())
        await self._counted(request, 1)
        try:
            reply = await self._reply(request)
            if reply.until is not None:
                await self._until(reply.until, reader)
        finally:
            await self._counted(None, -1)
        if reply.raw is not None:
            writer.write(reply.raw)
            await writer.drain()
            return False
        words = {"content-length": str(len(reply.body)), **reply.headers}
        fields = "".join(f"{name}: {value}\r\n" for name, value in words.items())
        writer.write(f"HTTP/1.1 {reply.status} Answer\r\n{fields}\r\n".encode("latin-1") + reply.body)
        await writer.drain()
        return True

    async def _reply(self, request: Received) -> Reply:
        if self._queued:
            return self._queued.pop(0)
        reply = self._script(request)
        return reply if isinstance(reply, Reply) else await reply

    async def _until(self, event: asyncio.Event, reader: asyncio.StreamReader) -> None:
        """Hold the answer back, but not for a caller that has gone."""
        gone = asyncio.create_task(reader.read(1))
        asked = asyncio.create_task(event.wait())
        try:
            await asyncio.wait((gone, asked), return_when=asyncio.FIRST_COMPLETED)
            if gone.done() and not asked.done():
                raise ConnectionResetError
        finally:
            for task in (gone, asked):
                task.cancel()
            await asyncio.gather(gone, asked, return_exceptions=True)

    async def _counted(self, request: Received | None, change: int) -> None:
        async with self._news:
            if request is not None:
                self.requests.append(request)
            self.open_calls += change
            self.most_open_calls = max(self.most_open_calls, self.open_calls)
            self._news.notify_all()
