"""`/handlers`: definitions, secrets, enabledness, and the request that tries one out."""

import asyncio
import base64
import json
from typing import Any

import pytest
from standardwebhooks import Webhook

from tests.handlers import Handler, Received, Reply
from tests.support import poll
from tests.wire.api import AT_ONCE, Api, fresh, good, problem

pytestmark = pytest.mark.anyio

DEFAULTS: dict[str, Any] = {
    "kind": "webhook",
    "timeout_seconds": 30.0,
    "headers": {},
    "max_concurrency": None,
    "fatal_statuses": [],
    "group": None,
    "rate": None,
    "limits": [],
    "description": None,
    "targets": "own",
    "breaker": None,
    "adaptive": None,
    "park_on_retry_after": "task",
    "enabled": True,
    "disabled_at": None,
    "disabled_reason": None,
}
FULL: dict[str, Any] = {
    "url": "https://example.com/hook?x=1",
    "timeout_seconds": 2.5,
    "headers": {"X-Key": "s3cret", "authorization": "Basic abc"},
    "max_concurrency": 3,
    "fatal_statuses": [400, 404],
    "description": "the shop",
    "targets": "path",
}
STAMPS = {"created_at", "updated_at"}
SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef01234567").decode()


async def test_a_put_creates_with_the_defaults_and_shows_the_secret_this_once(api: Api) -> None:
    name = fresh("h")
    reply = await api.put(f"/handlers/{name}", json={"url": "https://example.com/"})
    shown = good(reply, 201)
    assert shown.pop("secret").startswith("whsec_")
    assert shown == DEFAULTS | {key: shown[key] for key in STAMPS} | {"name": name, "url": "https://example.com/"}
    read = await api.get(f"/handlers/{name}")
    assert good(read) == shown
    assert read.headers["etag"] == reply.headers["etag"]
    assert good(await api.put(f"/handlers/{name}", json={"url": "https://example.com/"}))["secret"] is None


async def test_a_put_replaces_and_absent_fields_return_to_their_defaults(api: Api) -> None:
    name = fresh("h")
    first = good(await api.put(f"/handlers/{name}", json=FULL), 201)
    hidden = FULL | {"headers": {"X-Key": "***", "authorization": "***"}}
    assert {key: first[key] for key in FULL} == hidden
    assert "s3cret" not in (await api.get(f"/handlers/{name}")).text
    second = good(await api.put(f"/handlers/{name}", json={"url": "http://other.example/"}))
    assert {key: second[key] for key in DEFAULTS} == DEFAULTS
    assert second["created_at"] == first["created_at"] and second["updated_at"] > first["updated_at"]


async def test_enabledness_and_secret_survive_a_put(api: Api, handler: Handler) -> None:
    name = fresh("h")
    secret = good(await api.put(f"/handlers/{name}", json={"url": handler.url}), 201)["secret"]
    disabled = good(await api.post(f"/handlers/{name}/disable"))
    assert disabled["enabled"] is False and disabled["disabled_at"] and disabled["disabled_reason"]
    again = good(await api.put(f"/handlers/{name}", json={"url": handler.url, "description": "x"}))
    assert (again["enabled"], again["disabled_at"]) == (False, disabled["disabled_at"])
    enabled = good(await api.post(f"/handlers/{name}/enable", json={}))
    assert (enabled["enabled"], enabled["disabled_at"], enabled["disabled_reason"]) == (True, None, None)
    good(await api.post(f"/handlers/{name}/test"))
    [request] = await handler.received()
    Webhook(secret).verify(request.body, dict(request.headers))


async def test_enable_and_disable_can_be_repeated(api: Api) -> None:
    name = await api.handler("https://example.com/")
    first = good(await api.post(f"/handlers/{name}/disable"))
    assert good(await api.post(f"/handlers/{name}/disable")) == first
    assert good(await api.post(f"/handlers/{name}/enable")) == good(await api.post(f"/handlers/{name}/enable"))


