"""examples/usage_tracking beside a service, with a service for events that is slow, and one that is down."""

import asyncio
import re
import sqlite3
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI, Response

from app.delivery.webhook.signing import new_secret
from sluice_client.testing import SluiceServer
from tests.docs.example_processes import apply, example
from tests.docs.pages import ROOT, blocks
from tests.support import poll
from tests.wire.api import Api, good

pytestmark = [pytest.mark.ci, pytest.mark.anyio, pytest.mark.timeout(120)]

FOLDER = ROOT / "examples" / "usage_tracking"
SECRET = new_secret()
SLOW_SECONDS = 0.15
CALLS = 40
DEFINE = blocks(FOLDER / "README.md", "sh")[1]


@dataclass
class Events:
    """The external service: each request takes a while. While `down`, it answers 503."""

    url: str = ""
    requests: int = 0
    seen: list[str] = field(default_factory=list)
    down: bool = False

    async def receive(self, events: list[dict[str, Any]]) -> Response:
        self.requests += 1
        await asyncio.sleep(SLOW_SECONDS)
        if self.down:
            return Response(status_code=503)
        self.seen += [event["call"] for event in events]
        return Response()


@pytest.fixture
async def events() -> AsyncIterator[Events]:
    found, app = Events(), FastAPI()
    app.post("/events")(found.receive)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    await poll(lambda: server.started)
    found.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    yield found
    server.should_exit = True
    await serving


@dataclass
class Chat:
    """The example's API, beside a service that delivers to it."""

    client: httpx2.AsyncClient
    api: Api
    database: Path

    def rows(self, table: str) -> list[str]:
        with closing(sqlite3.connect(self.database)) as db:
            return [call for (call,) in db.execute(f"select call from {table}")]


@pytest.fixture
async def chat(events: Events, sluice_server: SluiceServer, tmp_path: Path) -> AsyncIterator[Chat]:
    settings = {
        "EVENTS_URL": events.url,
        "WEBHOOK_SECRET": SECRET,
        "SLUICE_URL": sluice_server.url,
        "USAGE_DB": str(tmp_path / "usage.db"),
    }
    async with (
        example("usage_tracking/tracking.py", **settings) as url,
        httpx2.AsyncClient(base_url=url, trust_env=False, timeout=30) as client,
        httpx2.AsyncClient(base_url=sluice_server.url, trust_env=False, timeout=30) as service,
    ):
        api = Api(service, sluice_server.url)
        await apply(tmp_path, DEFINE, api, url, SECRET)
        yield Chat(client, api, tmp_path / "usage.db")


async def milliseconds(client: httpx2.AsyncClient, path: str) -> list[float]:
    """How long each of some calls took, one after another, from the shortest."""
    took = []
    for _ in range(CALLS):
        begun = time.perf_counter()
        (await client.post(path, params={"prompt": "a word or two"})).raise_for_status()
        took.append(1000 * (time.perf_counter() - begun))
    return sorted(took)


async def test_callers_no_longer_wait_for_what_is_tracked(chat: Chat, events: Events) -> None:
    before, after = await milliseconds(chat.client, "/chat/inline"), await milliseconds(chat.client, "/chat")
    requests_before = events.requests
    assert statistics.median(before) >= 1000 * SLOW_SECONDS
    assert statistics.median(after) < statistics.median(before) / 2

    await poll(lambda: len(events.seen) == 2 * CALLS, 30)
    await poll(lambda: len(chat.rows("usage")) == len(chat.rows("costs")) == 2 * CALLS, 30)
    assert set(chat.rows("usage")) == set(chat.rows("costs")) == set(events.seen)
    in_groups = events.requests - CALLS
    print()
    for name, took in (("before", before), ("after", after)):
        print(f"{name}: p50 {statistics.median(took):.1f} ms, p95 {took[int(0.95 * len(took))]:.1f} ms")
    print(f"{CALLS} events in {in_groups} requests, {requests_before - CALLS} of them while calls came")
    tasks = await chat.api.pages("/tasks", queue="events") + await chat.api.pages("/tasks", queue="usage")
    assert len(tasks) == 3 * CALLS and {(task["priority"], task["state"]) for task in tasks} == {(80, "succeeded")}
    assert in_groups < CALLS / 2


async def test_a_service_for_events_that_is_down_costs_no_call_and_no_task(chat: Chat, events: Events) -> None:
    events.down = True
    known = len(events.seen)

    async def opened() -> bool:
        await chat.client.post("/chat", params={"prompt": "hello"})
        return bool(good(await chat.api.get("/handlers/events/health"))["state"] == "open")

    await poll(opened, 30, every_seconds=0.2)
    waiting = [task for task in await chat.api.pages("/tasks", queue="events") if task["ended_at"] is None]
    assert waiting
    events.down = False
    await poll(lambda: len(events.seen) == known + len(waiting), 30)
    for task in waiting:
        found = good(await chat.api.get(f"/tasks/{task['id']}", params={"wait_seconds": 30}))
        assert (found["state"], found["attempt"]) == ("succeeded", 1)


def test_the_readme_quotes_a_run() -> None:
    text = (FOLDER / "README.md").read_text()
    found = re.search(r"\| p50 \| ([\d.]+) ms \| ([\d.]+) ms \|", text)
    assert found and float(found[2]) < float(found[1]) / 2
    assert re.search(r"commit [0-9a-f]{7,}, 20\d\d-\d\d-\d\d", text)
