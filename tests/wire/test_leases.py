"""Leases: pull workers take tasks and say what came of them; the token is all they need, and all that counts."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from app.store.tasks import AttemptEnd
from tests.handlers import Handler, Reply
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import AT_ONCE, Api, good, problem

pytestmark = pytest.mark.anyio

HOUR = 3600
WAKE_SECONDS = 1.0
"""Ten times what a waiter is promised: the machine of a test may be busy."""


async def take(api: Api, queue: str, **fields: Any) -> list[dict[str, Any]]:
    reply = await api.post(f"/queues/{queue}/leases", json=fields, timeout=90)
    tasks: list[dict[str, Any]] = good(reply)["tasks"]
    return tasks


async def take_one(api: Api, queue: str, **fields: Any) -> dict[str, Any]:
    (task,) = await take(api, queue, **fields)
    return task


async def say(api: Api, leased: dict[str, Any], verb: str, body: dict[str, Any] | None = None) -> httpx2.Response:
    given: dict[str, Any] = {} if body is None else {"json": body}
    headers = {"sluice-lease-token": leased["lease_token"]}
    return await api.post(f"/tasks/{leased['id']}/{verb}", headers=headers, **given)


async def test_a_worker_takes_a_task_and_completes_it(api: Api) -> None:
    queue = await api.queue()
    task = await api.enqueue(queue, {"n": 1}, type="t", tags=["a"])
    assert task["waiting_for"] == "worker"
    leased = await take_one(api, queue)
    assert (leased["id"], leased["payload"], leased["state"], leased["attempt"]) == (task["id"], {"n": 1}, "running", 1)
    assert leased["lease"] == {"expires_at": leased["lease_expires_at"]}
    assert "lease_token" not in await api.task(task["id"])
    done = good(await say(api, leased, "complete", {"result": {"rows": [1, None]}}))
    assert (done["state"], done["result"], done["lease"]) == ("succeeded", {"rows": [1, None]}, None)
    (attempt,) = await api.attempts(task["id"])
    assert (attempt["outcome"], attempt["counted"], attempt["status"]) == ("succeeded", True, None)


async def test_a_result_may_be_null_or_absent(api: Api) -> None:
    queue = await api.queue()
    for body in (None, {}, {"result": None}):
        await api.enqueue(queue)
        assert good(await say(api, await take_one(api, queue), "complete", body))["result"] is None
    await api.enqueue(queue)
    leased = await take_one(api, queue)
    problem(await say(api, leased, "complete", {"result": "x" * 70_000}), 413, "too_large")
    good(await say(api, leased, "complete"))


async def test_tasks_come_highest_priority_first_and_no_more_than_asked(api: Api) -> None:
    queue = await api.queue()
    for n, priority in enumerate((0, 5, -5, 5)):
        await api.enqueue(queue, n, priority=priority)
    assert [task["payload"] for task in await take(api, queue, max_tasks=3)] == [1, 3, 0]
    assert [task["payload"] for task in await take(api, queue, max_tasks=100)] == [2]
    assert await take(api, queue, max_tasks=100) == []


async def test_a_waiting_worker_is_woken_by_a_task_from_either_replica(shared: Replica, api: Api, other: Api) -> None:
    queue = await api.queue()
    for enqueuer in (api, other):
        waiting = asyncio.create_task(take(api, queue, wait_seconds=30))
        await _waits(shared, queue)
        began = time.monotonic()
        task = await enqueuer.enqueue(queue)
        (leased,) = await waiting
        assert time.monotonic() - began < WAKE_SECONDS
        assert leased["id"] == task["id"]
        good(await say(api, leased, "complete"))


async def _waits(replica: Replica, queue: str) -> int:
    """Until a worker waits at this queue, after a claim that found nothing; the queue's id."""
    queue_id = int(await replica.sluice.core.db.fetchval("select id from sluice.queues where name = $1", queue))
    await poll(lambda: queue_id in replica.sluice.core.long_polls._queues)
    return queue_id


async def test_a_worker_that_waits_in_vain_is_answered_empty(api: Api) -> None:
    queue = await api.queue()
    began = time.monotonic()
    assert await take(api, queue, wait_seconds=0.3) == []
    assert time.monotonic() - began >= 0.3


