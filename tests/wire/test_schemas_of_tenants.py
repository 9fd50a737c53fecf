"""Schemas of one tenant hold up nobody of another, whatever they cost."""

import asyncio
import time
from statistics import median
from typing import Any

import pytest

from app.runtime.catalogue import QueueCache
from tests.sluices import Replica
from tests.support import Holding, poll
from tests.wire.api import Api, good, problem

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

LETTERS = {"allOf": [{"pattern": rf"\pL\pL\pL{n}"} for n in range(300)]}
"""Compiles in 0.2 to 0.4 seconds."""
BRANCHES: dict[str, Any] = {
    "anyOf": [{"type": "array", "items": {"$ref": "#"}}, {"type": "array", "items": {"$ref": "#"}, "minItems": 1}]
}
"""Doubles at each level of a payload that does not fit."""
DEEP = b'{"payload":' + b"[" * 40 + b"1" + b"]" * 40 + b"}"
LIST = {"type": "array", "items": {"anyOf": [{"type": "integer"}, {"$ref": "#"}]}}
"""Recursive, so that it is checked beside, and soon done."""
MANY = {"properties": {f"p{n}": {"type": "string", "minLength": 1} for n in range(50)}}
"""Judged beside, for its length."""


async def test_costly_patterns_are_never_compiled_in_the_event_loop(two: tuple[Replica, Api, Api]) -> None:
    replica, a, _ = two
    compilers = replica.sluice.core.schemas._compilers
    asked, ask = [], compilers.ask

    async def counted(request: Any) -> Any:
        asked.append(request.schema)
        return await ask(request)

    await a.enqueue(await a.queue(payload_schema=LIST), [1])  # all that is done once
    compilers.ask = counted  # type: ignore[method-assign]
    async with Holding() as holding:
        queues = [await a.queue(payload_schema=LETTERS) for _ in range(20)]
        for change in (5, 6, None):
            await asyncio.gather(*(a.enqueue(queue, 1) for queue in queues))
            good(await a.put("/limits", json={"max_concurrency": change}))  # raises the version of every queue
    assert len(asked) == 1, "the process beside compiled it, once for all"
    assert holding.longest < 1, "twenty compilations in a row would take longer"


async def test_costly_checks_of_one_tenant_hold_up_nobody_else(two: tuple[Replica, Api, Api]) -> None:
    replica, a, b = two
    slow = await a.queue(payload_schema=BRANCHES)
    listed = await b.queue(payload_schema=LIST)
    await b.enqueue(listed, [1, [2]])

    async def hammer() -> None:
        while True:
            reply = await a.enqueue_bytes(slow, DEEP)
            assert reply.status_code in (422, 503)
            await asyncio.sleep(0.05 if reply.status_code == 503 else 0)

    hammering = [asyncio.create_task(hammer()) for _ in range(5)]
    await poll(lambda: replica.sluice.core.schemas._checkers._busy)
    waits = []
    for _ in range(5):
        began = time.monotonic()
        await b.enqueue(await b.queue(payload_schema={"type": "integer"}), 1)
        await b.queue(payload_schema=MANY)
        await b.enqueue(listed, [1, [2]])
        waits.append(time.monotonic() - began)
    assert not any(task.done() for task in hammering)
    for task in hammering:
        task.cancel()
    assert median(waits) < 2, waits
    assert max(waits) < 8, waits


async def test_the_items_of_a_bulk_share_a_budget_and_an_atomic_one_is_no_fault_of_theirs(
    two: tuple[Replica, Api, Api], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, a, _ = two
    monkeypatch.setattr("app.runtime.schemas.REQUEST_SECONDS", 0.3)
    slow = await a.queue(payload_schema=BRANCHES)
    items = b",".join([b'{"payload":[]}', DEEP, *([b'{"payload":[]}'] * 50)])
    bulk = b'{"tasks":[' + items + b"]%s}"
    send: dict[str, Any] = {"headers": {"content-type": "application/json"}}
    results = good(await a.post(f"/queues/{slow}/tasks/bulk", content=bulk % b"", **send))["results"]
    assert [result["status"] for result in results] == [201] + [503] * 51
    assert "of this request" in results[1]["problem"]["detail"]
    reply = await a.post(f"/queues/{slow}/tasks/bulk", content=bulk % b',"atomic":true', **send)
    assert "of this request" in problem(reply, 503, "unavailable")["detail"]
    assert len(await a.pages("/tasks", queue=slow)) == 1


async def test_what_a_replica_keeps_of_queues_is_bounded_by_its_bytes(two: tuple[Replica, Api, Api]) -> None:
    replica, a, b = two
    core = replica.sluice.core
    kept = core.queues = QueueCache(core.db, max_bytes=10_000)
    mine = await b.queue()
    await b.enqueue(mine, 1)
    for _ in range(5):
        await a.enqueue(await a.queue(payload_schema={"description": "x" * 3_000}), 1)
    assert len(kept) == 3
    assert kept.get(await core.db.fetchval("select id from sluice.tenants where name = 'b'"), mine)
