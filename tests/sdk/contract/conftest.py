"""Each contract test runs twice: on the fake, and on a real service."""

from collections.abc import AsyncIterator

import pytest

from sluice_client import Sluice
from tests.sdk.contract.stages import FakeStage, RealStage, Stage


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.ci)])
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    if request.param == "fake":
        test = request.getfixturevalue("sluice_test")
        yield FakeStage(Sluice(), test)
        return
    async with Sluice(request.getfixturevalue("sluice_server").url) as sluice:
        real = RealStage(sluice)
        yield real
        await real.close()
