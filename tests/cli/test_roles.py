"""`sluice up --role api` beside `--role engine`, and many replicas that start at once on nothing."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from app.engine import announcer, dispatcher
from tests.handlers import Handler, Reply
from tests.sluices import Replica, SluiceProcess
from tests.support import poll
from tests.wire.api import AT_ONCE, Api, good, problem

pytestmark = [pytest.mark.ci, pytest.mark.anyio]

Start = Callable[..., Awaitable[SluiceProcess]]
StartReplica = Callable[..., Awaitable[Replica]]


async def test_an_api_and_an_engine_do_the_whole_job_together(start_sluice: Start, handler: Handler) -> None:
    front, back = await asyncio.gather(start_sluice("--role", "api"), start_sluice("--role", "engine"))
    api = Api(front.client, front.url)
    handler.answer(Reply(500))
    queue = await api.queue_to(handler.url, retry=AT_ONCE)
    task = await api.enqueue(queue, {"n": 1})
    ended = await api.until(task["id"], "succeeded")
    attempts = await api.attempts(task["id"])
    assert [attempt["outcome"] for attempt in attempts] == ["succeeded", "failed"]
    engine = back.events("ready")[0]["replica"]
    assert {ended["replica"], *(attempt["replica"] for attempt in attempts)} == {engine}
    assert [request.headers["sluice-task-url"] for request in handler.requests] == [
        f"{back.url}/tasks/{task['id']}"
    ] * 2
    assert {replica["roles"] for replica in good(await api.get("/status"))["replicas"]} == {"api", "engine"}
    assert [await front.terminate(), await back.terminate()] == [0, 0]


async def test_an_engine_serves_health_status_and_metrics_and_nothing_else(start_replica: StartReplica) -> None:
    client = (await start_replica(role="engine")).client
    for path in ("/health/live", "/health/ready", "/status", "/metrics", "/openapi.json", "/docs"):
        assert (await client.get(path)).status_code == 200, path
    for path in ("/queues", "/handlers", "/tasks", "/limits"):
        problem(await client.get(path), 404, "not_found")
    problem(await client.post("/queues/q/tasks", json={"payload": 1}), 404, "not_found")
    paths = good(await client.get("/openapi.json"))["paths"]
    assert set(paths) == {"/health/live", "/health/ready", "/status", "/metrics"}


async def test_an_api_alone_keeps_tasks_for_an_engine_to_come(start_replica: StartReplica, handler: Handler) -> None:
    front = await start_replica(role="api")
    api = Api(front.client, front.url)
    task = await api.enqueue(await api.queue_to(handler.url))
    assert (await api.task(task["id"]))["state"] == "ready"
    await start_replica(role="engine")
    await api.until(task["id"], "succeeded")


async def test_a_lost_notify_costs_a_poll_at_most(
    start_replica: StartReplica, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    front = await start_replica(role="api")
    await start_replica(role="engine")
    api = Api(front.client, front.url)
    queue = await api.queue_to(handler.url)
    lost: list[object] = []

    async def lose(_db: object, hint: object) -> None:
        lost.append(hint)

    await poll(lambda: not front.sluice.engine._announcer.alone)
    monkeypatch.setattr(announcer, "send", lose)
    for number in range(1, 3):
        began = time.monotonic()
        await api.enqueue(queue)
        await handler.received(number)
        assert time.monotonic() - began < dispatcher.POLL_SECONDS + 1
    assert lost


async def test_five_that_start_at_once_on_an_empty_database_all_become_ready(
    start_sluice: Start, empty_database_url: str, handler: Handler
) -> None:
    starts = [start_sluice(ready=False, SLUICE_DATABASE_URL=empty_database_url) for _ in range(5)]
    started = await asyncio.gather(*starts)
    await asyncio.gather(*(process.ready(60) for process in started))
    assert [len(process.events("migrated")) for process in started].count(1) == 1
    apis = [Api(process.client, process.url) for process in started]
    assert len(good(await apis[0].get("/status"))["replicas"]) == 5
    queue = await apis[0].queue_to(handler.url)
    tasks = [await api.enqueue(queue) for api in apis]
    for api, task in zip(reversed(apis), tasks, strict=True):
        await api.until(task["id"], "succeeded")
