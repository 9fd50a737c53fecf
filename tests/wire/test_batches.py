"""Batches: made, filled, sealed, cancelled, retried and read by API; `on_complete` once, when all have ended."""

import asyncio
from typing import Any

import pytest

from app.domain.batches import BatchView
from tests.handlers import Handler, Reply
from tests.support import poll
from tests.wire.api import Api, good, problem
from tests.wire.test_leases import say, take, take_one

pytestmark = pytest.mark.anyio

FIELDS = {
    "id", "queue", "sealed", "total", "counts", "percent", "rate", "eta", "created_at", "cancelled_at", "cancel_reason",
    "completed_at", "on_complete",
}  # fmt: skip
NO_COUNTS = {"scheduled": 0, "ready": 0, "running": 0, "succeeded": 0, "dead": 0, "cancelled": 0}


async def make(api: Api, queue: str, tasks: list[Any] | int = 0, **fields: Any) -> dict[str, Any]:
    given = [{"payload": n} for n in range(tasks)] if isinstance(tasks, int) else tasks
    return good(await api.post("/batches", json={"queue": queue, "tasks": given, **fields}), 201)


async def read(api: Api, batch: dict[str, Any]) -> dict[str, Any]:
    return good(await api.get(f"/batches/{batch['id']}"))


async def act(api: Api, batch: dict[str, Any], verb: str) -> dict[str, Any]:
    return good(await api.post(f"/batches/{batch['id']}/{verb}"))


async def add(api: Api, batch: dict[str, Any], tasks: list[Any]) -> dict[str, Any]:
    return good(await api.post(f"/batches/{batch['id']}/tasks", json={"tasks": tasks}))


async def completed(api: Api, batch: dict[str, Any]) -> dict[str, Any]:
    async def there() -> dict[str, Any] | None:
        found = await read(api, batch)
        return found if found["completed_at"] else None

    return await poll(there)


async def folded(api: Api, batch: dict[str, Any], **counts: int) -> dict[str, Any]:
    """The batch once its counts are these."""

    async def there() -> dict[str, Any] | None:
        found = await read(api, batch)
        return found if found["counts"] == {**NO_COUNTS, **counts} else None

    return await poll(there)


async def test_a_batch_is_made_with_its_tasks_and_shows_how_far_they_are(api: Api) -> None:
    queue = await api.queue()
    reply = await api.post(
        "/batches", json={"queue": queue, "tasks": [{"payload": 1}, {"payload": 2, "delay_seconds": 60}]}
    )
    made = good(reply, 201)
    assert reply.headers["location"].endswith(f"/batches/{made['id']}")
    assert set(made) == FIELDS | {"results"}
    assert [result["status"] for result in made["results"]] == [201, 201]
    assert (made["sealed"], made["total"], made["percent"], made["eta"]) == (True, 2, 0.0, None)
    assert made["counts"] == {**NO_COUNTS, "ready": 1, "scheduled": 1}
    for result in made["results"]:
        assert (await api.task(result["id"]))["batch"] == made["id"]
    assert {task["id"] for task in await api.pages("/tasks", batch=made["id"])} == {r["id"] for r in made["results"]}
    leased = await take_one(api, queue)
    assert (await read(api, made))["counts"] == {**NO_COUNTS, "running": 1, "scheduled": 1}
    good(await say(api, leased, "complete"))
    half = await folded(api, made, succeeded=1, scheduled=1)
    assert (
        set(half) == FIELDS == set(BatchView.__struct_fields__)
        and half["percent"] == 50.0
        and half["completed_at"] is None
    )


async def test_rate_and_eta_follow_what_ends(api: Api) -> None:
    queue = await api.queue()
    batch = await make(api, queue, 10)
    for leased in await take(api, queue, max_tasks=5):
        good(await say(api, leased, "complete"))

    async def measured() -> dict[str, Any] | None:
        found = await read(api, batch)
        return found if found["rate"] > 0 and found["percent"] == 50.0 else None

    half = await poll(measured)
    assert half is not None and half["eta"] > half["created_at"]
    for leased in await take(api, queue, max_tasks=5):
        good(await say(api, leased, "complete"))
    done = await completed(api, batch)
    assert (done["percent"], done["eta"], done["counts"]["succeeded"]) == (100.0, None, 10)


