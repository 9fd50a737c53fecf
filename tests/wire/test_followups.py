"""Follow-up work: what an answer names is enqueued in the transaction that completes its task, or nothing happens at all."""

import json
from typing import Any

import pytest

from tests.handlers import Handler, Received, Reply
from tests.support import poll
from tests.wire.api import AT_ONCE, Api, good, problem
from tests.wire.test_leases import say, take, take_one

pytestmark = pytest.mark.anyio

FOLLOW_UPS = {"content-type": "application/vnd.sluice.tasks+json"}
MAX_BYTES = 4_194_304


async def test_a_completion_enqueues_what_it_names_and_forms_a_batch(api: Api) -> None:
    lister, units, sums = await api.queue(), await api.queue(), await api.queue()
    root = await api.enqueue(lister, {"list": "all"})
    leased = await take_one(api, lister)
    page: dict[str, Any] = {
        "result": {"found": 2},
        "tasks": [{"queue": units, "idempotency_key": str(n), "payload": {"n": n}, "tags": ["u"]} for n in (1, 2, 1)],
        "on_complete": {"queue": sums, "type": "sum", "payload": {"sum": True}},
    }
    done = good(await say(api, leased, "complete", page))
    assert (done["state"], done["result"], done["batch"]) == ("succeeded", {"found": 2}, root["id"])
    first, second = await take(api, units, max_tasks=9)
    assert [first["payload"], second["payload"]] == [{"n": 1}, {"n": 2}]
    for task in (first, second):
        assert (task["batch"], task["parent"], task["tags"]) == (root["id"], root["id"], ["u"])
    assert await take(api, sums) == []
    good(await say(api, first, "complete"))
    assert await take(api, sums) == []
    good(await say(api, second, "fail", {"error": "no", "retryable": False}))
    last = await take(api, sums, wait_seconds=20)
    assert [(task["type"], task["payload"]) for task in last] == [("sum", {"sum": True})]
    assert last[0]["batch"] == root["id"], "as a handler learns it"
    assert (await api.task(last[0]["id"]))["batch"] is None


def answer(**page: Any) -> Reply:
    return Reply(200, {"content-type": "application/vnd.sluice.tasks+json; charset=utf-8"}, json.dumps(page).encode())


def unit(queue: str, key: str, payload: Any = None, **fields: Any) -> dict[str, Any]:
    return {"queue": queue, "idempotency_key": key, "payload": payload, **fields}


async def test_a_handler_pages_through_a_listing_and_each_unit_ends_once(api: Api, handler: Handler) -> None:
    """Pages overlap by one unit; the root, its continuations and all units are one batch."""
    units = await api.queue_to(handler.url + "/unit")

    def listing(request: Received) -> Reply:
        if not request.path.endswith("/list"):
            return Reply()
        at = int(request.headers.get("sluice-cursor", "0"))
        tasks = [unit(units, str(n), {"n": n}) for n in range(max(0, at - 1), at + 10)]
        more: dict[str, Any] = {"next": str(at + 10)} if at < 40 else {}
        then: dict[str, Any] = {} if at else {"on_complete": {"queue": units, "payload": "sum"}}
        return answer(result=at, tasks=tasks, **more, **then)

    handler.script(listing)
    lister = await api.queue_to(handler.url + "/list")
    root = await api.enqueue(lister, "go", type="listing", headers={"x-kind": "l"}, tags=["t"])

    async def summed() -> list[Received] | None:
        return [request for request in handler.requests if request.json == "sum"] or None

    await poll(summed)
    seen = [r.json["n"] for r in handler.requests if r.path.endswith("/unit") and r.json != "sum"]
    assert sorted(seen) == list(range(50))
    calls = [r for r in handler.requests if r.path.endswith("/list")]
    assert [r.headers.get("sluice-cursor") for r in calls] == [None, "10", "20", "30", "40"]
    assert {(r.body, r.headers["sluice-type"], r.headers["x-kind"], r.headers["sluice-attempt"]) for r in calls} == {
        (b'"go"', "listing", "l", "1")
    }
    assert len({r.task for r in calls}) == 5
    assert [r.headers.get("sluice-batch") for r in calls] == [None] + 4 * [root["id"]]
    (last,) = [r for r in handler.requests if r.json == "sum"]
    assert last.headers["sluice-batch"] == root["id"] and last is handler.requests[-1]
    members = await api.pages("/tasks", batch=root["id"])
    assert len(members) == 55 and {task["state"] for task in members} == {"succeeded"}


