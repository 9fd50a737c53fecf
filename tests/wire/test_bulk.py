"""`POST /queues/{name}/tasks/bulk`: many tasks in one request, a verdict for each."""

import asyncio
import json
import time
from typing import Any

import httpx2
import pytest

from tests.handlers import Handler
from tests.wire.api import Api, fresh, good, problem, raw, raw_code

pytestmark = pytest.mark.anyio


async def bulk(api: Api, queue: str, tasks: list[Any], **fields: Any) -> list[dict[str, Any]]:
    reply = good(await api.post(f"/queues/{queue}/tasks/bulk", json={"tasks": tasks, **fields}))
    assert set(reply) == {"results"} and len(reply["results"]) == len(tasks)
    results: list[dict[str, Any]] = reply["results"]
    return results


async def bulk_bytes(api: Api, queue: str, body: bytes) -> httpx2.Response:
    headers = {"content-type": "application/json"}
    return await api.post(f"/queues/{queue}/tasks/bulk", content=body, headers=headers)


async def depth(api: Api, queue: str) -> int:
    counts = good(await api.get(f"/queues/{queue}/stats"))["counts"]
    return int(counts["scheduled"] + counts["ready"])


def refused(result: dict[str, Any], status: int, code: str, *pointers: str) -> None:
    assert set(result) == {"status", "problem"} and result["status"] == status, result
    found = result["problem"]
    assert (found["status"], found["code"]) == (status, code), found
    assert [error["pointer"] for error in found["errors"]] == list(pointers), found


async def test_each_task_is_stored_as_one_enqueued_by_itself(api: Api) -> None:
    queue = await api.queue()
    full = {
        "payload": {"n": 1},
        "type": "t",
        "priority": 5,
        "tags": ["a"],
        "headers": {"x-a": "1"},
        "delay_seconds": 60,
    }
    results = await bulk(api, queue, [full, {"payload": None}])
    assert [result["status"] for result in results] == [201, 201]
    first, second = [await api.task(result["id"]) for result in results]
    assert {name: first[name] for name in ("payload", "type", "priority", "tags", "headers")} == {
        name: full[name] for name in ("payload", "type", "priority", "tags", "headers")
    }
    assert (first["state"], second["state"], second["payload"]) == ("scheduled", "ready", None)


async def test_payloads_reach_the_handler_byte_for_byte(api: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url)
    spans = [b'{"a" :\t1.50e1,\n"\\u00e9":"\xc3\xa9"}', b"[ ]", b"12345678901234567890123", b'"\\/"', b"null"]
    body = b'{"atomic":false , "tasks": [' + b" ,\n".join(b'{ "payload": %s }' % span for span in spans) + b"]}"
    results = good(await bulk_bytes(api, queue, body))["results"]
    requests = {request.task: request for request in await handler.received(len(spans))}
    assert [requests[result["id"]].body for result in results] == spans


async def test_a_bad_task_sinks_no_other(api: Api) -> None:
    queue = await api.queue()
    deep = b"[" * 129 + b"]" * 129
    tasks = [
        b'{"payload":1}',
        b'{"payload":1,"priority":101,"delay_seconds":-1}',
        b'{"payload":NaN}',
        b'{"payload":{"a":1,"a":2}}',
        b'{"payload":' + deep + b"}",
        b'{"payload":"' + b"x" * 1_048_576 + b'"}',
        b"[]",
        b'{"payload":1,"handler":"nobody"}',
        b'{"payload":1,"expires_at":"2020-01-01T00:00:00Z"}',
        b'{"type":5,"what":1}',
        b'{"payload":2}',
    ]
    reply = await bulk_bytes(api, queue, b'{"tasks":[' + b",".join(tasks).replace(b"NaN", b'"\xff"') + b"]}")
    results = good(reply)["results"]
    assert [result["status"] for result in results] == [201, 422, 422, 422, 422, 413, 422, 422, 422, 422, 201]
    refused(results[1], 422, "invalid", "/tasks/1/delay_seconds", "/tasks/1/priority")
    for n in (2, 3, 4, 6):
        refused(results[n], 422, "invalid", f"/tasks/{n}")
    refused(results[5], 413, "too_large", "/tasks/5")
    refused(results[7], 422, "invalid", "/tasks/7/handler")
    refused(results[8], 422, "invalid", "/tasks/8/expires_at")
    refused(results[9], 422, "invalid", "/tasks/9/payload", "/tasks/9/type", "/tasks/9/what")
    assert await depth(api, queue) == 2