async def test_on_complete_comes_once_when_all_have_ended_the_dead_included(api: Api, handler: Handler) -> None:
    queue, sums = await api.queue(), await api.queue_to(handler.url)
    batch = await make(api, queue, 3, on_complete={"queue": sums, "type": "sum", "payload": {"sum": True}})
    assert batch["on_complete"] == [{"queue": sums, "task": None}]
    first, second, third = await take(api, queue, max_tasks=3)
    good(await say(api, first, "complete"))
    good(await say(api, second, "fail", {"error": "no", "retryable": False}))
    await folded(api, batch, succeeded=1, dead=1, running=1)
    assert not handler.requests
    good(await api.cancel(third["id"]))
    [call] = await handler.received()
    assert (call.json, call.headers["sluice-batch"]) == ({"sum": True}, batch["id"])
    assert call.headers["sluice-type"] == "sum"
    done = await completed(api, batch)
    assert done["on_complete"] == [{"queue": sums, "task": call.task}]
    after = await api.until(call.task, "succeeded")
    assert after["batch"] is None
    moved = await act(api, batch, "retry")
    assert (moved["matched"], moved["moved"], moved["remaining"]) == (1, 1, 0)
    assert moved["counts"] == {**NO_COUNTS, "succeeded": 1, "cancelled": 1, "ready": 1}
    good(await say(api, await take_one(api, queue), "complete"))
    again = await folded(api, batch, succeeded=2, cancelled=1)
    assert again["completed_at"] == done["completed_at"] and len(handler.requests) == 1


async def test_an_open_batch_takes_pages_and_completes_only_when_sealed(api: Api) -> None:
    queue, sums = await api.queue(), await api.queue()
    batch = await make(api, queue, 1, sealed=False, on_complete={"queue": sums, "payload": None})
    assert batch["sealed"] is False
    good(await say(api, await take_one(api, queue), "complete"))
    assert (await folded(api, batch, succeeded=1))["completed_at"] is None
    added = await add(api, batch, [{"payload": 2}, {"payload": 3, "priority": 999}])
    assert [result["status"] for result in added["results"]] == [201, 422]
    assert added["results"][1]["problem"]["errors"][0]["pointer"] == "/tasks/1/priority"
    assert (added["total"], added["sealed"]) == (2, False)
    good(await say(api, await take_one(api, queue), "complete"))
    await folded(api, batch, succeeded=2)
    assert await take(api, sums) == []
    sealed = await act(api, batch, "seal")
    assert sealed["sealed"] is True
    assert (await act(api, batch, "seal"))["id"] == batch["id"]
    assert len(await take(api, sums, max_tasks=9, wait_seconds=20)) == 1
    assert (await completed(api, batch))["total"] == 2
    refused = await api.post(f"/batches/{batch['id']}/tasks", json={"tasks": [{"payload": 4}]})
    problem(refused, 409, "batch_sealed")


async def test_an_empty_sealed_batch_completes_at_once(api: Api) -> None:
    queue, sums = await api.queue(), await api.queue()
    empty: list[dict[str, Any]] = [{"tasks": []}, {}, {"tasks": [{"payload": 1, "priority": 999}]}]
    for fields in empty:
        given = {"queue": queue, "on_complete": {"queue": sums, "payload": 0}, **fields}
        batch = good(await api.post("/batches", json=given), 201)
        assert len(await take(api, sums, max_tasks=9, wait_seconds=20)) == 1
        done = await completed(api, batch)
        assert (done["total"], done["percent"], done["rate"], done["eta"]) == (0, 100.0, 0.0, None)
    opened = await make(api, queue, 0, sealed=False)
    assert (opened["percent"], opened["completed_at"]) == (0.0, None)
    await act(api, opened, "seal")
    await completed(api, opened)


async def test_a_task_that_is_there_already_does_not_join(api: Api) -> None:
    queue = await api.queue()
    alone = await api.enqueue(queue, 1, idempotency_key="a")
    tasks = [{"payload": 1, "idempotency_key": "a"}, {"payload": 2, "idempotency_key": "b"}]
    batch = await make(api, queue, tasks, sealed=False)
    assert [result["status"] for result in batch["results"]] == [200, 201]
    assert batch["results"][0]["id"] == alone["id"] and (await api.task(alone["id"]))["batch"] is None
    assert batch["total"] == 1
    again = await add(api, batch, [*tasks, {"payload": 3, "idempotency_key": "b"}])
    assert [result["status"] for result in again["results"]] == [200, 200, 422] and again["total"] == 1
    assert again["results"][1]["id"] == batch["results"][1]["id"]


