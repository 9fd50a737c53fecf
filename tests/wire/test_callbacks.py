"""Callbacks: what is enqueued when a task ends, once each time, however it ends."""

import asyncio
from typing import Any

import asyncpg
import pytest

from app.telemetry import events
from tests.handlers import Handler, Reply
from tests.promises.gates import WAITING
from tests.promises.records import lose_leases
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import AT_ONCE, UNFINISHED, Api, fresh, good, problem
from tests.wire.test_leases import say, take_one

pytestmark = pytest.mark.anyio

ONCE = {"max_attempts": 1, **AT_ONCE}
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
FIELDS = {
    "task", "queue", "type", "correlation_id", "state", "reason", "attempt", "last_error", "result", "result_encoding",
    "result_truncated", "enqueued_at", "started_at", "ended_at", "tags",
}  # fmt: skip


async def with_callbacks(api: Api, handler: str | None = None, **fields: Any) -> tuple[str, str]:
    """The name of a queue that calls back however a task ends, and of the queue where it does."""
    called = await api.queue()
    callbacks = {state: {"queue": called} for state in ("succeeded", "dead", "cancelled")}
    return await api.queue(handler, callbacks=callbacks, **fields), called


async def calls(api: Api, called: str) -> list[dict[str, Any]]:
    """The callbacks so far, oldest first, with their payloads."""
    return (await api.pages("/tasks", queue=called, include="payload"))[::-1]


async def call(api: Api, called: str) -> dict[str, Any]:
    """The only one, once it is there."""
    found = await poll(lambda: calls(api, called))
    assert len(found) == 1
    task: dict[str, Any] = found[0]
    return task


async def test_a_summary_says_how_the_task_ended(api: Api) -> None:
    queue, called = await with_callbacks(api)
    task = await api.enqueue(queue, {"n": 1}, type="t", correlation_id="c", tags=["a", "b"], headers={"x-a": "1"})
    leased = await take_one(api, queue)
    done = good(await say(api, leased, "complete", {"result": {"rows": [1, None, "\u00e9"]}}))
    back = await call(api, called)
    assert set(back["payload"]) == FIELDS
    assert back["payload"] == {
        **{
            name: done[name]
            for name in ("type", "correlation_id", "state", "reason", "attempt", "last_error", "result")
        },
        **{name: done[name] for name in ("started_at", "ended_at", "tags", "result_truncated")},
        "task": task["id"],
        "queue": queue,
        "enqueued_at": task["created_at"],
        "result_encoding": None,
    }
    shown = (
        "parent",
        "batch",
        "correlation_id",
        "type",
        "headers",
        "idempotency_key",
        "unique_key",
        "state",
        "priority",
    )
    assert [back[name] for name in shown] == [
        task["id"], None, "c", None, {}, f"callback:{task['id']}:succeeded", None, "ready", 0,
    ]  # fmt: skip


async def end_by_expiry(api: Api, queue: str, _: Replica) -> dict[str, Any]:
    return await api.ended((await api.enqueue(queue, ttl_seconds=0.05))["id"])


async def end_by_cancel(api: Api, queue: str, _: Replica) -> dict[str, Any]:
    return good(await api.cancel((await api.enqueue(queue))["id"]))


async def end_by_cancel_while_running(api: Api, queue: str, _: Replica) -> dict[str, Any]:
    await api.enqueue(queue)
    return good(await api.cancel((await take_one(api, queue))["id"]))


async def end_by_purge(api: Api, queue: str, _: Replica) -> dict[str, Any]:
    task = await api.enqueue(queue)
    good(await api.post(f"/queues/{queue}/purge"), 202)
    return await api.ended(task["id"])


async def end_by_failure(api: Api, queue: str, _: Replica) -> dict[str, Any]:
    await api.enqueue(queue)
    return good(await say(api, await take_one(api, queue), "fail", {"error": "no", "retryable": False}))


async def end_by_last_failure(api: Api, queue: str, _: Replica) -> dict[str, Any]:
    await api.enqueue(queue, retry=ONCE)
    return good(await say(api, await take_one(api, queue), "fail", {"error": "no"}))