NUMBERED = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
GOOD = b'{"queue": "UNITS", "idempotency_key": "good", "payload": {"n": 1}}'


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (b"", "the follow-up work was refused"),
        (b"{", "the follow-up work was refused"),
        (b'{"result": NaN}', "the follow-up work was refused"),
        (b"\xff", "the follow-up work was refused"),
        (b"[]", "refused: expected an object"),
        (b'{"tasks": [GOOD], "task": []}', "/task:"),
        (b'{"tasks": [GOOD], "next": "1", "next": "2"}', "next"),
        (b'{"tasks": [GOOD], "next": ""}', "/next:"),
        (b'{"tasks": [GOOD], "next": 7}', "/next:"),
        (b'{"tasks": [GOOD, 1]}', "/tasks/1:"),
        (b'{"tasks": [GOOD, {"queue": "no-such", "idempotency_key": "a", "payload": 1}]}', "/tasks/1/queue:"),
        (b'{"tasks": [GOOD, {"queue": "UNITS", "payload": {"n": 2}}]}', "/tasks/1/idempotency_key:"),
        (b'{"tasks": [GOOD, {"idempotency_key": "a", "payload": {"n": 2}}]}', "/tasks/1/queue:"),
        (b'{"tasks": [GOOD, {"queue": "UNITS", "idempotency_key": "a"}]}', "/tasks/1/payload:"),
        (b'{"tasks": [GOOD, {"queue": "UNITS", "idempotency_key": "a", "payload": {"n": "2"}}]}', "/tasks/1/payload/n:"),
        (b'{"tasks": [{"queue": "UNITS", "idempotency_key": "a", "payload": {"n": 1}, "id": 1}]}', "/tasks/0/id:"),
        (b'{"tasks": [{"queue": "UNITS", "idempotency_key": "a", "payload": {"n": 1, "n": 2}}]}', "/tasks/0"),
        (b'{"tasks": [{"queue": "UNITS", "idempotency_key": "a\\u0000", "payload": {"n": 1}}]}', "/tasks/0/idempotency_key:"),
        (b'{"tasks": [{"queue": "UNITS", "idempotency_key": "a", "payload": {"n": 1}, "handler": "h"}]}', "/tasks/0/handler:"),
        (b'{"tasks": [GOOD], "on_complete": {"queue": "no-such", "payload": 1}}', "/on_complete/queue:"),
        (b'{"tasks": [GOOD], "on_complete": {"queue": "UNITS", "payload": {}}}', "/on_complete/payload"),
        (b'{"tasks": [GOOD], "on_complete": {"queue": "UNITS"}}', "/on_complete/payload:"),
    ],
)  # fmt: skip
async def test_a_document_that_is_not_valid_enqueues_nothing_and_the_attempt_has_failed(
    api: Api, handler: Handler, document: bytes, told: str
) -> None:
    units = await api.queue(payload_schema=NUMBERED)
    good_document = answer(tasks=[unit(units, "good", {"n": 1})]).body
    document = document.replace(b"GOOD", GOOD).replace(b"UNITS", units.encode())
    handler.answer(Reply(200, FOLLOW_UPS, document), Reply(500), Reply(200, FOLLOW_UPS, good_document))
    root = await api.enqueue(await api.queue_to(handler.url, retry=AT_ONCE))
    await api.until(root["id"], "succeeded")
    *_, first = attempts = await api.attempts(root["id"])
    assert [(a["outcome"], a["counted"]) for a in attempts] == [("succeeded", True), ("failed", True), ("failed", True)]
    assert first["status"] == 200 and told in first["error"], first["error"]
    assert [r.headers["sluice-attempt"] for r in handler.requests] == ["1", "2", "3"]
    (only,) = await take(api, units, max_tasks=9)
    assert only["payload"] == {"n": 1}


async def test_last_error_names_what_is_wrong_with_a_document(api: Api, handler: Handler) -> None:
    """At the last attempt such a task is dead as any other."""
    handler.answer(answer(tasks=[unit("no-such", "a"), {"queue": "no-such"}]))
    queue = await api.queue_to(handler.url, retry={"max_attempts": 1})
    dead = await api.until((await api.enqueue(queue))["id"], "dead", reason="attempts_exhausted")
    for pointer in ("/tasks/0/queue: ", "/tasks/1/"):
        assert pointer in dead["last_error"]
    assert dead["batch"] is None


