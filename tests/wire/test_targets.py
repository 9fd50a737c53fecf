"""Tasks that say where and how they are delivered, as far as their handler allows."""

from typing import Any

import httpx2
import pytest

from tests.handlers import Handler, Received, Reply
from tests.wire.answers import FIXED_600, SECRET, is_signed
from tests.wire.api import AT_ONCE, Api, fresh, good, problem

pytestmark = pytest.mark.anyio


async def lane(api: Api, handler: Handler, targets: str, **queue: Any) -> tuple[str, str]:
    """A handler that allows this, and its queue."""
    named = await api.handler(handler.url, targets=targets, secret=SECRET, headers={"x-key": "s3cret"})
    return named, await api.queue(named, **queue)


async def send(api: Api, handler: Handler, queue: str, target: Any, payload: Any = None, **task: Any) -> Received:
    task = await api.enqueue(queue, payload, target=target, **task)
    [request] = await handler.received(task=task["id"])
    assert (await api.ended(task["id"]))["state"] == "succeeded"
    return request


async def refused(api: Api, queue: str, target: Any, *pointers: str, code: str = "invalid") -> None:
    reply = await api.post(f"/queues/{queue}/tasks", json={"payload": 1, "target": target})
    problem(reply, 422, code, *pointers)


async def test_a_path_goes_below_the_handlers_url_with_all_that_is_the_handlers(api: Api, handler: Handler) -> None:
    _, queue = await lane(api, handler, "path")
    target = {"path": "/orders/7?full=1", "method": "PUT", "headers": {"X-A": "target", "x-key": "mine"}}
    request = await send(api, handler, queue, target, {"n": 1}, headers={"x_a": "task", "x-b": "task"})
    assert (request.method, request.path, request.body) == ("PUT", "/hook/orders/7?full=1", b'{"n":1}')
    headers = request.headers
    assert (headers["x-a"], headers["x-b"], headers["x-key"]) == ("target", "task", "s3cret")
    assert "x_a" not in headers and headers["content-type"] == "application/json"
    assert is_signed(request, request.body)
    task = await api.task(request.task)
    assert task["target"] == target


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "OPTIONS"])
async def test_methods_without_a_body_send_one_only_if_the_payload_is_not_null(
    api: Api, handler: Handler, method: str
) -> None:
    handler.script(Reply(204, body=b""))
    _, queue = await lane(api, handler, "path")
    request = await send(api, handler, queue, {"method": method})
    assert (request.method, request.path, request.body) == (method, "/hook", b"")
    assert not {"content-type", "content-length"} & request.headers.keys()
    assert is_signed(request, b"")
    request = await send(api, handler, queue, {"method": method}, {"q": 1})
    assert (request.method, request.body, request.headers["content-type"]) == (method, b'{"q":1}', "application/json")
    assert is_signed(request, request.body)
    assert (await send(api, handler, queue, {"method": "PATCH"})).body == b"null"


async def test_any_url_is_called_but_the_handlers_own_headers_stay_at_its_own_host(api: Api, handler: Handler) -> None:
    _, queue = await lane(api, handler, "any")
    async with Handler().serving() as elsewhere:
        host = elsewhere.url.removesuffix("/hook")
        request = await send(api, elsewhere, queue, {"url": f"{host}/x?y=1", "headers": {"authorization": "mine"}}, 1)
        assert (request.method, request.path, request.body) == ("POST", "/x?y=1", b"1")
        assert request.headers["host"] == host.removeprefix("http://")
        assert request.headers["authorization"] == "mine" and "x-key" not in request.headers
        assert is_signed(request, b"1")
        elsewhere.answer(Reply(302, {"location": handler.url}), Reply(200))
        task = await api.enqueue(queue, target={"url": elsewhere.url, "method": "GET"}, retry=AT_ONCE)
        await api.ended(task["id"])
        assert len(await elsewhere.received(2, task=task["id"])) == 2, "a redirect is no success, and is not followed"
    assert not handler.requests
    home = handler.url.removesuffix("/hook") + "/other"
    assert (await send(api, handler, queue, {"url": home})).headers["x-key"] == "s3cret"
    assert (await send(api, handler, queue, {"path": "/x"})).path == "/hook/x"


