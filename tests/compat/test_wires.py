"""Other wires as parts of a replica: their ports, their share of connections, their end."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import pytest

from app.compat.sqs import app as sqs_app
from app.compat.sqs.calls import Call, Operation
from app.compat.sqs.model import ListQueues
from app.compat.wires import wires
from app.settings import Settings
from tests.compat.sqs import Sqs
from tests.sluices import Replica, SluiceProcess, replica_with

pytestmark = [pytest.mark.anyio, pytest.mark.ci]


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> "Gate":
    found = Gate()
    monkeypatch.setitem(sqs_app.OPERATIONS, "ListQueues", Operation(ListQueues, "read", found.run))
    return found


class Gate:
    """Stands for an operation that takes as long as the test wants."""

    def __init__(self) -> None:
        self.reached, self.open = asyncio.Event(), asyncio.Event()

    async def run(self, call: Call, given: ListQueues) -> dict[str, Any]:
        self.reached.set()
        await self.open.wait()
        return {"QueueUrls": []}


def test_a_wire_without_a_port_is_not_served() -> None:
    assert wires(sqs_port=None) == []
    assert [(wire.name, wire.port) for wire in wires(sqs_port=9324)] == [("sqs", 9324)]


async def test_a_request_in_progress_is_answered_while_the_replica_stops(database_url: str, gate: Gate) -> None:
    settings = {"database_url": database_url, "port": 0, "sqs_port": 0, "drain_grace_seconds": 0}
    async with AsyncExitStack() as stack, httpx2.AsyncClient(trust_env=False, verify=False) as client:
        replica = await stack.enter_async_context(replica_with(Settings.model_validate(settings)))
        url = replica.sluice.wires["sqs"]
        asked = asyncio.create_task(Sqs(client, url).call("ListQueues"))
        await gate.reached.wait()
        stopping = asyncio.create_task(stack.aclose())
        await _closed(url)
        assert not stopping.done()
        gate.open.set()
        assert await asked == {"QueueUrls": []}
        await stopping


async def _closed(url: str) -> None:
    """Wait until nobody listens there."""
    host, port = url.removeprefix("http://").rsplit(":", 1)
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection(host, int(port))
            except OSError:
                return
            writer.close()
            await asyncio.sleep(0.01)


async def test_a_second_signal_does_not_wait_for_requests_in_progress(database_url: str, gate: Gate) -> None:
    settings = {"database_url": database_url, "port": 0, "sqs_port": 0, "drain_grace_seconds": 0}
    async with AsyncExitStack() as stack, httpx2.AsyncClient(trust_env=False, verify=False) as client:
        replica = await stack.enter_async_context(replica_with(Settings.model_validate(settings)))
        asked = asyncio.create_task(Sqs(client, replica.sluice.wires["sqs"]).call("ListQueues"))
        await gate.reached.wait()
        replica.server.hurried.set()
        async with asyncio.timeout(10):
            await stack.aclose()
        assert not asked.done()
        gate.open.set()
        await asyncio.wait([asked])


async def test_an_engine_alone_opens_no_wire(start_replica: Callable[..., Awaitable[Replica]]) -> None:
    replica = await start_replica(role="engine", sqs_port=0)
    assert replica.sluice.wires == {}


async def test_the_log_says_where_sqs_clients_are_served(
    start_sluice: Callable[..., Awaitable[SluiceProcess]],
) -> None:
    process = await start_sluice(SLUICE_SQS_PORT="0")
    (ready,) = [line for line in map(json.loads, process.lines) if line["event"] == "ready"]
    async with httpx2.AsyncClient(trust_env=False, verify=False) as client:
        assert (await Sqs(client, ready["wires"]["sqs"]).send("Nothing", b"{}")).status_code == 400


async def test_a_taken_port_of_a_wire_is_told_in_a_sentence(
    wired: Replica, start_sluice: Callable[..., Awaitable[SluiceProcess]]
) -> None:
    taken = wired.sluice.wires["sqs"].rsplit(":", 1)[1]
    process = await start_sluice(ready=False, SLUICE_SQS_PORT=taken)
    assert await process.ended() == 1
    assert f"127.0.0.1:{taken}" in process.output and "SLUICE_SQS_PORT" in process.output
    assert "Traceback" not in process.output


async def test_requests_are_counted_by_operation(wired: Replica, sqs: Sqs) -> None:
    await sqs.refused("GetQueueUrl", "QueueDoesNotExist", QueueName="nobody-made-this")
    await sqs.refused("x" * 200, "InvalidAction")
    metrics = (await wired.client.get("/metrics")).text
    counted = [line for line in metrics.splitlines() if "AmazonSQS" in line]
    assert any('route="AmazonSQS.GetQueueUrl"' in line and '"400"' in line for line in counted)
    assert "xxxx" not in metrics
