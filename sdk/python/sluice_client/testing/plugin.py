"""The pytest plugin: the fixtures `sluice_test` and `sluice_server`.

pytest loads it in every run where the package is installed, so it imports what a fixture needs when that is asked for.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from sluice_client.testing.fixture import SluiceTest
    from sluice_client.testing.server import SluiceServer


@pytest.fixture
def sluice_test(monkeypatch: pytest.MonkeyPatch) -> "SluiceTest":
    """Sluice in memory: what the code under test dispatches goes there, whichever `Sluice` or `SyncSluice` it uses."""
    import httpx2

    from sluice_client.per_loop import PerLoop
    from sluice_client.per_process import PerProcess
    from sluice_client.testing.fixture import SluiceTest
    from sluice_client.testing.transport import MemoryTransport

    test = SluiceTest()
    transport = MemoryTransport(test.sluice, test.after_request)
    address = "http://sluice.test"
    blocking = httpx2.Client(base_url=address, transport=transport, trust_env=False)
    waiting = httpx2.AsyncClient(base_url=address, transport=transport, trust_env=False)
    monkeypatch.setattr(PerProcess, "get", lambda _: blocking)
    monkeypatch.setattr(PerLoop, "get", lambda _: waiting)
    return test


@pytest.fixture(scope="session")
def sluice_server() -> "Iterator[SluiceServer]":
    """A real `sluice up` on a free port, with an empty database, until the session of tests ends."""
    from sluice_client.testing.server import NoProgram, sluice_up

    try:
        with sluice_up() as server:
            yield server
    except NoProgram as missing:
        pytest.fail(f"the fixture `sluice_server` starts a real service, and {missing}", pytrace=False)
