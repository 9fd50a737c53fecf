"""Connections that lead nowhere: nobody closed them, and nothing comes back. It is found out, and all goes on by itself."""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable

import pytest

from app import main
from app.store import connecting, failures
from tests.crash.proxy import Proxy
from tests.handlers import Handler, Reply
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import Api, good

pytestmark = pytest.mark.anyio

StartReplica = Callable[..., Awaitable[Replica]]

SOON_SECONDS = 10.0
"""What is bounded by it takes 6 s where nothing else runs; the time-out of a statement alone would be 15."""
MAX_LEASE_SECONDS = 3600.0
"""A renewal, which would find out about a cancel too, comes after a third of it."""


async def listening(replica: Replica) -> None:
    """The start of a replica does not wait for it."""
    hears = "select 1 from pg_stat_activity where datname = current_database() and query ~* '^(listen|notify)'"
    await poll(lambda: replica.sluice.core.db.fetch(hears))


async def alarms(api: Api) -> list[str]:
    return [alarm["code"] for alarm in good(await api.get("/status"))["alarms"]]


@pytest.mark.ci
async def test_a_listener_that_leads_nowhere_is_an_alarm_and_what_it_missed_is_found_once_it_hears_again(
    proxy: Proxy, start_replica: StartReplica, handler: Handler, said: list[str]
) -> None:
    calling = await start_replica(database_url=proxy.url, lease_seconds=MAX_LEASE_SECONDS)
    await listening(calling)
    other = await start_replica(role="api")
    api = Api(other.client, other.url)
    handler.script(Reply(until=asyncio.Event()))
    task = await api.enqueue(await api.queue_to(handler.url))
    await handler.received(1)
    proxy.black_hole(listening=True)
    proxy.refuse()
    assert (await api.cancel(task["id"])).status_code == 200
    await poll(lambda: "listener_lost" in said, SOON_SECONDS)
    assert handler.open_calls == 1, "the hint has been missed"

    async def alarmed() -> bool:
        return "listener_lost" in await alarms(api)

    await poll(alarmed)
    assert calling.sluice.why_not_ready() is None
    proxy.mend()
    await handler.idle()
    await poll(lambda: "listener_back" in said)
    assert said.count("listener_lost") == said.count("listener_back") == 1
    assert "database_unavailable" not in said or "database_back" in said

    async def calm() -> bool:
        return "listener_lost" not in await alarms(api)

    await poll(calm)


async def test_a_task_starts_within_seconds_though_every_connection_leads_nowhere(
    behind_proxy: Replica, proxy: Proxy, handler: Handler
) -> None:
    await listening(behind_proxy)
    api = Api(behind_proxy.client, behind_proxy.url)
    queue = await api.queue_to(handler.url)
    await api.ended((await api.enqueue(queue))["id"])
    await asyncio.gather(*(api.get("/tasks") for _ in range(20)))  # so that the pool is full
    proxy.black_hole()
    began = time.monotonic()
    task = await api.enqueue(queue)
    await handler.received(2)
    assert time.monotonic() - began < SOON_SECONDS
    assert (await api.ended(task["id"]))["attempt"] == 1
    await api.queue()  # and definitions, over connections of their own


async def test_a_connection_that_has_answered_meanwhile_is_left_alone(behind_proxy: Replica, proxy: Proxy) -> None:
    database = behind_proxy.sluice.core.db
    await database.fetch("select 1")
    since = time.monotonic()
    await database.fetch("select 2")
    connections = set(database._open)
    ended = database.end_silent(since)
    left = [connection for connection in connections if not connection.is_closed()]
    assert ended == len(connections) - len(left)
    assert left and all(connection.answered_at >= since for connection in left)
    await database.fetch("select 3")


@pytest.mark.ci
async def test_a_start_says_what_it_waits_for_and_goes_on_once_it_is_there(
    proxy: Proxy, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "CONNECT_SECONDS", 0.2)
    proxy.swallow()
    starting = asyncio.create_task(main.wait_for_database(proxy.url))
    await poll(lambda: "database_unavailable" in said)
    assert not starting.done()
    proxy.mend()
    await starting
    assert said == ["database_unavailable", "database_back"]


@pytest.mark.ci
async def test_a_start_gives_up_on_a_database_that_swallows_everything(
    proxy: Proxy, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "CONNECT_SECONDS", 0.1)
    monkeypatch.setattr(main, "DATABASE_WAIT_SECONDS", 0.5)
    proxy.swallow()
    with pytest.raises(failures.Unavailable, match="no connection within"):
        await main.wait_for_database(proxy.url)
    assert said == ["database_unavailable"]


async def test_the_kernel_looks_after_connections_on_which_nothing_is_sent(database_url: str, proxy: Proxy) -> None:
    connection = await connecting.connect(proxy.url)
    sock = connection._transport.get_extra_info("socket")
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    idle = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
    more = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) * sock.getsockopt(
        socket.IPPROTO_TCP, socket.TCP_KEEPCNT
    )
    assert idle + more <= 20
    assert 0 < sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= SOON_SECONDS * 1000
    await connection.close()
