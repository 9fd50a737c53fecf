"""Looking names up: what one tenant's names may take, and how long a name without an answer is left alone."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from ipaddress import ip_address
from unittest.mock import patch

import pytest

from app.delivery.webhook import lookups
from app.delivery.webhook.lookups import LookupFailed, Lookups, resolve
from tests.support import poll

pytestmark = pytest.mark.anyio

HEALTHY = "healthy.example"
Silent = Callable[[Lookups, str, int], list["asyncio.Task[list[str]]"]]


class Servers:
    """A resolver: silent about some names, until it is told to answer."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.under_way = 0
        self.most = 0
        self.answering = asyncio.Event()
        self.error: Exception | None = None
        self.now = 0.0

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            if host != HEALTHY:
                await self.answering.wait()
            if self.error is not None:
                raise self.error
            return ["8.8.8.8"]
        finally:
            self.under_way -= 1

    def lookups(self) -> Lookups:
        return Lookups(self, clock=lambda: self.now)


@pytest.fixture
def servers() -> Servers:
    return Servers()


@pytest.fixture
async def silent() -> AsyncIterator[Silent]:
    """Ask for names whose servers are silent. What still waits at the test's end is cancelled, or it fails during another test."""
    asking: list[asyncio.Task[list[str]]] = []

    def ask(found: Lookups, tenant: str, count: int) -> list["asyncio.Task[list[str]]"]:
        begun = [asyncio.create_task(found.addresses(tenant, f"{tenant}{n}.silent.example", 80)) for n in range(count)]
        asking.extend(begun)
        return begun

    yield ask
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)


async def test_silent_names_of_one_tenant_leave_places_to_all_others(servers: Servers, silent: Silent) -> None:
    found = servers.lookups()
    asking = silent(found, "a", 400)
    await poll(lambda: servers.under_way == lookups.TENANT_PLACES)
    async with asyncio.timeout(1):
        for tenant in "bcdef":
            assert await found.addresses(tenant, HEALTHY, 80) == ["8.8.8.8"]
    assert servers.under_way == lookups.TENANT_PLACES
    crowded = [task for task in asking if task.done()]
    assert len(crowded) == 400 - lookups.TENANT_PLACES - lookups.TENANT_WAITING
    assert all(isinstance(task.exception(), LookupFailed) for task in crowded)


async def test_silent_names_of_many_tenants_are_bounded_and_the_next_place_goes_to_who_has_none(
    servers: Servers, silent: Silent
) -> None:
    found = servers.lookups()
    asking = [task for tenant in "acdefg" for task in silent(found, tenant, 40)]
    await poll(lambda: servers.under_way == lookups.PLACES)
    late = asyncio.create_task(found.addresses("b", HEALTHY, 80))
    await asyncio.sleep(0)
    servers.answering.set()
    assert await late == ["8.8.8.8"]
    assert HEALTHY in servers.asked[: lookups.PLACES + 3]  # f and g had none either, and came before
    await asyncio.gather(*asking)
    assert servers.most == lookups.PLACES


async def test_a_look_up_that_nobody_waits_for_any_more_is_dropped(servers: Servers, silent: Silent) -> None:
    found = servers.lookups()
    asking = silent(found, "a", lookups.TENANT_PLACES + 20)
    await poll(lambda: servers.under_way == lookups.TENANT_PLACES)
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    servers.answering.set()
    assert await found.addresses("a", HEALTHY, 80) == ["8.8.8.8"]
    assert len(servers.asked) == lookups.TENANT_PLACES + 1
    await poll(lambda: not found._flights)


async def test_whoever_joins_what_was_just_dropped_gets_a_look_up_of_their_own(
    servers: Servers, silent: Silent
) -> None:
    found = servers.lookups()
    silent(found, "a", lookups.TENANT_PLACES)
    await poll(lambda: servers.under_way == lookups.TENANT_PLACES)
    first = asyncio.create_task(found.addresses("a", HEALTHY, 80))
    await asyncio.sleep(0)
    first.cancel()
    second = asyncio.create_task(found.addresses("a", HEALTHY, 80))
    with pytest.raises(asyncio.CancelledError):
        await first
    servers.answering.set()
    async with asyncio.timeout(5):
        assert await second == ["8.8.8.8"]


