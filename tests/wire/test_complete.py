"""The body of `POST /tasks/{id}/complete`: what it may be, and that what is refused leaves the lease as it was."""

import base64
import json
from typing import Any

import httpx2
import pytest

from tests.wire.api import Api, good, problem
from tests.wire.test_leases import say, take, take_one

pytestmark = pytest.mark.anyio

MIB = 1_048_576


async def leased_task(api: Api) -> dict[str, Any]:
    queue = await api.queue()
    await api.enqueue(queue)
    return await take_one(api, queue)


async def complete(
    api: Api, leased: dict[str, Any], body: bytes, content_type: str = "application/json"
) -> httpx2.Response:
    headers = {"sluice-lease-token": leased["lease_token"], "content-type": content_type}
    return await api.post(f"/tasks/{leased['id']}/complete", content=body, headers=headers)


def unit(queue: str, **fields: Any) -> dict[str, Any]:
    return {"queue": queue, "idempotency_key": "k", "payload": 1, **fields}


@pytest.mark.parametrize(
    ("body", "code", "pointers"),
    [
        (b"{", "malformed", ()),
        (b"\xff", "malformed", ()),
        (b'{"result": NaN}', "malformed", ()),
        (b'{"result": 1, "result": 1}', "malformed", ()),
        (b'{"result": ' + b"[" * 129 + b"]" * 129 + b"}", "malformed", ()),
        (b"[]", "invalid", ("",)),
        (b"null", "invalid", ("",)),
        (b'{"results": 1}', "invalid", ("/results",)),
        (b'{"tasks": {}}', "invalid", ("/tasks",)),
        (b'{"tasks": [1]}', "invalid", ("/tasks/0",)),
        (b'{"next": ""}', "invalid", ("/next",)),
        (b'{"result": "AA=", "result_encoding": "base64"}', "invalid", ("/result",)),
        (b'{"result": "\xc3\xa9", "result_encoding": "base64"}', "invalid", ("/result",)),
        (b'{"result": ["AA=="], "result_encoding": "base64"}', "invalid", ("/result",)),
        (b'{"result_encoding": "base64"}', "invalid", ("/result",)),
        (b'{"result": "AA==", "result_encoding": "gzip"}', "invalid", ("/result_encoding",)),
        (b'{"result": 1, "result_truncated": 1}', "invalid", ("/result_truncated",)),
        (b'{"result_truncated": true}', "invalid", ("/result_truncated",)),
        (b'{"on_complete": {"payload": 1}}', "invalid", ("/on_complete/queue",)),
    ],
)
async def test_a_body_that_breaks_a_rule_is_refused_and_the_lease_stays(
    api: Api, body: bytes, code: str, pointers: tuple[str, ...]
) -> None:
    leased = await leased_task(api)
    problem(await complete(api, leased, body), 400 if code == "malformed" else 422, code, *pointers)
    assert (await api.task(leased["id"]))["state"] == "running"
    assert good(await say(api, leased, "complete"))["state"] == "succeeded"


async def test_every_task_at_fault_is_named_by_its_place(api: Api) -> None:
    leased = await leased_task(api)
    queue = await api.queue()
    tasks = [unit(queue), unit("nowhere"), {"queue": queue, "payload": 1}, unit(queue, priority=101), unit(queue)]
    places = ("/tasks/1/queue", "/tasks/2/idempotency_key", "/tasks/3/priority")
    problem(await say(api, leased, "complete", {"tasks": tasks}), 422, "invalid", *places)
    assert await take(api, queue) == []
    good(await say(api, leased, "complete", {"tasks": tasks[:1]}))
    assert len(await take(api, queue)) == 1


async def test_a_body_of_another_type_is_refused(api: Api) -> None:
    leased = await leased_task(api)
    for content_type in ("text/plain", "application/vnd.sluice.tasks+json"):
        reply = await complete(api, leased, b'{"result": 1}', content_type)
        problem(reply, 415, "unsupported_media_type")
    assert good(await complete(api, leased, b'{"result": 1}', "application/json; charset=utf-8"))["result"] == 1


async def test_a_body_may_have_four_mebibytes_and_no_more(api: Api) -> None:
    leased, queue = await leased_task(api), await api.queue()
    tasks = [unit(queue, idempotency_key=str(n), payload="x" * (MIB - 100)) for n in range(4)]
    body = json.dumps({"tasks": tasks}).encode()
    assert 4 * MIB - 1000 < len(body) < 4 * MIB
    problem(await complete(api, leased, body + b" " * (4 * MIB + 1 - len(body))), 413, "too_large")
    good(await complete(api, leased, body + b" " * (4 * MIB - len(body))))
    assert len(await take(api, queue, max_tasks=9)) == 4


async def test_more_tasks_than_a_page_may_have_are_too_large(api: Api) -> None:
    leased = await leased_task(api)
    problem(await complete(api, leased, b'{"tasks": [' + b",".join([b"1"] * 10_001) + b"]}"), 413, "too_large")
    good(await say(api, leased, "complete"))


async def test_payloads_leave_as_the_bytes_they_came_in(api: Api) -> None:
    leased, queue = await leased_task(api), await api.queue()
    span = b'{"b" : 1.50, "a":"\\u00e9",  "big": 123456789012345678901234567890}'
    body = b'{"tasks": [{"payload": %s, "queue": "%s", "idempotency_key": "k"}]}' % (span, queue.encode())
    good(await complete(api, leased, body))
    (task,) = await take(api, queue)
    assert b'"payload":' + span + b"," in (await api.get(f"/tasks/{task['id']}")).content


async def test_a_continuation_is_leased_with_its_cursor(api: Api) -> None:
    queue = await api.queue()
    await api.enqueue(queue, {"list": "all"})
    first = await take_one(api, queue)
    assert first["cursor"] is None
    good(await say(api, first, "complete", {"next": "Zürich 2"}))
    second = await take_one(api, queue)
    assert (second["cursor"], second["payload"]) == ("Zürich 2", {"list": "all"})
    good(await say(api, second, "complete", {"result": 1, "tasks": [], "next": None, "on_complete": None}))
    assert await take(api, queue) == []


@pytest.mark.parametrize("follow", [False, True])
async def test_a_result_may_be_bytes_and_may_be_cut(api: Api, follow: bool) -> None:
    more = {"tasks": [unit(await api.queue())]} if follow else {}
    for raw, truncated in ((b"\xff\x00", False), (b"\xff" * 65_536, True), (b"", False)):
        body = {"result": base64.b64encode(raw).decode(), "result_encoding": "base64", "result_truncated": truncated}
        leased = await leased_task(api)
        for shown in (good(await say(api, leased, "complete", body | more)), await api.task(leased["id"])):
            assert base64.b64decode(shown["result"]) == raw
            assert (shown["result_encoding"], shown["result_truncated"]) == ("base64", truncated)
    leased = await leased_task(api)
    body = {"result": base64.b64encode(b"\xff" * 65_537).decode(), "result_encoding": "base64"}
    problem(await say(api, leased, "complete", body), 413, "too_large")
    text = {"result": '{"a": [1, 2', "result_encoding": None, "result_truncated": True}
    shown = good(await say(api, leased, "complete", text | more))
    assert (shown["result"], shown["result_truncated"], "result_encoding" in shown) == ('{"a": [1, 2', True, False)
