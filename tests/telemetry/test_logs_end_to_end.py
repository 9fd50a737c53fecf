"""What a real replica logs of a delivery that fails: who and where, and nothing that was entrusted to it."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from tests.handlers import Handler, Received, Reply
from tests.sluices import SluiceProcess
from tests.wire.api import AT_ONCE, Api, good

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

Start = Callable[..., Awaitable[SluiceProcess]]

KEY = "slk_" + "0123456789abcdef" * 2
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
PRIVATE = {
    "payload": "payload-4111111111111111",
    "handler header": "handler-header-d41d8cd98f",
    "task header": "task-header-6c1b3a9f70",
    "answer": "answer-900150983cd24fb0",
    "query": "query-d6963f7d28e17f72",
}


def echo(request: Received) -> Reply:
    """A handler that says back all it was told, as a careless one does."""
    words = "\n".join([*(f"{name}: {value}" for name, value in request.raw_headers), PRIVATE["answer"]])
    return Reply(500, body=words.encode() + request.body)


@pytest.fixture
async def process(start_sluice: Start) -> SluiceProcess:
    return await start_sluice(SLUICE_BOOTSTRAP_KEY=KEY, SLUICE_LOG_LEVEL="debug", SLUICE_EGRESS_ALLOW="127.0.0.0/8")


async def test_a_failing_delivery_is_logged_with_its_ids_and_without_what_is_private(
    process: SluiceProcess, handler: Handler
) -> None:
    handler.script(echo)
    async with httpx2.AsyncClient(
        base_url=process.url, headers={"authorization": f"Bearer {KEY}"}, trust_env=False
    ) as client:
        api = Api(client, process.url)
        name = "tells-all"
        url = f"{handler.url}?token={PRIVATE['query']}"
        made = good(
            await api.put(f"/handlers/{name}", json={"url": url, "headers": {"x-token": PRIVATE["handler header"]}}),
            201,
        )
        queue = await api.queue(name, retry=AT_ONCE | {"max_attempts": 2})
        body = {
            "payload": PRIVATE["payload"],
            "headers": {"x-note": PRIVATE["task header"]},
            "correlation_id": "order-7",
        }
        task = good(await api.post(f"/queues/{queue}/tasks", json=body, headers={"traceparent": TRACEPARENT}), 201)
        await api.until(task["id"], "dead")
        await refused_requests(api, queue)
    assert await process.terminate() == 0

    where = {
        "tenant": "default",
        "queue": queue,
        "task": task["id"],
        "handler": name,
        "trace_id": TRACEPARENT[3:35],
        "correlation_id": "order-7",
        "replica": process.events("ready")[0]["replica"],
        "outcome": "failed",
        "status": 500,
    }
    [failed], [dead] = process.events("attempt_failed"), process.events("task_dead")
    assert without(failed, where) == where | {"attempt": 1} and without(dead, where) == where | {"attempt": 2}
    assert dead["reason"] == "attempts_exhausted" and failed["error"] == "the handler answered 500"

    secrets = {**PRIVATE, "signing secret": made["secret"].removeprefix("whsec_"), "key": KEY.removeprefix("slk_")}
    secrets["signature"] = handler.requests[0].headers["webhook-signature"].removeprefix("v1,")
    secrets["lease token"] = handler.requests[0].headers["sluice-lease-token"]
    assert {what for what, secret in secrets.items() if secret in process.output} == set()


async def refused_requests(api: Api, queue: str) -> None:
    """Requests that fail are where servers like to quote what they were sent."""
    body = {"payload": PRIVATE["payload"], "headers": {"x-note": PRIVATE["task header"], "host": "x"}, "no": 1}
    assert (await api.post(f"/queues/{queue}/tasks", json=body)).status_code == 422
    assert (await api.get("/tasks", headers={"authorization": f"Bearer {KEY}x"})).status_code == 401
    assert (await api.get(f"/tasks?{PRIVATE['query']}=1")).status_code == 422


def without(line: dict[str, Any], where: dict[str, Any]) -> dict[str, Any]:
    return {name: line[name] for name in (*where, "attempt") if name in line}


async def test_every_line_of_a_replica_names_it(process: SluiceProcess) -> None:
    await process.terminate()
    lines = [json.loads(line) for line in process.lines]
    names = {line.get("replica") for line in lines[lines.index(process.events("ready")[0]) :]}
    assert names == {process.events("ready")[0]["replica"]}