async def test_one_key_twice_in_a_request_is_one_task(api: Api) -> None:
    queue = await api.queue()
    first = await api.enqueue(queue, 1, idempotency_key="a")
    results = await bulk(
        api,
        queue,
        [
            {"payload": 1, "idempotency_key": "a"},
            {"payload": 2, "idempotency_key": "a"},
            {"payload": 3, "idempotency_key": "b"},
            {"payload": 3, "idempotency_key": "b"},
            {"payload": 4, "idempotency_key": "b"},
        ],
    )
    assert results[0] == {"status": 200, "id": first["id"]}
    refused(results[1], 422, "idempotency_mismatch")
    assert sorted([results[2]["status"], results[3]["status"]]) == [200, 201] and results[2]["id"] == results[3]["id"]
    refused(results[4], 422, "idempotency_mismatch")
    assert await depth(api, queue) == 2


async def test_a_full_queue_takes_what_fits_and_refuses_the_rest_one_by_one(api: Api) -> None:
    queue = await api.queue(max_depth=3)
    results = await bulk(api, queue, [{"payload": n} for n in range(5)])
    assert [result["status"] for result in results] == [201, 201, 201, 429, 429]
    refused(results[4], 429, "queue_full")
    assert await depth(api, queue) == 3


@pytest.mark.parametrize(
    ("bad", "pointer"),
    [
        ({"payload": 1, "priority": 1000}, "/tasks/2/priority"),
        ({"payload": 1, "handler": "nobody"}, "/tasks/2/handler"),
        ({"payload": "x" * 1_048_576}, "/tasks/2"),
        ({"payload": 2, "idempotency_key": "k"}, "/tasks/2"),
    ],
)
async def test_an_atomic_request_with_one_bad_task_stores_nothing(api: Api, bad: Any, pointer: str) -> None:
    queue = await api.queue()
    first = await api.enqueue(queue, 1, idempotency_key="k")
    tasks = [{"payload": 1, "idempotency_key": "new"}, {"payload": 1, "idempotency_key": "k"}, bad]
    reply = await api.post(f"/queues/{queue}/tasks/bulk", json={"tasks": tasks, "atomic": True})
    problem(reply, 422, "invalid", pointer)
    assert await depth(api, queue) == 1
    results = await bulk(api, queue, tasks[:2], atomic=True)
    assert results[0]["status"] == 201 and results[1] == {"status": 200, "id": first["id"]}


async def test_an_atomic_request_fits_into_a_queue_whole_or_not_at_all(api: Api) -> None:
    queue = await api.queue(max_depth=3)
    tasks = [{"payload": n, "idempotency_key": str(n)} for n in range(4)]
    reply = await api.post(f"/queues/{queue}/tasks/bulk", json={"tasks": tasks, "atomic": True})
    assert "queue_full" in problem(reply, 422, "invalid", "/tasks/3")["detail"]
    assert await depth(api, queue) == 0
    assert [result["status"] for result in await bulk(api, queue, tasks[:3], atomic=True)] == [201] * 3


async def test_racing_atomic_requests_over_the_same_keys_store_each_once(api: Api, other: Api) -> None:
    queue = await api.queue()
    tasks = [{"payload": n, "idempotency_key": str(n)} for n in range(50)]
    answers = await asyncio.gather(
        *((api, other)[n % 2].post(
            f"/queues/{queue}/tasks/bulk", json={"tasks": tasks[:: 1 if n % 3 else -1], "atomic": True}
        ) for n in range(8))
    )  # fmt: skip
    results = [result for answer in answers for result in good(answer)["results"]]
    assert sum(result["status"] == 201 for result in results) == 50 and await depth(api, queue) == 50