@pytest.mark.parametrize("kind", ["bytes", "tasks", "depth"])
async def test_a_page_larger_than_any_page_may_be_is_dead(api: Api, handler: Handler, kind: str) -> None:
    units = await api.queue(max_depth=2)
    pages: dict[str, dict[str, Any]] = {
        "bytes": {"result": "x" * MAX_BYTES},
        "tasks": {"tasks": [unit(units, "k")] * 10_001},
        "depth": {"tasks": [unit(units, str(n)) for n in range(3)], "next": "more"},
    }
    handler.answer(answer(**pages[kind]))
    root = await api.enqueue(await api.queue_to(handler.url, retry=AT_ONCE))
    dead = await api.until(root["id"], "dead", reason="followup_too_large")
    assert dead["last_error"] and (dead["attempt"], dead["batch"]) == (1, None)
    (attempt,) = await api.attempts(root["id"])
    assert (attempt["outcome"], attempt["status"], attempt["counted"]) == ("failed", 200, True)
    assert await take(api, units, max_tasks=9) == [] and len(handler.requests) == 1


@pytest.mark.ci
async def test_a_document_may_have_all_the_bytes_and_tasks_that_are_allowed(api: Api, handler: Handler) -> None:
    units = await api.queue(max_depth=10_000)
    body = answer(tasks=[unit(units, f"{n}") for n in range(10_000)]).body
    handler.answer(Reply(200, FOLLOW_UPS, body + b" " * (MAX_BYTES - len(body))))
    root = await api.enqueue(await api.queue_to(handler.url))
    assert (await api.until(root["id"], "succeeded"))["batch"] == root["id"]
    assert good(await api.get(f"/queues/{units}/stats"))["counts"]["ready"] == 10_000


async def test_what_does_not_fit_now_waits_uncounted_and_goes_through_when_there_is_room(
    api: Api, handler: Handler
) -> None:
    """With one attempt allowed, a single one that counted would be the task's end."""
    units = await api.queue(max_depth=2)
    blocking = await api.enqueue(units)
    handler.script(answer(tasks=[unit(units, "a"), unit(units, "b")], next="more"))
    retry = {"max_attempts": 1, "backoff": {"kind": "fixed", "seconds": 0.2}}
    lister = await api.queue_to(handler.url, retry=retry)
    root = await api.enqueue(lister)
    await handler.received(3, task=root["id"])
    waiting = await api.until(root["id"], "scheduled", attempt=0)
    assert units in waiting["last_error"] and waiting["batch"] is None
    good(await api.post(f"/queues/{lister}/pause"))  # the continuation names the same tasks, and goes on for ever
    await poll(lambda: handler.open_calls == 0)
    good(await api.cancel(blocking["id"]))
    handler.script(answer(result="through", tasks=[unit(units, "a"), unit(units, "b")]))
    good(await api.post(f"/queues/{lister}/resume"))
    done = await api.until(root["id"], "succeeded", result="through", attempt=1)
    last, *pushed = await api.attempts(root["id"])
    assert (last["outcome"], last["counted"]) == ("succeeded", True) and last["number"] == done_number(pushed)
    assert {(attempt["outcome"], attempt["counted"], attempt["status"]) for attempt in pushed} == {
        ("failed", False, 200)
    }
    assert {request.headers["sluice-attempt"] for request in handler.requests} == {"1"}
    assert done["batch"] == root["id"] and len(await take(api, units, max_tasks=9)) == 2


def done_number(earlier: list[dict[str, Any]]) -> int:
    assert [attempt["number"] for attempt in earlier] == list(range(len(earlier), 0, -1))
    return len(earlier) + 1


