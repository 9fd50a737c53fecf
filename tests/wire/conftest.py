"""Most tests here share one replica on a database of its own and take fresh names; the others start their own."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest

from app.domain.ids import make_api_key
from app.domain.keys import Grant
from app.service import keys
from app.settings import Settings
from app.store import migrations
from tests import fake_sources
from tests.databases import create_database, drop_database
from tests.sluices import Replica, replica_with
from tests.wire.api import Api


@pytest.fixture(scope="session")
async def shared_url(server_url: str, anyio_backend: object) -> AsyncIterator[str]:
    name = f"sluice_test_{uuid4().hex}"
    url = await create_database(server_url, name)
    await migrations.migrate(url)
    yield url
    await drop_database(server_url, name)


@pytest.fixture(scope="session")
async def shared(shared_url: str) -> AsyncIterator[Replica]:
    settings = Settings.model_validate({"database_url": shared_url, "port": 0, "drain_grace_seconds": 0})
    async with replica_with(settings) as replica:
        yield replica


@pytest.fixture(scope="session")
async def twin(shared_url: str) -> AsyncIterator[Replica]:
    """A second replica on the same database."""
    settings = Settings.model_validate({"database_url": shared_url, "port": 0, "drain_grace_seconds": 0})
    async with replica_with(settings) as replica:
        yield replica


@pytest.fixture
def api(shared: Replica) -> Api:
    return Api(shared.client, shared.url)


@pytest.fixture
async def no_source_left(shared: Replica) -> AsyncIterator[None]:
    """A tenant may have a hundred sources, and other tests share it."""
    yield
    await fake_sources.remove_all(shared.sluice.core)


@pytest.fixture
def other(twin: Replica) -> Api:
    """The same Sluice, asked over its second replica."""
    return Api(twin.client, twin.url)


@pytest.fixture
async def two(start_replica: Callable[..., Awaitable[Replica]]) -> AsyncIterator[tuple[Replica, Api, Api]]:
    """A replica of the test's own, as the tenants a and b call it."""
    replica = await start_replica(bootstrap_key=make_api_key().text, egress_allow="127.0.0.0/8")
    async with AsyncExitStack() as stack:

        async def caller(tenant: str) -> Api:
            token = (await keys.create(replica.sluice.core.db, tenant, Grant("manage"))).token
            return Api(await stack.enter_async_context(replica.caller(token)), replica.url)

        yield replica, await caller("a"), await caller("b")


@pytest.fixture
def start_api(start_replica: Callable[..., Awaitable[Replica]]) -> Callable[..., Awaitable[Api]]:
    """A replica on the test's own clean database."""

    async def start(**settings: object) -> Api:
        replica = await start_replica(**settings)
        return Api(replica.client, replica.url)

    return start


@pytest.fixture(scope="session")
async def keyed(server_url: str, anyio_backend: object) -> AsyncIterator[Replica]:
    """A replica that asks for keys, on a database of its own; tests take fresh tenants."""
    name = f"sluice_test_{uuid4().hex}"
    url = await create_database(server_url, name)
    given = {
        "database_url": url,
        "port": 0,
        "drain_grace_seconds": 0,
        "bootstrap_key": make_api_key().text,
        "egress_allow": "127.0.0.0/8",
    }
    async with replica_with(Settings.model_validate(given)) as replica:
        yield replica
    await drop_database(server_url, name)


@pytest.fixture
async def with_token(keyed: Replica) -> AsyncIterator[Callable[[str], Awaitable[Api]]]:
    async with AsyncExitStack() as stack:

        async def api(token: str) -> Api:
            return Api(await stack.enter_async_context(keyed.caller(token)), keyed.url)

        yield api


@pytest.fixture
def granted(keyed: Replica, with_token: Callable[[str], Awaitable[Api]]) -> Callable[[str, Grant], Awaitable[Api]]:
    """The API for a tenant of this name, with a new key that grants this."""

    async def api(tenant: str, grant: Grant) -> Api:
        return await with_token((await keys.create(keyed.sluice.core.db, tenant, grant)).token)

    return api