async def test_the_etag_is_strong_over_the_definition_and_guards_changes(api: Api) -> None:
    name = fresh("h")
    problem(await api.put(f"/handlers/{name}", json=FULL, headers={"if-match": "*"}), 412, "etag_mismatch")
    problem(await api.get(f"/handlers/{name}"), 404, "handler_not_found")
    made = await api.put(f"/handlers/{name}", json=FULL, headers={"if-none-match": "*"})
    tag = made.headers["etag"]
    assert made.status_code == 201 and tag.startswith('"') and tag.endswith('"')
    problem(await api.put(f"/handlers/{name}", json=FULL, headers={"if-none-match": "*"}), 412, "etag_mismatch")
    same = await api.put(f"/handlers/{name}", json=FULL)
    assert same.headers["etag"] == tag
    await api.post(f"/handlers/{name}/disable")
    assert (await api.get(f"/handlers/{name}")).headers["etag"] == tag
    changed = await api.put(f"/handlers/{name}", json=FULL | {"max_concurrency": 4}, headers={"if-match": tag})
    assert changed.status_code == 200 and changed.headers["etag"] != tag
    problem(await api.put(f"/handlers/{name}", json=FULL, headers={"if-match": tag}), 412, "etag_mismatch")
    weak = "W/" + changed.headers["etag"]
    problem(await api.put(f"/handlers/{name}", json=FULL, headers={"if-match": weak}), 412, "etag_mismatch")
    assert good(await api.get(f"/handlers/{name}"))["max_concurrency"] == 4
    problem(await api.delete(f"/handlers/{name}", headers={"if-match": tag}), 412, "etag_mismatch")
    gone = await api.delete(f"/handlers/{name}", headers={"if-match": f'"x", {changed.headers["etag"]}'})
    assert (gone.status_code, gone.content) == (204, b"")


async def test_of_racing_creations_one_creates(api: Api, other: Api) -> None:
    name = fresh("h")
    replies = await asyncio.gather(
        *(side.put(f"/handlers/{name}", json=FULL, headers={"if-none-match": "*"}) for side in (api, other) * 4)
    )
    assert sorted(reply.status_code for reply in replies) == [201] + [412] * 7


async def test_a_deleted_handler_is_gone_and_its_name_free(api: Api) -> None:
    name = await api.handler("https://example.com/")
    assert (await api.delete(f"/handlers/{name}")).status_code == 204
    for reply in (
        await api.get(f"/handlers/{name}"),
        await api.delete(f"/handlers/{name}"),
        *[await api.post(f"/handlers/{name}/{verb}") for verb in ("enable", "disable", "rotate-secret", "test")],
    ):
        problem(reply, 404, "handler_not_found")
    good(await api.put(f"/handlers/{name}", json={"url": "https://example.com/"}), 201)


async def test_a_handler_in_use_is_not_deleted(api: Api, handler: Handler) -> None:
    named_by_queue, named_by_task = await api.handler(handler.url), await api.handler(handler.url)
    queue = await api.queue(named_by_queue)
    good(await api.post(f"/queues/{queue}/pause"))
    task = await api.enqueue(queue, handler=named_by_task)
    problem(await api.delete(f"/handlers/{named_by_queue}"), 409, "handler_in_use")
    problem(await api.delete(f"/handlers/{named_by_task}"), 409, "handler_in_use")
    good(await api.cancel(task["id"]))
    assert (await api.delete(f"/handlers/{named_by_task}")).status_code == 204
    assert (await api.delete(f"/queues/{queue}")).status_code == 204
    assert (await api.delete(f"/handlers/{named_by_queue}")).status_code == 204


