"""`on_duplicate`: what an enqueue does to the waiting task that has its unique key."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.handlers import Handler, Received, Reply
from tests.support import poll
from tests.wire.api import AT_ONCE, Api, good, problem
from tests.wire.test_leases import say, take, take_one

pytestmark = pytest.mark.anyio


async def again(api: Api, queue: str, payload: Any, **fields: Any) -> dict[str, Any]:
    """Enqueue a duplicate, and return the task that has the key."""
    given = {"payload": payload, "unique_key": "u", "on_duplicate": "replace", **fields}
    reply = await api.post(f"/queues/{queue}/tasks", json=given)
    assert reply.headers.get("unique-held") == "true" and "idempotent-replayed" not in reply.headers
    return good(reply)


def at(task: dict[str, Any], name: str = "run_at") -> datetime:
    return datetime.fromisoformat(task[name])


async def test_a_waiting_task_takes_the_new_payload_and_options_and_keeps_its_time(api: Api, other: Api) -> None:
    queue = await api.queue()
    first = await api.enqueue(queue, 1, unique_key="u", delay_seconds=600, tags=["a"], ttl_seconds=900, type="old")
    new = {"tags": ["b"], "priority": 7, "retry": {"max_attempts": 2}, "correlation_id": "c", "headers": {"x-a": "1"}}
    second = await again(other, queue, {"n": 2}, delay_seconds=5, **new)
    assert second["id"] == first["id"] and second["run_at"] == first["run_at"] and second["state"] == "scheduled"
    assert second["payload"] == {"n": 2} and (second["type"], second["expires_at"]) == (None, None)
    assert {name: second[name] for name in ("tags", "priority", "correlation_id", "headers")} == {
        name: given for name, given in new.items() if name != "retry"
    }
    assert second["max_attempts"] == 2
    assert good(await api.get(f"/tasks/{first['id']}"))["payload"] == {"n": 2}
    assert good(await api.retry(first["id"]))["state"] == "ready"
    assert (await again(api, queue, 3))["payload"] == 3
    assert [task["payload"] for task in await take(api, queue, max_tasks=9)] == [3]


async def test_a_postponed_task_moves_to_a_later_time_up_to_a_limit_and_never_to_an_earlier_one(api: Api) -> None:
    queue = await api.queue()
    first = await api.enqueue(queue, 1, unique_key="u", delay_seconds=60)
    moved = await again(api, queue, 2, on_duplicate="postpone", delay_seconds=100, debounce_max_seconds=3600)
    assert timedelta(seconds=99) < at(moved) - at(first, "created_at") < timedelta(seconds=160)
    assert (moved["payload"], moved["created_at"]) == (2, first["created_at"])
    earlier = await again(api, queue, 3, on_duplicate="postpone", delay_seconds=1)
    assert (earlier["run_at"], earlier["payload"]) == (moved["run_at"], 3)
    most = await again(api, queue, 4, on_duplicate="postpone", delay_seconds=900, debounce_max_seconds=300)
    assert at(most) - at(first, "created_at") == timedelta(seconds=300)
    unlimited = await again(api, queue, 5, on_duplicate="postpone", delay_seconds=900)
    assert at(unlimited) - at(first, "created_at") >= timedelta(seconds=900)


async def test_a_ready_task_is_postponed_and_starts_then(api: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url)
    good(await api.post(f"/queues/{queue}/pause"))
    first = await api.enqueue(queue, 1, unique_key="u")
    moved = await again(api, queue, 2, on_duplicate="postpone", delay_seconds=0.5, debounce_max_seconds=60)
    assert (moved["state"], moved["id"]) == ("scheduled", first["id"])
    good(await api.post(f"/queues/{queue}/resume"))
    (request,) = await handler.received()
    assert request.json == 2 and request.arrived_at >= at(moved).timestamp()


async def test_a_task_that_waits_to_retry_keeps_its_attempts_and_never_runs_earlier(api: Api) -> None:
    queue = await api.queue(retry={"max_attempts": 3, "backoff": {"kind": "fixed", "seconds": 500}})
    first = await api.enqueue(queue, 1, unique_key="u")
    leased = await take_one(api, queue)
    waiting = good(await say(api, leased, "fail", {"error": "no"}))
    moved = await again(api, queue, 2, on_duplicate="postpone", delay_seconds=1)
    assert (moved["id"], moved["payload"], moved["attempt"], moved["run_at"]) == (first["id"], 2, 1, waiting["run_at"])
    assert moved["last_error"] == "no"


async def test_a_running_task_is_kept(api: Api) -> None:
    queue = await api.queue()
    first = await api.enqueue(queue, 1, unique_key="u")
    leased = await take_one(api, queue)
    for kind in ("replace", "postpone"):
        held = await again(api, queue, 2, on_duplicate=kind, delay_seconds=60)
        assert (held["id"], held["state"], held["payload"]) == (first["id"], "running", 1)
    good(await say(api, leased, "release"))
    assert (await take_one(api, queue))["payload"] == 1


async def test_of_one_request_the_last_payload_counts(api: Api) -> None:
    for atomic in (False, True):
        queue = await api.queue()
        there = await api.enqueue(queue, 0, unique_key="x")
        tasks = [
            {"payload": n, "unique_key": key, "on_duplicate": "replace"}
            for n, key in enumerate(("x", "y", "x", "y", "y"), start=1)
        ]
        keep = {"payload": 9, "unique_key": "y"}
        given = {"tasks": [*tasks, keep], "atomic": atomic}
        results = good(await api.post(f"/queues/{queue}/tasks/bulk", json=given))["results"]
        assert [result["status"] for result in results] == [200, 201, 200, 200, 200, 200]
        assert {result["id"] for n, result in enumerate(results) if n in (0, 2)} == {there["id"]}
        assert len({result["id"] for n, result in enumerate(results) if n not in (0, 2)}) == 1
        assert sorted(task["payload"] for task in await take(api, queue, max_tasks=9)) == [3, 5]


async def test_what_a_full_queue_did_not_make_replaces_nothing(api: Api) -> None:
    queue = await api.queue(max_depth=1)
    first = await api.enqueue(queue, 1, unique_key="u")
    tasks = [
        {"payload": n, "unique_key": key, "on_duplicate": "replace", "idempotency_key": str(n)}
        for n, key in enumerate(("u", "v", "v"), start=2)
    ]
    results = good(await api.post(f"/queues/{queue}/tasks/bulk", json={"tasks": tasks}))["results"]
    assert [result["status"] for result in results] == [200, 429, 429]
    assert (await api.task(first["id"]))["payload"] == 2
    good(await api.cancel(first["id"]))
    assert (await api.enqueue(queue, 4, unique_key="v", on_duplicate="replace", idempotency_key="4"))["payload"] == 4


async def test_a_repeat_of_a_replacement_changes_nothing_more(api: Api) -> None:
    queue = await api.queue()
    first = await api.enqueue(queue, 1, unique_key="u")
    old = {"payload": 2, "unique_key": "u", "on_duplicate": "replace", "idempotency_key": "k"}
    assert good(await api.post(f"/queues/{queue}/tasks", json=old))["payload"] == 2
    assert (await again(api, queue, 3))["payload"] == 3
    repeat = await api.post(f"/queues/{queue}/tasks", json=old)
    assert (good(repeat)["id"], repeat.json()["payload"]) == (first["id"], 3)
    assert repeat.headers["idempotent-replayed"] == "true"
    bulk = [old | {"idempotency_key": "b", "payload": 4}] * 2
    results = good(await api.post(f"/queues/{queue}/tasks/bulk", json={"tasks": bulk}))["results"]
    assert [(result["status"], result["id"]) for result in results] == [(200, first["id"])] * 2
    problem(await api.post(f"/queues/{queue}/tasks", json=old | {"payload": 5}), 422, "idempotency_mismatch")
    good(await api.cancel(first["id"]))
    assert good(await api.post(f"/queues/{queue}/tasks", json=old))["state"] == "cancelled"


async def test_a_replacement_may_name_another_handler(api: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url + "/one")
    good(await api.post(f"/queues/{queue}/pause"))
    first = await api.enqueue(queue, 1, unique_key="u")
    other = await api.handler(handler.url + "/two")
    assert (await again(api, queue, 2, handler=other))["handler"] == other
    good(await api.post(f"/queues/{queue}/resume"))
    (request,) = await handler.received()
    assert (request.task, request.path, request.json) == (first["id"], "/hook/two", 2)


async def test_follow_up_work_replaces_too_and_only_once(api: Api) -> None:
    lister, units = await api.queue(), await api.queue()
    waiting = await api.enqueue(units, 1, unique_key="u", delay_seconds=600)
    await api.enqueue(lister)
    leased = await take_one(api, lister)
    unit = {"queue": units, "idempotency_key": "a", "payload": 2, "unique_key": "u", "on_duplicate": "replace"}
    done = good(await say(api, leased, "complete", {"tasks": [unit], "next": "2"}))
    task = await api.task(waiting["id"])
    assert (task["payload"], task["batch"], task["parent"]) == (2, None, None)
    good(await api.cancel(waiting["id"]))
    page = {"tasks": [unit | {"payload": 3}, unit | {"idempotency_key": "b", "payload": 4}]}
    good(await say(api, await take_one(api, lister), "complete", page))
    (made,) = await take(api, units, max_tasks=9)
    assert (made["payload"], made["batch"]) == (4, done["batch"])


@pytest.mark.parametrize(
    ("fields", "pointers"),
    [
        ({"on_duplicate": "replace"}, ["/on_duplicate"]),
        ({"on_duplicate": "drop", "unique_key": "u"}, ["/on_duplicate"]),
        ({"on_duplicate": "replace", "unique_key": ""}, ["/unique_key"]),
        ({"on_duplicate": "replace", "unique_key": "u", "debounce_max_seconds": 5}, ["/debounce_max_seconds"]),
        ({"debounce_max_seconds": 5}, ["/debounce_max_seconds"]),
        ({"on_duplicate": "postpone", "unique_key": "u", "debounce_max_seconds": -1}, ["/debounce_max_seconds"]),
        (
            {"on_duplicate": 1, "unique_key": "u", "debounce_max_seconds": "x"},
            ["/on_duplicate", "/debounce_max_seconds"],
        ),
    ],
)
async def test_what_says_nothing_about_duplicates_is_refused(
    api: Api, fields: dict[str, Any], pointers: list[str]
) -> None:
    queue = await api.queue()
    problem(await api.post(f"/queues/{queue}/tasks", json={"payload": 1, **fields}), 422, "invalid", *pointers)
    item = {"tasks": [{"payload": 1, **fields}]}
    (result,) = good(await api.post(f"/queues/{queue}/tasks/bulk", json=item))["results"]
    assert [error["pointer"] for error in result["problem"]["errors"]] == [f"/tasks/0{one}" for one in pointers]
    task = await api.enqueue(queue)
    problem(
        await api.client.patch(f"/tasks/{task['id']}", json={"on_duplicate": "keep"}), 422, "invalid", "/on_duplicate"
    )


async def test_what_was_answered_last_is_delivered_however_claims_race(api: Api, other: Api, handler: Handler) -> None:
    """Each of these posts one after another. An answer that shows its payload is a promise, until a later one replaces it."""
    handler.script(Reply())
    queue = await api.queue_to(handler.url, retry={**AT_ONCE})
    promised: dict[str, dict[int, int]] = {}

    async def poster(lane: int) -> None:
        for n in range(40):
            given = {"payload": [lane, n], "unique_key": f"{lane}", "on_duplicate": ("replace", "postpone")[n % 2]}
            task = good_or_made(await (api, other)[n % 2].post(f"/queues/{queue}/tasks", json=given))
            if task["payload"] == [lane, n]:
                promised.setdefault(task["id"], {})[lane] = n
            else:
                assert task["state"] != "scheduled" and task["payload"][1] < n

    await asyncio.gather(*map(poster, range(6)))
    delivered = await poll(lambda: _by_task(handler.requests) if len(handler.requests) >= len(promised) else None)
    assert delivered == {task: [[lane, n]] for task, last in promised.items() for lane, n in last.items()}


async def test_of_racing_replacements_each_task_has_one_and_none_is_lost(api: Api, other: Api) -> None:
    queue = await api.queue()
    for n in range(5):
        given = [{"payload": i, "unique_key": f"u{n}", "on_duplicate": "replace"} for i in range(12)]
        replies = await asyncio.gather(
            *((api, other)[i % 2].post(f"/queues/{queue}/tasks", json=one) for i, one in enumerate(given))
        )
        assert sorted(reply.status_code for reply in replies) == [200] * 11 + [201]
        assert len({reply.json()["id"] for reply in replies}) == 1
        last = await again(api, queue, "last", unique_key=f"u{n}")
        assert last["payload"] == "last"
    assert [task["payload"] for task in await take(api, queue, max_tasks=9)] == ["last"] * 5


def good_or_made(reply: Any) -> dict[str, Any]:
    return good(reply, 201 if reply.status_code == 201 else 200)


def _by_task(requests: list[Received]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for request in requests:
        found.setdefault(request.task, []).append(request.json)
    return found
