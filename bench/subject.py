"""Sluice as the bench meets it: real `sluice up` processes on one database, spoken to over the contract.

The database is looked at only where the contract cannot say it: whether the last task has been settled, how many attempts
ran at once.
"""

import asyncio
import json
import random
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, Self

import asyncpg
import httpx2

from app.store.numbers import named
from bench.loadgen import bulk_body, request
from bench.processes import Child, ChildFailed, clean_environ

READY_SECONDS = 30.0
CONNECTIONS = 4
BULK = 1_000
POLL_SECONDS = 0.005
SLOW_POLL_SECONDS = 0.05
_LEFT = "exists(select from sluice.tasks where queue_id = any($1) and {})"
# As the indexes say it: without them, each look would read a million tasks of other queues.
LEFT = named(
    f"select {_LEFT.format('state <> :state_running and claims >= 0')} or {_LEFT.format('state = :state_running')}"
)
LEFT_OF_KEY = "select " + _LEFT.format("options ->> 'key' = $2 and flow_id is not null and claims >= 0")
PAYLOAD = {"to": "ada@example.com", "template": "welcome", "n": 1, "note": "x" * 100}


class Replica:
    def __init__(self, child: Child, url: str, wires: Mapping[str, str]) -> None:
        self.child = child
        self.url = url
        self.wires = wires
        """Where other wires are served, by name."""
        self.client = httpx2.AsyncClient(base_url=url, timeout=60, trust_env=False)

    @classmethod
    async def start(cls, dsn: str, directory: Path, name: str, role: str = "all", **settings: str) -> Self:
        environ = clean_environ(
            SLUICE_DATABASE_URL=dsn,
            SLUICE_HOST="127.0.0.1",
            SLUICE_PORT="0",
            SLUICE_ROLE=role,
            SLUICE_MAX_DEFINITIONS="100000",
            **settings,
        )
        sluice = Path(sys.executable).with_name("sluice")
        child = await Child.start([str(sluice), "up"], directory / f"{name}.log", environ, cwd=directory)
        try:
            said = await child.heard("ready", READY_SECONDS)
            return cls(child, said["url"].rstrip("/"), said["wires"])
        except ChildFailed:
            await child.stop()
            raise

    async def stop(self) -> None:
        await self.client.aclose()
        await self.child.stop()

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        """What it answers. Raises RuntimeError for anything but success."""
        try:
            answer = await self.client.request(method, path, json=body)
        except httpx2.HTTPError as error:
            raise ChildFailed(f"{method} {path}: {error!r}; sluice said: {self.child.last_words()}") from error
        if answer.status_code >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text[:500]}")
        return answer.json() if answer.content else None


