"""Limits and what a task waits for: exact over replicas, changeable while running, and said in `waiting_for`."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.handlers import Handler, Received, Reply
from tests.support import poll
from tests.wire.api import Api, fresh, good

pytestmark = pytest.mark.anyio


class Gate:
    """A handler whose calls stay open until they are let go, one by one or all."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self._opened: dict[str, asyncio.Event] = {}
        handler.script(self._answer)

    def _answer(self, request: Received) -> Reply:
        return Reply(until=self._opened.setdefault(request.task, asyncio.Event()))

    def open(self, *tasks: str) -> None:
        for task in tasks or [request.task for request in self.handler.requests]:
            self._opened.setdefault(task, asyncio.Event()).set()

    async def holds(self, count: int) -> None:
        await poll(lambda: self.handler.open_calls == count)


@pytest.fixture
def gate(handler: Handler) -> Gate:
    return Gate(handler)


async def waits_for(api: Api, task: dict[str, Any], code: str | None) -> None:
    async def so() -> bool:
        return (await api.task(task["id"]))["waiting_for"] == code

    await poll(so)
    [listed] = [item for item in await api.pages("/tasks", queue=task["queue"]) if item["id"] == task["id"]]
    assert listed["waiting_for"] == code


async def test_a_task_without_a_handler_waits_for_a_worker(api: Api) -> None:
    task = await api.enqueue(await api.queue())
    assert task["waiting_for"] == "worker"
    await waits_for(api, task, "worker")


async def test_a_delayed_task_waits_for_its_time(api: Api) -> None:
    for given in ({"delay_seconds": 600}, {"run_at": "2027-01-01T00:00:00Z"}):
        task = await api.enqueue(await api.queue(), **given)
        assert task["waiting_for"] == "run_at"
        await waits_for(api, task, "run_at")


async def test_a_paused_queue_and_a_disabled_handler_are_waited_for(api: Api, handler: Handler) -> None:
    named = await api.handler(handler.url)
    queue = await api.queue(named)
    good(await api.post(f"/queues/{queue}/pause"))
    good(await api.post(f"/handlers/{named}/disable"))
    task = await api.enqueue(queue)
    await waits_for(api, task, "queue_paused")
    good(await api.post(f"/queues/{queue}/resume"))
    await waits_for(api, task, "handler_disabled")
    good(await api.post(f"/handlers/{named}/enable"))
    await handler.received()


async def test_the_limit_of_a_queue_is_exact_and_waited_for(api: Api, other: Api, gate: Gate) -> None:
    queue = await api.queue_to(gate.handler.url, max_concurrency=3)
    tasks = await asyncio.gather(*((api, other)[n % 2].enqueue(queue) for n in range(12)))
    await gate.holds(3)
    running = {request.task for request in gate.handler.requests}
    for task in tasks:
        await waits_for(api, task, None if task["id"] in running else "queue_limit")
    for done in range(1, 13):
        gate.open((await gate.handler.received(done))[done - 1].task)
    for task in tasks:
        await api.until(task["id"], "succeeded")
    assert gate.handler.most_open_calls == 3


async def test_the_limit_of_a_handler_counts_over_its_queues_and_own_tasks(api: Api, gate: Gate) -> None:
    named = await api.handler(gate.handler.url, max_concurrency=2)
    queues = [await api.queue(named), await api.queue(named), await api.queue_to(gate.handler.url)]
    tasks = [await api.enqueue(queues[0]), await api.enqueue(queues[1])]
    await gate.holds(2)
    own = await api.enqueue(queues[2], handler=named)
    third = await api.enqueue(queues[0])
    await waits_for(api, own, "handler_limit")
    await waits_for(api, third, "handler_limit")
    gate.open(tasks[0]["id"])
    await gate.handler.received(3)
    await gate.holds(2)
    gate.open()
    await gate.handler.received(4)
    gate.open()
    for task in (*tasks, own, third):
        await api.until(task["id"], "succeeded")
    assert gate.handler.most_open_calls == 2


async def test_the_limit_over_all_queues_is_the_tenant_s(start_api: Callable[..., Awaitable[Api]], gate: Gate) -> None:
    api, other = await start_api(), await start_api()
    good(await api.put("/limits", json={"max_concurrency": 2}))
    queues = [await api.queue_to(gate.handler.url) for _ in range(3)]
    tasks = [await (api, other)[n % 2].enqueue(queue) for n, queue in enumerate(queues * 2)]
    await gate.holds(2)
    running = {request.task for request in gate.handler.requests}
    for task in tasks:
        await waits_for(api, task, None if task["id"] in running else "global_limit")
    good(await other.put("/limits", json={"max_concurrency": None}))
    await gate.handler.received(6)
    assert gate.handler.most_open_calls == 6
    gate.open()
    for task in tasks:
        await api.until(task["id"], "succeeded")


