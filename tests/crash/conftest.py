"""Databases that can be taken away, and replicas on them."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from app.telemetry import events
from tests.crash.proxy import Proxy
from tests.sluices import Replica


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(database_url).serving() as proxy:
        yield proxy


@pytest.fixture
async def behind_proxy(proxy: Proxy, start_replica: Callable[..., Awaitable[Replica]]) -> Replica:
    """A replica that reaches its database only through the proxy."""
    return await start_replica(database_url=proxy.url)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the events that are said, in order."""
    names: list[str] = []
    emit = events.emit

    def noting(log: Any, event: events.Event, **fields: object) -> None:
        names.append(event.name)
        emit(log, event, **fields)

    monkeypatch.setattr(events, "emit", noting)
    return names
