"""Follow-up work: what an answer names is enqueued in the transaction that completes its task, or nothing happens at all."""

from typing import Any

import pytest

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
