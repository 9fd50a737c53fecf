"""`POST /queues/{name}/tasks`: every option, its bounds, and payloads that arrive byte for byte."""

import asyncio
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from tests.handlers import Handler, Reply
from tests.wire.api import Api, fresh, good, payload_span, problem, raw, raw_code

pytestmark = pytest.mark.anyio

FIELDS = {
    *("id", "queue", "handler", "type", "state", "reason"),
    *("priority", "payload", "content_type", "headers", "tags", "target", "correlation_id"),
    *("idempotency_key", "unique_key", "created_at", "run_at", "started_at", "ended_at"),
    *("expires_at", "attempt", "max_attempts", "timeout_seconds", "last_error", "result"),
    *("result_truncated", "progress", "lease", "replica", "schedule", "scheduled_for"),
    *("batch", "parent", "callbacks", "key", "limits", "waiting_for", "waiting_on"),
}
NUL = "\x00"


def instant(text: str) -> datetime:
    assert text.endswith("Z")
    return datetime.fromisoformat(text)


async def test_a_task_answers_201_with_its_location_and_all_fields(api: Api) -> None:
    queue = await api.queue()
    reply = await api.post(f"/queues/{queue}/tasks", json={"payload": {"n": 1}})
    task = good(reply, 201)
    assert set(task) == FIELDS
    assert reply.headers["location"] == f"{api.url}/tasks/{task['id']}"
    assert "idempotent-replayed" not in reply.headers
    assert good(await api.get(reply.headers["location"])) == task
    assert {name: task[name] for name in ("queue", "state", "priority", "payload", "attempt", "max_attempts")} == {
        "queue": queue,
        "state": "ready",
        "priority": 0,
        "payload": {"n": 1},
        "attempt": 0,
        "max_attempts": 25,
    }
    assert task["content_type"] == "application/json" and task["created_at"] == task["run_at"]
    assert task["waiting_for"] == "worker"


async def test_what_an_enqueue_answers_is_what_a_read_shows(api: Api) -> None:
    named = await api.handler("https://example.com/", timeout_seconds=7)
    queue = await api.queue(named)
    good(await api.post(f"/queues/{queue}/pause"))
    options: dict[str, Any] = {
        "type": "mail.send",
        "delay_seconds": 600.5,
        "ttl_seconds": 1200,
        "priority": -100,
        "idempotency_key": "k/1",
        "retry": {"max_attempts": 4},
        "timeout_seconds": 1.25,
        "correlation_id": "c-1",
        "headers": {"X-A": "1", "x-b": ""},
        "tags": ["a", "\u00fc"],
        "handler": named,
    }
    for given in ({}, options, {"delay_seconds": 0.5}, {"run_at": "2020-01-01T00:00:00Z"}, {"handler": named}):
        task = await api.enqueue(queue, [1], **given)
        shown = await api.task(task["id"])
        assert shown == task
        kept = {name: value for name, value in given.items() if name in shown and name not in ("retry", "run_at")}
        assert {name: shown[name] for name in kept} == kept
    assert shown["timeout_seconds"] == 7
    full = await api.enqueue(queue, [2], **options | {"idempotency_key": "k/2"})
    created = instant(full["created_at"])
    assert instant(full["run_at"]) - created == timedelta(seconds=600.5)
    assert instant(full["expires_at"]) - created == timedelta(seconds=1200)
    assert (full["max_attempts"], full["state"], full["waiting_for"]) == (4, "scheduled", "run_at")


async def test_the_timeout_shown_is_the_task_s_else_the_queue_s_else_the_handler_s(api: Api, other: Api) -> None:
    named, own = [await api.handler("https://example.com/", timeout_seconds=seconds) for seconds in (7, 8)]
    queue = await api.queue(named)
    good(await api.post(f"/queues/{queue}/pause"))
    shown = [await api.enqueue(queue, **given) for given in ({}, {"handler": own}, {"timeout_seconds": 1})]
    good(await other.put(f"/handlers/{named}", json={"url": "https://example.com/", "timeout_seconds": 9}))
    shown += [await api.enqueue(queue), await other.enqueue(queue)]
    good(await other.put(f"/queues/{queue}", json={"handler": named, "timeout_seconds": 5}))
    shown += [await api.enqueue(queue), await api.enqueue(queue, handler=own)]
    assert [task["timeout_seconds"] for task in shown] == [7, 8, 1, 9, 9, 5, 5]