@pytest.mark.parametrize(
    ("field", "value", "pointer"),
    [
        ("url", "ftp://example.com/", "/url"),
        ("url", "example.com", "/url"),
        ("url", "https://", "/url"),
        ("url", "https://user:pass@example.com/", "/url"),
        ("url", "https://example.com/#x", "/url"),
        ("url", "https://example.com/ x", "/url"),
        ("url", "https://example.com:99999/", "/url"),
        ("url", "https://example.com/" + "x" * 3000, "/url"),
        ("url", None, "/url"),
        ("url", 5, "/url"),
        ("url", "https://exa\u0000mple.com/", "/url"),
        ("timeout_seconds", 0, "/timeout_seconds"),
        ("timeout_seconds", -1, "/timeout_seconds"),
        ("timeout_seconds", 43_201, "/timeout_seconds"),
        ("timeout_seconds", "30", "/timeout_seconds"),
        ("timeout_seconds", True, "/timeout_seconds"),
        ("max_concurrency", 0, "/max_concurrency"),
        ("max_concurrency", 1.5, "/max_concurrency"),
        ("max_concurrency", 10**30, "/max_concurrency"),
        ("fatal_statuses", [99], "/fatal_statuses/0"),
        ("fatal_statuses", [400, "404"], "/fatal_statuses/1"),
        ("fatal_statuses", [400] * 101, "/fatal_statuses"),
        ("headers", {"x": 1}, "/headers/x"),
        ("headers", {"": "x"}, "/headers/"),
        ("headers", {"x y": "x"}, "/headers/x y"),
        ("headers", {"x": "a\r\nhost: evil"}, "/headers/x"),
        ("headers", {"x": "caf\u00e9"}, "/headers/x"),
        ("headers", {"X-A": "1", "x-a": "2"}, "/headers/x-a"),
        ("headers", {f"x-{n}": "1" for n in range(51)}, "/headers"),
        ("secret", "hunter2", "/secret"),
        ("secret", "whsec_short", "/secret"),
        ("description", "x" * 1001, "/description"),
        ("description", "a\u0000b", "/description"),
        ("enabled", False, "/enabled"),
        ("unknown", 1, "/unknown"),
    ],
)
async def test_a_definition_that_breaks_a_rule_is_refused_and_nothing_is_stored(
    api: Api, field: str, value: object, pointer: str
) -> None:
    name = fresh("h")
    body = {"url": "https://example.com/", field: value}
    problem(await api.put(f"/handlers/{name}", json=body), 422, "invalid", pointer)
    problem(await api.get(f"/handlers/{name}"), 404, "handler_not_found")


@pytest.mark.parametrize(
    "reserved",
    [
        *("Host", "content-type", "Content-Length", "connection", "Transfer-Encoding", "webhook-id", "Webhook-X"),
        *("sluice-x", "traceparent", "TraceState", "idempotency-key", "x-correlation-id"),
        *("webhook_signature", "Sluice_Lease_Token"),
    ],
)
async def test_reserved_headers_are_refused(api: Api, reserved: str) -> None:
    body = {"url": "https://example.com/", "headers": {reserved: "x"}}
    problem(await api.put(f"/handlers/{fresh('h')}", json=body), 422, "invalid", f"/headers/{reserved}")


async def test_every_violation_is_named(api: Api) -> None:
    body = {"url": "ftp://x/", "timeout_seconds": 0.01, "headers": {"host": "x"}, "max_concurrency": 1}
    found = problem(await api.put(f"/handlers/{fresh('h')}", json=body | {"bogus": 1}), 422, "invalid")
    assert {error["pointer"] for error in found["errors"]} >= {"/timeout_seconds", "/bogus"}


@pytest.mark.parametrize(
    "url",
    [
        *("http://10.0.0.1/", "http://192.168.1.1/", "http://[fd00::1]/", "http://0.0.0.0/", "http://0x0a000001/"),
        *("http://169.254.169.254/latest", "http://metadata.google.internal/", "http://[::ffff:10.0.0.1]/"),
    ],
)
async def test_a_literal_that_may_not_be_called_is_refused_when_saved(api: Api, url: str) -> None:
    name = fresh("h")
    problem(await api.put(f"/handlers/{name}", json={"url": url}), 422, "egress_denied", "/url")
    problem(await api.get(f"/handlers/{name}"), 404, "handler_not_found")


async def test_a_mask_that_comes_back_does_not_replace_a_credential(api: Api) -> None:
    name = fresh("h")
    good(await api.put(f"/handlers/{name}", json=FULL), 201)
    shown = good(await api.get(f"/handlers/{name}"))
    back = {key: shown[key] for key in FULL}
    problem(await api.put(f"/handlers/{name}", json=back), 422, "invalid")


