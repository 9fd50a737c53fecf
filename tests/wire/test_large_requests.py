"""Large requests hold the event loop for no longer than a few pieces of their work, whoever sends them."""

import asyncio
import gc
import json
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import httpx2
import msgspec
import pytest

from app import main
from app.api.bulk import validate_items
from app.domain.errors import Refusal
from app.settings import Settings
from tests.support import Holding
from tests.wire.api import Api

pytestmark = pytest.mark.anyio

MOST = 0.1
"""Of two or three rounds of the loop, which is what a watcher sees, on a slow machine."""
MANY = 5_000
BODIES: dict[str, tuple[str, Any]] = {
    "tasks that break rules": ("/queues/{queue}/tasks/bulk", {"tasks": [{"bad": 1}] * 10_000}),
    "a batch": ("/batches", {"queue": "{queue}", "tasks": [{"payload": 1}] * 5_000}),
    "queues": ("/definitions/plan", {"queues": {f"q{n}": {"description": "x"} for n in range(MANY)}}),
    "handlers": ("/definitions/plan", {"handlers": {f"h{n}": {"url": f"http://127.0.0.1/{n}"} for n in range(MANY)}}),
    "times of a schedule": ("/schedules/preview", {"cron": "0 3 13 * *", "timezone": "Europe/Berlin", "count": 1000}),
}


@pytest.fixture
def settled() -> Iterator[None]:
    """As a process is that serves."""
    interval = sys.getswitchinterval()
    main._settle_down()
    yield
    gc.unfreeze()
    sys.setswitchinterval(interval)


@pytest.mark.ci
@pytest.mark.parametrize("what", BODIES)
async def test_a_large_request_is_worked_on_in_pieces(api: Api, settled: None, what: str) -> None:
    queue = await api.queue()
    path, body = BODIES[what]
    content = json.dumps(body).replace("{queue}", queue).encode()
    headers = {"content-type": "application/json"}

    def ask() -> httpx2.Response:  # in a thread: what a client does is not the service's
        return httpx2.post(
            api.url + path.format(queue=queue), content=content, headers=headers, timeout=60, trust_env=False
        )

    async with Holding() as holding:
        reply = await asyncio.to_thread(ask)
    assert reply.status_code in (200, 201), reply.text[:500]
    assert holding.longest < MOST


@pytest.mark.parametrize("members", [b"{}", b"[[]]"])
async def test_a_payload_of_very_many_members_is_judged_soon(api: Api, settled: None, members: bytes) -> None:
    queue = await api.queue()
    body = b'{"payload":[' + b",".join([members] * (1_000_000 // (len(members) + 1))) + b"]}"
    async with Holding() as holding:
        assert (await api.enqueue_bytes(queue, body)).status_code == 201
    assert holding.longest < 2 * MOST


async def test_refusals_that_are_kept_hold_no_frames() -> None:
    items = await validate_items([msgspec.Raw(b'{"bad":1}'), msgspec.Raw(b"{")], 1000)
    for item in items:
        assert isinstance(item, Refusal)
        assert (item.__traceback__, item.__context__, item.__cause__) == (None, None, None)


async def test_a_process_that_serves_leaves_out_of_the_garbage_what_it_began_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    frozen = []

    class Server:
        draining = asyncio.Event()

    @asynccontextmanager
    async def running(*_: object, **__: object) -> AsyncIterator[tuple[SimpleNamespace, Server]]:
        yield SimpleNamespace(core=SimpleNamespace(db=None)), Server()
        frozen.append((gc.get_freeze_count(), sys.getswitchinterval()))

    async def rehearse(db: None) -> None:
        pass

    Server.draining.set()
    monkeypatch.setattr(main, "running", running)
    monkeypatch.setattr("app.main.rehearsals.rehearse", rehearse)
    monkeypatch.setattr("app.main.logs.configure", lambda level: None)
    interval = sys.getswitchinterval()
    try:
        assert await main.serve(Settings.model_validate({"database_url": "postgresql://nowhere"})) == 0
    finally:
        gc.unfreeze()
        sys.setswitchinterval(interval)
    [(count, switching)] = frozen
    assert count > 10_000 and switching == pytest.approx(main.SWITCH_SECONDS)