class Subject:
    """One database and its replicas, of which there is always a first."""

    def __init__(self, dsn: str, directory: Path, name: str, database: asyncpg.Connection, first: Replica) -> None:
        self.dsn = dsn
        self.database = database
        self.replicas = [first]
        self._directory = directory
        self._name = name

    @classmethod
    async def start(cls, dsn: str, directory: Path, name: str, role: str = "all", **settings: str) -> Self:
        """`settings` are variables of the environment."""
        first = await Replica.start(dsn, directory, name, role, **settings)
        return cls(dsn, directory, name, await asyncpg.connect(dsn), first)

    @property
    def first(self) -> Replica:
        return self.replicas[0]

    @property
    def child(self) -> Child:
        return self.first.child

    async def add_replicas(self, count: int, role: str = "all") -> None:
        names = [f"{self._name}-{len(self.replicas) + n}" for n in range(count)]
        self.replicas += await asyncio.gather(*(Replica.start(self.dsn, self._directory, name, role) for name in names))

    async def stop(self) -> None:
        await self.database.close()
        await asyncio.gather(*(replica.stop() for replica in self.replicas))

    async def ask(self, method: str, path: str, body: object = None) -> Any:
        """What the first replica answers. Raises RuntimeError for anything but success."""
        return await self.first.ask(method, path, body)

    # definitions

    async def handler(self, name: str, url: str) -> None:
        await self.ask("PUT", f"/handlers/{name}", {"url": url})

    async def queue(self, name: str, handler: str | None, **options: Any) -> None:
        await self.ask("PUT", f"/queues/{name}", {"handler": handler, **options})

    async def queues(self, names: list[str], handler: str) -> None:
        turns = asyncio.Semaphore(16)

        async def make(name: str) -> None:
            async with turns:
                await self.queue(name, handler)

        await asyncio.gather(*map(make, names))

    async def close(self, handler: str) -> None:
        """Deliver nothing more to this handler."""
        await self.ask("POST", f"/handlers/{handler}/disable")

    async def open(self, handler: str) -> None:
        await self.ask("POST", f"/handlers/{handler}/enable")

    async def pause(self, queue: str) -> None:
        await self.ask("POST", f"/queues/{queue}/pause")

    async def resume(self, queue: str) -> None:
        await self.ask("POST", f"/queues/{queue}/resume")

    # tasks

    def tasks_url(self, queue: str) -> str:
        return f"{self.first.url}/queues/{queue}/tasks"

    async def preload(self, queues: list[str], count: int, keys: int = 0) -> None:
        """Enqueue this many tasks over HTTP, the same number in each queue; with so many keys, in turns."""
        share = count // len(queues)
        groups = [(queue, begin, min(BULK, share - begin)) for queue in queues for begin in range(0, share, BULK)]
        await asyncio.gather(*(self._post(groups[n::CONNECTIONS], keys) for n in range(CONNECTIONS)))

    async def settle_down(self) -> None:
        """Leave the tasks as autovacuum would, rather than have it come while something is measured."""
        await self.database.execute("vacuum (analyze) sluice.tasks")

    async def _post(self, groups: list[tuple[str, int, int]], keys: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", httpx2.URL(self.first.url).port)
        for queue, begin, size in groups:
            url = f"{self.tasks_url(queue)}/bulk"
            writer.write(request(url, bulk_body(size, keys, begin)))
            status, body = await answer(reader)
            if status != b"200" or body.count(b'"status":201') != size:
                raise RuntimeError(f"POST {url}: {status.decode()} {body[:500]!r}")
        writer.close()

    async def until_settled(
        self, queues: list[str], count: int, handler: "Reports", seconds: float, key: str | None = None
    ) -> bool:
        """Wait until the handler has had so many calls and the queues hold nothing more, or nothing of the key; false if it
        takes too long."""
        began = time.monotonic()
        deadline = began + seconds
        while (had := await handler.count()) < count:
            now = time.monotonic()
            if now > deadline:
                return False
            # seldom while much is left, for asking costs the others; often near the end, which is what is measured
            remaining = (count - had) * (now - began) / max(had, 1)
            await asyncio.sleep(min(SLOW_POLL_SECONDS, max(POLL_SECONDS, remaining / 2)))
        given: list[object] = [await self.queue_ids(queues)]
        left = LEFT
        if key is not None:
            given, left = [*given, key], LEFT_OF_KEY
        while await self.database.fetchval(left, *given):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(POLL_SECONDS)
        return True

    async def queue_ids(self, queues: list[str]) -> list[int]:
        return [
            row[0] for row in await self.database.fetch("select id from sluice.queues where name = any($1)", queues)
        ]

    async def start_delays(
        self, queue: str, count: int, handler: "HandlerReports", key: str | None = None
    ) -> list[float]:
        """Seconds from sending each POST to its call of the handler, one task at a time."""
        await handler.take()
        await one_at_a_time(self.tasks_url(queue), count, lambda sent: {"payload": sent, "key": key})
        await self.until_settled([queue], count, handler, 10, key)
        return delays_of(await handler.take())


async def one_at_a_time(url: str, count: int, body: Callable[[dict[str, int]], object]) -> None:
    """POST so many bodies, each made of when it is sent, with pauses in which everything falls asleep."""
    reader, writer = await asyncio.open_connection("127.0.0.1", httpx2.URL(url).port)
    for _ in range(count):
        writer.write(request(url, json.dumps(body({"sent_ns": time.monotonic_ns()})).encode()))
        await answer(reader)
        await asyncio.sleep(random.uniform(0.02, 0.05))
    writer.close()


def delays_of(report: Mapping[str, Any]) -> list[float]:
    """Seconds, of what the minimal handler has reported."""
    return [nanoseconds / 1e9 for nanoseconds in report["delays_ns"]]


async def answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read one whole answer: its status and its body."""
    head, body = await whole_answer(reader)
    return head.split(b" ", 2)[1], body


async def whole_answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Read one whole answer: its head, in lower case, and its body."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
    return head, await reader.readexactly(length)


class Reports(Protocol):
    """What a target has had since it was last asked for everything."""

    async def take(self) -> dict[str, Any]:
        """Everything, with its `count`; then it starts anew."""

    async def count(self) -> int: ...


class HandlerReports:
    """What the minimal handler has seen since it was last asked for everything."""

    def __init__(self, url: str) -> None:
        self.client = httpx2.AsyncClient(base_url=url, timeout=10, trust_env=False)

    async def take(self) -> dict[str, Any]:
        seen: dict[str, Any] = (await self.client.get("/")).json()
        return seen

    async def count(self) -> int:
        return int((await self.client.get("/count")).json()["count"])
