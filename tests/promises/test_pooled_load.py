"""Mixed load through a PgBouncer in transaction mode, over two replicas: every promise, and not one 5xx."""

import asyncio
import itertools
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx2
import pytest

from tests.handlers import Handler, Received, Reply
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import AT_ONCE, Api, fresh, good

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

SERVER_SESSIONS = "6"
"""Fewer than one replica's connections: sessions change hands all the time."""
LIMIT = 3
DEPTH = 10


@pytest.fixture
async def apis(
    database_url: str, start_pooler: Callable[..., Awaitable[str]], start_replica: Callable[..., Awaitable[Replica]]
) -> list[Api]:
    pooled = await start_pooler("transaction", default_pool_size=SERVER_SESSIONS)
    replicas = [await start_replica(database_url=pooled, database_direct_url=database_url) for _ in range(2)]
    return [Api(replica.client, replica.url) for replica in replicas]


class Load:
    """Callers of every kind until the time is up; what came of it is counted and compared afterwards."""

    def __init__(self, apis: list[Api], seconds: float) -> None:
        self.apis = apis
        self.until = time.monotonic() + seconds
        self.statuses: Counter[int] = Counter()
        self.posted: set[str] = set()
        self.arrived: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.cancelled = 0
        self.batches: list[str] = []
        self.pulled: set[str] = set()
        self.running = self.most_running = 0

    def rounds(self) -> AsyncIterator[tuple[int, Api, Api]]:
        async def rounds() -> AsyncIterator[tuple[int, Api, Api]]:
            for n in itertools.count():
                if time.monotonic() > self.until:
                    return
                yield n, self.apis[n % 2], self.apis[1 - n % 2]

        return rounds()

    def seen(self, reply: httpx2.Response) -> httpx2.Response:
        self.statuses[reply.status_code] += 1
        assert reply.status_code < 500, reply.text
        return reply

    async def answer(self, request: Received) -> Reply:
        """Every seventh attempt fails, and those that are limited are counted."""
        payload = request.json
        if payload == "limited":
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            await asyncio.sleep(0.005)
            self.running -= 1
        if payload == "hang":
            self.arrived[request.task].set()
            await asyncio.Event().wait()
        return Reply(500 if request.number % 7 == 0 else 200)

    async def keyed(self, queue: str, caller: int) -> None:
        async for n, one, other in self.rounds():
            body = {"payload": n, "idempotency_key": f"{caller}-{n}", "tags": ["load"]}
            replies = await asyncio.gather(*(api.post(f"/queues/{queue}/tasks", json=body) for api in (one, other)))
            ids = {self.seen(reply).json()["id"] for reply in replies}
            assert len(ids) == 1, replies
            self.posted |= ids

    async def limited(self, queue: str) -> None:
        async for _, one, _ in self.rounds():
            self.seen(await one.post(f"/queues/{queue}/tasks", json={"payload": "limited"}))

    async def deep(self, queue: str) -> None:
        """The two posts of a round stay within the depth, or are refused; a pull worker makes room."""
        async for _, one, other in self.rounds():
            replies = await asyncio.gather(
                *(api.post(f"/queues/{queue}/tasks", json={"payload": 1}) for api in (one, other) for _ in range(DEPTH))
            )
            assert {self.seen(reply).status_code for reply in replies} <= {201, 429}
            counts = good(await one.get(f"/queues/{queue}/stats"))["counts"]
            assert counts["ready"] + counts["scheduled"] <= DEPTH
            leased = good(self.seen(await other.post(f"/queues/{queue}/leases", json={"max_tasks": DEPTH})))["tasks"]
            for task in leased:
                assert task["id"] not in self.pulled
                self.pulled.add(task["id"])
                headers = {"sluice-lease-token": task["lease_token"]}
                self.seen(await one.post(f"/tasks/{task['id']}/complete", headers=headers, json={"result": 1}))

    async def cancelling(self, queue: str) -> None:
        async for _, one, other in self.rounds():
            task = good(await one.post(f"/queues/{queue}/tasks", json={"payload": "hang"}), 201)
            async with asyncio.timeout(30):
                await self.arrived[task["id"]].wait()
            good(self.seen(await other.post(f"/tasks/{task['id']}/cancel")))
            await one.until(task["id"], "cancelled")
            self.cancelled += 1

    async def batching(self, queue: str) -> None:
        async for _, one, other in self.rounds():
            given = {"queue": queue, "tasks": [{"payload": n} for n in range(20)], "sealed": False}
            made = good(self.seen(await one.post("/batches", json=given)), 201)
            good(self.seen(await other.post(f"/batches/{made['id']}/tasks", json={"tasks": [{"payload": 1}]})))
            good(self.seen(await one.post(f"/batches/{made['id']}/seal")))
            self.batches.append(made["id"])

    async def defining(self, handler: str) -> None:
        """Definitions go the way of SQLAlchemy."""
        queue = fresh("q")
        async for n, one, other in self.rounds():
            assert self.seen(
                await one.put(f"/queues/{queue}", json={"handler": handler, "max_concurrency": n + 1})
            ).is_success
            for verb in ("pause", "resume"):
                good(self.seen(await other.post(f"/queues/{queue}/{verb}")))
            for path in ("/queues", "/tasks?tag=load&limit=20", "/batches", "/schedules", "/status"):
                good(self.seen(await one.get(path)))
            await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    "seconds",
    [
        pytest.param(15.0, id="short"),
        pytest.param(180.0, id="long", marks=[pytest.mark.long, pytest.mark.timeout(400)]),
    ],
)
async def test_mixed_load_through_a_transaction_pooler_breaks_nothing(
    apis: list[Api], handler: Handler, seconds: float
) -> None:
    api = apis[0]
    load = Load(apis, seconds)
    handler.script(load.answer)
    name = await api.handler(handler.url)
    queue, limited = await api.queue(name, retry=AT_ONCE), await api.queue(name, retry=AT_ONCE, max_concurrency=LIMIT)
    batches, deep, schedule = await api.queue(name, retry=AT_ONCE), await api.queue(max_depth=DEPTH), fresh("s")
    good(await api.put(f"/schedules/{schedule}", json={"queue": queue, "payload": 1, "every_seconds": 1}), 201)
    async with asyncio.TaskGroup() as callers:
        for caller in range(3):
            callers.create_task(load.keyed(queue, caller))
        for _ in range(2):
            callers.create_task(load.limited(limited))
        callers.create_task(load.deep(deep))
        callers.create_task(load.cancelling(queue))
        callers.create_task(load.batching(batches))
        callers.create_task(load.defining(name))
    good(await api.post(f"/schedules/{schedule}/pause"))
    await compare(load, api, (queue, limited, batches), schedule)
    print(
        f"{seconds:.0f} s: {len(load.posted)} keyed, {len(load.batches)} batches, {load.cancelled} cancels,"
        f" {len(load.pulled)} pulled, answers {dict(load.statuses)}"
    )


async def compare(load: Load, api: Api, queues: tuple[str, ...], schedule: str) -> None:
    async def at_rest() -> bool:
        found = [good(await api.get(f"/queues/{queue}/stats"))["counts"] for queue in queues]
        return not any(counts["ready"] + counts["running"] + counts["scheduled"] for counts in found)

    await poll(at_rest, 90, every_seconds=0.2)
    counts = good(await api.get(f"/queues/{queues[0]}/stats"))["counts"]
    ledger = await api.pages(f"/schedules/{schedule}/history")
    fired = [row for row in ledger if row["task_id"] is not None]
    assert len(load.posted) > 20 and counts["dead"] == 0
    assert counts["succeeded"] == len(load.posted) + len(fired)
    assert counts["cancelled"] == load.cancelled > 0
    assert load.most_running == LIMIT
    times = sorted((row["nominal_at"], row["nominal_until"]) for row in ledger)
    assert len({start for start, _ in times}) == len(times)
    for batch in load.batches:
        found = good(await api.get(f"/batches/{batch}"))
        assert (found["counts"]["succeeded"], found["total"]) == (21, 21), found