async def test_a_delayed_task_wakes_its_worker_when_it_is_due(api: Api) -> None:
    queue = await api.queue()
    await api.enqueue(queue, delay_seconds=0.3)
    assert await take(api, queue) == []
    assert len(await take(api, queue, wait_seconds=30)) == 1


@pytest.mark.ci
async def test_two_hundred_waiters_hold_no_connection(
    start_replica: Callable[..., Awaitable[Replica]],
) -> None:
    replica = await start_replica()
    api = Api(replica.client, replica.url)
    queue = await api.queue()
    async with httpx2.AsyncClient(
        base_url=replica.url, trust_env=False, timeout=60, limits=httpx2.Limits(max_connections=300)
    ) as many:
        crowd = Api(many, replica.url)
        waiting = [asyncio.create_task(take(crowd, queue, wait_seconds=30)) for _ in range(200)]
        await poll(lambda: len(replica.sluice.core.long_polls._queues.get(_only(replica), ())) == 200)
        await poll(lambda: replica.sluice.core.db.checked_out == 0)
        tasks = [await api.enqueue(queue, n) for n in range(200)]
        leased = await asyncio.gather(*waiting)
    assert sorted(task["id"] for (task,) in leased) == sorted(task["id"] for task in tasks)


def _only(replica: Replica) -> int:
    """The one queue somebody waits at."""
    return next(iter(replica.sluice.core.long_polls._queues), 0)


async def test_a_client_gone_before_the_answer_gets_nothing(shared: Replica, api: Api) -> None:
    queue = await api.queue()
    waiting = asyncio.create_task(take(api, queue, wait_seconds=30))
    queue_id = await _waits(shared, queue)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    polls = shared.sluice.core.long_polls
    await poll(lambda: queue_id not in polls._queues and queue_id not in polls._serving)
    task = await api.enqueue(queue)
    assert (await api.task(task["id"]))["state"] == "ready"
    assert (await take_one(api, queue))["attempt"] == 1


async def test_renew_moves_the_end_either_way_and_tells_the_progress(api: Api) -> None:
    queue = await api.queue()
    await api.enqueue(queue)
    leased = await take_one(api, queue, lease_seconds=60)
    longer = good(await say(api, leased, "renew", {"seconds": HOUR, "progress": {"done": 3, "of": 7}}))
    assert longer["lease"]["expires_at"] > leased["lease_expires_at"]
    assert longer["progress"] == {"done": 3, "of": 7}
    shorter = good(await say(api, leased, "renew", {"seconds": 5}))
    assert shorter["lease"]["expires_at"] < leased["lease_expires_at"]
    assert shorter["progress"] == {"done": 3, "of": 7}


async def test_a_failure_is_tried_again_after_backoff_or_what_the_worker_asks(api: Api) -> None:
    queue = await api.queue(retry={"backoff": {"kind": "fixed", "seconds": 0}, "retry_after_max_seconds": 100})
    task = await api.enqueue(queue)
    failed = good(await say(api, await take_one(api, queue), "fail", {"error": "no luck"}))
    assert (failed["state"], failed["last_error"], failed["attempt"]) == ("ready", "no luck", 1)
    later = good(await say(api, await take_one(api, queue), "fail", {"error": "busy", "retry_after_seconds": HOUR}))
    assert (later["state"], later["waiting_for"]) == ("scheduled", "retry_backoff")
    assert [a["outcome"] for a in await api.attempts(task["id"])] == ["failed", "failed"]


async def test_a_failure_that_is_not_retryable_or_the_last_is_the_end(api: Api) -> None:
    queue = await api.queue(retry={**AT_ONCE, "max_attempts": 2})
    await api.enqueue(queue)
    stopped = good(await say(api, await take_one(api, queue), "fail", {"error": "bad", "retryable": False}))
    assert (stopped["state"], stopped["reason"]) == ("dead", "stopped_by_worker")
    await api.enqueue(queue)
    good(await say(api, await take_one(api, queue), "fail", {"error": "once"}))
    exhausted = good(await say(api, await take_one(api, queue), "fail", {"error": "twice"}))
    assert (exhausted["state"], exhausted["reason"]) == ("dead", "attempts_exhausted")


