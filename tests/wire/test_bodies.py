"""Payloads that are not JSON, and JSON by other names."""

import asyncio
from base64 import b64encode
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from tests.handlers import Handler, Reply
from tests.wire.answers import SECRET, is_signed
from tests.wire.api import Api, good, problem

pytestmark = pytest.mark.anyio

BYTES = bytes(range(256))
TEXT = b64encode(BYTES).decode()
PNG = {"payload_base64": TEXT, "content_type": "image/png"}


async def post(api: Api, queue: str, **task: Any) -> httpx2.Response:
    return await api.post(f"/queues/{queue}/tasks", json=task)


def form(task: dict[str, Any]) -> dict[str, Any]:
    return {name: task[name] for name in ("payload", "payload_base64", "content_type") if name in task}


async def test_bytes_are_delivered_as_they_are_and_shown_in_the_same_form(api: Api, handler: Handler) -> None:
    queue = await api.queue(await api.handler(handler.url, secret=SECRET))
    task = good(await post(api, queue, **PNG), 201)
    [request] = await handler.received()
    assert (request.body, request.headers["content-type"]) == (BYTES, "image/png")
    assert request.headers["content-length"] == "256"
    assert is_signed(request, request.body)
    assert form(task) == form(await api.ended(task["id"])) == PNG
    [listed] = await api.pages("/tasks", queue=queue, include="payload")
    assert form(listed) == PNG
    [listed] = await api.pages("/tasks", queue=queue)
    assert form(listed) == {"content_type": "image/png"}


async def test_without_a_type_bytes_are_octets_and_json_may_be_called_by_its_own_name(
    api: Api, handler: Handler
) -> None:
    queue = await api.queue_to(handler.url)
    assert good(await post(api, queue, payload_base64=""), 201)["content_type"] == "application/octet-stream"
    assert good(await post(api, queue, payload={"a": 1}, content_type="application/cloudevents+json"), 201)["payload"]
    good(await post(api, queue, payload=1, content_type="application/json"), 201)
    got = {request.headers["content-type"]: request.body for request in await handler.received(3)}
    assert got == {
        "application/octet-stream": b"",
        "application/cloudevents+json": b'{"a":1}',
        "application/json": b"1",
    }


async def test_both_forms_neither_and_what_is_no_base64_are_refused_by_name(api: Api) -> None:
    queue = await api.queue()
    problem(await post(api, queue, payload=None, **PNG), 422, "invalid", "/payload_base64")
    problem(await post(api, queue, content_type="image/png"), 422, "invalid", "/payload")
    for text in ("a", "ab==c", "\u00e9", "YQ", "_-8=", "YQ==\n"):
        problem(await post(api, queue, payload_base64=text), 422, "invalid", "/payload_base64")
    problem(await post(api, queue, payload_base64=5, type=7), 422, "invalid", "/payload_base64", "/type")
    problem(await post(api, queue, payload=1, content_type="text/plain"), 422, "invalid", "/content_type")
    problem(await post(api, queue, payload_base64=TEXT, content_type="a/b\r\nx: y"), 422, "invalid", "/content_type")
    bulk = {"tasks": [PNG, {**PNG, "payload": 1}, {"type": "t"}]}
    results = good(await api.post(f"/queues/{queue}/tasks/bulk", json=bulk))["results"]
    assert [result["status"] for result in results] == [201, 422, 422]
    assert [result["problem"]["errors"][0]["pointer"] for result in results[1:]] == [
        "/tasks/1/payload_base64",
        "/tasks/2/payload",
    ]


async def test_the_size_is_that_of_the_bytes(start_api: Callable[..., Awaitable[Api]]) -> None:
    api = await start_api(max_payload_bytes=1_000_000)
    queue = await api.queue()
    fits, above = b"\xff" * 1_000_000, b"\xff" * 1_000_001
    good(await post(api, queue, payload_base64=b64encode(fits).decode()), 201)
    problem(await post(api, queue, payload_base64=b64encode(above).decode()), 413, "too_large")


async def test_a_queue_with_a_schema_takes_only_json(api: Api) -> None:
    queue = await api.queue(payload_schema={"type": "object"})
    problem(await post(api, queue, **PNG), 422, "payload_schema_mismatch", "/payload_base64")
    good(await post(api, queue, payload={}, content_type="application/cloudevents+json"), 201)


