"""Refusals: one shape for every code, clean answers to what does not exist, and never an error of ours."""

import asyncio
import json
import re
from typing import Any
from uuid import uuid4

import pytest

from tests.wire.api import Api, fresh, good, problem, raw, raw_code

pytestmark = pytest.mark.anyio

NOBODY = "019aa893-0a00-7238-9930-16b5add0f344"
ROUTES = {
    "/handlers": "GET, HEAD",
    "/handlers/x": "DELETE, GET, HEAD, PUT",
    "/handlers/x/enable": "POST",
    "/handlers/x/disable": "POST",
    "/handlers/x/rotate-secret": "POST",
    "/handlers/x/test": "POST",
    "/queues": "GET, HEAD",
    "/queues/x": "DELETE, GET, HEAD, PUT",
    "/queues/x/pause": "POST",
    "/queues/x/resume": "POST",
    "/queues/x/stats": "GET, HEAD",
    "/queues/x/tasks": "POST",
    "/queues/x/tasks/bulk": "POST",
    "/queues/x/purge": "POST",
    "/queues/x/redrive": "POST",
    "/tasks": "GET, HEAD",
    f"/tasks/{NOBODY}": "GET, HEAD, PATCH",
    f"/tasks/{NOBODY}/attempts": "GET, HEAD",
    f"/tasks/{NOBODY}/cancel": "POST",
    f"/tasks/{NOBODY}/retry": "POST",
    f"/tasks/{NOBODY}/renew": "POST",
    f"/tasks/{NOBODY}/complete": "POST",
    f"/tasks/{NOBODY}/fail": "POST",
    f"/tasks/{NOBODY}/release": "POST",
    "/queues/x/leases": "POST",
    "/limits": "GET, HEAD, PUT",
    "/limits/x": "DELETE, GET, HEAD, PUT",
    "/limits/x/pause": "POST",
    "/limits/x/resume": "POST",
    "/limits/x/keys": "GET, HEAD",
    "/limits/x/keys/k": "DELETE, GET, HEAD, PUT",
    "/queues/x/keys/k": "GET, HEAD, PUT",
    "/keys": "GET, HEAD, POST",
    "/keys/x": "DELETE, GET, HEAD",
    "/keys/x/rotate": "POST",
    "/status": "GET, HEAD",
    "/overview": "GET, HEAD",
    "/events": "GET, HEAD",
    "/series": "GET, HEAD",
    "/queues/x/series": "GET, HEAD",
    "/metrics": "GET, HEAD",
    "/health/live": "GET, HEAD",
    "/health/ready": "GET, HEAD",
    "/openapi.json": "GET, HEAD",
    "/docs": "GET, HEAD",
}


@pytest.mark.parametrize("path", ROUTES)
async def test_a_method_a_route_does_not_have_is_answered_with_those_it_has(api: Api, path: str) -> None:
    allowed = ROUTES[path].split(", ")
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"):
        if method in allowed:
            continue
        if method == "BREW":
            status, _, _ = await raw(api.url, f"BREW {path} HTTP/1.1\r\nhost: localhost\r\n\r\n".encode())
            assert status in (400, 405)
            continue
        body: dict[str, Any] = {"json": {}} if method in ("POST", "PUT", "PATCH") else {}
        reply = await api.client.request(method, path, **body)
        assert reply.headers["allow"] == ROUTES[path], method
        if method == "HEAD":
            assert reply.status_code == 405
        else:
            problem(reply, 405, "method_not_allowed")


ENDLESS = "/events"  # test_events.py asks for its head


@pytest.mark.parametrize("path", [path for path, allowed in ROUTES.items() if "HEAD" in allowed and path != ENDLESS])
async def test_head_answers_as_get_does_without_a_body(api: Api, path: str) -> None:
    get, head = await api.get(path), await api.client.head(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    assert head.headers["content-type"] == get.headers["content-type"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/queues/"),
        ("GET", "/queues/x/"),
        ("GET", "/health"),
        ("GET", "/favicon.ico"),
        ("GET", "/.env"),
        ("GET", "/queues/x/../../etc/passwd"),
        ("GET", "//queues"),
        ("GET", "/Queues"),
        ("POST", "/queues/a%2Fb/tasks"),
        ("GET", "/tasks/a/b/c"),
    ],
)
async def test_what_does_not_exist_yet_or_at_all_is_404(api: Api, method: str, path: str) -> None:
    body: dict[str, Any] = {"json": {"tasks": []}} if method != "GET" else {}
    problem(await api.client.request(method, path, **body), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "body", "pointer"),
    [
        ("GET", "/tasks?batch=x", None, "/batch"),
    ],
)
async def test_a_feature_to_come_is_refused_and_not_ignored(
    api: Api, method: str, path: str, body: object, pointer: str | None
) -> None:
    queue = await api.queue()
    task = await api.enqueue(queue)
    path = path.format(queue=queue, task=task["id"])
    reply = await api.client.request(method, path, **({} if body is None else {"json": body}))  # type: ignore[arg-type]
    if pointer is None:
        problem(reply, 405, "method_not_allowed")
    else:
        problem(reply, 422, "invalid", pointer)
    assert [item["id"] for item in await api.pages("/tasks", queue=queue)] == [task["id"]]
    assert await api.task(task["id"]) == task


