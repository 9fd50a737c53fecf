"""Sluice as the bench meets it: the real `sluice up` process, spoken to over the contract alone."""

import asyncio
import itertools
import json
import random
import sys
import time
from pathlib import Path
from typing import Any, Self

import httpx2

from bench.loadgen import request
from bench.processes import Child, ChildFailed, clean_environ

READY_SECONDS = 30.0
CONNECTIONS = 64
POLL_SECONDS = 0.1
PAYLOAD = {"to": "ada@example.com", "template": "welcome", "n": 1, "note": "x" * 100}


class Subject:
    def __init__(self, child: Child, url: str) -> None:
        self.child = child
        self.url = url
        self.client = httpx2.AsyncClient(base_url=url, timeout=60, trust_env=False)

    @classmethod
    async def start(cls, dsn: str, directory: Path) -> Self:
        environ = clean_environ(
            SLUICE_DATABASE_URL=dsn, SLUICE_HOST="127.0.0.1", SLUICE_PORT="0", SLUICE_MAX_DEFINITIONS="100000"
        )
        sluice = Path(sys.executable).with_name("sluice")
        child = await Child.start([str(sluice), "up"], directory / "sluice.log", environ, cwd=directory)
        return cls(child, (await child.heard("ready", READY_SECONDS))["url"].rstrip("/"))

    async def define(self, handler_url: str) -> None:
        """A paused queue for enqueues, one for whole ways, paused between rounds, one of schedules, and one that idles."""
        await self.ask("PUT", "/handlers/bench-count", {"url": f"{handler_url}/count"})
        await self.ask("PUT", "/handlers/bench-stamp", {"url": f"{handler_url}/stamp"})
        for queue, handler in (("enqueue", "count"), ("deliver", "count"), ("fire", "count"), ("idle", "stamp")):
            await self.ask("PUT", f"/queues/bench-{queue}", {"handler": f"bench-{handler}"})
        await self.pause("bench-enqueue")

    def tasks_url(self, queue: str) -> str:
        return f"{self.url}/queues/{queue}/tasks"

    async def pause(self, queue: str) -> None:
        await self.ask("POST", f"/queues/{queue}/pause")

    async def resume(self, queue: str) -> None:
        await self.ask("POST", f"/queues/{queue}/resume")

    async def preload(self, queue: str, count: int) -> None:
        """One POST a task over a few raw connections, each with the next share of the count."""
        begins = [count * n // CONNECTIONS for n in range(CONNECTIONS + 1)]
        await asyncio.gather(*(self._post(queue, end - begin) for begin, end in itertools.pairwise(begins)))

    async def _post(self, queue: str, count: int) -> None:
        url = self.tasks_url(queue)
        reader, writer = await asyncio.open_connection("127.0.0.1", httpx2.URL(url).port)
        for _ in range(count):
            writer.write(request(url))
            status = await _answer(reader)
            if status != b"201":
                raise RuntimeError(f"POST {url}: {status.decode()}")
        writer.close()

    async def until_ended(self, queue: str, seconds: float) -> bool:
        """Wait until the queue has nothing unfinished, seen through the lists; false if it takes too long."""
        deadline = time.monotonic() + seconds
        for state in ("ready", "running", "scheduled"):
            while (await self.ask("GET", f"/tasks?queue={queue}&state={state}&limit=1"))["items"]:
                if time.monotonic() > deadline:
                    return False
                await asyncio.sleep(POLL_SECONDS)
        return True

    async def start_delays(self, queue: str, count: int, handler: "HandlerReports") -> list[float]:
        """Seconds from sending each POST to its call of the handler, one task at a time."""
        url = self.tasks_url(queue)
        reader, writer = await asyncio.open_connection("127.0.0.1", httpx2.URL(url).port)
        sent: dict[int, int] = {}
        await handler.take()
        for n in range(count):
            body = json.dumps({"payload": {"n": n}}).encode()
            sent[n] = time.monotonic_ns()
            writer.write(request(url, body))
            await _answer(reader)
            await asyncio.sleep(random.uniform(0.02, 0.05))
        writer.close()
        await self.until_ended(queue, 10)
        stamps = (await handler.take())["stamps"]
        return [(arrived - sent[n]) / 1e9 for n, arrived in stamps]

    async def stop(self) -> None:
        await self.client.aclose()
        await self.child.stop()

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        """What Sluice answers. Raises RuntimeError for anything but success."""
        try:
            answer = await self.client.request(method, path, json=body)
        except httpx2.HTTPError as error:
            raise ChildFailed(f"{method} {path}: {error!r}; sluice said: {self.child.last_words()}") from error
        if answer.status_code >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        return answer.json() if answer.content else None


async def _answer(reader: asyncio.StreamReader) -> bytes:
    """Read one whole answer; its status."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
    await reader.readexactly(length)
    return head.split(b" ", 2)[1]


class HandlerReports:
    """What the minimal handler has seen since it was last asked."""

    def __init__(self, url: str) -> None:
        self.client = httpx2.AsyncClient(base_url=url, timeout=10, trust_env=False)

    async def take(self) -> dict[str, Any]:
        seen: dict[str, Any] = (await self.client.get("/")).json()
        return seen
