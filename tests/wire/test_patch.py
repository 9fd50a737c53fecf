"""`PATCH /tasks/{id}`: a merge patch of a task that waits."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import httpx2
import pytest

from tests.handlers import Handler, Reply
from tests.wire.api import Api, fresh, good, problem

pytestmark = pytest.mark.anyio


async def patch(api: Api, task: dict[str, Any], **fields: Any) -> httpx2.Response:
    return await api.client.patch(f"/tasks/{task['id']}", json=fields)


async def test_what_is_absent_stays_and_null_is_the_default(api: Api) -> None:
    queue = await api.queue(timeout_seconds=9, retry={"max_attempts": 4})
    full = {
        "type": "a", "priority": 3, "headers": {"x-a": "1", "x-b": "2"}, "tags": ["t"], "correlation_id": "c",
        "timeout_seconds": 5, "retry": {"max_attempts": 7, "retry_after_max_seconds": 60}, "delay_seconds": 600,
        "expires_at": "2099-01-01T00:00:00.000000Z",
    }  # fmt: skip
    task = await api.enqueue(queue, {"n": 1}, **full)
    assert good(await patch(api, task)) == task
    changed = good(await patch(api, task, type="b", headers={"x-a": None, "x-c": "3"}, retry={"max_attempts": 8}))
    wanted = task | {"type": "b", "headers": {"x-b": "2", "x-c": "3"}, "max_attempts": 8}
    assert changed == wanted and await api.task(task["id"]) == wanted
    nulls = dict.fromkeys(full) | {"retry": {"max_attempts": None}}
    del nulls["delay_seconds"]
    bare = good(await patch(api, task, run_at=None, **nulls))
    assert {name: bare[name] for name in ("type", "correlation_id", "expires_at", "headers", "tags", "priority")} == {
        "type": None, "correlation_id": None, "expires_at": None, "headers": {}, "tags": [], "priority": 0,
    }  # fmt: skip
    assert (bare["state"], bare["timeout_seconds"], bare["max_attempts"]) == ("ready", 9, 4)
    assert bare["payload"] == {"n": 1}


async def test_a_payload_is_replaced_byte_for_byte(api: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url)
    task = await api.enqueue(queue, {"a": 1}, delay_seconds=600)
    reply = await api.client.patch(
        f"/tasks/{task['id']}",
        content=b'{"run_at":null, "payload": { "b":1.50 } }',
        headers={"content-type": "application/json"},
    )
    good(reply)
    [request] = await handler.received()
    assert request.body == b'{ "b":1.50 }'


async def test_a_change_of_time_wakes_and_puts_back(api: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url)
    task = await api.enqueue(queue, delay_seconds=600)
    later = good(await patch(api, task, delay_seconds=900))
    assert later["state"] == "scheduled" and later["run_at"] > task["run_at"]
    good(await patch(api, task, delay_seconds=0.2))
    await api.until(task["id"], "succeeded")
    waiting = await api.enqueue(queue, delay_seconds=600)
    good(await patch(api, waiting, run_at="2020-01-01T00:00:00Z"))
    await api.until(waiting["id"], "succeeded")
    good(await api.post(f"/queues/{queue}/pause"))
    ready = await api.enqueue(queue)
    assert good(await patch(api, ready, delay_seconds=600))["state"] == "scheduled"


@pytest.mark.ci
async def test_an_expiry_given_later_ends_the_task(api: Api) -> None:
    task = await api.enqueue(await api.queue())
    soon = datetime.fromisoformat(task["created_at"]) + timedelta(seconds=2)
    good(await patch(api, task, expires_at=soon.isoformat()))
    await api.until(task["id"], "dead", reason="expired")


async def test_a_task_changes_its_handler_and_goes_back_to_the_queue_s(
    api: Api, handler: Handler, start_handler: Any
) -> None:
    second = await start_handler()
    own = await api.handler(second.url)
    queue = await api.queue_to(handler.url)
    tasks = [await api.enqueue(queue, delay_seconds=600) for _ in range(2)]
    for task in tasks:
        assert good(await patch(api, task, handler=own))["handler"] == own
    good(await patch(api, tasks[0], run_at=None))
    assert (await second.received())[0].task == tasks[0]["id"]
    good(await patch(api, tasks[1], handler=None, run_at=None))
    assert (await handler.received())[0].task == tasks[1]["id"]
    problem(await patch(api, await api.enqueue(await api.queue()), handler=own), 422, "invalid", "/handler")


async def test_what_runs_or_has_ended_does_not_change(api: Api, handler: Handler) -> None:
    go = asyncio.Event()
    handler.script(Reply(until=go))
    task = await api.enqueue(await api.queue_to(handler.url))
    await handler.received()
    problem(await patch(api, task, priority=1), 409, "task_not_editable")
    go.set()
    await api.until(task["id"], "succeeded")
    problem(await patch(api, task, priority=1), 409, "task_ended")
    unknown = {"id": "019aa893-0a00-7238-9930-16b5add0f344"}
    problem(await patch(api, unknown, priority=1), 404, "task_not_found")


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"what": 1}, "/what"),
        ({"unique_key": "u"}, "/unique_key"),
        ({"idempotency_key": "u"}, "/idempotency_key"),
        ({"ttl_seconds": 5}, "/ttl_seconds"),
        ({"state": "ready"}, "/state"),
        ({"priority": 101}, "/priority"),
        ({"priority": "1"}, "/priority"),
        ({"run_at": "soon"}, "/run_at"),
        ({"run_at": None, "delay_seconds": 5}, "/run_at"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
        ({"retry": {"max_attempts": 0}}, "/retry/max_attempts"),
        ({"retry": 5}, "/retry"),
        ({"headers": {"host": "x"}}, "/headers/host"),
        ({"headers": {"x-b": 5}}, "/headers/x-b"),
        ({"headers": {f"x-{n}": "1" for n in range(50)}}, "/headers"),
        ({"tags": ["a", "a"]}, "/tags"),
        ({"type": ""}, "/type"),
        ({"handler": "nobody"}, "/handler"),
    ],
)
async def test_a_patch_is_judged_as_an_enqueue_is(api: Api, fields: dict[str, Any], pointer: str) -> None:
    task = await api.enqueue(
        await api.queue(await api.handler("https://example.com/")), delay_seconds=600, headers={"x-a": "1"}
    )
    problem(await patch(api, task, **fields), 422, "invalid", pointer)
    assert await api.task(task["id"]) == task


async def test_the_payload_of_a_patch_has_its_limits(api: Api) -> None:
    task = await api.enqueue(await api.queue())
    problem(await patch(api, task, payload="x" * 1_048_576), 413, "too_large")
    deep: Any = 1
    for _ in range(140):
        deep = [deep]
    problem(await patch(api, task, payload=deep), 400, "malformed")
    problem(await api.client.patch(f"/tasks/{task['id']}", json=[]), 422, "invalid")
    assert good(await patch(api, task, payload=None))["payload"] is None


async def test_key_and_limits_are_judged_by_the_handler_that_the_task_names(api: Api, handler: Handler) -> None:
    names = [fresh("l") for _ in range(5)]
    for name in names:
        good(await api.put(f"/limits/{name}", json={"keyed": name == names[0]}), 201)
    own = await api.handler(handler.url, limits=[{"name": names[0], "key": "task"}, names[1]])
    queue = await api.queue_to(handler.url)
    task = await api.enqueue(queue, handler=own, key="k", delay_seconds=600)
    problem(await patch(api, task, key=None), 422, "invalid", "/key")
    three = [{"name": name} for name in names[2:]]
    problem(await patch(api, task, limits=three), 422, "invalid", "/limits")
    assert await api.task(task["id"]) == task
    assert len(good(await patch(api, task, limits=three[:2]))["limits"]) == 2
    assert good(await patch(api, task, handler=None, key=None, limits=three))["key"] is None


async def test_racing_patches_of_headers_lose_none(api: Api, other: Api) -> None:
    task = await api.enqueue(await api.queue())
    names = [fresh("x") for _ in range(4)]
    replies = await asyncio.gather(
        *(
            (api, other)[n % 2].client.patch(f"/tasks/{task['id']}", json={"headers": {name: "1"}})
            for n, name in enumerate(names)
        )
    )
    assert all(reply.status_code == 200 for reply in replies)
    assert set((await api.task(task["id"]))["headers"]) == set(names)
