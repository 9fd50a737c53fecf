"""Databases that can be taken away, and replicas on them."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

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