async def test_tasks_that_are_there_already_take_no_room(api: Api) -> None:
    lister, units = await api.queue(), await api.queue(max_depth=3)
    await api.enqueue(lister)
    tasks = [unit(units, str(n)) for n in range(3)]
    good(await say(api, await take_one(api, lister), "complete", {"tasks": tasks, "next": "2"}))
    good(await say(api, await take_one(api, lister), "complete", {"tasks": tasks, "next": "3"}))
    more = [*tasks, unit(units, "new")]
    last = await take_one(api, lister)
    refused = problem(await say(api, last, "complete", {"tasks": more}), 429, "queue_full")
    assert units in refused["detail"] and (await api.task(last["id"]))["state"] == "running"
    problem(await say(api, last, "complete", {"tasks": [unit(units, f"n{n}") for n in range(4)]}), 413, "too_large")
    done, *_ = await take(api, units, max_tasks=1)
    good(await say(api, done, "complete"))
    good(await say(api, last, "complete", {"tasks": more}))
    assert {task["idempotency_key"] for task in await take(api, units, max_tasks=9)} == {"1", "2", "new"}


async def test_a_continuation_is_the_same_task_but_for_id_keys_times_and_cursor(api: Api) -> None:
    lister = await api.queue(max_depth=1)
    given: dict[str, Any] = {"type": "listing", "priority": 7, "correlation_id": "c", "headers": {"x-a": "1"}}
    given |= {"tags": ["t"], "timeout_seconds": 77, "ttl_seconds": 3600, "retry": {"max_attempts": 9}}
    given |= {"idempotency_key": "k", "unique_key": "u"}
    root = await api.enqueue(lister, {"list": 1}, **given)
    good(await say(api, await take_one(api, lister), "fail", {"error": "once", "retry_after_seconds": 0}))
    good(await api.retry(root["id"]))
    leased = await take_one(api, lister)
    await api.enqueue(lister, "fills the queue")
    good(await say(api, leased, "complete", {"next": "page 2"}))
    problem(await api.post(f"/queues/{lister}/tasks", json={"payload": 1}), 429, "queue_full")
    again = await take_one(api, lister)
    first, second = await api.task(root["id"]), await api.task(again["id"])
    assert (again["cursor"], again["attempt"], second["parent"], second["batch"]) == (
        "page 2",
        1,
        first["id"],
        first["id"],
    )
    assert (second["idempotency_key"], second["unique_key"], second["last_error"]) == (None, None, None)
    differ = {
        "id",
        "idempotency_key",
        "unique_key",
        "run_at",
        "created_at",
        "started_at",
        "ended_at",
        "attempt",
        "parent",
    }
    differ |= {"last_error", "state", "lease", "result", "result_truncated"}
    assert {k: v for k, v in second.items() if k not in differ} == {k: v for k, v in first.items() if k not in differ}


async def test_the_first_of_a_key_wins_over_all_pages_below_a_root(api: Api) -> None:
    """Keys of another queue, another root, and of plain enqueues are others."""
    lister, units, others = await api.queue(), await api.queue(), await api.queue()
    await api.enqueue(units, "plain", idempotency_key="a")
    page = {"tasks": [unit(units, "a", "first"), unit(units, "a", "twin"), unit(others, "a", "other")], "next": "2"}
    for _ in range(2):
        root = await api.enqueue(lister)
        good(await say(api, await take_one(api, lister), "complete", page))
        later = [unit(units, "a", "later"), unit(units, "b", "new")]
        good(await say(api, await take_one(api, lister), "complete", {"tasks": later}))
        below = [task for task in await take(api, units, max_tasks=9) if task["batch"] == root["id"]]
        assert [task["payload"] for task in below] == ["first", "new"]
        # what follows from a unit is below the same root, and in its batch
        good(await say(api, below[0], "complete", {"tasks": [unit(units, "b", "again"), unit(units, "c", "deeper")]}))
        (deeper,) = await take(api, units, max_tasks=9)
        assert (deeper["payload"], deeper["batch"], deeper["parent"]) == ("deeper", root["id"], below[0]["id"])
        good(await say(api, deeper, "complete", {"tasks": [unit(units, "a", "cycle")]}))
        assert await take(api, units) == []
        assert [task["payload"] for task in await take(api, others, max_tasks=9)] == ["other"]


async def test_a_completion_told_twice_adds_nothing_twice(api: Api) -> None:
    lister, units = await api.queue(), await api.queue()
    root = await api.enqueue(lister)
    leased = await take_one(api, lister)
    page = {"result": 1, "tasks": [unit(units, "a")], "next": "2", "on_complete": {"queue": units, "payload": "sum"}}
    for told in (page, page, {"tasks": [unit(units, "other")]}):
        assert good(await say(api, leased, "complete", told))["result"] == 1
    assert len(await api.pages("/tasks", batch=root["id"])) == 3
    problem(await say(api, {**leased, "lease_token": root["id"]}, "complete", page), 409, "lease_lost")


