"""Databases that can be taken away, and replicas on them."""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import asyncpg
import pytest

from app.telemetry import events
from tests.crash.proxy import Proxy
from tests.sluices import Replica


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(database_url).serving() as proxy:
        yield proxy


@pytest.fixture
async def behind_proxy(proxy: Proxy, start_replica: Callable[..., Awaitable[Replica]], said: list[str]) -> Replica:
    """A replica that reaches its database only through the proxy. It is started after `said`, which then hears its loops."""
    return await start_replica(database_url=proxy.url)


NOTED: ContextVar[list[str] | None] = ContextVar("noted", default=None)


@pytest.fixture
async def said(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[str]]:
    """The names of the events that the test and what it starts say, in order.

    Not those of a replica in this process that other tests share: its tasks were started elsewhere.
    """
    names: list[str] = []
    emit = events.emit

    def noting(log: Any, event: events.Event, **fields: object) -> None:
        if NOTED.get() is names:
            names.append(event.name)
        emit(log, event, **fields)

    monkeypatch.setattr(events, "emit", noting)
    token = NOTED.set(names)
    yield names
    NOTED.reset(token)


@pytest.fixture
async def rows(database_url: str) -> AsyncIterator["asyncpg.Connection[Any]"]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


async def payloads(rows: "asyncpg.Connection[Any]", queue: str) -> Counter[bytes]:
    """How many tasks of a queue have each payload, ended ones included."""
    sql = (
        "select payload from sluice.tasks t join sluice.queues q on q.id = t.queue_id where q.name = $1"
        " union all select payload from sluice.task_history t join sluice.queues q on q.id = t.queue_id where q.name = $1"
    )
    return Counter(row["payload"] for row in await rows.fetch(sql, queue))
