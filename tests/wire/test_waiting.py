"""`GET /tasks/{id}?wait_seconds=`: the answer comes when the task has ended, and nobody who waits costs anything."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import httpx2
import pytest

from app.runtime import waiters
from app.store import views
from app.store.db import Database
from app.store.failures import Unavailable
from tests.handlers import Handler, Reply
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import Api, good, problem

pytestmark = pytest.mark.anyio

StartReplica = Callable[..., Awaitable[Replica]]


def wait_for(api: Api, task_id: str, seconds: float = 30) -> "asyncio.Task[httpx2.Response]":
    return asyncio.create_task(api.get(f"/tasks/{task_id}", params={"wait_seconds": seconds}))


async def watched(replica: Replica, count: int = 1) -> None:
    """So many tasks are waited for, and whoever waits has read its task and found it unfinished."""
    await poll(lambda: len(replica.sluice.core.waiters.watched) == count)
    await poll(lambda: replica.sluice.core.db.checked_out == 0)


async def test_the_answer_comes_with_the_result(api: Api, shared: Replica, handler: Handler) -> None:
    until = asyncio.Event()
    handler.answer(Reply(200, {"content-type": "application/json"}, b'{"sum":3}', until))
    task = await api.enqueue(await api.queue_to(handler.url))
    asked = wait_for(api, task["id"])
    await handler.received(1)
    await watched(shared)
    assert not asked.done()
    until.set()
    told = good(await asked)
    assert (told["state"], told["result"]) == ("succeeded", {"sum": 3})
    await watched(shared, 0)


async def test_what_has_ended_is_answered_at_once(api: Api, handler: Handler) -> None:
    task = await api.enqueue(await api.queue_to(handler.url))
    await api.until(task["id"], "succeeded")
    began = time.monotonic()
    assert good(await api.get(f"/tasks/{task['id']}?wait_seconds=60"))["state"] == "succeeded"
    assert time.monotonic() - began < 5


async def test_on_timeout_the_task_is_shown_as_it_then_is(api: Api, shared: Replica, handler: Handler) -> None:
    handler.answer(Reply(until=asyncio.Event()))
    task = await api.enqueue(await api.queue_to(handler.url), delay_seconds=0.5)
    asked = wait_for(api, task["id"], 1.5)
    await handler.received(1)
    assert good(await asked)["state"] == "running"
    await api.cancel(task["id"])
    assert good(await api.get(f"/tasks/{task['id']}?wait_seconds=0"))["state"] == "cancelled"


@pytest.mark.parametrize("value", ["-1", "60.1", "x", "nan", "inf", ""])
async def test_the_bounds_of_a_wait(api: Api, value: str) -> None:
    task = await api.enqueue(await api.queue())
    problem(await api.get(f"/tasks/{task['id']}?wait_seconds={value}"), 422, "invalid", "/wait_seconds")


async def test_a_task_that_is_not_there_is_not_waited_for(api: Api) -> None:
    missing = "01890000-0000-7000-8000-000000000000"
    problem(await api.get(f"/tasks/{missing}?wait_seconds=60"), 404, "task_not_found")


@pytest.mark.parametrize("end", ["cancel", "expiry", "last attempt"])
async def test_every_end_is_an_end(api: Api, shared: Replica, handler: Handler, end: str) -> None:
    handler.script(Reply(500))
    if end == "last attempt":
        queue = await api.queue_to(handler.url, retry={"max_attempts": 1})
        task = await api.enqueue(queue, delay_seconds=0.3)
    else:
        task = await api.enqueue(await api.queue(), ttl_seconds=0.5 if end == "expiry" else 3600)
    asked = wait_for(api, task["id"])
    if end == "cancel":
        await watched(shared)
        good(await api.cancel(task["id"]))
    told = good(await asked)
    expected = {"cancel": "requested", "expiry": "expired", "last attempt": "attempts_exhausted"}
    assert told["reason"] == expected[end]


async def test_an_end_here_is_told_without_a_look_at_the_database(
    start_replica: StartReplica, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = await start_replica()  # another might deliver the task
    api = Api(alone.client, alone.url)

    async def blind(_db: Database, _task_ids: Sequence[str]) -> list[str]:
        return []

    monkeypatch.setattr(views, "not_live", blind)
    until = asyncio.Event()
    handler.answer(Reply(until=until))
    delivered, waiting_still = await api.enqueue(await api.queue_to(handler.url)), await api.enqueue(await api.queue())
    answers = [wait_for(api, task["id"]) for task in (delivered, waiting_still)]
    await watched(alone, 2)
    began = time.monotonic()
    until.set()
    good(await api.cancel(waiting_still["id"]))
    assert [good(await answer)["state"] for answer in answers] == ["succeeded", "cancelled"]
    assert time.monotonic() - began < 10


async def test_a_purge_wakes_those_who_wait_for_what_it_cancels(
    api: Api, shared: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = await api.queue()
    tasks = [await api.enqueue(queue), await api.enqueue(queue, delay_seconds=3600)]
    with monkeypatch.context() as patched:
        patched.setattr(waiters, "POLL_SECONDS", 60)
        answers = [wait_for(api, task["id"], 60) for task in tasks]
        await watched(shared, 2)
        began = time.monotonic()
        good(await api.post(f"/queues/{queue}/purge"), 202)
        told = [good(await answer) for answer in answers]
    shared.sluice.core.waiters.look()  # which ends the long pause
    assert [(task["state"], task["reason"]) for task in told] == [("cancelled", "purged")] * 2
    assert time.monotonic() - began < 10


async def test_what_another_replica_ends_is_told_within_a_look(
    api: Api, other: Api, twin: Replica, handler: Handler
) -> None:
    task = await api.enqueue(await api.queue())
    asked = wait_for(other, task["id"])
    await watched(twin)
    began = time.monotonic()
    good(await api.cancel(task["id"]))
    assert good(await asked)["state"] == "cancelled"
    assert time.monotonic() - began < waiters.POLL_SECONDS + 1


@pytest.mark.ci
async def test_200_waiters_share_one_question_and_hold_no_connection(
    start_replica: StartReplica, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[float, int]] = []
    not_live = views.not_live

    async def counted(db: Database, task_ids: Sequence[str]) -> list[str]:
        asked.append((time.monotonic(), len(task_ids)))
        return await not_live(db, task_ids)

    monkeypatch.setattr(views, "not_live", counted)
    until = asyncio.Event()
    handler.script(Reply(until=until))
    replica = await start_replica(database_connections=8)
    everybody = httpx2.Limits(max_connections=250)
    async with httpx2.AsyncClient(
        base_url=replica.url, trust_env=False, verify=False, timeout=60, limits=everybody
    ) as client:
        api = Api(client, replica.url)
        queue = await api.queue_to(handler.url, max_concurrency=1)
        tasks = await asyncio.gather(*(api.enqueue(queue) for _ in range(200)))
        answers = [wait_for(api, task["id"], 60) for task in tasks]
        await watched(replica, 200)
        await poll(lambda: asked and asked[-1][1] == 200)
        await poll(lambda: replica.sluice.core.db.checked_out == 0)
        first, began = len(asked), time.monotonic()
        await poll(lambda: len(asked) >= first + 5)
        assert time.monotonic() - began > 4 * waiters.POLL_SECONDS
        assert {size for _, size in asked[first:]} == {200}
        assert not any(answer.done() for answer in answers)
        until.set()
        assert {good(answer)["state"] for answer in await asyncio.gather(*answers)} == {"succeeded"}
        await watched(replica, 0)


async def test_a_caller_that_leaves_ends_its_wait(api: Api, shared: Replica) -> None:
    task = await api.enqueue(await api.queue())
    asked = wait_for(api, task["id"])
    await watched(shared)
    asked.cancel()
    await watched(shared, 0)  # long before its time is over


async def test_a_drain_answers_everybody_with_the_present_state(start_replica: StartReplica, handler: Handler) -> None:
    replica = await start_replica()
    api = Api(replica.client, replica.url)
    task = await api.enqueue(await api.queue())
    asked = wait_for(api, task["id"], 60)
    await watched(replica)
    replica.sluice.engine.begin_drain()
    assert good(await asked)["state"] == "ready"
    began = time.monotonic()
    assert good(await wait_for(api, task["id"], 60))["state"] == "ready"
    assert time.monotonic() - began < 5


async def test_those_who_wait_outlast_an_outage_of_the_question(
    api: Api, other: Api, shared: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiters, "AWAY_SECONDS", 0.05)
    not_live, failures = views.not_live, 0

    async def away(db: Database, task_ids: Sequence[str]) -> list[str]:
        nonlocal failures
        failures += 1
        if failures < 4:
            raise Unavailable("gone for a while")
        return await not_live(db, task_ids)

    monkeypatch.setattr(views, "not_live", away)
    task = await other.enqueue(await other.queue())
    asked = wait_for(api, task["id"])
    await watched(shared)
    good(await other.cancel(task["id"]))
    told: dict[str, Any] = good(await asked)
    assert told["state"] == "cancelled" and failures >= 4
    assert shared.sluice.why_not_live() is None