async def test_a_feature_to_come_may_be_named_as_null(api: Api) -> None:
    queue = await api.queue()
    good(await api.post(f"/queues/{queue}/tasks", json={"payload": 1, "unique_key": None}), 201)


async def test_every_code_in_reach_has_one_shape(api: Api) -> None:
    """Those that need another setting (401, 403, 503) are in test_auth and test_operations."""
    queue = await api.queue(max_depth=1)
    await api.enqueue(queue, idempotency_key="k")
    found = {
        "malformed": await api.enqueue_bytes(queue, b"{"),
        "host_refused": await api.get("/queues", headers={"host": "evil.example"}),
        "not_found": await api.get("/nowhere"),
        "handler_not_found": await api.get(f"/handlers/{fresh('h')}"),
        "queue_not_found": await api.get(f"/queues/{fresh('q')}"),
        "task_not_found": await api.get(f"/tasks/{uuid4()}"),
        "method_not_allowed": await api.delete("/tasks"),
        "queue_in_use": await api.delete(f"/queues/{queue}"),
        "etag_mismatch": await api.put(f"/queues/{queue}", json={}, headers={"if-match": '"x"'}),
        "too_large": await api.enqueue_bytes(queue, b" " * 2_000_000),
        "unsupported_media_type": await api.post(f"/queues/{queue}/tasks", content=b"{}"),
        "invalid": await api.get("/tasks", params={"limit": "x"}),
        "idempotency_mismatch": await api.post(f"/queues/{queue}/tasks", json={"payload": 2, "idempotency_key": "k"}),
        "egress_denied": await api.put(f"/handlers/{fresh('h')}", json={"url": "http://169.254.169.254/"}),
        "queue_full": await api.post(f"/queues/{queue}/tasks", json={"payload": 2}),
        "headers_too_large": await api.get("/queues", headers={"x": "y" * 70_000}),
    }
    statuses = {
        **dict.fromkeys(("not_found", "handler_not_found", "queue_not_found", "task_not_found"), 404),
        **dict.fromkeys(("invalid", "idempotency_mismatch", "egress_denied"), 422),
        "malformed": 400,
        "host_refused": 403,
        "method_not_allowed": 405,
        "queue_in_use": 409,
        "etag_mismatch": 412,
        "too_large": 413,
        "unsupported_media_type": 415,
        "queue_full": 429,
        "headers_too_large": 431,
    }
    assert statuses.keys() == found.keys()
    for code, reply in found.items():
        shown = problem(reply, statuses[code], code)
        assert shown["type"].endswith(code)


async def test_refusals_of_every_route_keep_the_connection_usable(api: Api) -> None:
    queue = await api.queue()
    for _ in range(3):
        problem(await api.enqueue_bytes(queue, b"{"), 400, "malformed")
        problem(await api.get(f"/tasks/{NOBODY}"), 404, "task_not_found")
        await api.enqueue(queue)


