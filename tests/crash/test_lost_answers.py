"""A statement that was committed and whose answer never came is neither lost nor done twice."""

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest

from app.store import enqueues
from app.store.db import Reader
from app.store.enqueues import Entry
from tests.crash.proxy import Proxy
from tests.handlers import Handler, Reply
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import Api, good

pytestmark = pytest.mark.anyio


@pytest.fixture
def api(behind_proxy: Replica) -> Api:
    return Api(behind_proxy.client, behind_proxy.url)


async def count(replica: Replica, sql: str, *args: object) -> int:
    return int(await replica.sluice.core.db.fetchval(sql, *args))


TASKS = "select (select count(*) from sluice.tasks) + (select count(*) from sluice.task_history)"


async def test_an_enqueue_whose_answer_was_lost_is_acknowledged_and_there_once(
    behind_proxy: Replica, api: Api, proxy: Proxy
) -> None:
    queue = await api.queue()
    for number in range(3):
        proxy.lose_answer(f"marked {number}")
    made = await asyncio.gather(*(api.enqueue(queue, f"marked {number}") for number in range(3)))
    assert proxy.lost >= 1
    for number, task in enumerate(made):
        assert (await api.task(task["id"]))["payload"] == f"marked {number}"
    assert await count(behind_proxy, TASKS) == 3


