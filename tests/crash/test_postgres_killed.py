"""P1: an acknowledged enqueue survives kill -9 of the whole database server, and the same test finds what would not."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from app.embedded.postgres import EmbeddedPostgres
from app.store import examination, failures, session
from tests.embedded.processes import children_of
from tests.handlers import Handler, Reply
from tests.sluices import Replica
from tests.support import pg_bin, poll
from tests.wire.api import Api

pytestmark = pytest.mark.anyio

StartPostgres = Callable[..., Awaitable[EmbeddedPostgres]]
StartReplica = Callable[..., Awaitable[Replica]]

ENQUEUERS = 16
STORED = "select id::text from sluice.tasks union all select id::text from sluice.task_history"


@pytest.fixture
async def start_postgres(tmp_path: Path) -> AsyncIterator[StartPostgres]:
    """Starts a durable server that is started again whenever it dies. Ask for it before replicas: they end first."""
    async with AsyncExitStack() as stack:

        async def start(**options: str) -> EmbeddedPostgres:
            postgres = EmbeddedPostgres(tmp_path / "postgres", bin_dir=pg_bin(), options=options)
            await postgres.start()
            supervisor = asyncio.create_task(postgres.supervise())
            stack.push_async_callback(asyncio.wait, [supervisor])
            stack.push_async_callback(postgres.stop)
            return postgres

        yield start


def kill(postgres: EmbeddedPostgres) -> None:
    """kill -9 of the postmaster and of everything it has started."""
    assert postgres.pid is not None
    for pid in (postgres.pid, *children_of(postgres.pid)):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


async def lost_under_kills(postgres: EmbeddedPostgres, replica: Replica, kills: int, between: int) -> set[str]:
    """What was acknowledged while the server was killed so often, each time amid enqueues, and is not there afterwards."""
    api = Api(replica.client, replica.url)
    queue = await api.queue()
    await replica.sluice.core.db.fetch("checkpoint")
    acknowledged: list[str] = []
    ending = asyncio.Event()

    async def enqueuer() -> None:
        while not ending.is_set():
            answer = await api.post(f"/queues/{queue}/tasks", json={"payload": "kept"})
            if answer.status_code == 201:
                acknowledged.append(answer.json()["id"])
            else:
                assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")

    enqueuers = [asyncio.create_task(enqueuer()) for _ in range(ENQUEUERS)]
    try:
        for _ in range(kills):
            goal = len(acknowledged) + between
            await poll(lambda goal=goal: len(acknowledged) >= goal, 30, every_seconds=0)  # type: ignore[misc]
            kill(postgres)
    finally:
        ending.set()
        await asyncio.gather(*enqueuers)

    async def stored_now() -> tuple[list[str]] | None:
        try:
            return ([row[0] for row in await replica.sluice.core.db.fetch(STORED)],)
        except failures.Unavailable:
            return None

    [stored] = await poll(stored_now, 30)
    assert len(set(acknowledged)) == len(acknowledged) > kills * between
    return set(acknowledged).difference(stored)


async def test_no_acknowledged_task_is_lost_when_postgres_is_killed(
    start_postgres: StartPostgres, start_replica: StartReplica
) -> None:
    postgres = await start_postgres()
    replica = await start_replica(database_url=postgres.dsn)
    assert await lost_under_kills(postgres, replica, kills=2, between=150) == set()


@pytest.mark.long
async def test_no_acknowledged_task_is_lost_in_fifteen_kills(
    start_postgres: StartPostgres, start_replica: StartReplica
) -> None:
    postgres = await start_postgres()
    replica = await start_replica(database_url=postgres.dsn)
    assert await lost_under_kills(postgres, replica, kills=15, between=1000) == set()


@pytest.mark.ci
async def test_the_same_kills_lose_tasks_where_commits_are_not_waited_for(
    start_postgres: StartPostgres, start_replica: StartReplica, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the test above could fail: with synchronous_commit off it does."""
    for settings in (session.SETTINGS, examination.DECISIVE):
        monkeypatch.setitem(settings, "synchronous_commit", "off")
    postgres = await start_postgres(wal_writer_delay="10s")
    replica = await start_replica(database_url=postgres.dsn)
    assert await lost_under_kills(postgres, replica, kills=2, between=150) != set()


async def test_a_killed_postgres_comes_back_to_outcomes_that_waited_and_to_new_tasks(
    start_postgres: StartPostgres, start_replica: StartReplica, handler: Handler
) -> None:
    postgres = await start_postgres()
    replica = await start_replica(database_url=postgres.dsn)
    api, until = Api(replica.client, replica.url), asyncio.Event()
    handler.script(Reply(until=until))
    queue = await api.queue_to(handler.url)
    tasks = [await api.enqueue(queue, number) for number in range(5)]
    await handler.received(5)
    kill(postgres)
    until.set()

    async def back() -> bool:
        answer = await api.get("/tasks")
        assert answer.status_code in (200, 503), answer.text
        return answer.status_code == 200

    await poll(back, 30)
    for task in tasks:
        ended = await api.ended(task["id"])
        assert (ended["state"], ended["attempt"]) == ("succeeded", 1)
    assert (await api.ended((await api.enqueue(queue))["id"]))["state"] == "succeeded"
