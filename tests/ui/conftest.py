"""A replica with keys, which the tests of a file share."""

from collections.abc import AsyncIterator

import pytest

from app.settings import LOOPBACK, Settings
from tests.databases import create_database, drop_database
from tests.sluices import Replica, replica_with
from tests.wire.api import fresh


@pytest.fixture(scope="module")
async def guarded(server_url: str) -> AsyncIterator[Replica]:
    name = fresh("sluice_test").replace("-", "_")
    url = await create_database(server_url, name)
    given = {"database_url": url, "port": 0, "drain_grace_seconds": 0, "auth": "on", "egress_allow": LOOPBACK}
    async with replica_with(Settings.model_validate(given)) as replica:
        yield replica
    await drop_database(server_url, name)
