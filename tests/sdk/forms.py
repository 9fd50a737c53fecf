"""Both forms of the client, called in one way, and a server that fails as it is told to."""

import asyncio
import inspect
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import httpx2

from sluice_client.api import Api, SyncApi

FORMS = [Api, SyncApi]


async def call(of: object, name: str, /, *arguments: Any, **named: Any) -> Any:
    """Call `queues.put` and the like; what blocks runs in a thread, because the server may run in this loop."""
    method: Any = reduce(getattr, name.split("."), of)
    if inspect.iscoroutinefunction(method):
        return await method(*arguments, **named)
    return await asyncio.to_thread(method, *arguments, **named)


async def listed(pages: Any) -> list[Any]:
    """All items of a list."""
    if hasattr(pages, "__aiter__"):
        return [item async for item in pages]
    return await asyncio.to_thread(list, pages)


async def close(api: Api | SyncApi) -> None:
    await (asyncio.to_thread(api.close) if isinstance(api, SyncApi) else api.aclose())


@asynccontextmanager
async def client(
    form: type[Api] | type[SyncApi], url: str, key: str | None = None, **options: Any
) -> AsyncIterator[Any]:
    api = form(url, key, **options)
    try:
        yield api
    finally:
        await close(api)


@dataclass(frozen=True)
class Answer:
    """What the server sends, without asking Sluice."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


PASS, DROP, LOSE = "pass", "drop", "lose"
"""Pass the request on; close the connection at once; pass it on, and lose the answer."""


@dataclass
class Asked:
    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    connection: int


@dataclass
class Flaky:
    """An HTTP server of its own. It plays its script, a step for each request, and then passes everything on."""

    script: list[Answer | str] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    upstream: str | None = None
    url: str = ""
    connections: int = 0
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        self._writers.append(writer)
        try:
            while True:
                asked = await _read(reader, number)
                self.asked.append(asked)
                step = self.script.pop(0) if self.script else PASS
                if step == DROP:
                    break
                answer = step if isinstance(step, Answer) else await self._pass_on(asked)
                if step == LOSE:
                    break
                writer.write(_written(answer))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    async def _pass_on(self, asked: Asked) -> Answer:
        if self.upstream is None:
            return Answer(200, {"content-type": "application/json"}, b"{}")
        headers = {name: value for name, value in asked.headers.items() if name not in ("host", "content-length")}
        async with httpx2.AsyncClient(base_url=self.upstream, trust_env=False, verify=False) as http:
            reply = await http.request(asked.method, asked.target, headers=headers, content=asked.body)
        kept = {name: value for name, value in reply.headers.items() if name in ("content-type", "idempotent-replayed")}
        return Answer(reply.status_code, kept, reply.content)


async def _read(reader: asyncio.StreamReader, connection: int) -> Asked:
    head, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
    method, target, _ = head.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Asked(method, target, headers, body, connection)


def _written(answer: Answer) -> bytes:
    headers = answer.headers | {"content-length": str(len(answer.body))}
    lines = [f"HTTP/1.1 {answer.status} Told", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + answer.body


@asynccontextmanager
async def flaky(*script: Answer | str, upstream: str | None = None) -> AsyncIterator[Flaky]:
    server = Flaky(list(script), upstream=upstream)
    listening = await asyncio.start_server(server._serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()
        for writer in server._writers:
            writer.close()
