"""Work that nobody does: no engine, no worker, a limit that is full. It is said by the task itself and as an alarm."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app.store import tasks
from tests.handlers import Handler, Reply
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import Api, good

pytestmark = pytest.mark.anyio

StartReplica = Callable[..., Awaitable[Replica]]


async def alarms(api: Api, code: str) -> list[dict[str, Any]]:
    return [alarm for alarm in good(await api.get("/status"))["alarms"] if alarm["code"] == code]


async def waits_for(api: Api, task: dict[str, Any], code: str | None) -> None:
    """One by one and in a list."""

    async def so() -> bool:
        return (await api.task(task["id"]))["waiting_for"] == code

    await poll(so)
    [listed] = [item for item in await api.pages("/tasks", queue=task["queue"]) if item["id"] == task["id"]]
    assert listed["waiting_for"] == code


@pytest.mark.ci
async def test_without_an_engine_tasks_say_so_and_an_alarm_stands_until_one_comes(
    start_replica: StartReplica, handler: Handler
) -> None:
    replica = await start_replica(role="api")
    api = Api(replica.client, replica.url)
    queue, pull = await api.queue_to(handler.url), await api.queue()
    task = await api.enqueue(queue)
    assert task["waiting_for"] == "no_engine"
    await waits_for(api, task, "no_engine")
    assert (await api.client.get("/health/ready")).status_code == 200, "the API is served all the same"
    [alarm] = await alarms(api, "no_engine")
    assert "1 task for handlers" in alarm["message"]

    good(await api.post(f"/queues/{queue}/pause"))
    await waits_for(api, task, "queue_paused")
    good(await api.post(f"/queues/{queue}/resume"))
    assert (await api.enqueue(pull))["waiting_for"] == "worker"
    due = await api.enqueue(pull, delay_seconds=0.1)
    await waits_for(api, due, "no_engine")

    await start_replica(role="engine")
    await handler.received(task=task["id"])
    await waits_for(api, due, "worker")
    assert await alarms(api, "no_engine") == []
    await poll(lambda: replica.sluice.core.engine_lives)


async def test_a_silent_engine_is_none(start_replica: StartReplica, handler: Handler) -> None:
    replica = await start_replica(role="api")
    api = Api(replica.client, replica.url)
    for draining, seen in ((False, "1 minute"), (True, "0")):
        await replica.sluice.core.db.fetch(
            "insert into sluice.replicas values (gen_random_uuid(), 'other', 'all', '1', now(), now() - $1::text::interval, $2)",
            seen,
            draining,
        )
    task = await api.enqueue(await api.queue_to(handler.url))
    assert (await api.task(task["id"]))["waiting_for"] == "no_engine"
    assert await alarms(api, "no_engine")


@pytest.mark.ci
async def test_a_pull_queue_without_a_worker_for_a_minute_says_so_and_is_an_alarm(start_replica: StartReplica) -> None:
    replica, other = await start_replica(), await start_replica()
    api, elsewhere = Api(replica.client, replica.url), Api(other.client, other.url)
    db = replica.sluice.core.db
    queue = await api.queue()
    task = await api.enqueue(queue)
    await waits_for(api, task, "worker")

    async def long_ago() -> None:
        for table, column in (("queues", "updated_at"), ("queue_workers", "asked_at"), ("tasks", "run_at")):
            await db.fetch(f"update sluice.{table} set {column} = {column} - interval '2 minutes'")

    await long_ago()
    await waits_for(elsewhere, task, "no_worker")
    [alarm] = await alarms(elsewhere, "no_worker")
    assert alarm["queue"] == queue and "1 task waiting" in alarm["message"]

    [leased] = good(await elsewhere.post(f"/queues/{queue}/leases", json={}))["tasks"]
    second = await api.enqueue(queue)

    async def noted() -> bool:
        return bool(await db.fetch("select from sluice.queue_workers where asked_at > now() - interval '1 minute'"))

    await poll(noted)
    await waits_for(api, second, "worker")
    await long_ago()
    await waits_for(api, second, "worker")
    assert await alarms(api, "no_worker") == [], "whoever holds a lease works"
    token = {"sluice-lease-token": leased["lease_token"]}
    good(await api.post(f"/tasks/{leased['id']}/complete", headers=token))
    await waits_for(api, second, "no_worker")
    assert len(await alarms(api, "no_worker")) == 1


@pytest.mark.ci
async def test_workers_that_ask_all_the_time_cost_a_note_now_and_then(
    start_replica: StartReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = await start_replica()
    api, long_polls = Api(replica.client, replica.url), replica.sluice.core.long_polls
    written: list[int] = []
    note = tasks.note_workers

    async def count(db: Any, queue_ids: list[int]) -> None:
        # replicas that earlier tests use may still note what was asked of them
        if db is long_polls._db:
            written.extend(queue_ids)
        await note(db, queue_ids)

    monkeypatch.setattr(tasks, "note_workers", count)
    queues = [await api.queue(), await api.queue()]
    waiting = asyncio.create_task(api.post(f"/queues/{queues[0]}/leases", json={"wait_seconds": 60}))
    for _ in range(20):
        good(await api.post(f"/queues/{queues[1]}/leases", json={}))
    await poll(lambda: len(written) == 2)
    for _ in range(5):
        good(await api.post(f"/queues/{queues[1]}/leases", json={}))
        await long_polls.poll()
    assert len(written) == len(set(written)) == 2
    long_polls._noted = {queue_id: at - 16 for queue_id, at in long_polls._noted.items()}
    await long_polls.poll()
    assert len(written) == 4, "one waits still, the other has asked since the last note"
    waiting.cancel()


async def test_a_tenant_at_its_limit_with_more_to_do_is_an_alarm(start_replica: StartReplica, handler: Handler) -> None:
    replica = await start_replica()
    api, go = Api(replica.client, replica.url), asyncio.Event()
    handler.script(Reply(until=go))
    good(await api.put("/limits", json={"max_concurrency": 1}))
    first, second = await api.queue_to(handler.url), await api.queue_to(handler.url)
    await api.enqueue(first)
    await handler.received()
    assert await alarms(api, "global_limit") == [], "all of it runs"
    task = await api.enqueue(second)
    await waits_for(api, task, "global_limit")
    [alarm] = await alarms(api, "global_limit")
    assert alarm["tenant"] == "default" and "1 of at most 1 task over all queues" in alarm["message"]
    go.set()
    await api.until(task["id"], "succeeded")
    assert await alarms(api, "global_limit") == []
