"""Postgres away and back: routes say so, readiness stays, outcomes wait, and all of it mends by itself."""

import asyncio

import pytest

from tests.crash.proxy import Proxy
from tests.handlers import Handler, Reply
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import Api, problem

pytestmark = pytest.mark.anyio


async def test_while_the_database_is_away_routes_say_so_and_outcomes_wait(
    behind_proxy: Replica, proxy: Proxy, handler: Handler, said: list[str]
) -> None:
    """Loops, lanes, listener and routes all meet the outage, many times over: it is said once when it begins, once at its end."""
    api, until = Api(behind_proxy.client, behind_proxy.url), asyncio.Event()
    handler.script(Reply(until=until))
    queue = await api.queue_to(handler.url)
    tasks = [await api.enqueue(queue, number) for number in range(5)]
    await handler.received(5)
    proxy.cut()
    answers = await asyncio.gather(
        api.post(f"/queues/{queue}/tasks", json={"payload": 1}),
        api.get(f"/tasks/{tasks[0]['id']}"),
        api.post(f"/queues/{queue}/pause"),
        api.get("/tasks"),
        api.put("/schedules/s", json={"queue": "not-asked-for-before", "payload": 1, "every_seconds": 60}),
        api.post("/batches", json={"queue": "not-asked-for-before", "tasks": []}),
    )
    for answer in answers:
        problem(answer, 503, "unavailable")
    assert (await api.get("/health/live")).status_code == 200
    assert (await api.get("/health/ready")).status_code == 200
    until.set()
    await handler.idle()
    # an enqueue is refused after it has been tried for a while, so by then the settle has been tried too
    problem(await api.post(f"/queues/{queue}/tasks", json={"payload": 1}), 503, "unavailable")
    assert behind_proxy.sluice.engine.in_flight == 5, "the outcomes wait for the database"
    proxy.mend()
    for task in tasks:
        ended = await api.ended(task["id"])
        assert (ended["state"], ended["attempt"]) == ("succeeded", 1)
    later = await api.enqueue(queue)
    assert (await api.ended(later["id"]))["state"] == "succeeded"
    assert len(handler.requests) == 6
    await poll(lambda: "database_back" in said)
    assert behind_proxy.sluice.core.db.outage.failures > 10
    assert [name for name in said if name.startswith("database_")] == ["database_unavailable", "database_back"]
    assert not {"claim_failed", "loop_failed", "job_failed"} & set(said)
    assert behind_proxy.sluice.why_not_live() is None


async def test_a_replica_hears_the_hints_of_others_again_after_an_outage(
    behind_proxy: Replica, proxy: Proxy, replica: Replica, handler: Handler
) -> None:
    api = Api(behind_proxy.client, behind_proxy.url)
    queue = await api.queue_to(handler.url)
    listening = (
        "select count(*) from pg_stat_activity where datname = current_database() and query ~* '^(listen|notify)'"
    )

    async def listeners(wanted: int) -> None:
        async def so_many() -> bool:
            return int(await replica.sluice.core.db.fetchval(listening)) == wanted

        await poll(so_many)

    await listeners(2)
    proxy.cut()
    await listeners(1)
    proxy.mend()
    await listeners(2)
    task = await api.enqueue(queue)
    await api.ended(task["id"])


async def test_a_connection_that_heard_of_its_end_is_a_database_that_is_away_until_it_closes(
    behind_proxy: Replica, proxy: Proxy
) -> None:
    api = Api(behind_proxy.client, behind_proxy.url)
    queue = await api.queue()
    task = await api.enqueue(queue)
    proxy.announce_end()
    answers = [await api.get(f"/tasks/{task['id']}") for _ in range(10)]
    assert {answer.status_code for answer in answers} <= {200, 503}
    for answer in answers:
        if answer.status_code != 200:
            problem(answer, 503, "unavailable")
    proxy.cut()
    proxy.mend()

    async def back() -> bool:
        return (await api.get(f"/tasks/{task['id']}")).status_code == 200

    await poll(back)
    await api.enqueue(queue)