async def test_a_task_waits_for_the_handler_it_named_and_no_other(api: Api) -> None:
    named, own = [await api.handler("https://example.com/") for _ in range(2)]
    queue = await api.queue(named)
    good(await api.post(f"/handlers/{own}/disable"))
    assert (await api.enqueue(queue, handler=own))["waiting_for"] == "handler_disabled"
    good(await api.post(f"/handlers/{named}/disable"))
    assert (await api.enqueue(queue))["waiting_for"] == "handler_disabled"
    good(await api.post(f"/queues/{queue}/pause"))
    good(await api.post(f"/handlers/{own}/enable"))
    for given in ({"handler": own}, {}):
        task = await api.enqueue(queue, **given)
        assert task["waiting_for"] == (await api.task(task["id"]))["waiting_for"] == "queue_paused"


async def test_instants_come_in_any_offset_and_leave_in_utc(api: Api) -> None:
    queue = await api.queue()
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    local = at.astimezone(timezone(timedelta(hours=5, minutes=30)))
    task = await api.enqueue(queue, run_at=local.isoformat(), expires_at=(local + timedelta(hours=1)).isoformat())
    assert (instant(task["run_at"]), instant(task["expires_at"])) == (at, at + timedelta(hours=1))
    nanos = await api.enqueue(queue, run_at=at.strftime("%Y-%m-%dt%H:%M:%S.123456789z"))
    assert instant(nanos["run_at"]) == at + timedelta(microseconds=123456)