async def test_a_secret_of_one_s_own_signs_and_is_not_shown(api: Api, handler: Handler) -> None:
    name = fresh("h")
    assert good(await api.put(f"/handlers/{name}", json={"url": handler.url, "secret": SECRET}), 201)["secret"] is None
    good(await api.post(f"/handlers/{name}/test"))
    [request] = await handler.received()
    Webhook(SECRET).verify(request.body, dict(request.headers))


async def test_a_rotation_signs_twice_until_its_overlap_is_over(api: Api, handler: Handler) -> None:
    name = fresh("h")
    old = good(await api.put(f"/handlers/{name}", json={"url": handler.url}), 201)["secret"]
    queue = await api.queue(name)
    rotated = good(await api.post(f"/handlers/{name}/rotate-secret"))
    assert rotated["overlap_seconds"] == 86_400 and rotated["secret"] not in ("", old)
    task = await api.enqueue(queue, {"n": 1})
    [request] = await handler.received(task=task["id"])
    assert request.headers["webhook-signature"].count("v1,") == 2
    assert "  " not in request.headers["webhook-signature"]
    for secret in (old, rotated["secret"]):
        Webhook(secret).verify(request.body, dict(request.headers))
    last = good(await api.post(f"/handlers/{name}/rotate-secret", json={"overlap_seconds": 0}))["secret"]
    task = await api.enqueue(queue, {"n": 2})
    [request] = await handler.received(task=task["id"])
    assert request.headers["webhook-signature"].count("v1,") == 1
    Webhook(last).verify(request.body, dict(request.headers))


async def test_an_overlap_ends_by_itself(api: Api, handler: Handler) -> None:
    name = await api.handler(handler.url)
    queue = await api.queue(name)
    secret = good(await api.post(f"/handlers/{name}/rotate-secret", json={"overlap_seconds": 0.4}))["secret"]

    async def signed_once() -> Received | None:
        task = await api.enqueue(queue)
        [request] = await handler.received(task=task["id"])
        return request if request.headers["webhook-signature"].count("v1,") == 1 else None

    request = await poll(signed_once)
    assert request is not None
    Webhook(secret).verify(request.body, dict(request.headers))
    assert handler.requests[0].headers["webhook-signature"].count("v1,") == 2


async def test_a_secret_given_later_signs_alone_from_then_on(api: Api, handler: Handler) -> None:
    name = await api.handler(handler.url)
    queue = await api.queue(name)
    good(await api.post(f"/handlers/{name}/rotate-secret"))
    good(await api.put(f"/handlers/{name}", json={"url": handler.url, "secret": SECRET}))
    task = await api.enqueue(queue)
    [request] = await handler.received(task=task["id"])
    assert request.headers["webhook-signature"].count("v1,") == 1
    Webhook(SECRET).verify(request.body, dict(request.headers))


@pytest.mark.parametrize("overlap", [-1, "86400", 10**9, True, None])
async def test_an_overlap_that_is_none_is_refused(api: Api, overlap: object) -> None:
    name = await api.handler("https://example.com/")
    reply = await api.post(f"/handlers/{name}/rotate-secret", json={"overlap_seconds": overlap})
    problem(reply, 422, "invalid", "/overlap_seconds")


async def test_the_test_request_shows_both_sides_and_counts_nowhere(api: Api, handler: Handler) -> None:
    name = fresh("h")
    secret = good(await api.put(f"/handlers/{name}", json={"url": handler.url, "headers": {"x-key": "s3cret"}}), 201)[
        "secret"
    ]
    handler.answer(Reply(418, {"x-tea": "pot"}, b"short and stout"))
    reply = await api.post(f"/handlers/{name}/test", content=b'{"payload": [1,  2.50]}', headers=JSON)
    shown = good(reply)
    [request] = handler.requests
    assert request.body == b"[1,  2.50]" and request.headers["x-key"] == "s3cret"
    Webhook(secret).verify(request.body, dict(request.headers))
    assert "s3cret" not in reply.text
    sent = {key: value for key, value in request.headers.items() if key not in FRAMING} | {"x-key": "***"}
    assert shown["sent"] == {"url": handler.url, "headers": sent, "body": "[1,  2.50]"}
    assert (shown["received"]["status"], shown["received"]["body"]) == (418, "short and stout")
    assert shown["received"]["headers"]["x-tea"] == "pot"
    assert (shown["outcome"], shown["received"]["truncated"]) == ("failed", False) and shown["error"]
    problem(await api.get(f"/tasks/{request.task}"), 404, "task_not_found")


