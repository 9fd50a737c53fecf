"""Follow-up work: what an answer names is enqueued in the transaction that completes its task, or nothing happens at all."""

import json
from typing import Any

import pytest

from tests.handlers import Handler, Received, Reply
from tests.support import poll
from tests.wire.api import Api, good, problem
from tests.wire.test_leases import say, take, take_one

pytestmark = pytest.mark.anyio


async def test_a_completion_enqueues_what_it_names_and_forms_a_batch(api: Api) -> None:
    lister, units, sums = await api.queue(), await api.queue(), await api.queue()
    root = await api.enqueue(lister, {"list": "all"})
    leased = await take_one(api, lister)
    page: dict[str, Any] = {
        "result": {"found": 2},
        "tasks": [{"queue": units, "idempotency_key": str(n), "payload": {"n": n}, "tags": ["u"]} for n in (1, 2, 1)],
        "on_complete": {"queue": sums, "payload": {"sum": True}},
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
    assert [task["payload"] for task in last] == [{"sum": True}]
    assert last[0]["batch"] is None


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