async def test_a_released_task_is_ready_at_once_and_the_attempt_does_not_count(api: Api) -> None:
    queue = await api.queue(retry={"max_attempts": 1})
    task = await api.enqueue(queue)
    released = good(await say(api, await take_one(api, queue), "release"))
    assert (released["state"], released["attempt"]) == ("ready", 0)
    assert (await take_one(api, queue))["attempt"] == 1
    assert [(a["number"], a["counted"], a["outcome"]) for a in await api.attempts(task["id"])] == [
        (2, True, None),
        (1, False, "released"),
    ]


@pytest.mark.parametrize("verb", ["complete", "fail", "release"])
async def test_the_same_word_again_answers_as_the_first_and_writes_nothing(api: Api, verb: str) -> None:
    queue = await api.queue(retry=AT_ONCE)
    await api.enqueue(queue)
    leased = await take_one(api, queue)
    body = {"error": "x"} if verb == "fail" else None
    first = good(await say(api, leased, verb, body))
    history = await api.attempts(leased["id"])
    assert good(await say(api, leased, verb, body)) == first
    if verb != "complete":
        good(await api.cancel(leased["id"]))
        assert good(await say(api, leased, verb, body))["state"] == "cancelled", "also after a later cancel"
    assert await api.attempts(leased["id"]) == history


async def test_a_lease_that_ran_out_is_lost_and_its_late_word_is_stale(api: Api) -> None:
    queue = await api.queue()
    task = await api.enqueue(queue)
    lost = await take_one(api, queue, lease_seconds=1)
    retaken = (await take(api, queue, wait_seconds=30))[0]
    assert retaken["attempt"] == 2
    for verb, body in (("renew", {"seconds": 60}), ("complete", None), ("fail", {"error": "x"}), ("release", None)):
        problem(await say(api, lost, verb, body), 409, "lease_lost")
    assert (await api.task(task["id"]))["state"] == "running"
    good(await say(api, retaken, "complete"))
    assert [a["outcome"] for a in await api.attempts(task["id"])] == ["succeeded", "stale"]


async def test_after_a_cancel_the_holder_is_told_at_its_next_call(api: Api) -> None:
    queue = await api.queue()
    for verb, body in (("renew", {"seconds": 60}), ("complete", None), ("fail", {"error": "x"}), ("release", None)):
        await api.enqueue(queue)
        leased = await take_one(api, queue)
        good(await api.cancel(leased["id"]))
        problem(await say(api, leased, verb, body), 409, "task_cancelled")
        assert (await api.task(leased["id"]))["state"] == "cancelled"


async def test_only_the_token_of_this_task_counts(api: Api) -> None:
    queue = await api.queue()
    await api.enqueue(queue)
    await api.enqueue(queue)
    one, two = await take(api, queue, max_tasks=2)
    for token in (two["lease_token"], str(uuid4()), "no-token"):
        problem(await say(api, {**one, "lease_token": token}, "complete"), 409, "lease_lost")
    problem(await api.post(f"/tasks/{one['id']}/complete"), 401, "unauthenticated")
    assert (await api.task(one["id"]))["state"] == "running"