@pytest.mark.parametrize("gone", ["2020-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "1969-12-31T23:59:59-08:00"])
async def test_a_run_at_gone_by_is_now(api: Api, gone: str) -> None:
    task = await api.enqueue(await api.queue(), run_at=gone)
    assert task["state"] == "ready" and task["run_at"] == task["created_at"]
    assert (await api.task(task["id"]))["run_at"] == task["created_at"]


@pytest.mark.parametrize(
    ("options", "pointers"),
    [
        ({"type": ""}, ["/type"]),
        ({"type": "x" * 256}, ["/type"]),
        ({"type": "a\nb"}, ["/type"]),
        ({"type": NUL}, ["/type"]),
        ({"type": 5}, ["/type"]),
        ({"correlation_id": "a\rb"}, ["/correlation_id"]),
        ({"correlation_id": "x" * 256}, ["/correlation_id"]),
        ({"idempotency_key": ""}, ["/idempotency_key"]),
        ({"idempotency_key": "x" * 256}, ["/idempotency_key"]),
        ({"idempotency_key": "a" + NUL}, ["/idempotency_key"]),
        ({"delay_seconds": -1}, ["/delay_seconds"]),
        ({"delay_seconds": "5"}, ["/delay_seconds"]),
        ({"delay_seconds": True}, ["/delay_seconds"]),
        ({"delay_seconds": 10**9}, ["/delay_seconds"]),
        ({"delay_seconds": 1, "run_at": "2030-01-01T00:00:00Z"}, ["/run_at"]),
        ({"run_at": "2030-01-01"}, ["/run_at"]),
        ({"run_at": "2030-01-01T00:00:00"}, ["/run_at"]),
        ({"run_at": "2030-02-30T00:00:00Z"}, ["/run_at"]),
        ({"run_at": "2030-01-01T24:00:00Z"}, ["/run_at"]),
        ({"run_at": "tomorrow"}, ["/run_at"]),
        ({"run_at": 1700000000}, ["/run_at"]),
        ({"run_at": "9999-12-31T23:59:59Z"}, ["/run_at"]),
        ({"ttl_seconds": 0}, ["/ttl_seconds"]),
        ({"ttl_seconds": -5}, ["/ttl_seconds"]),
        ({"ttl_seconds": 10**12}, ["/ttl_seconds"]),
        ({"ttl_seconds": 1, "expires_at": "2030-01-01T00:00:00Z"}, ["/expires_at"]),
        ({"expires_at": "2020-01-01T00:00:00Z"}, ["/expires_at"]),
        ({"priority": 101}, ["/priority"]),
        ({"priority": -101}, ["/priority"]),
        ({"priority": 1.5}, ["/priority"]),
        ({"priority": "1"}, ["/priority"]),
        ({"priority": None}, ["/priority"]),
        ({"priority": 10**30}, ["/priority"]),
        ({"unique_key": ""}, ["/unique_key"]),
        ({"retry": {"max_attempts": 0}}, ["/retry/max_attempts"]),
        ({"retry": {"backoff": {"kind": "list", "seconds": [1, "2"]}}}, ["/retry/backoff/seconds/1"]),
        ({"retry": {"bogus": 1}}, ["/retry/bogus"]),
        ({"retry": 5}, ["/retry"]),
        ({"timeout_seconds": 0}, ["/timeout_seconds"]),
        ({"timeout_seconds": 43_201}, ["/timeout_seconds"]),
        ({"headers": {"host": "x"}}, ["/headers/host"]),
        ({"headers": {"Sluice-Attempt": "9"}}, ["/headers/Sluice-Attempt"]),
        ({"headers": {"webhook-id": "9"}}, ["/headers/webhook-id"]),
        ({"headers": {"x": "a\r\nb: c"}}, ["/headers/x"]),
        ({"headers": {"x": 5}}, ["/headers/x"]),
        ({"headers": ["x"]}, ["/headers"]),
        ({"tags": ["a"] * 2}, ["/tags"]),
        ({"tags": [str(n) for n in range(11)]}, ["/tags"]),
        ({"tags": ["a", ""]}, ["/tags/1"]),
        ({"tags": ["x" * 101]}, ["/tags/0"]),
        ({"tags": [NUL]}, ["/tags/0"]),
        ({"tags": "a"}, ["/tags"]),
        ({"handler": "No Name"}, ["/handler"]),
        ({"handler": "nobody"}, ["/handler"]),
        ({"id": "x"}, ["/id"]),
        ({"a/b~c": 1}, ["/a~1b~0c"]),
    ],
)
async def test_an_option_that_breaks_a_rule_is_refused_and_nothing_is_stored(
    api: Api, options: dict[str, Any], pointers: list[str]
) -> None:
    queue = await api.queue(await api.handler("https://example.com/"))
    good(await api.post(f"/queues/{queue}/pause"))
    problem(await api.post(f"/queues/{queue}/tasks", json={"payload": 1, **options}), 422, "invalid", *pointers)
    assert good(await api.get("/tasks", params={"queue": queue}))["items"] == []


@pytest.mark.parametrize(
    "options", [{"expires_at": "2020-01-01T00:00:00Z"}, {"run_at": "9999-12-31T23:59:59Z"}], ids=["expired", "far"]
)
async def test_instants_are_judged_under_an_idempotency_key_too(api: Api, options: dict[str, Any]) -> None:
    queue = await api.queue()
    reply = await api.post(f"/queues/{queue}/tasks", json={"payload": 1, "idempotency_key": "k", **options})
    problem(reply, 422, "invalid", *[f"/{name}" for name in options])


async def test_every_violation_is_named_at_once(api: Api) -> None:
    queue = await api.queue()
    reply = await api.post(f"/queues/{queue}/tasks", json={"priority": 1000, "bogus": 1, "tags": 5, "type": 7})
    problem(reply, 422, "invalid")
    assert {error["pointer"] for error in reply.json()["errors"]} == {
        "/payload",
        "/bogus",
        "/priority",
        "/tags",
        "/type",
    }
    reply = await api.post(f"/queues/{queue}/tasks", json={"payload": 1, "priority": 1000, "tags": [""], "type": ""})
    assert {error["pointer"] for error in reply.json()["errors"]} == {"/priority", "/tags/0", "/type"}


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1E+999999999", "9" * 400, "9" * 5000])
@pytest.mark.parametrize("field", ["delay_seconds", "ttl_seconds", "timeout_seconds", "priority", "retry"])
async def test_numbers_beyond_every_range_are_refused_cleanly(api: Api, field: str, number: str) -> None:
    queue = await api.queue()
    value = number if field != "retry" else '{"max_attempts": N, "backoff": {"factor": N, "min_seconds": N}}'
    body = '{"payload": 1, "%s": %s}' % (field, value.replace("N", number))  # noqa: UP031  # braces of JSON
    reply = await api.enqueue_bytes(queue, body.encode())
    assert reply.status_code in (400, 422), reply.text
    problem(reply, reply.status_code, {400: "malformed", 422: "invalid"}[reply.status_code])


@pytest.mark.parametrize(
    "payload",
    [
        b"null",
        b"0",
        b"-0.0",
        b'""',
        b"[]",
        b"{ }",
        b'  {"b" :1,\t"a":\r\n[ 1 , 2 ] }',
        b"12345678901234567890123456789012345678901234567890",
        b"1e400",
        b"1.000000000000000000000000000000000001",
        b"0.1e-2",
        b'"\\u00e9\\n\\/\\u2028\\ud83d\\ude00"',
        '"\u00e9 \u2028 \U0001f600"'.encode(),
        b'{"a": "\\u0000"}',
        b'{"__proto__": 1, "": 2, "payload": 3}',
        b'"\x7f"',
        '"\ufdd0 \uffff \\ufffe"'.encode(),
    ],
)
async def test_a_payload_reaches_the_handler_byte_for_byte(api: Api, handler: Handler, payload: bytes) -> None:
    queue = await api.queue_to(handler.url)
    for body in (
        b'{"payload":' + payload + b"}",
        b'{"priority":1,"payload":' + payload + b"}",
        b'{"payload":' + payload + b',"priority":1}',
    ):
        reply = await api.enqueue_bytes(queue, body)
        task = good(reply, 201)
        [request] = await handler.received(task=task["id"])
        assert request.body == payload.strip(b" \t\r\n")
        assert int(request.headers["content-length"]) == len(request.body)
        assert payload_span(reply.content.split(b',"content_type"')[0] + b"}") == request.body
        read = await api.get(f"/tasks/{task['id']}")
        assert payload_span(read.content.split(b',"content_type"')[0] + b"}") == request.body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"payload": 1',
        b'{"payload": 1}}',
        b'{"payload": 1} x',
        b'{"payload": NaN}',
        b'{"payload": Infinity}',
        b'{"payload": -Infinity}',
        b'{"payload": nan}',
        b'{"payload": 01}',
        b'{"payload": 1.}',
        b'{"payload": .5}',
        b'{"payload": +1}',
        b'{"payload": 0x10}',
        b'{"payload": [1,]}',
        b"{'payload': 1}",
        b'{"payload": "\\ud800"}',
        b'{"payload": "\\udc00\\ud800"}',
        b'{"payload": {"\\ud800": 1}}',
        b'{"payload": "\xed\xa0\x80"}',
        b'{"payload": "\xff"}',
        b'{"payload": "\xc0\xaf"}',
        b'{"payload": {"a": 1, "a": 2}}',
        b'{"payload": {"a": 1, "\\u0061": 2}}',
        b'{"payload": 1, "payload": 2}',
        b'{"payload": 1, "type": "a", "type": "b"}',
        b'{"payload": "a\nb"}',
        b'{"payload": "\x00"}',
        b'{"payload": "\\x"}',
        b'\xef\xbb\xbf{"payload": 1}',
        '{"payload": 1}'.encode("utf-16"),
        b'{"payload": 1} \x00',
        b'{"payload": // 1\n1}',
        b'{"payload": ' + b"[" * 129 + b"]" * 129 + b"}",
        b'{"payload": ' + b'{"a":' * 129 + b"1" + b"}" * 129 + b"}",
        b'{"payload": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"payload": ' + b"[" * 500_000,
        b'{"payload": 1, "retry": ' + b'{"a":' * 300 + b"1" + b"}" * 300 + b"}",
    ],
)
async def test_what_is_not_i_json_is_refused_and_nothing_is_stored(api: Api, body: bytes) -> None:
    queue = await api.queue()
    problem(await api.enqueue_bytes(queue, body), 400, "malformed")
    assert good(await api.get("/tasks", params={"queue": queue}))["items"] == []


