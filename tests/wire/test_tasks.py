"""Tasks after they were enqueued: read, cancel, retry, expiry, delay and priority, in every state."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from tests.handlers import Handler, Received, Reply
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import AT_ONCE, Api, good, problem

pytestmark = pytest.mark.anyio


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


async def passed(text: str) -> None:
    """Wait until that instant is gone."""
    at = instant(text)
    await poll(lambda: datetime.now(UTC) > at)


async def test_a_task_nobody_has_answers_404_on_every_route(api: Api) -> None:
    for task_id in (str(uuid4()), "x", "0", "%00", "a" * 500, "{%s}" % uuid4(), "urn:uuid:" + str(uuid4())):  # noqa: UP031
        for reply in (
            await api.get(f"/tasks/{task_id}"),
            await api.get(f"/tasks/{task_id}/attempts"),
            await api.cancel(task_id),
            await api.retry(task_id),
        ):
            problem(reply, 404, "task_not_found")


async def test_a_running_task_shows_its_lease_and_replica_and_no_token(api: Api, handler: Handler) -> None:
    go = asyncio.Event()
    handler.script(Reply(until=go))
    task = await api.enqueue(await api.queue_to(handler.url))
    [request] = await handler.received()
    reply = await api.get(f"/tasks/{task['id']}")
    shown = good(reply)
    assert (shown["state"], shown["attempt"], shown["waiting_for"]) == ("running", 1, None)
    ahead = instant(shown["lease"]["expires_at"]) - instant(shown["started_at"])
    assert set(shown["lease"]) == {"expires_at"} and timedelta(seconds=25) < ahead <= timedelta(seconds=35)
    assert request.headers["sluice-lease-token"] not in reply.text
    [attempt] = await api.attempts(task["id"])
    assert attempt == {
        "number": 1,
        "counted": True,
        "replica": shown["replica"],
        "started_at": shown["started_at"],
        "ended_at": None,
        "outcome": None,
        "status": None,
        "error": None,
        "excerpt": None,
        "trace_id": attempt["trace_id"],
    }
    go.set()
    ended = await api.until(task["id"], "succeeded")
    assert (ended["lease"], ended["replica"], ended["started_at"]) == (None, shown["replica"], shown["started_at"])
    assert request.headers["sluice-lease-token"] not in str([ended, await api.attempts(task["id"])])


# cancel


async def test_a_waiting_task_is_cancelled(api: Api) -> None:
    queue = await api.queue()
    for given in ({}, {"delay_seconds": 600}):
        task = await api.enqueue(queue, **given)
        shown = good(await api.cancel(task["id"]))
        assert (shown["state"], shown["reason"], shown["waiting_for"]) == ("cancelled", "requested", None)
        assert shown["ended_at"] and (shown["attempt"], shown["started_at"]) == (0, None)
        assert good(await api.cancel(task["id"])) == shown == await api.task(task["id"])


async def test_a_task_that_waits_to_be_retried_is_cancelled_and_keeps_its_attempts(api: Api, handler: Handler) -> None:
    handler.script(Reply(500))
    task = await api.enqueue(await api.queue_to(handler.url))
    await api.until(task["id"], "scheduled", attempt=1)
    shown = good(await api.cancel(task["id"]))
    assert (shown["state"], shown["attempt"], shown["last_error"]) == ("cancelled", 1, "the handler answered 500")
    [attempt] = await api.attempts(task["id"])
    assert (attempt["outcome"], attempt["counted"]) == ("failed", True)


@pytest.mark.parametrize("through", ["the replica that holds it", "another one"])
async def test_a_running_task_is_cancelled_and_its_call_aborted(
    start_replica: Callable[..., Awaitable[Replica]], handler: Handler, through: str
) -> None:
    holder = await start_replica()
    asked = holder if through == "the replica that holds it" else await start_replica(role="api")
    api = Api(asked.client, asked.url)
    never = asyncio.Event()
    handler.script(Reply(until=never))
    task = await api.enqueue(await api.queue_to(handler.url))
    await handler.received()
    shown = good(await api.cancel(task["id"]))
    assert (shown["state"], shown["reason"], shown["lease"]) == ("cancelled", "requested", None)
    await handler.idle()
    [attempt] = await api.attempts(task["id"])
    assert (attempt["outcome"], attempt["counted"], shown["attempt"]) == ("cancelled", False, 0)
    assert attempt["ended_at"] == shown["ended_at"]
    assert good(await api.cancel(task["id"])) == shown


@pytest.fixture
async def deaf(start_replica: Callable[..., Awaitable[Replica]]) -> Api:
    """Asked over one replica, run by another that never hears of a cancel."""
    await start_replica()
    asked = await start_replica(role="api")
    asked.sluice.core.signals.revoked = lambda *_: None
    return Api(asked.client, asked.url)


async def test_the_late_outcome_of_a_cancelled_task_is_stale(deaf: Api, handler: Handler) -> None:
    go = asyncio.Event()
    handler.script(Reply(201, body=b"too late", until=go))
    task = await deaf.enqueue(await deaf.queue_to(handler.url))
    await handler.received()
    cancelled = good(await deaf.cancel(task["id"]))
    go.set()

    async def rewritten() -> bool:
        return (await deaf.attempts(task["id"]))[0]["outcome"] == "stale"

    await poll(rewritten)
    [attempt] = await deaf.attempts(task["id"])
    assert (attempt["status"], attempt["excerpt"], attempt["counted"]) == (201, "too late", False)
    assert await deaf.task(task["id"]) == cancelled


async def test_a_stale_outcome_changes_nothing_of_the_attempt_after_it(deaf: Api, handler: Handler) -> None:
    first, second = asyncio.Event(), asyncio.Event()
    handler.answer(Reply(410, until=first), Reply(200, body=b"mine", until=second))
    named = await deaf.handler(handler.url)
    task = await deaf.enqueue(await deaf.queue(named))
    await handler.received()
    good(await deaf.cancel(task["id"]))
    good(await deaf.retry(task["id"]))
    await handler.received(2)
    first.set()

    async def rewritten() -> bool:
        return (await deaf.attempts(task["id"]))[1]["outcome"] == "stale"

    await poll(rewritten)
    assert (await deaf.task(task["id"]))["state"] == "running"
    second.set()
    ended = await deaf.until(task["id"], "succeeded")
    assert (ended["result"], ended["attempt"]) == ("mine", 1)
    newest, oldest = await deaf.attempts(task["id"])
    assert (newest["number"], newest["outcome"], newest["counted"]) == (2, "succeeded", True)
    assert (oldest["number"], oldest["outcome"], oldest["status"], oldest["counted"]) == (1, "stale", 410, False)


async def test_a_cancel_frees_the_slot_at_once(api: Api, handler: Handler) -> None:
    never = asyncio.Event()
    handler.script(Reply(until=never))
    queue = await api.queue_to(handler.url, max_concurrency=1)
    tasks = [await api.enqueue(queue) for _ in range(3)]
    for number, task in enumerate(tasks, 1):
        requests = await handler.received(number)
        assert requests[-1].task == task["id"]
        good(await api.cancel(task["id"]))
    await handler.idle()


async def test_a_task_that_has_ended_is_not_cancelled(api: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url, retry={"max_attempts": 1})
    handler.answer(Reply(200), Reply(500))
    for state in ("succeeded", "dead"):
        task = await api.enqueue(queue)
        ended = await api.until(task["id"], state)
        problem(await api.cancel(task["id"]), 409, "task_ended")
        assert await api.task(task["id"]) == ended


async def test_a_cancel_that_races_with_the_end_agrees_with_the_task(api: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url)
    tasks = await asyncio.gather(*(api.enqueue(queue) for _ in range(20)))
    replies = await asyncio.gather(*(api.cancel(task["id"]) for task in tasks))
    for task, reply in zip(tasks, replies, strict=True):
        state = (await api.task(task["id"]))["state"]
        assert (reply.status_code, state) in ((200, "cancelled"), (409, "succeeded"))


# retry


async def test_a_dead_task_is_ready_again_with_a_fresh_allowance(api: Api, handler: Handler) -> None:
    handler.answer(Reply(500, body=b"no"), Reply(500), Reply(500), Reply(200))
    queue = await api.queue_to(handler.url, retry=AT_ONCE | {"max_attempts": 2})
    task = await api.enqueue(queue, {"n": 1}, tags=["x"], headers={"x-a": "1"})
    dead = await api.until(task["id"], "dead", reason="attempts_exhausted", attempt=2)
    good(await api.post(f"/queues/{queue}/pause"))
    shown = good(await api.retry(task["id"]))
    assert (shown["state"], shown["reason"], shown["attempt"], shown["ended_at"]) == ("ready", None, 0, None)
    assert shown["last_error"] == dead["last_error"]
    assert {name: shown[name] for name in ("created_at", "payload", "tags", "headers")} == {
        name: task[name] for name in ("created_at", "payload", "tags", "headers")
    }
    assert instant(shown["run_at"]) >= instant(dead["ended_at"])
    good(await api.post(f"/queues/{queue}/resume"))
    ended = await api.until(task["id"], "succeeded", attempt=2)
    attempts = await api.attempts(task["id"])
    assert [(a["number"], a["outcome"]) for a in attempts] == [
        (4, "succeeded"),
        (3, "failed"),
        (2, "failed"),
        (1, "failed"),
    ]
    assert [request.headers["sluice-attempt"] for request in handler.requests] == ["1", "2", "1", "2"]
    problem(await api.retry(task["id"]), 409, "task_ended")
    assert await api.task(task["id"]) == ended


async def test_a_cancelled_task_is_ready_again(api: Api) -> None:
    task = await api.enqueue(await api.queue(), delay_seconds=600)
    good(await api.cancel(task["id"]))
    shown = good(await api.retry(task["id"]))
    assert (shown["state"], shown["reason"], shown["waiting_for"]) == ("ready", None, "worker")
    assert (await api.pages("/tasks", queue=task["queue"])) == [{k: v for k, v in shown.items() if k != "payload"}]


async def test_a_scheduled_task_is_ready_now(api: Api, handler: Handler) -> None:
    task = await api.enqueue(await api.queue_to(handler.url), delay_seconds=600)
    shown = good(await api.retry(task["id"]))
    assert shown["state"] in ("ready", "running", "succeeded") and instant(shown["run_at"]) < datetime.now(UTC)
    await handler.received(task=task["id"])


async def test_a_ready_task_stays_as_it_is(api: Api) -> None:
    task = await api.enqueue(await api.queue(), ttl_seconds=600)
    assert good(await api.retry(task["id"])) == task


async def test_a_running_task_is_not_retried(api: Api, handler: Handler) -> None:
    go = asyncio.Event()
    handler.script(Reply(until=go))
    task = await api.enqueue(await api.queue_to(handler.url))
    await handler.received()
    problem(await api.retry(task["id"]), 409, "task_not_editable")
    go.set()
    await api.until(task["id"], "succeeded")


async def test_of_racing_retries_one_moves_the_task(api: Api, other: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url, retry={"max_attempts": 1})
    handler.answer(Reply(500))
    task = await api.enqueue(queue)
    await api.until(task["id"], "dead")
    replies = await asyncio.gather(*((api, other)[n % 2].retry(task["id"]) for n in range(8)))
    assert {reply.status_code for reply in replies} <= {200, 409}
    assert 200 in {reply.status_code for reply in replies}
    await api.until(task["id"], "succeeded")
    assert [a["number"] for a in await api.attempts(task["id"])] == [2, 1] and len(handler.requests) == 2


async def test_a_retry_clears_an_expiry_that_has_passed_and_keeps_one_ahead(api: Api, handler: Handler) -> None:
    queue = await api.queue()
    expired = await api.enqueue(queue, ttl_seconds=0.05)
    await api.until(expired["id"], "dead", reason="expired")
    shown = good(await api.retry(expired["id"]))
    assert (shown["state"], shown["expires_at"]) == ("ready", None)
    ahead = await api.enqueue(queue, ttl_seconds=600)
    good(await api.cancel(ahead["id"]))
    assert good(await api.retry(ahead["id"]))["expires_at"] == ahead["expires_at"]


# expiry


async def test_a_waiting_task_ends_at_the_instant_of_its_expiry(api: Api, handler: Handler) -> None:
    paused, pull = await api.queue_to(handler.url), await api.queue()
    good(await api.post(f"/queues/{paused}/pause"))
    tasks = [
        await api.enqueue(paused, ttl_seconds=0.2),
        await api.enqueue(pull, ttl_seconds=0.2),
        await api.enqueue(pull, ttl_seconds=0.2, delay_seconds=600),
        await api.enqueue(pull, expires_at=(datetime.now(UTC) + timedelta(seconds=0.2)).isoformat()),
    ]
    for task in tasks:
        shown = await api.ended(task["id"])
        assert datetime.now(UTC) - instant(task["expires_at"]) < timedelta(seconds=2)
        assert (shown["state"], shown["reason"]) == ("dead", "expired")
        assert shown["ended_at"] == shown["expires_at"] == task["expires_at"]
    assert handler.requests == []


async def test_a_task_that_waits_to_be_retried_expires(api: Api, handler: Handler) -> None:
    handler.script(Reply(500))
    queue = await api.queue_to(handler.url, retry={"backoff": {"kind": "fixed", "seconds": 600}})
    task = await api.enqueue(queue, ttl_seconds=0.5)
    shown = await api.ended(task["id"])
    assert (shown["state"], shown["reason"], shown["attempt"]) == ("dead", "expired", 1)
    assert shown["ended_at"] == task["expires_at"] and shown["last_error"] == "the handler answered 500"


async def test_a_running_attempt_is_not_cut_by_its_expiry(api: Api, handler: Handler) -> None:
    go = asyncio.Event()
    handler.script(Reply(until=go))
    task = await api.enqueue(await api.queue_to(handler.url), ttl_seconds=0.3)
    await handler.received()
    await passed(task["expires_at"])
    assert (await api.task(task["id"]))["state"] == "running"
    go.set()
    await api.until(task["id"], "succeeded")


@pytest.mark.parametrize("backoff", [0, 600])
async def test_an_attempt_that_fails_after_the_expiry_is_the_last(api: Api, handler: Handler, backoff: float) -> None:
    go = asyncio.Event()
    handler.script(Reply(503, until=go))
    queue = await api.queue_to(handler.url, retry={"backoff": {"kind": "fixed", "seconds": backoff}})
    task = await api.enqueue(queue, ttl_seconds=0.3)
    await handler.received()
    await passed(task["expires_at"])
    go.set()
    shown = await api.until(task["id"], "dead", reason="expired")
    [attempt] = await api.attempts(task["id"])
    assert (attempt["outcome"], attempt["counted"], len(handler.requests)) == ("failed", True, 1)
    assert shown["last_error"] == "the handler answered 503"


async def test_a_task_does_not_end_before_its_last_attempt(api: Api, handler: Handler) -> None:
    go = asyncio.Event()
    handler.script(Reply(503, until=go))
    task = await api.enqueue(await api.queue_to(handler.url), ttl_seconds=0.2)
    await handler.received()
    await passed(task["expires_at"])
    go.set()
    shown = await api.until(task["id"], "dead", reason="expired")
    [attempt] = await api.attempts(task["id"])
    assert instant(shown["ended_at"]) >= instant(attempt["ended_at"])


# delay and order


async def test_a_delayed_task_starts_at_its_time_and_not_before(api: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url)
    at = (datetime.now(UTC) + timedelta(seconds=0.4)).isoformat()
    for task in [await api.enqueue(queue, delay_seconds=0.3), await api.enqueue(queue, run_at=at)]:
        assert (task["state"], task["waiting_for"]) == ("scheduled", "run_at")
        [request] = await handler.received(task=task["id"])
        late = request.arrived_at - instant(task["run_at"]).timestamp()
        assert 0 <= late < 2
        assert (await api.until(task["id"], "succeeded"))["run_at"] == task["run_at"]


async def test_higher_priorities_go_first_and_equals_by_age(api: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url, max_concurrency=1)
    good(await api.post(f"/queues/{queue}/pause"))
    given = [0, 5, -100, 100, 5, 0, -1, 99, 100, -100]
    tasks = [await api.enqueue(queue, priority=priority) for priority in given]
    good(await api.post(f"/queues/{queue}/resume"))
    wanted = [task["id"] for task in sorted(tasks, key=lambda task: (-task["priority"], task["id"]))]
    assert [request.task for request in await handler.received(len(tasks))] == wanted


async def test_a_late_but_urgent_task_overtakes_all_that_wait(api: Api, handler: Handler) -> None:
    go = asyncio.Event()
    handler.answer(Reply(until=go))
    queue = await api.queue_to(handler.url, max_concurrency=1)
    await api.enqueue(queue)
    await handler.received()
    waiting = [await api.enqueue(queue) for _ in range(3)]
    urgent = await api.enqueue(queue, priority=1)
    go.set()
    order = [request.task for request in (await handler.received(5))[1:]]
    assert order == [urgent["id"], *[task["id"] for task in waiting]]


async def test_a_task_that_was_due_long_ago_has_no_precedence_over_older_ones(api: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url, max_concurrency=1)
    good(await api.post(f"/queues/{queue}/pause"))
    first = await api.enqueue(queue)
    second = await api.enqueue(queue, run_at="2001-01-01T00:00:00Z")
    good(await api.post(f"/queues/{queue}/resume"))
    assert [request.task for request in await handler.received(2)] == [first["id"], second["id"]]


async def test_every_one_of_many_tasks_over_two_replicas_is_delivered_once(
    api: Api, other: Api, handler: Handler
) -> None:
    queue = await api.queue_to(handler.url)
    tasks = await asyncio.gather(*((api, other)[n % 2].enqueue(queue, n) for n in range(200)))

    def answer(request: Received) -> Reply:
        return Reply(body=request.body)

    handler.script(answer)
    await handler.received(200)
    for task in tasks:
        await api.until(task["id"], "succeeded")
    assert sorted(request.task for request in handler.requests) == sorted(task["id"] for task in tasks)


async def test_actions_refuse_bodies_and_parameters_that_mean_nothing(api: Api) -> None:
    task: dict[str, Any] = await api.enqueue(await api.queue())
    for verb in ("cancel", "retry"):
        path = f"/tasks/{task['id']}/{verb}"
        problem(await api.post(path, json={"force": True}), 422, "invalid")
        problem(await api.post(path, json=[]), 422, "invalid")
        problem(await api.post(path + "?force=1"), 422, "invalid", "/force")
        problem(await api.post(path, content=b"{", headers={"content-type": "application/json"}), 400, "malformed")
        problem(await api.post(path, content=b"x=1", headers={"content-type": "text/plain"}), 415, MEDIA)
    assert await api.task(task["id"]) == task
    good(await api.post(f"/tasks/{task['id']}/cancel", json={}))


MEDIA = "unsupported_media_type"