async def test_of_several_reasons_the_first_in_the_claim_s_order_is_shown(
    start_api: Callable[..., Awaitable[Api]], gate: Gate
) -> None:
    api = await start_api()
    name, queue = fresh("h"), fresh("q")
    handler: dict[str, Any] = {"url": gate.handler.url, "max_concurrency": 1}
    good(await api.put(f"/handlers/{name}", json=handler), 201)
    good(await api.put(f"/queues/{queue}", json={"handler": name, "max_concurrency": 1}), 201)
    good(await api.put("/limits", json={"max_concurrency": 1}))
    first = await api.enqueue(queue)
    await gate.holds(1)
    task = await api.enqueue(queue)
    await waits_for(api, task, "global_limit")
    good(await api.put("/limits", json={}))
    await waits_for(api, task, "handler_limit")
    good(await api.put(f"/handlers/{name}", json=handler | {"max_concurrency": None}))
    await waits_for(api, task, "queue_limit")
    good(await api.post(f"/handlers/{name}/disable"))
    await waits_for(api, task, "handler_disabled")
    good(await api.post(f"/queues/{queue}/pause"))
    await waits_for(api, task, "queue_paused")
    gate.open(first["id"])


async def test_a_lowered_limit_holds_from_its_answer_and_cuts_nobody(api: Api, other: Api, gate: Gate) -> None:
    named = await api.handler(gate.handler.url)
    name = await api.queue(named, max_concurrency=4)
    for _ in range(8):
        await api.enqueue(name)
    await gate.holds(4)
    good(await other.put(f"/queues/{name}", json={"handler": named, "max_concurrency": 1}))
    first = [request.task for request in gate.handler.requests]
    gate.open(*first[:3])
    for task in first[:3]:
        await api.until(task, "succeeded")
    running = await api.pages("/tasks", queue=name, state="running")
    assert [task["id"] for task in running] == [first[3]]
    assert len(gate.handler.requests) == 4
    gate.open(first[3])
    for done in range(5, 9):
        gate.open((await gate.handler.received(done))[done - 1].task)
    await poll(lambda: gate.handler.open_calls == 0)
    assert gate.handler.most_open_calls == 4


async def test_a_raised_limit_lets_more_start_at_once(api: Api, other: Api, gate: Gate) -> None:
    named = await api.handler(gate.handler.url)
    name = await api.queue(named, max_concurrency=1)
    tasks = [await api.enqueue(name) for _ in range(5)]
    await gate.holds(1)
    good(await other.put(f"/queues/{name}", json={"handler": named, "max_concurrency": 3}))
    await gate.holds(3)
    good(await other.put(f"/queues/{name}", json={"handler": named}))
    await gate.holds(5)
    gate.open()
    for task in tasks:
        await api.until(task["id"], "succeeded")


async def test_a_limit_of_a_handler_can_be_changed_while_it_runs(api: Api, gate: Gate) -> None:
    name = fresh("h")
    good(await api.put(f"/handlers/{name}", json={"url": gate.handler.url, "max_concurrency": 1}), 201)
    queue = await api.queue(name)
    tasks = [await api.enqueue(queue) for _ in range(4)]
    await gate.holds(1)
    good(await api.put(f"/handlers/{name}", json={"url": gate.handler.url, "max_concurrency": 2}))
    await gate.holds(2)
    good(await api.put(f"/handlers/{name}", json={"url": gate.handler.url, "max_concurrency": 1}))
    first = [request.task for request in gate.handler.requests]
    gate.open(first[0])
    await api.until(first[0], "succeeded")
    assert len(await api.pages("/tasks", queue=queue, state="running")) == 1
    gate.open(first[1])
    for done in (3, 4):
        gate.open((await gate.handler.received(done))[done - 1].task)
    for task in tasks:
        await api.until(task["id"], "succeeded")
    assert gate.handler.most_open_calls == 2


async def test_a_full_lane_holds_up_no_other(api: Api, gate: Gate, start_handler: Any) -> None:
    free = await start_handler()
    stuck = await api.queue_to(gate.handler.url, max_concurrency=1)
    tasks = [await api.enqueue(stuck) for _ in range(5)]
    await gate.holds(1)
    task = await api.enqueue(await api.queue_to(free.url))
    await free.received(task=task["id"])
    own = await api.enqueue(stuck, handler=await api.handler(free.url))
    await waits_for(api, own, "queue_limit")
    gate.open(*[task["id"] for task in tasks])
    for task in (*tasks, own):
        await api.until(task["id"], "succeeded")
    assert (gate.handler.most_open_calls, free.most_open_calls) == (1, 1)