async def test_a_worker_gets_the_form_that_came(api: Api) -> None:
    queue = await api.queue()
    await api.post(f"/queues/{queue}/tasks/bulk", json={"tasks": [PNG, {"payload": 1}]})
    taken = good(await api.post(f"/queues/{queue}/leases", json={"max_tasks": 2}))["tasks"]
    assert sorted(map(str, map(form, taken))) == sorted(
        map(str, (PNG, {"payload": 1, "content_type": "application/json"}))
    )


async def test_a_patch_changes_the_form_and_back(api: Api) -> None:
    queue = await api.queue()
    task = await api.enqueue(queue, {"a": 1}, content_type="application/cloudevents+json")

    async def patch(**fields: Any) -> httpx2.Response:
        return await api.client.patch(f"/tasks/{task['id']}", json=fields)

    async def now(**fields: Any) -> dict[str, Any]:
        return form(good(await patch(**fields)))

    cloud = "application/cloudevents+json"
    assert await now(payload=2) == {"payload": 2, "content_type": cloud}
    problem(await patch(content_type="image/png"), 422, "invalid", "/content_type")
    assert await now(payload_base64=TEXT) == {"payload_base64": TEXT, "content_type": "application/octet-stream"}
    assert await now(content_type="image/png") == PNG
    assert await now(payload_base64="") == {"payload_base64": "", "content_type": "image/png"}
    assert await now(type="t") == {"payload_base64": "", "content_type": "image/png"}
    problem(await patch(payload=1, content_type="image/png"), 422, "invalid", "/content_type")
    problem(await patch(payload=1, payload_base64=TEXT), 422, "invalid", "/payload_base64")
    assert await now(payload=None) == {"payload": None, "content_type": "application/json"}


async def test_patches_that_race_never_give_json_the_type_of_bytes(api: Api, other: Api) -> None:
    queue = await api.queue()
    made = good(await api.post(f"/queues/{queue}/tasks/bulk", json={"tasks": [PNG] * 30}))["results"]
    paths = [f"/tasks/{result['id']}" for result in made]
    replies = await asyncio.gather(
        *(api.client.patch(path, json={"payload": 1}) for path in paths),
        *(other.client.patch(path, json={"content_type": "image/gif"}) for path in paths),
    )
    assert {reply.status_code for reply in replies} <= {200, 422}
    for path in paths:
        assert form(good(await api.get(path))) == {"payload": 1, "content_type": "application/json"}


async def test_follow_ups_carry_bytes(api: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url)
    page = {"tasks": [{"queue": queue, "idempotency_key": "k", **PNG}]}
    handler.answer(
        Reply(200, {"content-type": "application/vnd.sluice.tasks+json"}, httpx2.Response(200, json=page).content)
    )
    await api.enqueue(queue)
    _, followed = await handler.received(2)
    assert (followed.body, followed.headers["content-type"]) == (BYTES, "image/png")


async def test_a_group_has_bytes_as_base64_and_leaves_out_tasks_with_a_target(api: Api, handler: Handler) -> None:
    queue = await api.queue(await api.handler(handler.url, group={"max_tasks": 10}, targets="path"))
    tasks = [PNG, {"payload": 1}, {"payload": None, "target": {"path": "/x", "method": "GET"}}]
    handler.script(Reply(body=b""))
    good(await api.post(f"/queues/{queue}/tasks/bulk", json={"tasks": tasks}))
    alone, group = sorted(await handler.received(2), key=lambda request: request.method)
    assert (alone.method, alone.path, alone.body) == ("GET", "/hook/x", b"")
    assert [form(task) for task in group.json["tasks"]] == [PNG, {"payload": 1}]


async def test_bytes_and_their_type_are_part_of_what_an_idempotency_key_stands_for(api: Api) -> None:
    queue = await api.queue()
    first = good(await post(api, queue, idempotency_key="k", **PNG), 201)
    assert good(await post(api, queue, idempotency_key="k", **PNG)) == first
    for other in ({"content_type": "image/gif"}, {"payload_base64": "AAAA"}):
        problem(await post(api, queue, idempotency_key="k", **{**PNG, **other}), 422, "idempotency_mismatch")
    good(await post(api, queue, idempotency_key="j", payload=1, content_type="application/json"), 201)
    good(await post(api, queue, idempotency_key="j", payload=1))
    problem(await post(api, queue, idempotency_key="j", payload_base64="MQ=="), 422, "idempotency_mismatch")
