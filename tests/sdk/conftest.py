"""A Sluice that the tests of a file share; they take fresh names."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from app.settings import Settings
from app.store import migrations
from tests.databases import create_database, drop_database
from tests.sluices import Replica, replica_with


@pytest.fixture(scope="module")
async def replica(server_url: str, anyio_backend: object) -> AsyncIterator[Replica]:
    name = f"sluice_test_{uuid4().hex}"
    url = await create_database(server_url, name)
    await migrations.migrate(url)
    settings = Settings.model_validate({"database_url": url, "port": 0, "drain_grace_seconds": 0})
    async with replica_with(settings) as replica:
        yield replica
    await drop_database(server_url, name)
