"""Replicas on a server with few connections: those that start have what they need, and the others say what to change."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import asyncpg
import pytest

from app.domain.connections import NoRoom
from app.embedded.postgres import EmbeddedPostgres
from app.settings import Settings
from tests.handlers import Handler
from tests.sluices import Replica, replica_with
from tests.support import pg_bin
from tests.wire.api import Api, good

pytestmark = [pytest.mark.ci, pytest.mark.anyio]

Start = Callable[..., "asyncio.Task[Replica]"]


@pytest.fixture
async def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """Of 20 connections, 3 of them reserved."""
    monkeypatch.setattr("app.main.DATABASE_WAIT_SECONDS", 4.0)
    options = {"max_connections": "20", "fsync": "off"}
    postgres = EmbeddedPostgres(tmp_path / "postgres", bin_dir=pg_bin(), options=options)
    yield await postgres.start()
    await postgres.stop()


@pytest.fixture
async def start(server: str) -> AsyncIterator[Start]:
    async with AsyncExitStack() as stack:

        async def start(**settings: object) -> Replica:
            given = {"database_url": server, "port": 0, "drain_grace_seconds": 0, **settings}
            return await stack.enter_async_context(replica_with(Settings.model_validate(given)))

        yield lambda **settings: asyncio.ensure_future(start(**settings))


async def works(replica: Replica, handler: Handler) -> None:
    api = Api(replica.client, replica.url)
    queue = await api.queue_to(handler.url)
    made = await asyncio.gather(*(api.enqueue(queue, n) for n in range(50)))
    await asyncio.gather(*(api.until(task["id"], "succeeded") for task in made))
    replies = await asyncio.gather(*(api.get("/tasks", params={"queue": queue}) for _ in range(50)))
    assert {reply.status_code for reply in replies} == {200}


async def test_a_replica_takes_what_is_left_and_says_so(start: Start, handler: Handler) -> None:
    replica = await start()
    assert replica.sluice.core.db.connections.total == 17
    await works(replica, handler)
    alarms = good(await replica.client.get("/status"))["alarms"]
    assert ("connections_short", replica.sluice.core.replica.name) in [(a["code"], a.get("replica")) for a in alarms]
    assert any("found 17 connections" in alarm["message"] for alarm in alarms)


async def test_of_three_that_start_at_once_those_serve_for_whom_there_is_room(start: Start, handler: Handler) -> None:
    starting = [start(database_connections=8) for _ in range(3)]
    found = await asyncio.gather(*starting, return_exceptions=True)
    replicas = [one for one in found if isinstance(one, Replica)]
    [refused] = [one for one in found if isinstance(one, BaseException)]
    assert len(replicas) == 2
    assert isinstance(refused, NoRoom)
    assert re.fullmatch(
        r"The database has \d connections? left for this replica, which needs at least 8: raise the server's max_connections "
        r"\(now 20, of which 3 are reserved\), or lower SLUICE_DATABASE_CONNECTIONS on the replicas \(8 here\)\.",
        str(refused),
    )
    await asyncio.gather(*(works(replica, handler) for replica in replicas))


async def test_nobody_takes_the_connections_of_a_replica_later(start: Start, handler: Handler, server: str) -> None:
    replica = await start(database_connections=16)
    async with AsyncExitStack() as stack:
        with suppress(asyncpg.TooManyConnectionsError):
            for _ in range(20):
                other = await asyncpg.connect(server)
                stack.push_async_callback(other.close)
        await works(replica, handler)