@pytest.mark.parametrize(
    ("verb", "body"), [("renew", {"seconds": 60}), ("complete", None), ("fail", {"error": "x"}), ("release", None)]
)
async def test_whoever_holds_no_token_is_not_told_whether_there_is_such_a_task(
    api: Api, shared: Replica, verb: str, body: dict[str, Any] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = await api.enqueue(await api.queue())
    stranger = {"lease_token": str(uuid4())}
    settling, settled = shared.sluice.core.settling, set()
    submit = settling.submit

    async def noted(outcome: AttemptEnd) -> str:
        settled.add(outcome.token)
        return await submit(outcome)

    monkeypatch.setattr(settling, "submit", noted)
    answers = [
        await say(api, stranger | {"id": task_id}, verb, body) for task_id in (there["id"], str(uuid4()), "none")
    ]
    for answer in answers:
        problem(answer, 409, "lease_lost")
    assert len({answer.content for answer in answers}) == 1
    assert stranger["lease_token"] not in settled


async def test_progress_has_a_size(api: Api) -> None:
    queue = await api.queue()
    await api.enqueue(queue)
    leased = await take_one(api, queue)
    good(await say(api, leased, "renew", {"seconds": 60, "progress": "x" * 65_534}))
    problem(await say(api, leased, "renew", {"seconds": 60, "progress": "x" * 65_535}), 413, "too_large")


async def test_push_and_pull_share_the_limits(shared: Replica, api: Api, handler: Handler) -> None:
    queue = await api.queue(max_concurrency=1)
    for _ in range(3):
        await api.enqueue(queue)
    (held,) = await take(api, queue, max_tasks=3)
    assert await take(api, queue) == []
    waiting = asyncio.create_task(take(api, queue, max_tasks=3, wait_seconds=30))
    await _waits(shared, queue)
    began = time.monotonic()
    good(await say(api, held, "complete"))
    (next_one,) = await waiting
    assert time.monotonic() - began < WAKE_SECONDS
    assert next_one["id"] != held["id"]


async def test_a_queue_with_a_handler_has_nothing_to_pull(api: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url)
    problem(await api.post(f"/queues/{queue}/leases", json={}), 409, "queue_is_push")
    problem(await api.post("/queues/no-such-queue/leases", json={}), 404, "queue_not_found")
    pull = await api.queue()
    for body in ({"max_tasks": 0}, {"max_tasks": 101}, {"wait_seconds": 61}, {"lease_seconds": 0}, {"tasks": 1}):
        problem(await api.post(f"/queues/{pull}/leases", json=body), 422, "invalid", f"/{next(iter(body))}")


async def test_a_paused_queue_gives_nothing_until_it_is_resumed(shared: Replica, api: Api) -> None:
    queue = await api.queue()
    await api.enqueue(queue)
    good(await api.post(f"/queues/{queue}/pause"))
    waiting = asyncio.create_task(take(api, queue, wait_seconds=30))
    await _waits(shared, queue)
    assert not waiting.done()
    good(await api.post(f"/queues/{queue}/resume"))
    assert len(await waiting) == 1


async def test_a_handler_that_holds_settles_later_by_its_token(api: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url, max_concurrency=1)
    handler.script(Reply(202, {"sluice-hold": "60"}, b"working"))
    task = await api.enqueue(queue)
    second = await api.enqueue(queue)
    (call,) = await handler.received()

    async def is_held() -> bool:
        attempts = await api.attempts(task["id"])
        return bool(attempts) and attempts[0]["outcome"] == "held"

    await poll(is_held)
    held = await api.task(task["id"])
    assert (held["state"], (await api.task(second["id"]))["waiting_for"]) == ("running", "queue_limit")
    leased = {"id": task["id"], "lease_token": call.headers["sluice-lease-token"]}
    renewed = good(await say(api, leased, "renew", {"seconds": HOUR, "progress": 0.5}))
    assert renewed["lease"]["expires_at"] > held["lease"]["expires_at"]
    done = good(await say(api, leased, "complete", {"result": "done"}))
    assert (done["state"], done["result"]) == ("succeeded", "done")
    (attempt,) = await api.attempts(task["id"])
    assert (attempt["outcome"], attempt["status"]) == ("succeeded", None)
    await handler.received(2)


async def test_a_hold_that_runs_out_is_reaped_and_counts(api: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url)
    handler.answer(Reply(202, {"sluice-hold": "1"}), Reply(200))
    task = await api.enqueue(queue)
    ended = await api.until(task["id"], "succeeded")
    assert ended["attempt"] == 2
    assert [a["outcome"] for a in await api.attempts(task["id"])] == ["succeeded", "lease_expired"]


@pytest.mark.parametrize("hold", ["0", "-1", "soon", "nan", ""])
async def test_a_hold_that_is_no_positive_number_is_a_failure(api: Api, handler: Handler, hold: str) -> None:
    queue = await api.queue_to(handler.url, retry={"max_attempts": 1})
    handler.script(Reply(200, {"sluice-hold": hold}))
    ended = await api.until((await api.enqueue(queue))["id"], "dead", reason="attempts_exhausted")
    assert "sluice-hold" in ended["last_error"]


async def test_a_drain_answers_those_who_wait(start_replica: Callable[..., Awaitable[Replica]]) -> None:
    replica = await start_replica()
    api = Api(replica.client, replica.url)
    queue = await api.queue()
    waiting = asyncio.create_task(take(api, queue, wait_seconds=60))
    await _waits(replica, queue)
    replica.sluice.engine.begin_drain()
    assert await waiting == []