async def test_what_a_full_queue_refuses_is_said_task_by_task_and_the_rest_completes(api: Api) -> None:
    queue = await api.queue(max_depth=2)
    batch = await make(api, queue, 3)
    assert [result["status"] for result in batch["results"]] == [201, 201, 429]
    assert (batch["total"], batch["sealed"]) == (2, True)


async def test_cancel_ends_what_is_unfinished_and_on_complete_still_runs(api: Api, handler: Handler) -> None:
    handler.answer(Reply(until=asyncio.Event()))
    push, sums = await api.queue_to(handler.url, max_concurrency=1), await api.queue()
    tasks = [{"payload": n, **({"delay_seconds": 600} if n > 2 else {})} for n in range(5)]
    batch = await make(api, push, tasks, sealed=False, on_complete={"queue": sums, "payload": "end"})
    [call] = await handler.received()
    cancelled = await act(api, batch, "cancel")
    assert cancelled["counts"] == {**NO_COUNTS, "cancelled": 5}
    assert (cancelled["sealed"], cancelled["cancel_reason"]) == (True, "requested") and cancelled["cancelled_at"]
    assert len(await take(api, sums, max_tasks=9, wait_seconds=20)) == 1
    for task in await api.pages("/tasks", batch=batch["id"]):
        assert (task["state"], task["reason"]) == ("cancelled", "requested")
    assert [attempt["outcome"] for attempt in await api.attempts(call.task)] == ["cancelled"]
    again = await act(api, batch, "cancel")
    assert again["cancelled_at"] == cancelled["cancelled_at"]
    problem(await api.post(f"/batches/{batch['id']}/tasks", json={"tasks": [{"payload": 4}]}), 409, "batch_sealed")
    refused = await api.post(f"/batches/{batch['id']}/tasks", json={"tasks": [{"payload": 4, "priority": 999}]})
    problem(refused, 409, "batch_sealed")


async def test_a_completed_batch_is_not_marked_by_a_cancel(api: Api) -> None:
    batch = await make(api, await api.queue(), 0)
    await completed(api, batch)
    assert (await act(api, batch, "cancel"))["cancelled_at"] is None


async def test_retry_brings_back_only_the_dead_of_this_batch(api: Api) -> None:
    queue = await api.queue()
    ours, theirs = await make(api, queue, 4), await make(api, queue, 2)
    leased = await take(api, queue, max_tasks=6)
    for task in leased:
        fate = ("complete", None) if task["payload"] == 0 else ("fail", {"error": "no", "retryable": False})
        good(await say(api, task, *fate))
    await completed(api, ours)
    await completed(api, theirs)
    moved = await act(api, ours, "retry")
    assert (moved["matched"], moved["moved"], moved["remaining"]) == (3, 3, 0)
    assert moved["counts"] == {**NO_COUNTS, "succeeded": 1, "ready": 3}
    assert (await read(api, theirs))["counts"] == {**NO_COUNTS, "succeeded": 1, "dead": 1}
    for task in await take(api, queue, max_tasks=9):
        assert task["batch"] == ours["id"] and task["attempt"] == 1
        good(await say(api, task, "complete"))
    assert (await act(api, ours, "retry"))["moved"] == 0


async def test_a_batch_formed_by_follow_ups_is_sealed_counts_its_root_and_can_be_cancelled(api: Api) -> None:
    lister, units, sums = await api.queue(), await api.queue(), await api.queue()
    root = await api.enqueue(lister)
    page: dict[str, Any] = {
        "tasks": [{"queue": units, "idempotency_key": str(n), "payload": n} for n in range(3)],
        "next": "more",
        "on_complete": {"queue": sums, "payload": None},
    }
    good(await say(api, await take_one(api, lister), "complete", page))
    batch = await folded(api, root, succeeded=1, ready=4)
    assert (batch["sealed"], batch["queue"], batch["total"]) == (True, lister, 5)
    problem(await api.post(f"/batches/{root['id']}/tasks", json={"tasks": [{"payload": 4}]}), 409, "batch_sealed")
    held = await take_one(api, lister)
    unit = await take_one(api, units)
    cancelled = await act(api, root, "cancel")
    assert cancelled["counts"] == {**NO_COUNTS, "succeeded": 1, "cancelled": 4}
    for task in (held, unit):
        problem(await say(api, task, "complete"), 409, "task_cancelled")
    assert len(await take(api, sums, max_tasks=9, wait_seconds=20)) == 1