async def end_by_lost_lease(api: Api, queue: str, replica: Replica) -> dict[str, Any]:
    task = await api.enqueue(queue, retry=ONCE)
    await take_one(api, queue)
    await lose_leases(replica.sluice.core.db, [task["id"]])
    return await api.ended(task["id"])


async def end_by_expiry_of_a_lost_lease(api: Api, queue: str, replica: Replica) -> dict[str, Any]:
    task = await api.enqueue(queue, ttl_seconds=600)
    await take_one(api, queue)
    await replica.sluice.core.db.fetch("update sluice.tasks set expires_at = created_at where id = $1", task["id"])
    await lose_leases(replica.sluice.core.db, [task["id"]])
    return await api.ended(task["id"])


async def end_with_follow_ups(api: Api, queue: str, _: Replica) -> dict[str, Any]:
    await api.enqueue(queue)
    unit = {"queue": await api.queue(), "idempotency_key": "a", "payload": 1}
    return good(await say(api, await take_one(api, queue), "complete", {"tasks": [unit]}))


async def end_with_its_batch(api: Api, queue: str, _: Replica) -> dict[str, Any]:
    batch = good(await api.post("/batches", json={"queue": queue, "tasks": [{"payload": 1}]}), 201)
    (task,) = await api.pages("/tasks", queue=queue)
    good(await api.post(f"/batches/{batch['id']}/cancel"))
    ended = await api.ended(task["id"])
    assert good(await api.get(f"/batches/{batch['id']}"))["total"] == 1, "a callback is of no batch"
    return ended


async def end_within_a_cancelled_batch(api: Api, queue: str, replica: Replica) -> dict[str, Any]:
    """What an answer adds to a batch that is marked ends as it is enqueued."""
    lister = await api.queue()
    batch = good(await api.post("/batches", json={"queue": lister, "tasks": [{"payload": 1}]}), 201)
    leased = await take_one(api, lister)
    await replica.sluice.core.db.fetch(
        "update sluice.batches set cancelled_at = now(), cancel_reason = 'requested', swept = true where id = $1",
        batch["id"],
    )
    good(await say(api, leased, "complete", {"tasks": [{"queue": queue, "idempotency_key": "a", "payload": 1}]}))
    (task,) = await api.pages("/tasks", queue=queue)
    return await api.ended(task["id"])


WAYS = (
    (end_by_expiry, "dead", "expired"),
    (end_by_cancel, "cancelled", "requested"),
    (end_by_cancel_while_running, "cancelled", "requested"),
    (end_by_purge, "cancelled", "purged"),
    (end_by_failure, "dead", "stopped_by_worker"),
    (end_by_last_failure, "dead", "attempts_exhausted"),
    (end_by_lost_lease, "dead", "attempts_exhausted"),
    (end_by_expiry_of_a_lost_lease, "dead", "expired"),
    (end_with_follow_ups, "succeeded", None),
    (end_with_its_batch, "cancelled", "requested"),
    (end_within_a_cancelled_batch, "cancelled", "requested"),
)


@pytest.mark.parametrize(("end", "state", "reason"), WAYS, ids=[way[0].__name__ for way in WAYS])
async def test_however_a_task_ends_it_calls_back_once_and_wakes_who_waits(
    api: Api, shared: Replica, twin: Replica, monkeypatch: pytest.MonkeyPatch, end: Any, state: str, reason: str | None
) -> None:
    woken: list[tuple[int, int]] = []
    for replica in (shared, twin):
        signals, before = replica.sluice.core.signals, replica.sluice.core.signals.lane_ready

        def noted(queue_id: int, handler_id: int, before: Any = before) -> None:
            woken.append((queue_id, handler_id))
            before(queue_id, handler_id)

        monkeypatch.setattr(signals, "lane_ready", noted)
    queue, called = await with_callbacks(api)
    ended = await end(api, queue, shared)
    assert (ended["state"], ended["reason"]) == (state, reason)
    back = await call(api, called)
    assert {name: back["payload"][name] for name in ("task", "state", "reason")} == {
        "task": ended["id"],
        "state": state,
        "reason": reason,
    }
    assert (back["parent"], back["batch"]) == (ended["id"], None)
    assert back["idempotency_key"] == f"callback:{ended['id']}:{state}"
    called_id = await shared.sluice.core.db.fetchval("select id from sluice.queues where name = $1", called)
    await poll(lambda: (called_id, 0) in woken)