@pytest.mark.parametrize("body", [b"[]", b"null", b"5", b'"x"', b"true", b'[{"payload": 1}]', b"{}"])
async def test_a_body_that_is_no_task_is_refused(api: Api, body: bytes) -> None:
    problem(await api.enqueue_bytes(await api.queue(), body), 422, "invalid")


async def test_a_payload_may_be_128_levels_deep(api: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url)
    for payload in (b"[" * 128 + b"]" * 128, b'{"a":' * 128 + b"1" + b"}" * 128, b"[" + b"[]," * 200 + b"[]]"):
        task = good(await api.enqueue_bytes(queue, b'{"payload":' + payload + b"}"), 201)
        [request] = await handler.received(task=task["id"])
        assert request.body == payload


async def test_a_payload_may_have_a_mebibyte_and_not_a_byte_more(api: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url)
    largest = b'"' + b"x" * (1_048_576 - 2) + b'"'
    task = good(await api.enqueue_bytes(queue, b'{"payload": ' + largest + b', "priority": 1}'), 201)
    [request] = await handler.received(task=task["id"])
    assert request.body == largest
    reply = await api.enqueue_bytes(queue, b'{"payload": "x' + largest[1:] + b"}")
    problem(reply, 413, "too_large")
    reply = await api.enqueue_bytes(queue, b'{"payload": 1' + b" " * 3_000_000 + b"}")
    problem(reply, 413, "too_large")


