"""One poll a second, of one statement, finds what hints have not told, so an idle replica asks little."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from app.engine import engine, snapshot
from app.runtime.core import Core
from app.store import flows, polls
from app.store.failures import Busy
from tests import fake_sources
from tests.fake_sources import FakeQueue
from tests.handlers import Handler
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import Api, good

pytestmark = pytest.mark.anyio

StartReplica = Callable[..., Awaitable[Replica]]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements that were sent, as the test goes on."""
    return _noted(monkeypatch, lambda: True)


def _noted(monkeypatch: pytest.MonkeyPatch, wanted: Callable[[], bool]) -> list[str]:
    """The statements that are sent while `wanted` says so: replicas that earlier tests use may still send some, too."""
    found: list[str] = []
    for name in ("fetch", "execute"):
        monkeypatch.setattr(asyncpg.Connection, name, _noting(getattr(asyncpg.Connection, name), found, wanted))
    return found


def _noting(
    send: Callable[..., Awaitable[Any]], found: list[str], wanted: Callable[[], bool]
) -> Callable[..., Awaitable[Any]]:
    async def noting(self: asyncpg.Connection, statement: str, *args: Any, **options: Any) -> Any:
        if wanted():
            found.append(statement)
        return await send(self, statement, *args, **options)

    return noting


@pytest.mark.ci
async def test_an_idle_replica_sends_few_statements(
    start_replica: StartReplica, monkeypatch: pytest.MonkeyPatch, sent: list[str]
) -> None:
    monkeypatch.setattr(snapshot, "SNAPSHOT_SECONDS", 60.0)
    replica = await start_replica()
    api = Api(replica.client, replica.url)
    for _ in range(3):
        await api.queue()
    polled, ask = 0, polls.poll

    async def count_polls(db: object) -> polls.DueWork:
        nonlocal polled
        polled += 1
        return await ask(db)  # type: ignore[arg-type]

    monkeypatch.setattr(polls, "poll", count_polls)
    await poll(lambda: polled == 1)
    sent.clear()
    await poll(lambda: polled == 3)
    # two seconds: polls, ready lanes, heartbeats, and whether notifications still arrive
    assert len(sent) <= 9, sent
    assert not [statement for statement in sent if "sluice.sources" in statement], "the poll asks for all loops"


async def test_a_snapshot_is_one_transaction(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    look, here = snapshot.Snapshot(core), asyncio.current_task()
    sent = _noted(monkeypatch, lambda: asyncio.current_task() is here)
    await look.look()
    sent.clear()
    await look.look()
    assert [s.partition(" ")[0].upper() for s in sent].count("BEGIN;") == 1
    assert len(sent) <= 12, sent


async def test_whatever_is_due_is_found_within_a_poll_though_nobody_hinted(
    start_replica: StartReplica, handler: Handler
) -> None:
    replica = await start_replica()
    api = Api(replica.client, replica.url)
    queue = await api.queue_to(handler.url)
    due = (await api.enqueue(queue, "due", delay_seconds=3600))["id"]
    late = (await api.enqueue(queue, "late", delay_seconds=3600, ttl_seconds=7200))["id"]
    body = {"queue": queue, "payload": "fired", "every_seconds": 3600, "end_at": "2099-01-01T00:00:00Z"}
    assert (await replica.client.put("/schedules/once", json=body)).status_code == 201
    began = time.monotonic()
    async with replica.sluice.core.db.transaction() as connection:
        await _move_up(connection, due, late)
    assert {request.json for request in await handler.received(2)} == {"due", "fired"}
    assert (await api.ended(late))["reason"] == "expired"
    assert time.monotonic() - began < engine.POLL_SECONDS + 1


@pytest.mark.ci
async def test_sources_begin_and_end_within_a_poll_though_nobody_hinted(start_replica: StartReplica) -> None:
    replica = await start_replica()
    core, api, elsewhere = replica.sluice.core, Api(replica.client, replica.url), FakeQueue()
    fake_sources.install(core, {"orders": elsewhere})
    core.signals.source_changed = lambda: None
    began = time.monotonic()
    queue = await api.queue()
    good(await api.put("/sources/orders", json=fake_sources.definition(queue)), 201)
    keys = elsewhere.put(b"1")
    await poll(lambda: elsewhere.acknowledged == keys)
    good(await api.post("/sources/orders/pause"))
    await poll(lambda: elsewhere.closed == 1)
    assert time.monotonic() - began < 2 * (engine.POLL_SECONDS + 1)


async def test_ready_lanes_are_found_although_flows_cannot_be_swept(
    start_replica: StartReplica, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def sweep(_: object) -> None:
        raise Busy("too many flows")

    monkeypatch.setattr(flows, "sweep", sweep)
    replica = await start_replica()
    api = Api(replica.client, replica.url)
    queue = await api.queue_to(handler.url)
    replica.sluice.core.signals.lane_ready = lambda *_: None
    await api.enqueue(queue)
    await handler.received(1)


async def _move_up(connection: asyncpg.Connection, due: str, late: str) -> None:
    await connection.execute("update sluice.tasks set run_at = clock_timestamp() where id = $1", due)
    await connection.execute("update sluice.tasks set expires_at = clock_timestamp() where id = $1", late)
    await connection.execute(
        "update sluice.schedules set look_at = clock_timestamp(), next_nominal_at = clock_timestamp()"
    )
