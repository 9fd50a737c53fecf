"""examples/handler as a process of its own, delivered to by a real service and called by hand."""

import asyncio
import os
import signal
import sqlite3
import sys
import time
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from app.delivery.webhook.signing import new_secret, sign
from tests.docs.pages import ROOT
from tests.sluices import Replica
from tests.support import poll

pytestmark = pytest.mark.anyio

OLD, NEW = new_secret(), new_secret()


@dataclass
class Example:
    """The example, running with two secrets as in a rotation."""

    process: asyncio.subprocess.Process
    url: str
    database: Path

    async def stop(self) -> None:
        """One that does not stop is made to print where each of its threads is."""
        self.process.terminate()
        try:
            assert await asyncio.wait_for(self.process.wait(), 20) == 0
        except TimeoutError:
            status = self.status()
            self.process.send_signal(signal.SIGABRT)
            await self.process.wait()
            raise AssertionError(f"it went on after SIGTERM:\n{status}") from None

    def status(self) -> str:
        """Which signals it blocks, ignores and has yet to take, among other things."""
        return Path(f"/proc/{self.process.pid}/status").read_text()


@pytest.fixture
async def example(tmp_path: Path) -> AsyncIterator[Example]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "handler.py",
        cwd=ROOT / "examples" / "handler",
        env={
            **os.environ,
            "WEBHOOK_SECRET": f"{NEW} {OLD}",
            "PORT": "0",
            "LEDGER": str(tmp_path / "ledger.db"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONFAULTHANDLER": "1",
        },
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    line = (await asyncio.wait_for(process.stdout.readline(), 20)).decode()
    example = Example(process, line.split()[-1], tmp_path / "ledger.db")
    yield example
    if process.returncode is None:
        await example.stop()


@pytest.fixture
async def ledger(example: Example) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=example.url, trust_env=False) as client:
        yield client


async def deliver(
    ledger: httpx2.AsyncClient, body: bytes, *, task: str = "task-1", secret: str = OLD, age_seconds: int = 0
) -> httpx2.Response:
    timestamp = int(time.time()) - age_seconds
    headers = {
        "webhook-id": task,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign((secret,), task, timestamp, body),
    }
    return await ledger.post("/", content=body, headers=headers)


async def test_it_books_what_sluice_delivers(ledger: httpx2.AsyncClient, replica: Replica) -> None:
    body = {"url": f"{ledger.base_url}/", "secret": OLD}
    (await replica.client.put("/handlers/ledger", json=body)).raise_for_status()
    (await replica.client.put("/queues/bookings", json={"handler": "ledger"})).raise_for_status()

    async def ended(payload: object) -> dict[str, object]:
        task = (await replica.client.post("/queues/bookings/tasks", json={"payload": payload})).json()

        async def look() -> dict[str, object] | None:
            found: dict[str, object] = (await replica.client.get(f"/tasks/{task['id']}")).json()
            return found if found["ended_at"] else None

        found = await poll(look)
        assert found is not None
        return found

    assert (await ended({"account": "ada", "amount": 5}))["result"] == {"account": "ada", "balance": 5}
    assert (await ended({"account": "ada", "amount": 2}))["result"] == {"account": "ada", "balance": 7}
    unreadable = await ended({"account": "ada"})
    assert (unreadable["state"], unreadable["reason"], unreadable["attempt"]) == ("dead", "stopped_by_handler", 1)
    assert (await ledger.get("/")).json() == {"ada": 7}


async def test_it_books_a_task_once_however_often_and_at_once_it_comes(ledger: httpx2.AsyncClient) -> None:
    body = b'{"account": "ada", "amount": 5}'
    answers = await asyncio.gather(*(deliver(ledger, body) for _ in range(8)))
    assert [answer.json() for answer in answers] == [{"account": "ada", "balance": 5}] * 8
    assert (await ledger.get("/")).json() == {"ada": 5}


@pytest.mark.ci
async def test_it_stops_though_connections_are_open_and_what_it_answered_is_booked(
    example: Example, ledger: httpx2.AsyncClient
) -> None:
    body = b'{"account": "ada", "amount": 1}'
    calls = [asyncio.create_task(deliver(ledger, body, task=f"task-{n}")) for n in range(20)]
    await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    await example.stop()
    answers = await asyncio.gather(*calls, return_exceptions=True)
    answered = [answer for answer in answers if isinstance(answer, httpx2.Response)]
    with closing(sqlite3.connect(example.database)) as database:
        (booked,) = database.execute("select count(*) from done").fetchone()
        (balance,) = database.execute("select amount from balances").fetchone()
    assert 1 <= len(answered) <= booked == balance


async def test_it_takes_either_secret_and_no_other(ledger: httpx2.AsyncClient) -> None:
    body = b'{"account": "ada", "amount": 1}'
    assert (await deliver(ledger, body, task="a", secret=OLD)).status_code == 200
    assert (await deliver(ledger, body, task="b", secret=NEW)).status_code == 200
    assert (await deliver(ledger, body, task="c", secret=new_secret())).status_code == 401
    assert (await deliver(ledger, body, task="d", age_seconds=301)).status_code == 401
    assert (await ledger.post("/", content=body)).status_code == 401
    assert (await ledger.get("/")).json() == {"ada": 2}