async def test_a_run_that_another_supersedes_calls_back(api: Api, handler: Handler) -> None:
    go = asyncio.Event()
    handler.script(Reply(until=go))
    queue, called = await with_callbacks(api, await api.handler(handler.url))
    name = fresh("s")
    given = {"queue": queue, "cron": "0 0 1 1 *", "payload": 1, "overlap": "cancel_other"}
    good(await api.put(f"/schedules/{name}", json=given), 201)
    first = good(await api.post(f"/schedules/{name}/trigger"))
    await handler.received()
    good(await api.post(f"/schedules/{name}/trigger"))
    back = await call(api, called)
    assert (back["payload"]["task"], back["payload"]["reason"]) == (first["task_id"], "superseded")
    go.set()


async def test_a_dead_letter_queue_has_the_original_bytes_and_headers(api: Api, handler: Handler) -> None:
    handler.script(Reply(500, body=b"broken"))
    letters = await api.queue()
    callbacks = {"dead": {"queue": letters, "body": "payload"}}
    queue = await api.queue(await api.handler(handler.url), callbacks=callbacks, retry=ONCE)
    body = b'{"type": "order", "headers": {"x-a": "1"}, "tags": ["t"], "payload":{"b":1.50,  "a":"\\u00e9"}}'
    good(await api.enqueue_bytes(queue, body, {"traceparent": TRACE}), 201)
    back = await call(api, letters)
    assert (back["type"], back["headers"], back["payload"]) == ("order", {"x-a": "1"}, {"b": 1.5, "a": "\u00e9"})
    sent = await api.queue_to(
        handler.url, callbacks={"dead": {"queue": letters, "body": "payload", "type": "dead-order"}}
    )
    good(await api.put(f"/queues/{letters}", json={"handler": await api.handler(handler.url + "/letters")}))
    handler.script(Reply(200))
    letter = (await handler.received(1, task=back["id"]))[0]
    assert letter.body == b'{"b":1.50,  "a":"\\u00e9"}' and letter.headers["sluice-type"] == "order"
    assert letter.headers["x-a"] == "1" and letter.headers["traceparent"].split("-")[1] == TRACE.split("-")[1]
    handler.script(lambda request: Reply(200 if request.path.endswith("letters") else 400, {"sluice-retry": "no"}))
    dead = await api.enqueue(sent, 2, type="order")

    async def renamed() -> bool:
        return any(task["type"] == "dead-order" and task["parent"] == dead["id"] for task in await calls(api, letters))

    await poll(renamed)


async def test_a_tasks_callbacks_replace_those_of_its_queue_state_by_state(api: Api) -> None:
    queue, called = await with_callbacks(api)
    own = await api.queue()
    given = {"succeeded": {"queue": own, "type": "done"}, "dead": None}
    first = await api.enqueue(queue, 1, callbacks=given)
    assert first["callbacks"] == {
        "succeeded": {"queue": own, "body": "summary", "type": "done", "target": None},
        "dead": None,
    }
    good(await say(api, await take_one(api, queue), "complete"))
    assert (await call(api, own))["type"] == "done" and await calls(api, called) == []
    second = await api.enqueue(queue, 2, callbacks=given, delay_seconds=600)
    good(await api.client.patch(f"/tasks/{second['id']}", json={"type": "t", "delay_seconds": 0}))
    good(await say(api, await take_one(api, queue), "fail", {"error": "no", "retryable": False}))
    assert await calls(api, called) == [], "null for a state means none"
    third = await api.enqueue(queue, 3, callbacks=given)
    good(await api.cancel(third["id"]))
    assert (await call(api, called))["payload"]["task"] == third["id"]
    problem(await api.client.patch(f"/tasks/{third['id']}", json={"callbacks": {}}), 422, "invalid", "/callbacks")