async def test_what_another_task_s_unique_key_keeps_out_leaves_no_key(api: Api) -> None:
    lister, units = await api.queue(), await api.queue()
    await api.enqueue(units, "holder", unique_key="u")
    root = await api.enqueue(lister)
    page = {
        "tasks": [unit(units, "a", unique_key="u"), unit(units, "b", unique_key="w"), unit(units, "c")],
        "next": "2",
    }
    good(await say(api, await take_one(api, lister), "complete", page))
    assert {task["idempotency_key"] for task in await api.pages("/tasks", batch=root["id"])} == {None, "b", "c"}
    good(await say(api, await take_one(api, units), "complete"))
    good(await say(api, await take_one(api, lister), "complete", {"tasks": page["tasks"]}))
    members = [task["idempotency_key"] for task in await api.pages("/tasks", batch=root["id"])]
    assert sorted(map(str, members)) == ["None", "None", "a", "b", "c"]


@pytest.mark.parametrize(
    ("document", "result", "truncated"),
    [
        (b'{"result": {"a":  1}}', {"a": 1}, False),
        (b'{"result": null}', None, False),
        (b"{}", None, False),
        (b'{"result": "' + b"x" * 70_000 + b'"}', '"' + "x" * 65_535, True),
        (b'{"result": [1], "result_truncated": true}', [1], True),
        (b'{"result": "/wA=", "result_encoding": "base64"}', "/wA=", False),
        (b'{"result": "' + b"AAAA" * 30_000 + b'", "result_encoding": "base64"}', "AAAA" * 21_845 + "AA==", True),
    ],
)
async def test_the_result_of_the_document_is_the_result_of_the_task(
    api: Api, handler: Handler, document: bytes, result: Any, truncated: bool
) -> None:
    units = await api.queue()
    for more in (b"", b', "tasks": [' + json.dumps(unit(units, "a")).encode() + b"]"):
        handler.answer(Reply(201, FOLLOW_UPS, b"{" + (document[1:-1] + more).lstrip(b", ") + b"}"))
        root = await api.enqueue(await api.queue_to(handler.url))
        done = await api.until(root["id"], "succeeded")
        assert (done["result"], done["result_truncated"], done["batch"]) == (
            result,
            truncated,
            root["id"] if more else None,
        )


async def test_the_type_counts_only_on_success(api: Api, handler: Handler) -> None:
    units = await api.queue()
    body = answer(tasks=[unit(units, "a")]).body
    handler.answer(Reply(500, FOLLOW_UPS, body), Reply(200, {"content-type": "application/json"}, body))
    root = await api.enqueue(await api.queue_to(handler.url, retry=AT_ONCE))
    done = await api.until(root["id"], "succeeded")
    assert done["result"]["tasks"] and done["batch"] is None and await take(api, units) == []


async def test_a_handler_that_holds_names_its_follow_ups_later(api: Api, handler: Handler) -> None:
    """The hold decides, whatever its body's type is."""
    units = await api.queue()
    held = answer(tasks=[unit(units, "too early")])
    handler.answer(Reply(202, {**held.headers, "sluice-hold": "60"}, held.body))
    root = await api.enqueue(await api.queue_to(handler.url))
    (request,) = await handler.received()
    await poll_outcome(api, root["id"], "held")
    leased = {"id": root["id"], "lease_token": request.headers["sluice-lease-token"]}
    problem(
        await say(api, leased, "complete", {"tasks": [{"queue": units, "payload": 1}]}),
        422,
        "invalid",
        "/tasks/0/idempotency_key",
    )
    done = good(await say(api, leased, "complete", {"result": 1, "tasks": [unit(units, "a")], "next": "2"}))
    assert (done["state"], done["batch"]) == ("succeeded", root["id"])
    again = (await handler.received(2))[1]
    assert (again.headers["sluice-cursor"], again.headers["sluice-batch"]) == ("2", root["id"])
    assert [task["idempotency_key"] for task in await take(api, units, max_tasks=9)] == ["a"]


async def poll_outcome(api: Api, task_id: str, outcome: str) -> None:
    async def there() -> bool:
        return (await api.attempts(task_id))[0]["outcome"] == outcome

    await poll(there)