async def test_what_answers_add_to_a_cancelled_batch_is_stored_cancelled(api: Api) -> None:
    """A dead task of it is brought back after the cancel, and answers with a page."""
    lister, units = await api.queue(), await api.queue()
    batch = await make(api, lister, 2)
    first, _ = await take(api, lister, max_tasks=2)
    good(await say(api, first, "fail", {"error": "no", "retryable": False}))
    assert (await act(api, batch, "cancel"))["counts"] == {**NO_COUNTS, "dead": 1, "cancelled": 1}
    assert (await act(api, batch, "retry"))["moved"] == 1
    page = {"tasks": [{"queue": units, "idempotency_key": "u", "payload": None}], "next": "more"}
    good(await say(api, await take_one(api, lister), "complete", page))
    done = await folded(api, batch, succeeded=1, cancelled=3)
    assert done["total"] == 4 and await take(api, units) == []
    stored = [task for task in await api.pages("/tasks", batch=batch["id"]) if task["parent"]]
    assert {(task["state"], task["reason"]) for task in stored} == {("cancelled", "requested")}


async def test_lists_are_newest_first_in_pages(api: Api) -> None:
    queue = await api.queue()
    made = [(await make(api, queue, 1))["id"] for _ in range(5)]
    seen: list[dict[str, Any]] = []
    cursor = None
    while len(seen) < len(made):  # those of other tests come behind
        page = good(await api.get("/batches", params={"limit": 2} | ({} if cursor is None else {"cursor": cursor})))
        seen += [batch for batch in page["items"] if batch["queue"] == queue]
        cursor = page["next_cursor"]
    assert [batch["id"] for batch in seen] == made[::-1]
    assert {frozenset(batch) for batch in seen} == {frozenset(FIELDS)}
    problem(await api.get("/batches", params={"cursor": "x"}), 422, "invalid", "/cursor")


async def test_requests_are_judged_strictly(api: Api) -> None:
    queue = await api.queue()

    async def refused(body: bytes, status: int, code: str, *pointers: str, path: str = "/batches") -> None:
        reply = await api.post(path, content=body, headers={"content-type": "application/json"})
        problem(reply, status, code, *pointers)

    q = queue.encode()
    await refused(b'{"tasks": []}', 422, "invalid", "/queue")
    await refused(b'{"queue": "%s", "task": []}' % q, 422, "invalid", "/task")
    await refused(b'{"queue": "%s", "tasks": {}}' % q, 422, "invalid", "/tasks")
    await refused(b'{"queue": "%s", "sealed": 1}' % q, 422, "invalid", "/sealed")
    await refused(b'{"queue": "NO"}', 422, "invalid", "/queue")
    await refused(b'{"queue": "nobody"}', 422, "invalid", "/queue")
    await refused(b'{"queue": "%s", "queue": "%s"}' % (q, q), 400, "malformed")
    await refused(
        b'{"queue": "%s", "on_complete": {"queue": "nobody", "payload": 1}}' % q, 422, "invalid", "/on_complete/queue"
    )
    await refused(b'{"queue": "%s", "on_complete": {"queue": "%s"}}' % (q, q), 422, "invalid", "/on_complete/payload")
    await refused(b'{"queue": "%s", "tasks": [%s]}' % (q, b",".join([b"1"] * 10_001)), 422, "invalid", "/tasks")
    await refused(b"", 400, "malformed")
    await refused(b"{", 400, "malformed")
    batch = await make(api, queue, 0, sealed=False)
    tasks = f"/batches/{batch['id']}/tasks"
    await refused(b'{"tasks": []}', 422, "invalid", "/tasks", path=tasks)
    await refused(b"{}", 422, "invalid", "/tasks", path=tasks)
    await refused(b'{"tasks": [{"payload": 1}], "atomic": true}', 422, "invalid", "/atomic", path=tasks)
    for path in ("/batches", tasks):
        body = {"tasks": [{"payload": 1}], **({"queue": queue} if path == "/batches" else {})}
        problem(await api.post(path, json=body, headers={"idempotency-key": "k"}), 400, "malformed")
    assert await api.pages("/tasks", queue=queue) == []
    for path in ("/batches/nobody", "/batches/0193a5b0-1111-7000-8000-000000000000"):
        problem(await api.get(path), 404, "batch_not_found")
        for verb in ("seal", "cancel", "retry"):
            problem(await api.post(f"{path}/{verb}"), 404, "batch_not_found")
        problem(await api.post(f"{path}/tasks", json={"tasks": [{"payload": 1}]}), 404, "batch_not_found")