@pytest.mark.parametrize(
    "path", ["/handlers/x", "/queues/x", "/limits", "/handlers/x/rotate-secret", "/handlers/x/test", "/queues/x/tasks"]
)
async def test_every_body_is_held_to_the_same_rules(api: Api, path: str) -> None:
    method = "PUT" if path in ("/handlers/x", "/queues/x", "/limits") else "POST"
    json_type = {"content-type": "application/json"}

    async def send(body: bytes, headers: dict[str, str] = json_type) -> Any:
        return await api.client.request(method, path, content=body, headers=headers)

    for body in (b"{", b'{"a": NaN}', b'{"a": 1, "a": 1}', b'{"a": "\\ud800"}', b"\xff", b'{"a":' * 500):
        problem(await send(body), 400, "malformed")
    for body in (b"[]", b"5", b'"x"', b'{"bogus": 1}'):
        problem(await send(body), 422, "invalid")
    problem(await send(b'{"bogus": 1}', {"content-type": "text/plain"}), 415, "unsupported_media_type")
    problem(await send(b" " * 2_000_000), 413, "too_large")
    problem(await api.client.request(method, path + "?bogus=1", json={}), 422, "invalid", "/bogus")


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /tasks/\xff\xfe HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /tasks?type=\xff HTTP/1.1\r\nhost: localhost\r\n\r\n",
        "GET /tasks/\u00e9 HTTP/1.1\r\nhost: localhost\r\n\r\n".encode(),
        b"GET /tasks/%ff%00%ed%a0%80 HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET http://localhost/queues/nobody HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /queues/nobody HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n\r\n",
        b"GET /queues/nobody HTTP/1.1\r\nhost: localhost\r\nx\x00y: 1\r\n\r\n",
        b"GET /queues/nobody HTTP/1.1\r\nhost: localhost\r\n : 1\r\n\r\n",
        b"GET /queues/nobody HTTP/9.9\r\nhost: localhost\r\n\r\n",
        b"GET  HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /queues/nobody HTTP/1.1\r\nhost: localhost\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
        b"GET /queues/nobody HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-key: x\r\nsec-websocket-version: 13\r\n\r\n",
        b"POST /queues/x/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        b"content-length: 2\r\ncontent-length: 3\r\n\r\n{}x",
        b"POST /queues/x/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}",
        b"POST /queues/x/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        b"content-length: -1\r\n\r\n{}",
        b"POST /queues/x/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        b"content-length: 99999999999999999999\r\n\r\n{}",
        b"POST /queues/x/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        b"transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        b"POST /queues/x/tasks HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"PUT /queues/x HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: 0\r\n\r\n",
        b"GET /tasks?" + b"&".join(b"a%d=1" % n for n in range(60)) + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /tasks?limit=%s HTTP/1.1\r\nhost: localhost\r\n\r\n" % (b"9" * 5000),
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"GET /queues/nobody HTTP/1.1\r\nhost: localhost\r\n" + b"a: b\r\n" * 200 + b"\r\n",
    ],
)
async def test_a_hostile_request_gets_a_4xx_problem(api: Api, request_bytes: bytes) -> None:
    status, headers, body = await raw(api.url, request_bytes)
    assert 400 <= status < 500, (status, body)
    assert headers["content-type"] == "application/problem+json"
    assert json.loads(body)["status"] == status


async def test_pipelined_requests_are_answered_in_order(api: Api) -> None:
    queue = await api.queue()
    body = b'{"payload":1}'
    one = (
        f"POST /queues/{queue}/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode() + body
    get = b"GET /queues/nobody HTTP/1.1\r\nhost: localhost\r\n\r\n"
    last = b"GET /limits HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
    host, port = api.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(one + get + one + last)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    assert re.findall(rb"HTTP/1\.1 (\d{3}) ", answer) == [b"201", b"404", b"201", b"200"]
    assert len(await api.pages("/tasks", queue=queue)) == 2


async def test_a_client_that_goes_away_in_mid_request_stores_nothing(api: Api) -> None:
    queue = await api.queue()
    host, port = api.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /queues/{queue}/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    writer.write(head.encode() + b'content-length: 13\r\n\r\n{"payload":1')
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    await api.enqueue(queue)
    assert len(await api.pages("/tasks", queue=queue)) == 1


async def test_http_1_0_is_served(api: Api) -> None:
    answer = await raw(api.url, b"GET /limits HTTP/1.0\r\nhost: localhost\r\n\r\n")
    assert answer[0] == 200
    assert raw_code(await raw(api.url, b"GET /nowhere HTTP/1.0\r\nhost: localhost\r\n\r\n")) == (404, "not_found")


async def test_every_answer_in_json_ends_its_line(api: Api) -> None:
    """Whoever types curl sees the prompt below it; a payload stays as it was."""
    queue = await api.queue()
    created = await api.enqueue_bytes(queue, b'{"payload":  [1, 2 ]}')
    path = f"/tasks/{created.json()['id']}"
    replies = [created, await api.get(path, params={"include": "payload"}), await api.get("/openapi.json")]
    replies += [
        await api.get(path) for path in ("/queues", f"/queues/{queue}", f"/queues/{queue}/stats", "/health/live")
    ]
    replies += [await api.get("/nowhere"), await api.put("/queues/x", json={"a": 1}), await api.delete(path)]
    replies.append(await api.post(f"/queues/{queue}/tasks/bulk", json={"tasks": [{"payload": 1}]}))
    replies.append(await api.post(f"/queues/{queue}/leases", json={}))
    for reply in replies:
        assert reply.content.endswith(b"}\n"), reply.url
        assert int(reply.headers["content-length"]) == len(reply.content)
    assert b'"payload":[1, 2 ],' in created.content
    status, headers, body = await raw(api.url, b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n")
    assert (status, body[-2:], headers["content-length"]) == (400, b"}\n", str(len(body)))