async def test_what_the_handler_does_not_allow_is_refused_by_name(api: Api, handler: Handler) -> None:
    _, own = await lane(api, handler, "own")
    for target in ({"path": "/x"}, {"url": "http://127.0.0.1/"}, {"method": "GET"}, {}):
        await refused(api, own, target, "/target")
    _, path = await lane(api, handler, "path")
    await refused(api, path, {"url": "http://127.0.0.1/"}, "/target/url")
    await refused(api, await api.queue(), {"path": "/x"}, "/target")
    named, _ = await lane(api, handler, "path")
    task = await api.enqueue(own, target={"path": "/x"}, handler=named, delay_seconds=600)
    assert task["target"] == {"path": "/x", "method": "POST"}
    assert "targets" in good(await api.get(f"/handlers/{named}"))
    problem(
        await api.put(f"/handlers/{fresh('h')}", json={"url": handler.url, "targets": "all"}),
        422,
        "invalid",
        "/targets",
    )


async def test_what_is_wrong_with_a_target_is_said_by_name(api: Api, handler: Handler) -> None:
    _, queue = await lane(api, handler, "any")
    for path in ("/../x", "http://b/x", "//b/x", "/a%2fb", "/a\nb", "/a\x00b", ""):
        await refused(api, queue, {"path": path}, "/target/path")
    for url in (
        "http://u:p@127.0.0.1/",
        "ftp://127.0.0.1/",
        "/x",
        "http://127.0.0.1/ x",
        "http://a b/",
        "http://1.2.3.4.5/",
    ):
        await refused(api, queue, {"url": url}, "/target/url")
    await refused(api, queue, {"path": "/x", "url": "http://127.0.0.1/"}, "/target/url")
    await refused(api, queue, {"method": "TRACE"}, "/target/method")
    await refused(api, queue, {"method": "get"}, "/target/method")
    await refused(api, queue, {"headers": {"webhook-id": "x"}}, "/target/headers/webhook-id")
    await refused(api, queue, {"headers": {"x-a": "b\r\nc"}}, "/target/headers/x-a")
    await refused(api, queue, {"host": "x"}, "/target/host")
    await refused(api, queue, {"url": "http://[::ffff:169.254.169.254]/"}, "/target/url", code="egress_denied")
    await refused(api, queue, {"url": "http://2852039166/latest"}, "/target/url", code="egress_denied")
    await refused(api, queue, {"url": "http://10.0.0.1/"}, "/target/url", code="egress_denied")
    many = [{"payload": 1, "target": {"path": "/ok"}}, {"payload": 1, "target": {"path": "/.."}}]
    first, second = good(await api.post(f"/queues/{queue}/tasks/bulk", json={"tasks": many}))["results"]
    assert (first["status"], second["status"]) == (201, 422)
    assert [error["pointer"] for error in second["problem"]["errors"]] == ["/tasks/1/target/path"]


async def test_a_target_is_judged_again_at_each_attempt(api: Api, handler: Handler) -> None:
    named, queue = await lane(api, handler, "any", retry=FIXED_600)
    task = await api.enqueue(queue, target={"path": "/x"}, delay_seconds=600)
    there = await api.enqueue(queue, target={"url": "http://localhost.invalid/"})
    assert (await api.until(there["id"], "scheduled"))["last_error"].startswith("localhost.invalid does not resolve")
    good(await api.put(f"/handlers/{named}", json={"url": handler.url, "targets": "own"}))
    good(await api.retry(task["id"]))
    failed = await api.until(task["id"], "scheduled", attempt=1)
    assert failed["last_error"].startswith("nothing was sent: /target: is not allowed by the task's handler")
    [attempt] = await api.attempts(task["id"])
    assert (attempt["outcome"], attempt["status"]) == ("failed", None)
    assert not handler.requests


async def test_a_name_is_resolved_and_judged_for_each_attempt(api: Api, handler: Handler) -> None:
    """The replica of the tests may call loopback by address, but a name must be judged by what it resolves to."""
    _, queue = await lane(api, handler, "any", retry=FIXED_600)
    url = handler.url.replace("127.0.0.1", "localhost")
    assert (await send(api, handler, queue, {"url": url})).path == "/hook"
    for name in ("metadata.google.internal", "instance-data"):
        await refused(api, queue, {"url": f"http://{name}/"}, "/target/url", code="egress_denied")