async def test_without_a_payload_an_example_of_its_queues_is_sent(api: Api, handler: Handler) -> None:
    name = await api.handler(handler.url)

    async def sent() -> str:
        shown = good(await api.post(f"/handlers/{name}/test"))
        assert handler.requests[-1].body.decode() == shown["sent"]["body"]
        return str(shown["sent"]["body"])

    assert await sent() == '{"test": true}'
    plain: list[Any] = [True, {"type": "object"}, {"examples": []}, {"properties": {"examples": {}}}]
    for schema in plain:
        await api.queue(name, payload_schema=schema)
        assert await sent() == '{"test": true}'
    await api.queue(name, payload_schema={"examples": [{"to": "ada", "n": 1.0}, 2]})
    assert await sent() == '{"to":"ada","n":1.0}'
    good(await api.post(f"/handlers/{name}/test", content=b'{"payload": null}', headers=JSON))
    assert handler.requests[-1].body == b"null", "whoever wants null says so"


JSON = {"content-type": "application/json"}
FRAMING = ("host", "content-length", "accept-encoding")


async def test_the_test_request_goes_to_a_disabled_handler_and_a_410_disables_nothing(
    api: Api, handler: Handler
) -> None:
    name = await api.handler(handler.url)
    handler.answer(Reply(410))
    assert good(await api.post(f"/handlers/{name}/test"))["received"]["status"] == 410
    assert good(await api.get(f"/handlers/{name}"))["enabled"] is True
    good(await api.post(f"/handlers/{name}/disable"))
    assert good(await api.post(f"/handlers/{name}/test"))["outcome"] == "succeeded"


async def test_the_test_request_tells_why_nothing_came_back(api: Api, handler: Handler) -> None:
    refused = good(await api.post(f"/handlers/{await api.handler('http://127.0.0.1:1/')}/test"))
    assert (refused["received"], refused["outcome"]) == (None, "unreachable") and refused["error"]
    never = asyncio.Event()
    handler.script(Reply(until=never))
    slow = good(await api.post(f"/handlers/{await api.handler(handler.url, timeout_seconds=0.1)}/test"))
    assert (slow["received"], slow["outcome"]) == (None, "timeout") and slow["error"]


async def test_a_change_of_the_url_holds_from_its_answer(api: Api, handler: Handler, start_handler: Any) -> None:
    moved = await start_handler()
    name = await api.handler(handler.url)
    queue = await api.queue(name, retry=AT_ONCE)
    await handler.received(task=(await api.enqueue(queue))["id"])
    good(await api.put(f"/handlers/{name}", json={"url": moved.url}))
    task = await api.enqueue(queue)
    await moved.received(task=task["id"])
    assert task["id"] not in [request.task for request in handler.requests]


async def test_names_keep_to_their_alphabet(api: Api) -> None:
    for name in ("a", "0", "a.b_c-d", "x" * 100):
        reply = await api.put(f"/handlers/{name}", json={"url": "https://example.com/"})
        assert reply.status_code in (200, 201), reply.text
    for name in ("-a", ".a", "_a", "x" * 101, "a b", "a%00", "%C3%A9", "a%0A", "a%FF"):
        problem(await api.put(f"/handlers/{name}", json={"url": "https://example.com/"}), 422, "invalid", "/name")


async def test_a_payload_for_the_test_is_held_to_the_rules_of_payloads(api: Api, handler: Handler) -> None:
    name = await api.handler(handler.url)
    deep = b"[" * 129 + b"]" * 129
    for body in (b'{"payload": NaN}', b'{"payload": "\\ud800"}', b'{"payload": ' + deep + b"}"):
        reply = await api.post(f"/handlers/{name}/test", content=body, headers=JSON)
        problem(reply, 400, "malformed")
    large = json.dumps({"payload": "x" * 1_048_576}).encode()
    problem(await api.post(f"/handlers/{name}/test", content=large, headers=JSON), 413, "too_large")
    assert handler.requests == []
