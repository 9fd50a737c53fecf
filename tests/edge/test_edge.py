"""What the edge makes of requests before a service sees them, and of what services answer."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx2
import msgspec
import pytest

from app.domain.conditions import Conditions
from app.domain.errors import CODES, FieldError, Refusal
from app.domain.limits import Limits
from app.domain.tasks import Enqueue, Reason, State, TaskFilters
from app.edge import codes
from app.service.tasks import Enqueued
from tests.edge.edge import (
    KEYS,
    NOW,
    TASK_ID,
    Item,
    Operations,
    Services,
    assert_problem,
    client,
    created,
    edge,
)

pytestmark = pytest.mark.anyio
HANDLER = {"url": "http://a/"}


def test_every_code_has_a_status_a_title_a_cause_and_a_remedy() -> None:
    assert set(codes.CODES) == CODES
    assert all(all(code) for code in codes.CODES.values())


# Bodies


@pytest.mark.parametrize(
    ("path", "method"), [("/queues/q/tasks", "POST"), ("/handlers/h", "PUT"), ("/queues/q", "PUT"), ("/limits", "PUT")]
)
@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        (b"{", "application/json", 400, "malformed"),
        (b"", "application/json", 400, "malformed"),
        (b'{"a": NaN}', "application/json; charset=utf-8", 400, "malformed"),
        (b'{"payload": "\\ud800"}', "application/json", 400, "malformed"),
        (b'{"payload": 1, "payload": 1}', "APPLICATION/JSON", 400, "malformed"),
        (b"[]", "application/json", 422, "invalid"),
        (b"null", "application/json", 422, "invalid"),
        (b'{"odd": 1}', "application/json", 422, "invalid"),
        (b"{}", "text/plain", 415, "unsupported_media_type"),
        (b"{}", "application/x-www-form-urlencoded", 415, "unsupported_media_type"),
        (b"{}", None, 415, "unsupported_media_type"),
        (b" " * 3_000_000, "application/json", 413, "too_large"),
    ],
)
async def test_bodies_are_judged_alike_on_every_route(
    api: httpx2.AsyncClient,
    services: Services,
    path: str,
    method: str,
    body: bytes,
    content_type: str | None,
    status: int,
    code: str,
) -> None:
    headers = {} if content_type is None else {"content-type": content_type}
    problem = assert_problem(await api.request(method, path, content=body, headers=headers), status, code)
    assert services.calls == []
    if status == 415:
        assert "curl" in problem["detail"] and "--json" in problem["detail"]


@pytest.mark.parametrize("path", ["/queues/q/tasks", "/queues/q"])
async def test_a_body_in_pieces_is_refused_once_it_is_too_large(api: httpx2.AsyncClient, path: str) -> None:
    sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield b" " * 100_000

    method = "POST" if path.endswith("tasks") else "PUT"
    reply = await api.request(method, path, content=pieces(), headers={"content-type": "application/json"})
    assert_problem(reply, 413, "too_large")
    assert sent < 30


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"url": 5}, ["/url"]),
        ({**HANDLER, "timeout_seconds": "5"}, ["/timeout_seconds"]),
        ({**HANDLER, "timeout_seconds": True}, ["/timeout_seconds"]),
        ({**HANDLER, "timeout_seconds": None}, ["/timeout_seconds"]),
        ({**HANDLER, "timeout_seconds": 0}, ["/timeout_seconds"]),
        ({**HANDLER, "max_concurrency": 1.0}, ["/max_concurrency"]),
        ({**HANDLER, "max_concurrency": 0}, ["/max_concurrency"]),
        ({**HANDLER, "headers": {"a": 1}}, ["/headers/a"]),
        ({**HANDLER, "fatal_statuses": [400, "x"]}, ["/fatal_statuses/1"]),
        ({**HANDLER, "fatal_statuses": [True]}, ["/fatal_statuses/0"]),
        ({**HANDLER, "enabled": True, "name": "h"}, ["/enabled", "/name"]),
    ],
)
async def test_a_handler_of_the_wrong_shape(api: httpx2.AsyncClient, body: Any, pointers: list[str]) -> None:
    assert_problem(await api.put("/handlers/h", json=body), 422, "invalid", *pointers)


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({"handler": "No!"}, ["/handler"]),
        ({"retry": {"max_attempts": 0, "x": 1}}, ["/retry/x", "/retry/max_attempts"]),
        ({"retry": None}, ["/retry"]),
        ({"retention": {"dead_days": 91}}, ["/retention/dead_days"]),
        ({"retention": {"dead_days": 1.5}}, ["/retention/dead_days"]),
        ({"idempotency_seconds": -1}, ["/idempotency_seconds"]),
        ({"paused": True}, ["/paused"]),
    ],
)
async def test_a_queue_of_the_wrong_shape(api: httpx2.AsyncClient, body: Any, pointers: list[str]) -> None:
    assert_problem(await api.put("/queues/q", json=body), 422, "invalid", *pointers)


async def test_actions_take_no_body_or_an_empty_one(api: httpx2.AsyncClient, services: Services) -> None:
    assert (await api.post("/queues/q/pause")).status_code == 200
    assert (await api.post("/queues/q/pause", json={})).status_code == 200
    assert_problem(await api.post("/queues/q/pause", json={"why": 1}), 422, "invalid", "")
    assert_problem(await api.post("/queues/q/pause", content=b"{}"), 415, "unsupported_media_type")
    assert (await api.post("/handlers/h/rotate-secret")).json() == {"secret": "whsec_next", "overlap_seconds": 86_400}
    await api.post("/handlers/h/rotate-secret", json={"overlap_seconds": 5})
    assert services.last == (KEYS["slk_operate"], "h", 5.0)
    await api.post("/handlers/h/test")
    assert services.last[-1] is None
    await api.post("/handlers/h/test", content=b'{"payload": {"a" : 1 }}', headers={"content-type": "application/json"})
    assert services.last[-1] == b'{"a" : 1 }'


# Enqueue


async def test_an_enqueue_answers_201_with_the_bytes_of_the_service(
    api: httpx2.AsyncClient, services: Services
) -> None:
    services.answers["tasks.enqueue"] = created(b'{"payload":{ "a":1.0 }}')
    reply = await api.post(
        "/queues/q/tasks", content=b'{"payload": { "a":1.0 }}', headers={"content-type": "application/json"}
    )
    assert (reply.status_code, reply.content) == (201, b'{"payload":{ "a":1.0 }}\n')
    assert reply.headers["location"] == f"http://sluice/tasks/{TASK_ID}"
    assert reply.headers["content-type"] == "application/json"
    assert "idempotent-replayed" not in reply.headers
    assert services.last == (KEYS["slk_operate"], "q", Enqueue(b'{ "a":1.0 }'), None)
    services.answers["tasks.enqueue"] = Enqueued(False, TASK_ID, b"{}")
    reply = await api.post("/queues/q/tasks", json={"payload": 1})
    assert (reply.status_code, reply.headers["idempotent-replayed"]) == (200, "true")


@pytest.mark.parametrize("tracing", [False, True])
async def test_the_shortcut_and_the_router_reach_the_same_endpoint(services: Services, tracing: bool) -> None:
    async with client(edge(tracing=tracing)) as api:
        assert (await api.post("/queues/q/tasks", json={"payload": 1})).status_code == 201
        assert_problem(await api.post("/queues/q/tasks", json={}), 422, "invalid", "/payload")
        assert_problem(await api.post("/queues/_q/tasks", json={"payload": 1}), 422, "invalid", "/name")
        assert_problem(await api.post("/queues/a%2Fb/tasks", json={"payload": 1}), 404, "not_found")
        assert_problem(await api.post("/queues/q/tasks?x=1", json={"payload": 1}), 422, "invalid", "/x")
        assert_problem(await api.get("/queues/q/tasks"), 405, "method_not_allowed")
        services.answers["tasks.enqueue"] = RuntimeError("boom")
        assert_problem(await api.post("/queues/q/tasks", json={"payload": 1}), 500, "internal")


@pytest.mark.parametrize(
    ("header", "field", "expected"),
    [
        ("abc", None, "abc"),
        ('"abc"', None, "abc"),
        ('"a\\"b\\\\"', None, 'a"b\\'),
        ("abc", "abc", "abc"),
        ('"abc"', "abc", "abc"),
        (None, "abc", "abc"),
        (None, None, None),
    ],
)
async def test_an_idempotency_key_comes_in_a_header_or_a_field(
    api: httpx2.AsyncClient, services: Services, header: str | None, field: str | None, expected: str | None
) -> None:
    headers = {} if header is None else {"idempotency-key": header}
    await api.post("/queues/q/tasks", json={"payload": 1, "idempotency_key": field}, headers=headers)
    assert services.last[2].idempotency_key == expected


@pytest.mark.parametrize(
    ("header", "status", "code"),
    [
        ("other", 400, "malformed"),
        ('"open', 400, "malformed"),
        ('"a"b"', 400, "malformed"),
        ("", 422, "invalid"),
        ('""', 422, "invalid"),
        ("x" * 256, 422, "invalid"),
    ],
)
async def test_an_idempotency_key_that_cannot_be_taken(
    api: httpx2.AsyncClient, services: Services, header: str, status: int, code: str
) -> None:
    reply = await api.post(
        "/queues/q/tasks", json={"payload": 1, "idempotency_key": "abc"}, headers={"idempotency-key": header}
    )
    assert_problem(reply, status, code)
    assert services.calls == []


async def test_a_trace_is_handed_on_as_it_came(api: httpx2.AsyncClient, services: Services) -> None:
    trace = {"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01", "tracestate": "v=1"}
    await api.post("/queues/q/tasks", json={"payload": 1}, headers=trace)
    assert services.last[3] == (trace["traceparent"], trace["tracestate"])


# Refusals


async def test_a_refusal_is_a_problem_with_its_headers(api: httpx2.AsyncClient, services: Services) -> None:
    services.answers["tasks.enqueue"] = Refusal("queue_full", "full", retry_after_seconds=2.1)
    reply = await api.post("/queues/q/tasks", json={"payload": 1})
    assert_problem(reply, 429, "queue_full")
    assert reply.headers["retry-after"] == "3"
    services.answers["queues.get"] = Refusal("unavailable", "no database")
    reply = await api.get("/queues/q")
    assert_problem(reply, 503, "unavailable")
    assert reply.headers["retry-after"] == "1"
    services.answers["handlers.put"] = Refusal("egress_denied", "no", [FieldError("/url", "no")])
    assert_problem(await api.put("/handlers/h", json=HANDLER), 422, "egress_denied", "/url")


async def test_an_error_of_ours_shows_nothing_of_itself(api: httpx2.AsyncClient, services: Services) -> None:
    services.answers["queues.get"] = RuntimeError("password=hunter2")
    reply = await api.get("/queues/q")
    assert_problem(reply, 500, "internal")
    assert "hunter2" not in reply.text


async def test_unknown_routes_and_methods(api: httpx2.AsyncClient) -> None:
    for path in ("/", "/nothing", "/queues/", "/queues/q/", "/queues/q/nothing", "//queues", "/handlers/h/test/x"):
        assert_problem(await api.get(path), 404, "not_found")
    reply = await api.post("/queues/q", json={})
    assert_problem(reply, 405, "method_not_allowed")
    assert reply.headers["allow"] == "DELETE, GET, HEAD, PUT"
    assert (await api.request("TRACE", "/queues/q/tasks")).headers["allow"] == "POST"
    assert (await api.options("/health/live")).headers["allow"] == "GET, HEAD"


async def test_head_is_answered_where_get_is(api: httpx2.AsyncClient) -> None:
    reply = await api.head("/queues/q")
    assert (reply.status_code, reply.headers["etag"]) == (200, '"e"')
    assert (await api.head("/queues/q/pause")).status_code == 405


@pytest.mark.parametrize(
    ("query", "pointers"),
    [
        ("?wait=1", ["/wait"]),
        ("?limit=1&limit=2", ["/limit"]),
        ("?limit=0", ["/limit"]),
        ("?limit=201", ["/limit"]),
        ("?limit=x", ["/limit"]),
        ("?state=odd", ["/state"]),
        ("?queue=No!", ["/queue"]),
        ("?type=", ["/type"]),
        ("?type=a%00b", ["/type"]),
        ("?ended_from=yesterday", ["/ended_from"]),
        ("?ended_to=2026-11-21T12:00:00", ["/ended_to"]),
        ("?include=all", ["/include"]),
        ("?cursor=", ["/cursor"]),
        ("?cursor=%%%", ["/cursor"]),
        ("?cursor=abcd", ["/cursor"]),
        ("?cursor=é", ["/cursor"]),
        ("?cursor=" + "a" * 1001, ["/cursor"]),
    ],
)
async def test_a_query_that_means_nothing(api: httpx2.AsyncClient, query: str, pointers: list[str]) -> None:
    assert_problem(await api.get("/tasks" + query), 422, "invalid", *pointers)


async def test_too_many_parameters(api: httpx2.AsyncClient) -> None:
    assert_problem(await api.get("/tasks?" + "&".join(f"a{n}=1" for n in range(100))), 422, "invalid")


async def test_bad_names_and_ids(api: httpx2.AsyncClient, services: Services) -> None:
    for name in ("_q", "a b", "%00", "-a", "a" * 101, "é"):
        assert_problem(await api.put(f"/queues/{name}", json={}), 422, "invalid", "/name")
        assert_problem(await api.get(f"/handlers/{name}"), 422, "invalid", "/name")
    for task_id in ("1", "x", TASK_ID + "0", "%00"):
        assert_problem(await api.get(f"/tasks/{task_id}"), 404, "task_not_found")
    assert services.calls == []
    await api.get(f"/tasks/{TASK_ID.upper()}")
    assert services.last[1] == TASK_ID


# Lists


async def test_filters_reach_the_service(api: httpx2.AsyncClient, services: Services) -> None:
    await api.get(
        "/tasks?queue=q&state=dead&reason=expired&type=t&tag=g&handler=h&correlation_id=c&limit=7&include=payload"
        "&ended_from=2026-11-21T12:00:00Z&ended_to=2026-11-21T13:00:00%2B01:00"
    )
    filters = TaskFilters("q", State.DEAD, Reason.EXPIRED, "t", "g", "h", "c", ended_from=NOW, ended_to=NOW)
    assert services.last == (KEYS["slk_operate"], filters, None, 7, True)
    await api.get("/tasks")
    assert services.last == (KEYS["slk_operate"], TaskFilters(), None, 50, False)


async def test_a_cursor_goes_on_in_its_own_list_only(api: httpx2.AsyncClient, services: Services) -> None:
    cursor = (await api.get("/tasks?queue=q")).json()["next_cursor"]
    reply = await api.get("/tasks", params={"queue": "q", "cursor": cursor, "limit": 3})
    assert reply.status_code == 200
    assert services.last[2:] == (TASK_ID, 3, False)
    assert_problem(await api.get("/tasks", params={"queue": "p", "cursor": cursor}), 422, "invalid", "/cursor")
    assert_problem(await api.get("/tasks", params={"cursor": cursor}), 422, "invalid", "/cursor")
    assert_problem(await api.get("/handlers", params={"cursor": cursor}), 422, "invalid", "/cursor")

    cursor = (await api.get(f"/tasks/{TASK_ID}/attempts")).json()["next_cursor"]
    await api.get(f"/tasks/{TASK_ID}/attempts", params={"cursor": cursor})
    assert services.last[2] == 7
    other = TASK_ID[:-1] + "5"
    assert_problem(await api.get(f"/tasks/{other}/attempts", params={"cursor": cursor}), 422, "invalid", "/cursor")

    cursor = (await api.get("/handlers?limit=2")).json()["next_cursor"]
    await api.get("/handlers", params={"cursor": cursor})
    assert services.last[1:] == ("b", 50)
    assert (await api.get("/queues")).json()["next_cursor"] is None


async def test_payloads_leave_as_their_bytes(api: httpx2.AsyncClient, services: Services) -> None:
    services.answers["tasks.get"] = Item(payload=msgspec.Raw(b'{"b": 1E2, "a":"\\u00e9"}'))
    assert b'"payload":{"b": 1E2, "a":"\\u00e9"}' in (await api.get(f"/tasks/{TASK_ID}")).content


# Definitions


async def test_a_handler_as_it_is_shown(api: httpx2.AsyncClient, services: Services) -> None:
    reply = await api.put(
        "/handlers/h", json={**HANDLER, "headers": {"a": "b"}, "fatal_statuses": [400], "timeout_seconds": 5}
    )
    assert (reply.status_code, reply.headers["etag"]) == (201, '"e"')
    assert reply.json() == {
        "name": "h",
        "kind": "webhook",
        "url": "http://a/",
        "timeout_seconds": 30,
        "headers": {"x-key": "***"},
        "max_concurrency": None,
        "fatal_statuses": [],
        "description": None,
        "group": None,
        "targets": "own",
        "breaker": None,
        "adaptive": None,
        "park_on_retry_after": "task",
        "rate": None,
        "limits": [],
        "enabled": True,
        "disabled_at": None,
        "disabled_reason": None,
        "created_at": "2026-11-21T12:00:00.000000Z",
        "updated_at": "2026-11-21T12:00:00.000000Z",
        "secret": "whsec_new",
    }
    definition = services.last[2]
    assert (definition.headers, definition.fatal_statuses, definition.timeout_seconds) == ({"a": "b"}, (400,), 5)
    assert "secret" not in (await api.get("/handlers/h")).json()
    services.answers["handlers.put"] = replace(services.answers["handlers.put"], created=False, secret=None)
    again = await api.put("/handlers/h", json=HANDLER)
    assert (again.status_code, again.json()["secret"]) == (200, None)


async def test_a_queue_as_it_is_shown(api: httpx2.AsyncClient, services: Services) -> None:
    reply = await api.put("/queues/q", json={"retry": {"backoff": {"kind": "list", "seconds": [1, 2]}}, "max_depth": 5})
    assert (reply.status_code, reply.headers["etag"]) == (200, '"e"')
    assert services.last[2].retry.backoff.seconds == (1.0, 2.0)
    shown = reply.json()
    assert shown["retry"]["backoff"]["kind"] == "exponential"
    assert shown["retention"] == {"succeeded_days": 3, "cancelled_days": 3, "dead_days": 30}
    assert (shown["name"], shown["paused"], shown["payload_schema"]) == ("q", False, None)
    assert (await api.post("/queues/q/pause")).json()["paused_at"] == "2026-11-21T12:00:00.000000Z"


async def test_limits(api: httpx2.AsyncClient, services: Services) -> None:
    assert (await api.get("/limits")).json()["max_concurrency"] == 5
    assert (await api.put("/limits", json={"max_concurrency": 7})).json() == {
        "max_concurrency": 7,
        "rate": None,
        "granted_max_concurrency": 9,
    }
    assert services.last == (KEYS["slk_operate"], Limits(7))
    await api.put("/limits", json={"max_concurrency": None})
    assert services.last[1] == Limits()


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, Conditions()),
        ({"if-match": '"a"'}, Conditions(('"a"',))),
        ({"if-match": '"a" , W/"b"'}, Conditions(('"a"', 'W/"b"'))),
        ({"if-match": "*"}, Conditions(("*",))),
        ({"if-none-match": "*"}, Conditions(if_none_match_any=True)),
    ],
)
async def test_conditions_reach_the_service(
    api: httpx2.AsyncClient, services: Services, headers: dict[str, str], expected: Conditions
) -> None:
    assert (await api.put("/queues/q", json={}, headers=headers)).status_code == 200
    assert services.last[-1] == expected
    assert (await api.delete("/queues/q", headers=headers)).status_code == 204
    assert services.last[-1] == expected


@pytest.mark.parametrize(
    "headers", [{"If-Match": "abc"}, {"If-Match": '"a'}, {"If-Match": ""}, {"If-None-Match": '"a"'}]
)
async def test_conditions_that_cannot_be_read(api: httpx2.AsyncClient, headers: dict[str, str]) -> None:
    assert_problem(
        await api.put("/queues/q", json={}, headers=headers), 422, "invalid", *("/" + name for name in headers)
    )


# The process


async def test_health() -> None:
    operations = Operations()
    async with client(edge(operations=operations), key=None) as api:
        assert (await api.get("/health/live")).json() == {"status": "ok"}
        operations.live, operations.ready = "a loop died", "draining"
        for path, why in (("/health/live", "a loop died"), ("/health/ready", "draining")):
            assert assert_problem(await api.get(path), 503, "unavailable")["detail"] == why


async def test_an_engine_serves_operations_only() -> None:
    async with client(edge(operations_only=True)) as api:
        assert (await api.get("/health/live")).status_code == 200
        assert (await api.get("/status")).status_code == 200
        assert_problem(await api.get("/queues"), 404, "not_found")
        assert_problem(await api.post("/queues/q/tasks", json={"payload": 1}), 404, "not_found")
        assert "/queues" not in (await api.get("/openapi.json")).json()["paths"]