async def refused(asking: Awaitable[Sequence[str]]) -> str:
    with pytest.raises(LookupFailed) as caught:
        await asking
    return str(caught.value)


async def test_a_name_whose_servers_are_silent_is_asked_for_with_growing_pauses(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookups, "ANSWER_SECONDS", 0.01)
    servers.error = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    found = servers.lookups()
    pauses = []
    for _ in range(7):
        servers.answering.clear()
        assert "did not answer within" in await refused(found.addresses("a", "silent.example", 80))
        # as long as the thread is stuck nobody waits for it, and none is started beside it
        assert "did not answer within" in await refused(found.addresses("a", "silent.example", 80))
        servers.answering.set()
        await poll(lambda: not found._flights)
        asked, stall = len(servers.asked), found._stalls.get("a", "silent.example")
        assert stall is not None
        pauses.append(stall.until - servers.now)
        servers.now = stall.until - 0.1
        assert "asked again in" in await refused(found.addresses("a", "silent.example", 80))
        assert len(servers.asked) == asked
        servers.now = stall.until
    assert pauses == [2, 4, 8, 16, 32, 60, 60]
    servers.error = None
    assert await found.addresses("a", "silent.example", 80) == ["8.8.8.8"]
    assert found._stalls.get("a", "silent.example") is None


async def test_names_that_have_stalled_keep_no_place_from_those_that_have_not(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, silent: Silent
) -> None:
    monkeypatch.setattr(lookups, "ANSWER_SECONDS", 0.01)
    servers.error = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    servers.answering.set()
    found = servers.lookups()
    await asyncio.gather(*silent(found, "a", 100), return_exceptions=True)
    servers.error = None
    servers.answering.clear()
    servers.now = 5
    asking = silent(found, "a", 100)
    await poll(lambda: servers.under_way)
    async with asyncio.timeout(1):
        assert await found.addresses("a", HEALTHY, 80) == ["8.8.8.8"]
    assert servers.under_way == lookups.TENANT_STALLED_PLACES
    servers.answering.set()
    await asyncio.gather(*asking, return_exceptions=True)


async def test_an_answer_that_comes_too_late_is_no_failure(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "ANSWER_SECONDS", 0.01)
    found = servers.lookups()
    await refused(found.addresses("a", "slow.example", 80))
    servers.answering.set()
    await poll(lambda: not found._flights)
    assert await found.addresses("a", "slow.example", 80) == ["8.8.8.8"]


async def test_a_name_that_is_not_there_is_no_stall(servers: Servers) -> None:
    servers.error = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    found = servers.lookups()
    for _ in range(3):
        with pytest.raises(socket.gaierror):
            await found.addresses("a", HEALTHY, 80)
    assert len(servers.asked) == 3


async def test_the_system_s_resolver_answers_on_a_thread_of_its_own_and_its_errors_arrive() -> None:
    found = await resolve("localhost", 80)
    assert {str(ip_address(text)) for text in found} & {"127.0.0.1", "::1"}
    unknown = socket.gaierror(-2, "Name or service not known")
    with patch("socket.getaddrinfo", side_effect=unknown), pytest.raises(OSError, match="not known"):
        await resolve("nowhere.example", 80)


async def test_threads_that_are_stuck_are_as_many_as_there_are_places(
    monkeypatch: pytest.MonkeyPatch, silent: Silent
) -> None:
    released = threading.Event()

    def stuck(host: bytes, *_: object, **__: object) -> list[object]:
        released.wait(20)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(lookups, "ANSWER_SECONDS", 0.01)
    found = Lookups()

    def threads() -> int:
        return sum(thread.name.startswith("resolve ") for thread in threading.enumerate())

    with patch("socket.getaddrinfo", side_effect=stuck):
        try:
            for _ in range(5):
                asking = silent(found, "a", 100)
                await poll(lambda: threads() == lookups.TENANT_PLACES)
                for task in asking:
                    task.cancel()
                await asyncio.gather(*asking, return_exceptions=True)
                assert threads() == lookups.TENANT_PLACES
        finally:
            released.set()
        await poll(lambda: not found._flights)