@pytest.mark.parametrize("atomic", [False, True])
async def test_ten_thousand_tasks_are_stored_while_others_are_answered(api: Api, atomic: bool) -> None:
    queue, quick = await api.queue(), await api.queue()
    tasks = [{"payload": {"n": n, "text": "x" * 200}, "type": "t"} for n in range(10_000)]
    body = json.dumps({"tasks": tasks, "atomic": atomic}).encode()
    writing = asyncio.create_task(bulk_bytes(api, queue, body))
    waits = []
    while not writing.done():
        began = time.monotonic()
        await api.enqueue(quick)
        waits.append(time.monotonic() - began)
    results = good(await writing)["results"]
    assert all(result["status"] == 201 for result in results)
    ids = [result["id"] for result in results]
    assert len(set(ids)) == 10_000 and ids == sorted(ids) and await depth(api, queue) == 10_000
    assert (await api.task(ids[7777]))["payload"]["n"] == 7777
    assert max(waits) < 2


async def test_a_body_above_the_limit_is_refused_before_it_has_come(api: Api) -> None:
    queue = await api.queue()
    head = f"POST /queues/{queue}/tasks/bulk HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    told = await raw(api.url, (head + "content-length: 33554433\r\n\r\n").encode() + b'{"tasks":')
    assert raw_code(told) == (413, "too_large")

    async def endless() -> Any:
        yield b'{"tasks":[{"payload":"'
        for _ in range(33):
            yield b"x" * 1_048_576

    reply = await api.post(
        f"/queues/{queue}/tasks/bulk", content=endless(), headers={"content-type": "application/json"}
    )
    problem(reply, 413, "too_large")


@pytest.mark.parametrize(
    ("body", "status", "code", "pointers"),
    [
        (b"", 400, "malformed", ()),
        (b"{", 400, "malformed", ()),
        (b'{"tasks":[{"payload":1}],"tasks":[]}', 400, "malformed", ()),
        (b'{"tasks":[{"payload":1}]} x', 400, "malformed", ()),
        (b'{"tasks":' + b"[" * 5000 + b"]" * 5000 + b"}", 400, "malformed", ()),
        (b"[]", 422, "invalid", ("",)),
        (b"{}", 422, "invalid", ("/tasks",)),
        (b'{"tasks":{}}', 422, "invalid", ("/tasks",)),
        (b'{"tasks":[]}', 422, "invalid", ("/tasks",)),
        (b'{"tasks":[' + b",".join([b'{"payload":1}'] * 10_001) + b"]}", 422, "invalid", ("/tasks",)),
        (b'{"tasks":[{"payload":1}],"atomic":1}', 422, "invalid", ("/atomic",)),
        (b'{"tasks":[{"payload":1}],"what":1}', 422, "invalid", ("/what",)),
    ],
)
async def test_a_request_that_is_wrong_as_a_whole_is_refused_as_a_whole(
    api: Api, body: bytes, status: int, code: str, pointers: tuple[str, ...]
) -> None:
    queue = await api.queue()
    problem(await bulk_bytes(api, queue, body), status, code, *pointers)
    assert await depth(api, queue) == 0


async def test_what_holds_for_every_route_holds_for_this_one(api: Api) -> None:
    path = f"/queues/{await api.queue()}/tasks/bulk"
    tasks = {"tasks": [{"payload": 1}]}
    problem(await api.post(f"/queues/{fresh('q')}/tasks/bulk", json=tasks), 404, "queue_not_found")
    problem(await api.post("/queues/No Name/tasks/bulk", json=tasks), 422, "invalid", "/name")
    problem(await api.post(path, json=tasks, params={"x": 1}), 422, "invalid", "/x")
    problem(await api.post(path, content=b"{}", headers={"content-type": "text/plain"}), 415, "unsupported_media_type")
    for key in ('"k"', "k"):
        found = problem(await api.post(path, json=tasks, headers={"idempotency-key": key}), 400, "malformed")
        assert "each task here its own idempotency_key" in found["detail"]
    assert await depth(api, path.split("/")[2]) == 0
    assert problem(await api.get(path), 405, "method_not_allowed")
    for document in (good(await api.get("/openapi.json")),):
        assert "post" in document["paths"]["/queues/{name}/tasks/bulk"]
