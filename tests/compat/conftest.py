"""Most tests here share one replica with the SQS wire open, on a database of its own, and take fresh names."""

import base64
from collections.abc import AsyncIterator
from uuid import uuid4

import httpx2
import pytest

from app.settings import Settings
from tests.compat.sqs import Sqs
from tests.databases import create_database, drop_database
from tests.sluices import Replica, replica_with
from tests.wire.api import Api


@pytest.fixture(scope="session")
async def wired(server_url: str, anyio_backend: object) -> AsyncIterator[Replica]:
    """A replica without authentication that serves SQS clients, too."""
    name = f"sluice_test_{uuid4().hex}"
    url = await create_database(server_url, name)
    settings = Settings.model_validate(
        {
            "database_url": url,
            "port": 0,
            "sqs_port": 0,
            "drain_grace_seconds": 0,
            "egress_allow": "127.0.0.0/8",
            "encryption_key": base64.b64encode(b"k" * 32).decode(),
        }
    )
    async with replica_with(settings) as replica:
        yield replica
    await drop_database(server_url, name)


@pytest.fixture(scope="session")
async def _client(anyio_backend: object) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(trust_env=False, verify=False, timeout=30) as client:
        yield client


@pytest.fixture
def sqs(wired: Replica, _client: httpx2.AsyncClient) -> Sqs:
    return Sqs(_client, wired.sluice.wires["sqs"])


@pytest.fixture
def api(wired: Replica) -> Api:
    """The API of the same replica."""
    return Api(wired.client, wired.url)
