from collections.abc import AsyncIterator

import pytest

from app.delivery.webhook.egress import EgressPolicy
from app.delivery.webhook.transport import Transport


@pytest.fixture(
    params=[
        pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
        pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
    ]
)
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


@pytest.fixture
def loopback() -> EgressPolicy:
    return EgressPolicy(["127.0.0.1/32", "::1/128"])


@pytest.fixture
async def transport(loopback: EgressPolicy) -> AsyncIterator[Transport]:
    transport = Transport(loopback)
    yield transport
    await transport.aclose()
