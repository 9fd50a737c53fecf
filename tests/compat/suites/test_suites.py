"""The suites pass as far as docs/reference/sqs-suites.md says."""

from collections.abc import AsyncIterator

import pytest

from tests.compat.suites.report import WHY
from tests.compat.suites.running import KOMBU, MOTO, Suite, run
from tests.compat.suites.servers import sluice_server

pytestmark = [pytest.mark.long, pytest.mark.anyio, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
async def endpoint(anyio_backend: object) -> AsyncIterator[str]:
    async with sluice_server() as url:
        yield url


@pytest.mark.parametrize(("suite", "at_least"), [(MOTO, 148), (KOMBU, 39)], ids=["moto", "kombu"])
async def test_what_fails_of_the_suite_is_explained(suite: Suite, at_least: int, endpoint: str) -> None:
    outcome = await run(suite, endpoint)
    unexplained = [name for name in outcome.failed if name not in WHY]
    assert not unexplained, unexplained
    assert outcome.passed >= at_least, outcome
