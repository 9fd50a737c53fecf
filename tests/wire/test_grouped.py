"""Many tasks in one call: what a handler receives, and what each of its answers means for each task."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from standardwebhooks import Webhook

from tests.handlers import Handler, Received, Reply
from tests.support import poll
from tests.wire.answers import FIXED_600, settled
from tests.wire.api import AT_ONCE, Api, fresh, good, problem

pytestmark = pytest.mark.anyio

GROUP = "application/vnd.sluice.group+json"
ALWAYS = {
    *("host", "accept-encoding", "content-length", "content-type", "user-agent"),
    *("webhook-id", "webhook-timestamp", "webhook-signature", "sluice-queue", "sluice-deadline"),
}
JSON = {"content-type": "application/json"}


async def bulk(api: Api, queue: str, *payloads: Any, **options: Any) -> list[str]:
    """The ids of tasks that are enqueued at once."""
    return await api.bulk(queue, [{"payload": payload, **options} for payload in payloads])


async def grouped(api: Api, url: str, max_tasks: int = 10, *, fields: Any = {}, **queue: Any) -> str:  # noqa: B006
    """The name of a queue whose handler takes groups."""
    return await api.queue(await api.handler(url, group={"max_tasks": max_tasks}, **fields), **queue)


instant = datetime.fromisoformat


def ids(request: Received) -> list[str]:
    return [task["id"] for task in request.json["tasks"]]


def answer(document: Any) -> Reply:
    return Reply(200, JSON, json.dumps(document).encode())


async def outcomes(
    api: Api, handler: Handler, reply: Callable[[list[str]], Reply], count: int = 3, **fields: Any
) -> list[dict[str, Any]]:
    """The tasks of one group after one attempt that was answered so."""
    handler.script(lambda request: reply(ids(request)))
    queue = await grouped(api, handler.url, fields=fields, retry=FIXED_600)
    tasks = await bulk(api, queue, *range(count))
    [request] = await handler.received()
    assert ids(request) == tasks
    return [await settled(api, task_id) for task_id in tasks]


# what is received


async def test_a_group_comes_with_these_headers_and_its_tasks_in_one_signed_document(
    api: Api, handler: Handler
) -> None:
    name = fresh("h")
    definition = {"url": handler.url, "headers": {"x-key": "s3cret"}, "group": {"max_tasks": 3}, "timeout_seconds": 12}
    secret = good(await api.put(f"/handlers/{name}", json=definition), 201)["secret"]
    queue = await api.queue(name, retry={"max_attempts": 9})
    given = {"type": "mail", "correlation_id": "o 66", "headers": {"X-Task": "a", "X-Key": "mine"}}
    tasks = await bulk(api, queue, {"n": 1}, "\u00e9", **given)
    [request] = await handler.received()
    assert {name for name, _ in request.raw_headers} == ALWAYS | {"x-key"}
    assert request.headers["content-type"] == GROUP and request.headers["x-key"] == "s3cret"
    assert re.fullmatch(r"group_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", request.headers["webhook-id"])
    document = Webhook(secret).verify(request.body, dict(request.headers))
    tokens = [task.pop("lease_token") for task in document["tasks"]]
    assert len(set(tokens)) == 2 and all(tokens)
    common = {"attempt": 1, "max_attempts": 9, "type": "mail", "headers": {"x-task": "a"}, "correlation_id": "o 66"}
    assert document == {
        "tasks": [{"id": tasks[0], "payload": {"n": 1}, **common}, {"id": tasks[1], "payload": "\u00e9", **common}]
    }


async def test_a_plain_task_s_item_has_every_field_and_its_payload_byte_for_byte(api: Api, handler: Handler) -> None:
    queue = await grouped(api, handler.url)
    task = good(await api.enqueue_bytes(queue, b'{"payload":{"a" : 1.0e2}}'), 201)
    [request] = await handler.received()
    assert b'"payload":{"a" : 1.0e2}}' in request.body
    [item] = request.json["tasks"]
    del item["lease_token"]
    plain: dict[str, Any] = {"attempt": 1, "max_attempts": 25, "type": None, "headers": {}, "correlation_id": None}
    assert item == {"id": task["id"], "payload": {"a": 100.0}, **plain}


async def test_what_is_ready_is_delivered_in_full_groups_in_the_order_of_claiming(api: Api, handler: Handler) -> None:
    handler.script(Reply(body=b""))
    queue = await grouped(api, handler.url, 4)
    good(await api.post(f"/queues/{queue}/pause"))
    low = await bulk(api, queue, *range(6))
    high = await bulk(api, queue, *range(4), priority=1)
    good(await api.post(f"/queues/{queue}/resume"))
    assert sorted(map(ids, await handler.received(3))) == sorted([high, low[:4], low[4:]])
    for task_id in (*low, *high):
        await api.until(task_id, "succeeded", result=None)


async def test_more_than_a_group_is_claimed_in_whole_groups(
    start_api: Callable[..., Awaitable[Api]], handler: Handler
) -> None:
    """By a replica of its own, in which no other lane waits for a share of the claim."""
    api = await start_api()
    handler.script(Reply(body=b""))
    queue = await grouped(api, handler.url, 150)
    good(await api.post(f"/queues/{queue}/pause"))
    await bulk(api, queue, *range(450))
    good(await api.post(f"/queues/{queue}/resume"))
    assert [len(ids(request)) for request in await handler.received(3)] == [150] * 3


async def test_tasks_with_other_timeouts_have_a_call_of_their_own(api: Api, handler: Handler) -> None:
    queue = await grouped(api, handler.url)
    good(await api.post(f"/queues/{queue}/pause"))
    short = await bulk(api, queue, 1, 2, timeout_seconds=5)
    rest = await bulk(api, queue, 3, 4)
    good(await api.post(f"/queues/{queue}/resume"))
    assert sorted(map(ids, await handler.received(2))) == sorted([short, rest])


async def test_a_group_holds_four_mebibytes_at_most(api: Api, handler: Handler) -> None:
    queue = await grouped(api, handler.url, 100)
    good(await api.post(f"/queues/{queue}/pause"))
    tasks = await bulk(api, queue, *["x" * 1_000_000] * 9)
    good(await api.post(f"/queues/{queue}/resume"))
    requests = await handler.received(3)
    assert sorted(len(ids(request)) for request in requests) == [1, 4, 4]
    assert sorted(task_id for request in requests for task_id in ids(request)) == sorted(tasks)
    assert all(len(request.body) <= 4_194_304 for request in requests)


# what an answer means


@pytest.mark.parametrize("reply", [Reply(204, body=b""), Reply(200, body=b""), answer({"failures": []})])
async def test_all_have_succeeded(api: Api, handler: Handler, reply: Reply) -> None:
    for task in await outcomes(api, handler, lambda _: reply):
        assert (task["state"], task["result"], task["last_error"]) == ("succeeded", None, None)
        [attempt] = await api.attempts(task["id"])
        assert (attempt["outcome"], attempt["status"]) == ("succeeded", reply.status)


async def test_each_failure_has_its_error_and_its_wait_and_the_others_their_results(api: Api, handler: Handler) -> None:
    def reply(tasks: list[str]) -> Reply:
        failures = [
            {"id": tasks[0]},
            {"id": tasks[1], "error": "no such user", "retry": False},
            {"id": tasks[2], "error": "later", "retry_after_seconds": 1200},
        ]
        return answer({"failures": failures, "results": {tasks[3]: {"n": 1}, tasks[4]: "x" * 70_000}})

    first, second, third, fourth, fifth, sixth = await outcomes(api, handler, reply, 6)
    assert (first["state"], first["attempt"]) == ("scheduled", 1) and "failures" in first["last_error"]
    assert (second["state"], second["reason"]) == ("dead", "stopped_by_handler")
    assert (third["state"], second["last_error"], third["last_error"]) == ("scheduled", "no such user", "later")
    assert (fourth["state"], fourth["result"]) == ("succeeded", {"n": 1})
    assert fifth["state"] == "succeeded" and fifth["result_truncated"] and len(fifth["result"]) == 65_536
    assert (sixth["state"], sixth["result"]) == ("succeeded", None)
    assert third["run_at"] > first["run_at"]
    [attempt] = await api.attempts(second["id"])
    assert (attempt["outcome"], attempt["status"], attempt["error"]) == ("failed", 200, "no such user")


async def test_failures_as_functions_of_lambda_report_them(api: Api, handler: Handler) -> None:
    found = await outcomes(api, handler, lambda tasks: answer({"batchItemFailures": [{"itemIdentifier": tasks[1]}]}))
    assert [task["state"] for task in found] == ["succeeded", "scheduled", "succeeded"]


@pytest.mark.parametrize(
    "document",
    [
        *({}, [], None, "ok", {"failures": None}, {"results": {}}, {"failures": [], "more": 1}),
        *({"failures": ["ID"]}, {"failures": [{"id": "ID", "why": "x"}]}, {"failures": [{"id": "ID", "retry": "no"}]}),
        *({"failures": [{"id": "other"}]}, {"failures": [{"id": "ID"}] * 2}, {"failures": [], "results": {"x": 1}}),
        *({"failures": [{"id": "ID"}], "results": {"ID": 1}}, {"failures": [{"id": "ID", "retry_after_seconds": -1}]}),
        *({"batchItemFailures": None}, {"batchItemFailures": [{"itemIdentifier": ""}]}, {"batchItemFailures": [{}]}),
        {"batchItemFailures": [], "failures": []},
    ],
    ids=json.dumps,
)
async def test_when_in_doubt_all_have_failed(api: Api, handler: Handler, document: Any) -> None:
    def reply(tasks: list[str]) -> Reply:
        return Reply(200, JSON, json.dumps(document).replace("ID", tasks[0]).encode())

    for task in await outcomes(api, handler, reply):
        assert (task["state"], task["attempt"]) == ("scheduled", 1)
        assert task["last_error"].startswith("the handler answered 200, but ")


@pytest.mark.parametrize("body", [b"ok", b"\n", b"\xff", b'{"failures":[],"failures":[]}', b"[" * 10_000])
async def test_a_body_that_is_no_document_fails_all(api: Api, handler: Handler, body: bytes) -> None:
    for task in await outcomes(api, handler, lambda _: Reply(200, JSON, body)):
        assert task["state"] == "scheduled" and "not a document of a group" in task["last_error"]


async def test_follow_up_work_is_no_answer_to_a_group(api: Api, handler: Handler) -> None:
    reply = Reply(200, {"content-type": "application/vnd.sluice.tasks+json"}, b'{"tasks":[]}')
    for task in await outcomes(api, handler, lambda _: reply):
        assert task["state"] == "scheduled" and "follow-up work" in task["last_error"]


async def test_an_answer_of_more_than_four_mebibytes_fails_all(api: Api, handler: Handler) -> None:
    body = b'{"failures":[]' + b" " * 4_194_304 + b"}"
    for task in await outcomes(api, handler, lambda _: Reply(200, JSON, body)):
        assert task["state"] == "scheduled" and "more than 4194304 bytes" in task["last_error"]


async def test_a_document_of_more_than_a_lone_result_is_read_whole(api: Api, handler: Handler) -> None:
    found = await outcomes(
        api, handler, lambda tasks: answer({"failures": [], "results": dict.fromkeys(tasks, "x" * 60_000)})
    )
    assert [task["result"] for task in found] == ["x" * 60_000] * 3


@pytest.mark.parametrize(
    ("reply", "state", "reason"),
    [
        (Reply(500), "scheduled", None),
        (Reply(302, {"location": "/"}), "scheduled", None),
        (Reply(422), "dead", "fatal_status"),
        (Reply(500, {"sluice-retry": "no"}), "dead", "stopped_by_handler"),
        (Reply(raw=b""), "scheduled", None),
    ],
)
async def test_any_other_answer_means_the_same_for_all(
    api: Api, handler: Handler, reply: Reply, state: str, reason: str | None
) -> None:
    for task in await outcomes(api, handler, lambda _: reply, fatal_statuses=[422]):
        assert (task["state"], task["reason"], task["attempt"]) == (state, reason, 1)


@pytest.mark.parametrize("status", [200, 429])
async def test_retry_after_holds_all_back(api: Api, handler: Handler, status: int) -> None:
    for task in await outcomes(api, handler, lambda _: Reply(status, {"retry-after": "1200"}, b"later")):
        [attempt] = await api.attempts(task["id"])
        assert instant(task["run_at"]) - instant(attempt["ended_at"]) == timedelta(seconds=1200)


async def test_without_an_answer_each_attempt_times_out(api: Api, handler: Handler) -> None:
    never = asyncio.Event()
    for task in await outcomes(api, handler, lambda _: Reply(until=never), timeout_seconds=0.3):
        [attempt] = await api.attempts(task["id"])
        assert (task["state"], attempt["outcome"]) == ("scheduled", "timeout")
    await handler.idle()


async def test_410_refunds_every_attempt_and_disables_the_handler(api: Api, handler: Handler) -> None:
    handler.answer(Reply(410))
    queue = await grouped(api, handler.url)
    tasks = await bulk(api, queue, 1, 2, 3)
    for task_id in tasks:
        shown = await api.until(task_id, "ready", waiting_for="handler_disabled")
        assert shown["attempt"] == 0
        [attempt] = await api.attempts(task_id)
        assert (attempt["counted"], attempt["outcome"], attempt["status"]) == (False, "failed", 410)
    assert len(handler.requests) == 1


async def test_a_hold_holds_all_and_each_token_settles_its_own(api: Api, handler: Handler) -> None:
    handler.script(Reply(202, {"sluice-hold": "60"}, b"{}"))
    tasks = await bulk(api, await grouped(api, handler.url, retry=FIXED_600), 1, 2)
    [request] = await handler.received()

    async def held() -> bool:
        attempts = [attempt for task_id in tasks for attempt in await api.attempts(task_id)]
        return [attempt["outcome"] for attempt in attempts] == ["held", "held"]

    await poll(held)
    tokens = {task["id"]: {"sluice-lease-token": task["lease_token"]} for task in request.json["tasks"]}
    good(await api.post(f"/tasks/{tasks[0]}/complete", json={"result": 7}, headers=tokens[tasks[0]]))
    problem(await api.post(f"/tasks/{tasks[1]}/complete", json={}, headers=tokens[tasks[0]]), 409, "lease_lost")
    good(await api.post(f"/tasks/{tasks[1]}/fail", json={"error": "no"}, headers=tokens[tasks[1]]))
    assert [(await api.task(task_id))["state"] for task_id in tasks] == ["succeeded", "scheduled"]


# what happens meanwhile


async def test_a_cancelled_task_leaves_the_call_which_goes_on_for_the_others(api: Api, handler: Handler) -> None:
    may_answer = asyncio.Event()
    handler.script(lambda request: Reply(200, JSON, b'{"failures":[]}', until=may_answer))
    tasks = await bulk(api, await grouped(api, handler.url), 1, 2, 3)
    await handler.received()
    good(await api.cancel(tasks[1]))
    assert handler.open_calls == 1
    may_answer.set()
    for task_id in (tasks[0], tasks[2]):
        await api.until(task_id, "succeeded")
    [attempt] = await api.attempts(tasks[1])
    assert (await api.task(tasks[1]))["state"] == "cancelled"
    assert attempt["outcome"] in ("cancelled", "stale")  # stale if the answer came before the replica knew


async def test_a_failure_of_a_task_that_was_cancelled_meanwhile_is_known(api: Api, handler: Handler) -> None:
    may_answer = asyncio.Event()

    def reply(request: Received) -> Reply:
        document = {"failures": [{"id": ids(request)[0]}]}
        return Reply(200, JSON, json.dumps(document).encode(), until=may_answer)

    handler.script(reply)
    tasks = await bulk(api, await grouped(api, handler.url), 1, 2)
    await handler.received()
    good(await api.cancel(tasks[0]))
    may_answer.set()
    await api.until(tasks[1], "succeeded")
    assert (await api.task(tasks[0]))["state"] == "cancelled"


async def test_a_call_whose_tasks_are_all_cancelled_is_closed(api: Api, handler: Handler) -> None:
    handler.script(Reply(until=asyncio.Event()))
    tasks = await bulk(api, await grouped(api, handler.url), 1, 2)
    await handler.received()
    for task_id in tasks:
        good(await api.cancel(task_id))
    await handler.idle()


async def test_tasks_that_failed_together_are_delivered_again_each_with_its_own_number(
    api: Api, handler: Handler
) -> None:
    def reply(request: Received) -> Reply:
        document = {"failures": [{"id": task["id"]} for task in request.json["tasks"] if task["attempt"] == 1][:1]}
        return answer(document)

    handler.script(reply)
    tasks = await bulk(api, await grouped(api, handler.url, retry=AT_ONCE), 1, 2)
    await handler.received(2)
    await api.until(tasks[0], "succeeded", attempt=2)
    await api.until(tasks[1], "succeeded", attempt=1)
    [again] = handler.requests[1].json["tasks"]
    assert (again["id"], again["attempt"]) == (tasks[0], 2)
    assert handler.requests[0].headers["webhook-id"] != handler.requests[1].headers["webhook-id"]


async def test_limits_count_tasks(api: Api, handler: Handler) -> None:
    may_answer = asyncio.Event()
    handler.script(lambda request: Reply(200, JSON, b"", until=may_answer))
    queue = await grouped(api, handler.url, 10, max_concurrency=3)
    tasks = await bulk(api, queue, *range(7))
    [first] = await handler.received()
    assert ids(first) == tasks[:3]
    assert (await api.task(tasks[3]))["waiting_for"] == "queue_limit"
    may_answer.set()
    for task_id in tasks:
        await api.until(task_id, "succeeded")
    assert all(len(ids(request)) <= 3 for request in handler.requests)


# waiting for more


async def waiting(api: Api, url: str, max_tasks: int, wait_seconds: float, **queue: Any) -> str:
    group = {"max_tasks": max_tasks, "wait_seconds": wait_seconds}
    return await api.queue(await api.handler(url, group=group), **queue)


async def test_an_incomplete_group_waits_for_more_tasks_without_leases_and_no_longer(
    api: Api, other: Api, handler: Handler
) -> None:
    """Whichever of two replicas looks at it."""
    handler.script(Reply(body=b""))
    queue = await waiting(api, handler.url, 10, 0.6)
    first = await api.enqueue(queue)
    second = await other.enqueue(queue)
    assert [(await api.task(task["id"]))["state"] for task in (first, second)] == ["ready", "ready"]
    [request] = await handler.received()
    assert ids(request) == [first["id"], second["id"]]
    assert 0.6 <= request.arrived_at - instant(first["run_at"]).timestamp() < 0.95  # before a poll finds it
    await api.until(second["id"], "succeeded", attempt=1)


async def test_a_full_group_waits_for_nothing(api: Api, handler: Handler) -> None:
    queue = await waiting(api, handler.url, 3, 300)
    first = await api.enqueue(queue)
    assert (await api.task(first["id"]))["state"] == "ready"
    rest = await bulk(api, queue, 1, 2, 3)
    [request] = await handler.received(1, 2)
    assert ids(request) == [first["id"], *rest[:2]]
    assert (await api.task(rest[2]))["state"] == "ready" and await api.attempts(rest[2]) == []


async def test_tasks_with_keys_wait_for_a_group_and_keep_their_limits(api: Api, handler: Handler) -> None:
    handler.script(Reply(body=b"", until=(may_answer := asyncio.Event())))
    queue = await waiting(api, handler.url, 3, 300, key={"max_concurrency": 1})
    good(await api.post(f"/queues/{queue}/pause"))
    first = [(await bulk(api, queue, 1, 2, key=key))[0] for key in "ab"]
    good(await api.post(f"/queues/{queue}/resume"))
    [request] = await handler.received(1, 3)
    assert sorted(ids(request)) == sorted(first)
    may_answer.set()


async def test_one_task_with_a_key_waits_for_a_group(api: Api, handler: Handler) -> None:
    queue = await waiting(api, handler.url, 3, 300, key={"max_concurrency": 10})
    (first,) = await bulk(api, queue, 1, key="a")
    assert (await api.task(first))["state"] == "ready"
    rest = await bulk(api, queue, 1, 2, key="b")
    [request] = await handler.received(1, 3)
    assert sorted(ids(request)) == sorted([first, *rest])


async def test_a_rate_counts_the_tasks_of_a_group(api: Api, handler: Handler) -> None:
    handler.script(Reply(body=b""))
    rate = {"limit": 1, "period_seconds": 600, "burst": 4}
    queue = await grouped(api, handler.url, 10, rate=rate)
    tasks = await bulk(api, queue, *range(6))
    [request] = await handler.received()
    assert ids(request) == tasks[:4]
    assert (await api.task(tasks[4]))["state"] == "ready"


async def test_a_group_that_no_limit_lets_grow_waits_for_nothing(api: Api, handler: Handler) -> None:
    queue = await waiting(api, handler.url, 10, 300, max_concurrency=2)
    tasks = await bulk(api, queue, 1, 2)
    [request] = await handler.received(1, 2)
    assert ids(request) == tasks


# the definition, and its test


async def test_a_definition_of_groups_is_shown_changed_and_taken_away(api: Api, handler: Handler) -> None:
    name = await api.handler(handler.url, group={"max_tasks": 2})
    assert good(await api.get(f"/handlers/{name}"))["group"] == {"max_tasks": 2, "wait_seconds": 0.0}
    changed = good(await api.put(f"/handlers/{name}", json={"url": handler.url, "group": {"max_tasks": 1000}}))
    assert changed["group"]["max_tasks"] == 1000
    assert good(await api.put(f"/handlers/{name}", json={"url": handler.url}))["group"] is None
    queue = await api.queue(name)
    await bulk(api, queue, 1, 2)
    assert {request.headers["content-type"] for request in await handler.received(2)} == {"application/json"}


@pytest.mark.parametrize(
    ("group", "pointer"),
    [
        ({}, "/group/max_tasks"),
        ({"max_tasks": 1}, "/group/max_tasks"),
        ({"max_tasks": 1001}, "/group/max_tasks"),
        ({"max_tasks": 2.5}, "/group/max_tasks"),
        ({"max_tasks": 2, "wait_seconds": -1}, "/group/wait_seconds"),
        ({"max_tasks": 2, "wait_seconds": 301}, "/group/wait_seconds"),
        ({"max_tasks": 2, "more": 1}, "/group/more"),
        (7, "/group"),
    ],
)
async def test_a_group_that_is_not_valid_is_refused(api: Api, group: Any, pointer: str) -> None:
    name = fresh("h")
    refused = await api.put(f"/handlers/{name}", json={"url": "http://127.0.0.1:1/", "group": group})
    problem(refused, 422, "invalid", pointer)
    problem(await api.get(f"/handlers/{name}"), 404, "handler_not_found")


@pytest.mark.parametrize(
    ("reply", "outcome", "error"),
    [
        (answer({"failures": []}), "succeeded", None),
        (Reply(200, JSON, b"ok"), "failed", "not a document of a group"),
        (Reply(500), "failed", "500"),
    ],
)
async def test_a_test_of_the_handler_sends_a_group_of_one(
    api: Api, handler: Handler, reply: Reply, outcome: str, error: str | None
) -> None:
    handler.answer(reply)
    name = await api.handler(handler.url, group={"max_tasks": 5})
    tried = good(await api.post(f"/handlers/{name}/test", json={"payload": {"n": 1}}))
    [request] = handler.requests
    [item] = request.json["tasks"]
    assert (request.headers["content-type"], item["payload"], item["type"]) == (GROUP, {"n": 1}, "sluice.test")
    assert tried["sent"]["body"].encode() == request.body
    assert tried["sent"]["headers"]["webhook-id"] == request.headers["webhook-id"]
    assert tried["outcome"] == outcome and (tried["error"] is None if error is None else error in tried["error"])
