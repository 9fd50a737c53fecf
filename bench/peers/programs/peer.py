"""What the programs of the Python peers share: commands from stdin, answers on stdout, and the delivery of a job."""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pyreqwest.client import Client, ClientBuilder, SyncClient, SyncClientBuilder

from bench.processes import say

CONCURRENCY = 64
PAYLOAD = {"to": "ada@example.com", "template": "welcome", "n": 1, "note": "x" * 100}
HEADERS = {"content-type": "application/json"}


def client() -> Client:
    """The fastest of the natural choices here; the same one as the bare loop's."""
    return ClientBuilder().max_connections(CONCURRENCY).http1_only().no_proxy().build()


def sync_client() -> SyncClient:
    return SyncClientBuilder().max_connections(CONCURRENCY).http1_only().no_proxy().build()


async def deliver(client: Client, url: str, payload: Mapping[str, Any]) -> None:
    body = json.dumps(payload).encode()
    answer = await client.post(url).body_bytes(body).headers(HEADERS).build().send()
    await answer.bytes()
    if answer.status != 200:
        raise RuntimeError(f"the handler answered {answer.status}")


def deliver_sync(client: SyncClient, url: str, payload: Mapping[str, Any]) -> None:
    answer = client.post(url).body_bytes(json.dumps(payload).encode()).headers(HEADERS).build().send()
    answer.bytes()
    if answer.status != 200:
        raise RuntimeError(f"the handler answered {answer.status}")


async def serve(actions: Mapping[str, Callable[..., Awaitable[dict[str, Any] | None]]]) -> None:
    """Read a command per line, {"do": NAME, …}; run `actions[NAME]`, and say {"event": NAME, …} with what it returned."""
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    say(event="ready")
    while line := await lines.readline():
        command = json.loads(line)
        name = command.pop("do")
        say(event=name, **(await actions[name](**command) or {}))


async def enqueue_for(seconds: float, enqueue_one: Callable[[], Awaitable[Any]]) -> dict[str, Any]:
    """`enqueue_one` from as many concurrent callers as jobs are delivered with, for some seconds."""
    enqueued = 0
    begun = time.perf_counter()

    async def caller() -> None:
        nonlocal enqueued
        while time.perf_counter() - begun < seconds:
            await enqueue_one()
            enqueued += 1

    await asyncio.gather(*(caller() for _ in range(CONCURRENCY)))
    return {"enqueued": enqueued, "seconds": time.perf_counter() - begun}