async def test_the_largest_payload_is_a_setting(start_api: Any) -> None:
    api = await start_api(max_payload_bytes=1024)
    queue = await api.queue()
    good(await api.enqueue_bytes(queue, b'{"payload":"' + b"x" * 1022 + b'"}'), 201)
    problem(await api.enqueue_bytes(queue, b'{"payload":"' + b"x" * 1023 + b'"}'), 413, "too_large")


async def test_a_body_in_chunks_without_a_length_is_read_and_bounded(api: Api) -> None:
    queue = await api.queue()
    head = f"POST /queues/{queue}/tasks HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n".encode()
    body = b'{"payload": [1,2]}'
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    status, _, answer = await raw(api.url, head + b"transfer-encoding: chunked\r\n\r\n" + chunks)
    assert (status, json.loads(answer)["payload"]) == (201, [1, 2])
    large = b"180000\r\n" + b" " * 0x180000 + b"\r\n0\r\n\r\n"
    assert raw_code(await raw(api.url, head + b"transfer-encoding: chunked\r\n\r\n" + large)) == (413, "too_large")


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonx", "json", "text/json"]
)
async def test_a_body_that_is_not_json_by_its_type_is_refused_with_advice(api: Api, content_type: str) -> None:
    queue = await api.queue()
    headers = {"content-type": content_type} if content_type else {}
    reply = await api.post(f"/queues/{queue}/tasks", content=b'{"payload": 1}', headers=headers)
    assert "--json" in problem(reply, 415, "unsupported_media_type")["detail"]
    assert "curl" in reply.json()["detail"]


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON", "application/json ;x"])
async def test_a_json_type_may_have_parameters(api: Api, content_type: str) -> None:
    good(await api.enqueue_bytes(await api.queue(), b'{"payload":1}', {"content-type": content_type}), 201)


async def test_a_queue_that_is_not_there_answers_404(api: Api) -> None:
    problem(await api.post(f"/queues/{fresh('q')}/tasks", json={"payload": 1}), 404, "queue_not_found")
    for name in ("_a", "-a", "x" * 101, "%20", "a%00"):
        assert (await api.post(f"/queues/{name}/tasks", json={"payload": 1})).status_code in (404, 422)


async def test_a_task_names_a_handler_only_on_a_queue_that_has_one(api: Api) -> None:
    named = await api.handler("https://example.com/")
    reply = await api.post(f"/queues/{await api.queue()}/tasks", json={"payload": 1, "handler": named})
    problem(reply, 422, "invalid", "/handler")


async def test_the_depth_of_a_queue_is_exact_over_replicas(api: Api, other: Api) -> None:
    queue = await api.queue(max_depth=10)
    replies = await asyncio.gather(
        *(
            (api, other)[n % 2].post(
                f"/queues/{queue}/tasks", json={"payload": n, "delay_seconds": 600 if n % 3 else 0}
            )
            for n in range(60)
        )
    )
    assert sorted(reply.status_code for reply in replies) == [201] * 10 + [429] * 50
    refused = next(reply for reply in replies if reply.status_code == 429)
    problem(refused, 429, "queue_full")
    first = next(reply for reply in replies if reply.status_code == 201).json()
    good(await api.cancel(first["id"]))
    await api.enqueue(queue)
    problem(await api.post(f"/queues/{queue}/tasks", json={"payload": 1}), 429, "queue_full")
    good(await api.retry(first["id"]))
    assert len(await api.pages("/tasks", queue=queue, state="ready")) > 0


async def test_a_running_task_takes_no_depth(api: Api, handler: Handler) -> None:
    go = asyncio.Event()
    handler.script(Reply(until=go))
    queue = await api.queue_to(handler.url, max_depth=1)
    await api.enqueue(queue)
    await handler.received()
    good(await api.post(f"/queues/{queue}/pause"))
    await api.enqueue(queue)
    problem(await api.post(f"/queues/{queue}/tasks", json={"payload": 1}), 429, "queue_full")
    go.set()


async def test_an_unknown_parameter_is_refused(api: Api) -> None:
    queue = await api.queue()
    problem(await api.post(f"/queues/{queue}/tasks?dry_run=1", json={"payload": 1}), 422, "invalid", "/dry_run")
    assert good(await api.get("/tasks", params={"queue": queue}))["items"] == []


async def test_ids_sort_by_creation(api: Api) -> None:
    queue = await api.queue()
    ids = [(await api.enqueue(queue, n))["id"] for n in range(20)]
    assert ids == sorted(ids)
    assert all(task_id[14] == "7" for task_id in ids)