async def test_payloads_of_a_batch_stay_the_bytes_they_came_in(api: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url)
    span = b'{"a" :\t1.50e1,\n"\\u00e9":"\xc3\xa9"}'
    body = b'{"queue":"%s", "tasks": [{ "payload": %s }], "on_complete": {"payload" : %s,"queue":"%s"}}'
    given = body % (queue.encode(), span, span + b" ", queue.encode())
    good(await api.post("/batches", content=given, headers={"content-type": "application/json"}), 201)
    assert [request.body for request in await handler.received(2)] == [span, span]


@pytest.mark.ci
async def test_adders_and_sealers_on_two_replicas_agree_on_who_was_first(api: Api, other: Api) -> None:
    """Whatever was acknowledged is counted, and the batch completes with exactly that."""
    for _ in range(8):
        queue, sums = await api.queue(), await api.queue()
        batch = await make(api, queue, 0, sealed=False, on_complete={"queue": sums, "payload": None})
        path = f"/batches/{batch['id']}/tasks"
        adding = [(api, other)[n % 2].post(path, json={"tasks": [{"payload": n}]}) for n in range(12)]
        replies = await asyncio.gather(*adding[:6], other.post(f"/batches/{batch['id']}/seal"), *adding[6:])
        replies.pop(6)
        stored = [good(reply)["results"][0] for reply in replies if reply.status_code == 200]
        for reply in replies:
            if reply.status_code != 200:
                problem(reply, 409, "batch_sealed")
        assert {result["status"] for result in stored} <= {201}
        for task in await take(api, queue, max_tasks=20):
            good(await say(api, task, "complete"))
        done = await completed(api, batch)
        assert done["total"] == done["counts"]["succeeded"] == len(stored)
        assert len(await take(api, sums, max_tasks=9, wait_seconds=20)) == 1


@pytest.mark.ci
async def test_adders_and_a_cancel_on_two_replicas_leave_nothing_alive(api: Api, other: Api) -> None:
    for _ in range(8):
        queue = await api.queue()
        batch = await make(api, queue, 0, sealed=False)
        path = f"/batches/{batch['id']}/tasks"
        adding = [(api, other)[n % 2].post(path, json={"tasks": [{"payload": n}]}) for n in range(12)]
        replies = await asyncio.gather(*adding[:6], other.post(f"/batches/{batch['id']}/cancel"), *adding[6:])
        replies.pop(6)
        stored = [reply for reply in replies if reply.status_code == 200]
        assert {reply.status_code for reply in replies} <= {200, 409}
        done = await completed(api, batch)
        assert done["counts"] == {**NO_COUNTS, "cancelled": len(stored)}
        assert await take(api, queue, max_tasks=20) == []


async def test_the_last_two_of_a_batch_settled_at_once_on_two_replicas_complete_it_once(api: Api, other: Api) -> None:
    for _ in range(8):
        queue, sums = await api.queue(), await api.queue()
        batch = await make(api, queue, 2, on_complete={"queue": sums, "payload": None})
        first, second = await take(api, queue, max_tasks=2)
        for reply in await asyncio.gather(say(api, first, "complete"), say(other, second, "complete")):
            good(reply)
        await completed(api, batch)
        assert len(await take(api, sums, max_tasks=9, wait_seconds=20)) == 1
        assert await take(other, sums, max_tasks=9) == []


async def test_a_large_batch_is_cancelled_whole(api: Api) -> None:
    queue = await api.queue()
    batch = await make(api, queue, 1_700)
    assert (await act(api, batch, "cancel"))["counts"] == {**NO_COUNTS, "cancelled": 1_700}
    await completed(api, batch)