async def test_a_patch_replaces_a_target_and_judges_it_by_the_handler_it_will_have(api: Api, handler: Handler) -> None:
    _, queue = await lane(api, handler, "path")
    strict, _ = await lane(api, handler, "own")
    task = await api.enqueue(queue, target={"path": "/a", "method": "PUT"}, delay_seconds=600)

    async def patch(**fields: Any) -> httpx2.Response:
        return await api.client.patch(f"/tasks/{task['id']}", json=fields)

    assert good(await patch(target={"path": "/b"}))["target"] == {"path": "/b", "method": "POST"}
    problem(await patch(target={"path": "/../b"}), 422, "invalid", "/target/path")
    problem(await patch(target={"url": "http://127.0.0.1/"}), 422, "invalid", "/target/url")
    problem(await patch(handler=strict), 422, "invalid", "/target")
    moved = good(await patch(handler=strict, target=None))
    assert (moved["handler"], moved["target"]) == (strict, None)
    problem(await patch(target={"path": "/b"}), 422, "invalid", "/target")
    good(await patch(handler=None, target={"path": "/c"}, run_at=None))
    [request] = await handler.received(task=task["id"])
    assert request.path == "/hook/c"


async def test_follow_ups_and_schedules_name_targets_too(api: Api, handler: Handler) -> None:
    _, queue = await lane(api, handler, "path", retry=FIXED_600)
    page = {
        "tasks": [{"queue": queue, "idempotency_key": "k", "payload": None, "target": {"path": "/f", "method": "GET"}}]
    }
    handler.answer(
        Reply(200, {"content-type": "application/vnd.sluice.tasks+json"}, httpx2.Response(200, json=page).content)
    )
    await api.enqueue(queue)
    _, followed = await handler.received(2)
    assert (followed.method, followed.path, followed.body) == ("GET", "/hook/f", b"")
    name = fresh("s")
    definition = {"queue": queue, "cron": "@yearly", "payload": None, "target": {"path": "/s", "method": "DELETE"}}
    saved = good(await api.put(f"/schedules/{name}", json=definition), 201)
    assert saved["target"] == good(await api.get(f"/schedules/{name}"))["target"] == definition["target"]
    good(await api.post(f"/schedules/{name}/trigger"))
    fired = (await handler.received(3))[2]
    assert (fired.method, fired.path, fired.headers["sluice-schedule"]) == ("DELETE", "/hook/s", name)
    worse = definition | {"target": {"url": "http://127.0.0.1/"}}
    problem(await api.put(f"/schedules/{name}", json=worse), 422, "invalid", "/target/url")
    plan = {"schedules": {name: worse}}
    problem(await api.post("/definitions/plan", json=plan), 422, "invalid", f"/schedules/{name}/target/url")
    plan["handlers"] = {"to-be": {"url": handler.url, "targets": "any"}}
    plan["schedules"][name] = worse | {"handler": "to-be"}
    good(await api.post("/definitions/plan", json=plan))


async def test_a_head_ends_with_its_head_whatever_length_it_announces(api: Api, handler: Handler) -> None:
    handler.script(Reply(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 5000\r\netag: x\r\n\r\n"))
    _, queue = await lane(api, handler, "path")
    task = await api.enqueue(queue, target={"method": "HEAD"}, timeout_seconds=20)
    ended = await api.ended(task["id"])
    assert (ended["state"], ended["result"]) == ("succeeded", None)
    [attempt] = await api.attempts(task["id"])
    assert (attempt["outcome"], attempt["status"]) == ("succeeded", 200)


async def test_the_target_is_part_of_what_an_idempotency_key_stands_for(api: Api, handler: Handler) -> None:
    _, queue = await lane(api, handler, "path", retry=FIXED_600)

    async def post(path: str) -> httpx2.Response:
        task = {"payload": 1, "idempotency_key": "k", "target": {"path": path}, "delay_seconds": 600}
        return await api.post(f"/queues/{queue}/tasks", json=task)

    first = good(await post("/a"), 201)
    assert good(await post("/a")) == first
    problem(await post("/b"), 422, "idempotency_mismatch")