async def test_what_a_queue_says_when_the_task_ends_counts(api: Api) -> None:
    queue = await api.queue()
    await api.enqueue(queue)
    later = await api.queue()
    good(await api.put(f"/queues/{queue}", json={"callbacks": {"succeeded": {"queue": later}}}))
    good(await say(api, await take_one(api, queue), "complete"))
    assert (await call(api, later))["payload"]["state"] == "succeeded"


async def test_neither_a_full_queue_nor_a_schema_keeps_a_task_from_ending(api: Api) -> None:
    letters = await api.queue(max_depth=1, payload_schema={"type": "null"})
    queue = await api.queue(callbacks={"dead": {"queue": letters}})
    await api.enqueue(letters, None)
    for _ in range(2):
        await api.enqueue(queue)
        good(await say(api, await take_one(api, queue), "fail", {"error": "no", "retryable": False}))
    assert len(await calls(api, letters)) == 3
    problem(await api.post(f"/queues/{letters}/tasks", json={"payload": None}), 429, "queue_full")


async def test_a_redriven_task_that_dies_again_calls_back_again(api: Api) -> None:
    queue, called = await with_callbacks(api)
    task = await api.enqueue(queue)
    for redriven in (0, 1, 2):
        good(await say(api, await take_one(api, queue), "fail", {"error": f"{redriven}", "retryable": False}))
        assert [back["payload"]["last_error"] for back in await calls(api, called)] == [
            str(n) for n in range(redriven + 1)
        ]
        assert good(await api.post(f"/queues/{queue}/redrive", json={}))["moved"] == 1
    keys = {back["idempotency_key"] for back in await calls(api, called)}
    assert keys == {f"callback:{task['id']}:dead"}


async def test_a_repeated_answer_calls_back_no_second_time(api: Api) -> None:
    queue, called = await with_callbacks(api)
    await api.enqueue(queue)
    leased = await take_one(api, queue)
    for _ in range(3):
        good(await say(api, leased, "complete"))
    assert len(await calls(api, called)) == 1


