"""A replica that these tests share, and tasks of their own."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from app.settings import LOOPBACK, Settings
from app.store import migrations
from sluice_client.tasks.registry import Registry
from sluice_client.transport import Transport
from tests.databases import create_database, drop_database
from tests.sluices import Replica, replica_with
from tests.wire.api import Api


@pytest.fixture(scope="session")
async def shared(server_url: str, anyio_backend: object) -> AsyncIterator[Replica]:
    name = f"sluice_test_{uuid4().hex}"
    url = await create_database(server_url, name)
    await migrations.migrate(url)
    given = {"database_url": url, "port": 0, "drain_grace_seconds": 0, "egress_allow": LOOPBACK}
    async with replica_with(Settings.model_validate(given)) as replica:
        yield replica
    await drop_database(server_url, name)


@pytest.fixture
def api(shared: Replica) -> Api:
    return Api(shared.client, shared.url)


@pytest.fixture
async def transport(shared: Replica) -> AsyncIterator[Transport]:
    async with Transport(shared.url) as transport:
        yield transport


@pytest.fixture
def registry() -> Registry:
    return Registry()
