"""Replicas with several tenants."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import httpx2
import pytest

from app.domain.ids import make_api_key
from app.service import keys
from tests.sluices import Replica
from tests.wire.api import Api


@pytest.fixture
async def start_guarded(start_replica: Callable[..., Awaitable[Replica]]) -> Callable[..., Awaitable[Replica]]:
    """Starts replicas that ask for keys."""

    async def start(**settings: object) -> Replica:
        given = {"bootstrap_key": make_api_key().text, "egress_allow": "127.0.0.0/8", **settings}
        return await start_replica(**given)

    return start


@pytest.fixture
async def tenant() -> AsyncIterator[Callable[..., Awaitable[Api]]]:
    """The API of a replica for a tenant of this name, with a new key."""
    async with AsyncExitStack() as stack:

        async def api(replica: Replica, name: str, scope: str = "manage") -> Api:
            token = await keys.create(replica.sluice.core.db, name, scope)
            client = httpx2.AsyncClient(
                base_url=replica.url, trust_env=False, timeout=30, headers={"authorization": f"Bearer {token}"}
            )
            await stack.enter_async_context(client)
            return Api(client, replica.url)

        yield api