async def test_a_chain_of_callbacks_ends_after_eight(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr(events, "emit", lambda log, event, **fields: lines.append({"event": event, **fields}))
    queue = await api.queue()
    good(await api.put(f"/queues/{queue}", json={"callbacks": {"cancelled": {"queue": queue}}}))
    await api.enqueue(queue)
    for n in range(9):
        good(await api.post(f"/queues/{queue}/purge"), 202)
        assert len(await calls(api, queue)) == min(n + 2, 9)
    last = (await calls(api, queue))[-1]
    said = [line for line in lines if line["event"] is events.CALLBACK_LEFT_OUT]
    assert said == [
        {
            "event": events.CALLBACK_LEFT_OUT, "tenant": "default", "task": last["id"], "queue": queue,
            "callback_queue": queue, "state": "cancelled", "reason": "chain",
        }
    ]  # fmt: skip
    assert (await api.delete(f"/queues/{queue}")).status_code == 204, "its own callbacks do not keep it"


async def test_a_queue_that_a_callback_names_cannot_be_deleted(api: Api, other: Api) -> None:
    called = await api.queue()
    queue = await api.queue(callbacks={"dead": {"queue": called}})
    problem(await api.delete(f"/queues/{called}"), 409, "queue_in_use")
    good(await api.put(f"/queues/{queue}", json={}))
    for running in (False, True):
        await api.enqueue(queue, callbacks={"dead": {"queue": called}})
        leased = await take_one(api, queue) if running else None
        problem(await other.delete(f"/queues/{called}"), 409, "queue_in_use")
        if leased:
            good(await say(api, leased, "complete"))
        else:
            good(await api.post(f"/queues/{queue}/purge"), 202)
    assert (await other.delete(f"/queues/{called}")).status_code == 204
    refused = await api.post(f"/queues/{queue}/tasks", json={"payload": 1, "callbacks": {"dead": {"queue": called}}})
    problem(refused, 422, "invalid", "/callbacks/dead/queue")


async def test_a_queue_is_not_deleted_while_a_callback_to_it_is_on_its_way(
    api: Api, other: Api, shared: Replica, shared_url: str
) -> None:
    """Neither of the two sees the other: the end is not committed yet, and the queue says no longer that it calls back."""
    called = await api.queue()
    queue = await api.queue(callbacks={"cancelled": {"queue": called}})
    task = await api.enqueue(queue)
    ending = await asyncpg.connect(shared_url)
    try:
        async with ending.transaction():
            tenant = await ending.fetchval("select tenant_id from sluice.tasks where id = $1", task["id"])
            await ending.fetch("select * from sluice.cancel_v1($1, $2, 'requested')", tenant, [task["id"]])
            good(await api.put(f"/queues/{queue}", json={}))
            deleting = asyncio.create_task(other.delete(f"/queues/{called}"))
            db = shared.sluice.core.db
            await poll(lambda: db.fetchval(WAITING))
        problem(await deleting, 409, "queue_in_use")
    finally:
        await ending.close()
    assert (await call(api, called))["payload"]["task"] == task["id"]


async def test_a_task_that_is_retried_after_its_callbacks_queue_has_gone_ends_without_one(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr(events, "emit", lambda log, event, **fields: lines.append({"event": event, **fields}))
    queue, called = await api.queue(), await api.queue()
    task = await api.enqueue(queue, callbacks={"dead": {"queue": called}})
    good(await api.cancel(task["id"]))
    assert (await api.delete(f"/queues/{called}")).status_code == 204
    good(await api.retry(task["id"]))
    ended = good(await say(api, await take_one(api, queue), "fail", {"error": "no", "retryable": False}))
    assert ended["state"] == "dead"
    said = [line for line in lines if line["event"] is events.CALLBACK_LEFT_OUT]
    assert [(line["task"], line["callback_queue"], line["reason"]) for line in said] == [
        (task["id"], called, "queue_gone")
    ]


async def test_an_unknown_queue_is_refused_wherever_a_callback_names_it(api: Api) -> None:
    queue, gone = await api.queue(), fresh("gone")
    callbacks = {"succeeded": {"queue": queue}, "dead": {"queue": gone}}
    where = "/callbacks/dead/queue"
    problem(await api.put(f"/queues/{fresh('q')}", json={"callbacks": callbacks}), 422, "invalid", where)
    problem(await api.put(f"/queues/{queue}", json={"callbacks": callbacks}), 422, "invalid", where)
    problem(
        await api.post(f"/queues/{queue}/tasks", json={"payload": 1, "callbacks": callbacks}), 422, "invalid", where
    )
    tasks = [{"payload": 1, "callbacks": callbacks}, {"payload": 2}]
    results = good(await api.post(f"/queues/{queue}/tasks/bulk", json={"tasks": tasks}))["results"]
    assert [result["status"] for result in results] == [422, 201]
    assert results[0]["problem"]["errors"][0]["pointer"] == f"/tasks/0{where}"
    leased = await take_one(api, queue)
    unit = {"queue": queue, "idempotency_key": "a", "payload": 1, "callbacks": callbacks}
    problem(await say(api, leased, "complete", {"tasks": [unit]}), 422, "invalid", f"/tasks/0{where}")
    assert good(await api.get(f"/queues/{queue}"))["callbacks"] == {"succeeded": None, "dead": None, "cancelled": None}


async def test_a_callback_does_not_reach_the_queue_of_another_tenant(two: tuple[Replica, Api, Api]) -> None:
    _, a, b = two
    name, queue = fresh("letters"), await b.queue()
    good(await a.put(f"/queues/{name}", json={}), 201)
    callbacks = {"cancelled": {"queue": name}}
    problem(
        await b.put(f"/queues/{queue}", json={"callbacks": callbacks}), 422, "invalid", "/callbacks/cancelled/queue"
    )
    given = {"payload": 1, "callbacks": callbacks}
    problem(await b.post(f"/queues/{queue}/tasks", json=given), 422, "invalid", "/callbacks/cancelled/queue")
    good(await b.put(f"/queues/{name}", json={}), 201)
    good(await b.cancel((await b.enqueue(queue, callbacks=callbacks))["id"]))
    assert len(await calls(b, name)) == 1 and await calls(a, name) == []


@pytest.mark.parametrize(
    ("callbacks", "pointer"),
    [
        ({"dead": {}}, "/callbacks/dead/queue"),
        ({"dead": {"queue": "-"}}, "/callbacks/dead/queue"),
        ({"dead": {"queue": "q", "body": "all"}}, "/callbacks/dead/body"),
        ({"dead": {"queue": "q", "more": 1}}, "/callbacks/dead/more"),
        ({"dead": {"queue": "q", "type": ""}}, "/callbacks/dead/type"),
        ({"dead": {"queue": "q", "type": "a\nb"}}, "/callbacks/dead/type"),
        ({"ended": {"queue": "q"}}, "/callbacks/ended"),
        ({"dead": "q"}, "/callbacks/dead"),
        ([], "/callbacks"),
    ],
)
async def test_callbacks_that_are_none_are_refused(api: Api, callbacks: Any, pointer: str) -> None:
    queue = await api.queue()
    problem(await api.put(f"/queues/{queue}", json={"callbacks": callbacks}), 422, "invalid", pointer)
    given = {"payload": 1, "callbacks": callbacks}
    problem(await api.post(f"/queues/{queue}/tasks", json=given), 422, "invalid", pointer)


@pytest.mark.parametrize(
    ("content_type", "body", "result", "encoding"),
    [
        ("application/json", b'{"a": "\\u0000", "n": 12345678901234567890}', {"a": "\x00", "n": 12345678901234567890}, None),
        ("text/plain", "gr\u00fcn".encode(), "gr\u00fcn", None),
        ("text/plain", b"a\x00b", "YQBi", "base64"),
        ("application/octet-stream", b"\xff\xfe", "//4=", "base64"),
        ("text/plain", b"a" * 65_535 + "\u00fc".encode(), "a" * 65_535, None),
        ("text/plain", b"\xf0" + b"a" * 100, "8GFhYWFh", "base64"),
    ],
    ids=["json", "text", "NUL", "bytes", "cut", "not text"],
)  # fmt: skip
async def test_whatever_was_answered_the_task_ends_and_the_summary_has_it(
    api: Api, handler: Handler, content_type: str, body: bytes, result: Any, encoding: str | None
) -> None:
    handler.script(Reply(200, {"content-type": content_type}, body))
    queue, called = await with_callbacks(api, await api.handler(handler.url))
    await api.enqueue(queue)
    summary = (await call(api, called))["payload"]
    shown = summary["result"][: len(result)] if encoding == "base64" else summary["result"]
    assert (shown, summary["result_encoding"]) == (result, encoding)


async def test_a_callback_is_delivered_where_its_target_says(api: Api, handler: Handler) -> None:
    called = await api.queue(await api.handler(handler.url, targets="path"))
    callback = {
        "queue": called,
        "body": "payload",
        "target": {"path": "/ended/x", "method": "PUT", "headers": {"x-t": "1"}},
    }
    queue = await api.queue(callbacks={"cancelled": callback})
    own = {"cancelled": callback | {"target": {"path": "/own"}}}
    first = await api.enqueue(queue, {"n": 1}, headers={"x-a": "1"})
    second = await api.enqueue(queue, 2, callbacks=own)
    for task in (first, second):
        good(await api.cancel(task["id"]))
    seen = {request.path: request for request in await handler.received(2)}
    assert set(seen) == {"/hook/ended/x", "/hook/own"}
    request = seen["/hook/ended/x"]
    assert (request.method, request.json) == ("PUT", {"n": 1})
    assert (request.headers["x-t"], request.headers["x-a"]) == ("1", "1")


async def test_a_target_that_the_called_queues_handler_does_not_allow_is_refused(api: Api, handler: Handler) -> None:
    named, pull, queue = await api.handler(handler.url), await api.queue(), await api.queue()
    strict = await api.queue(named)
    for called, target, where in (
        (strict, {"path": "/x"}, "/callbacks/dead/target"),
        (pull, {"path": "/x"}, "/callbacks/dead/target"),
        (strict, {"path": "/../x"}, "/callbacks/dead/target/path"),
        (strict, {"path": "/x", "more": 1}, "/callbacks/dead/target/more"),
    ):
        callbacks = {"dead": {"queue": called, "target": target}}
        problem(await api.put(f"/queues/{queue}", json={"callbacks": callbacks}), 422, "invalid", where)
        given = {"payload": 1, "callbacks": callbacks}
        problem(await api.post(f"/queues/{queue}/tasks", json=given), 422, "invalid", where)
        document = {"queues": {queue: {"callbacks": callbacks}}}
        problem(await api.post("/definitions/plan", json=document), 422, "invalid", f"/queues/{queue}{where}")


async def test_a_dead_letter_may_be_bytes(api: Api, handler: Handler) -> None:
    handler.script(lambda request: Reply(200 if request.path.endswith("letters") else 400, {"sluice-retry": "no"}))
    letters = await api.queue_to(handler.url + "/letters")
    queue = await api.queue_to(handler.url, callbacks={"dead": {"queue": letters, "body": "payload"}})
    given = {"payload_base64": "/wD+", "content_type": "image/png"}
    good(await api.post(f"/queues/{queue}/tasks", json=given), 201)
    _, letter = await handler.received(2)
    assert (letter.path, letter.body, letter.headers["content-type"]) == ("/hook/letters", b"\xff\x00\xfe", "image/png")


@pytest.mark.ci
async def test_many_ends_at_once_call_back_once_each(api: Api, other: Api, handler: Handler) -> None:
    handler.script(lambda request: Reply(200 if request.json % 3 else 400, {"sluice-retry": "no"}))
    queue, called = await with_callbacks(api, await api.handler(handler.url))
    ids = await api.bulk(queue, [{"payload": n} for n in range(120)])

    async def cancel(some: list[str]) -> None:
        for task_id in some:
            await other.cancel(task_id)

    await asyncio.gather(cancel(ids[::7]), cancel(ids[3::11]))
    states: dict[str, str] = {}

    async def all_ended() -> bool:
        states.update({task["id"]: task["state"] for task in await api.pages("/tasks", queue=queue, limit=200)})
        return not {*UNFINISHED} & {*states.values()}

    await poll(all_ended)
    back = [(task["payload"]["task"], task["payload"]["state"]) for task in await calls(api, called)]
    assert sorted(back) == sorted(states.items())


async def test_definitions_are_applied_in_an_order_in_which_each_callback_finds_its_queue(api: Api) -> None:
    a, b, c, d = (fresh(letter) for letter in "abcd")
    owner = fresh("owner")

    def document(**queues: Any) -> dict[str, Any]:
        return {"queues": queues, "owner": owner, "prune": True}

    chain = {
        a: {"callbacks": {"dead": {"queue": b}}},
        b: {"callbacks": {"dead": {"queue": c, "body": "payload"}}},
        c: {},
        d: {"callbacks": {"succeeded": {"queue": d}}},
    }
    planned = good(await api.post("/definitions/plan", json=document(**chain)))
    assert [change["name"] for change in planned["changes"]] == [c, b, a, d]
    fields = {field["field"]: field["to"] for field in planned["changes"][1]["changes"]}
    assert fields["callbacks.dead"] == {"queue": c, "body": "payload", "type": None, "target": None}
    good(await api.post("/definitions/apply", json=document(**chain)))
    again = good(await api.post("/definitions/apply", json=document(**chain)))
    assert {change["action"] for change in again["changes"]} == {"unchanged"}
    unknown = document(**{a: {"callbacks": {"dead": {"queue": fresh("no")}}}})
    where = f"/queues/{a}/callbacks/dead/queue"
    problem(await api.post("/definitions/plan", json=unknown), 422, "invalid", where)
    pruned = good(await api.post("/definitions/apply", json=document()))
    assert [change["name"] for change in pruned["changes"]] == [a, b, c, d]


async def test_queues_that_call_back_in_a_circle_can_be_applied(api: Api) -> None:
    a, b, c = (fresh(letter) for letter in "abc")
    circle = {x: {"callbacks": {"dead": {"queue": y}}} for x, y in ((a, b), (b, c), (c, a))}
    good(await api.post("/definitions/apply", json={"queues": circle}))
    for x, y in ((a, b), (b, c), (c, a)):
        assert good(await api.get(f"/queues/{x}"))["callbacks"]["dead"]["queue"] == y
    again = good(await api.post("/definitions/plan", json={"queues": circle}))
    assert {change["action"] for change in again["changes"]} == {"unchanged"}