async def test_an_enqueue_whose_answer_was_lost_does_not_run_again_when_it_has_ended_meanwhile(
    behind_proxy: Replica,
    api: Api,
    proxy: Proxy,
    replica: Replica,
    handler: Handler,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its task has left for history, so its id alone could be inserted again."""
    ended, runs, enqueue = asyncio.Event(), itertools.count(1), enqueues.enqueue

    async def again_when_it_has_ended(
        db: Reader, group_id: str, entries: Sequence[Entry], **options: Any
    ) -> enqueues.Receipt:
        if entries[0].payload == b'"marked"' and next(runs) > 1:  # sessions that rehearse enqueue, too
            await ended.wait()
        return await enqueue(db, group_id, entries, **options)

    monkeypatch.setattr(enqueues, "enqueue", again_when_it_has_ended)
    queue = await api.queue_to(handler.url)
    proxy.lose_answer("marked")
    enqueuing = asyncio.create_task(api.enqueue(queue, "marked"))

    async def ended_at_the_other_replica() -> bool:
        replica.sluice.core.signals.any_lane_ready()
        return await count(replica, "select count(*) from sluice.task_history") == 1

    await poll(ended_at_the_other_replica)
    ended.set()
    task = await enqueuing
    assert next(runs) == 3, "the group was run twice"
    assert proxy.lost == 1
    assert (await api.ended(task["id"]))["attempt"] == 1
    assert await count(replica, TASKS) == 1
    assert len(handler.requests) == 1


async def test_a_claim_whose_answer_was_lost_is_released_and_does_not_count(
    behind_proxy: Replica, api: Api, proxy: Proxy, handler: Handler
) -> None:
    """Long before its lease of thirty seconds is over."""
    queue = await api.queue_to(handler.url, max_concurrency=1)
    good(await api.post(f"/queues/{queue}/pause"))
    first, second = await api.enqueue(queue, "marked"), await api.enqueue(queue, "later")
    proxy.lose_answer("marked", in_answer=True)
    good(await api.post(f"/queues/{queue}/resume"))
    await poll(lambda: proxy.lost)  # before the task is read: that answer would be marked, too
    for task in (first, second):
        await handler.received(1, task=task["id"])
        await api.ended(task["id"])
    assert proxy.lost == 1
    newest, lost = await api.attempts(first["id"])
    assert (lost["number"], lost["outcome"], lost["counted"]) == (1, "released", False)
    assert (newest["number"], newest["outcome"], newest["counted"]) == (2, "succeeded", True)
    assert [request.headers["sluice-attempt"] for request in handler.requests] == ["1", "1"]


@pytest.mark.parametrize("status", [200, 500, 410])
async def test_a_settle_whose_answer_was_lost_is_written_once(
    behind_proxy: Replica, api: Api, proxy: Proxy, handler: Handler, status: int
) -> None:
    handler.answer(Reply(status, body=b"marked by the handler"))
    proxy.lose_answer("marked by the handler")
    backoff = {"kind": "fixed", "seconds": 0.05}
    queue = await api.queue_to(handler.url, retry={"backoff": backoff})
    task = await api.enqueue(queue)
    await poll(lambda: proxy.lost)
    if status == 410:
        name = (await api.task(task["id"]))["handler"]
        good(await api.post(f"/handlers/{name}/enable"))
    ended = await api.ended(task["id"])
    attempts = await api.attempts(task["id"])
    assert ended["state"] == "succeeded"
    assert [attempt["outcome"] for attempt in attempts] == ["succeeded"] + ["failed"] * (status != 200)
    assert ended["attempt"] == sum(attempt["counted"] for attempt in attempts) == 2 - (status != 500)
    assert attempts[-1]["status"] == status and attempts[-1]["excerpt"] == "marked by the handler"


async def test_a_claim_that_rode_along_with_outcomes_is_released_if_the_answer_was_lost_and_they_are_written_once(
    behind_proxy: Replica, api: Api, proxy: Proxy, handler: Handler
) -> None:
    queue = await api.queue_to(handler.url, max_concurrency=1)
    good(await api.post(f"/queues/{queue}/pause"))
    first, second = await api.enqueue(queue, "first"), await api.enqueue(queue, "marked")
    proxy.lose_answer("marked", in_answer=True)
    good(await api.post(f"/queues/{queue}/resume"))
    ended = await api.ended(first["id"])
    assert (ended["state"], ended["attempt"]) == ("succeeded", 1)
    await poll(lambda: proxy.lost)  # before the second is read: that answer would be marked, too
    assert (await api.ended(second["id"]))["state"] == "succeeded"
    assert proxy.lost == 1
    assert [attempt["outcome"] for attempt in await api.attempts(first["id"])] == ["succeeded"]
    assert [attempt["outcome"] for attempt in await api.attempts(second["id"])] == ["succeeded", "released"]
    assert [request.json for request in handler.requests] == ["first", "marked"]


# Sees what is at work as the server sees it, while this process does something else.
TERMINATE = """
create function pg_temp.terminate_at_random(rounds integer) returns integer language plpgsql as $$
declare killed integer := 0;
begin
  for round in 1..rounds loop
    perform pg_stat_clear_snapshot();
    killed := killed + (
      select count(pg_terminate_backend(pid)) from pg_stat_activity
      where datname = current_database() and application_name = 'sluice' and state = 'active' and random() < 0.3);
    perform pg_sleep(0.005);
  end loop;
  return killed;
end $$
"""


async def test_while_connections_die_at_random_no_task_is_lost_or_there_twice(
    replica: Replica, handler: Handler, database_url: str
) -> None:
    """Enqueues without keys, claims and settles, while backends at work are terminated all the time."""
    api = Api(replica.client, replica.url)
    queue = await api.queue_to(handler.url, retry={"backoff": {"kind": "fixed", "seconds": 0}})
    acknowledged: dict[int, str] = {}
    refused: set[int] = set()
    numbers = itertools.count()
    killer = await asyncpg.connect(database_url)
    await killer.execute(TERMINATE)
    killing = asyncio.create_task(killer.fetchval("select pg_temp.terminate_at_random(300)"))

    async def enqueuer() -> None:
        while not killing.done():
            number = next(numbers)
            answer = await api.post(f"/queues/{queue}/tasks", json={"payload": number})
            if answer.status_code == 201:
                acknowledged[number] = answer.json()["id"]
            else:
                assert answer.status_code == 503, answer.text
                refused.add(number)

    await asyncio.gather(*(enqueuer() for _ in range(16)))
    assert await killing > 0, "there was something to survive"

    # over a connection of the test's own: the replica may meet one of its own that was terminated last
    async def all_ended() -> bool:
        return await killer.fetchval("select count(*) from sluice.tasks") == 0

    await poll(all_ended, 40)
    payloads = "select convert_from(payload, 'UTF8')::integer, state from sluice.task_history order by 1"
    stored = [tuple(row) for row in await killer.fetch(payloads)]
    await killer.close()
    there = [number for number, _ in stored]
    assert len(there) == len(set(there)), "a task was there twice"
    assert set(acknowledged) <= set(there) <= set(acknowledged) | refused
    assert {state for _, state in stored} == {3}
    assert {request.json for request in handler.requests} == set(there)
