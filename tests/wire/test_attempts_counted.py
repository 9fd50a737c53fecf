"""Attempts are counted once each, whoever ends them: a worker's word, a holding handler's, a cancel, the end of a lease."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.settings import Settings
from tests.handlers import Handler, Reply
from tests.sluices import Replica, replica_with
from tests.support import poll
from tests.wire.api import AT_ONCE, Api, good, problem

pytestmark = pytest.mark.anyio


@pytest.fixture
async def api(start_replica: Callable[..., Awaitable[Replica]]) -> Api:
    replica = await start_replica()
    return Api(replica.client, replica.url)


async def take(api: Api, queue: str, **fields: Any) -> dict[str, Any]:
    [task] = good(await api.post(f"/queues/{queue}/leases", json=fields))["tasks"]
    return dict(task)


async def say(api: Api, leased: dict[str, Any], verb: str, body: dict[str, Any] | None = None) -> httpx2.Response:
    given: dict[str, Any] = {} if body is None else {"json": body}
    headers = {"sluice-lease-token": leased["lease_token"]}
    return await api.post(f"/tasks/{leased['id']}/{verb}", headers=headers, **given)


def counted_in(text: str, queue: str) -> dict[str, float]:
    """Ended attempts by outcome, and `seconds` in all of them."""
    found: dict[str, float] = {}
    times = -1.0
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.get("queue") != queue:
                continue
            if sample.name == "sluice_attempts_total":
                found[sample.labels["outcome"]] = sample.value
            elif sample.name == "sluice_attempt_seconds_count":
                times = sample.value
            elif sample.name == "sluice_attempt_seconds_sum":
                found["seconds"] = sample.value
    assert times == sum(count for outcome, count in found.items() if outcome != "seconds"), "each has its time"
    return found


async def counted(api: Api, queue: str) -> dict[str, float]:
    return counted_in((await api.get("/metrics")).text, queue)


@pytest.mark.ci
async def test_what_workers_say_is_counted_with_its_outcome_and_time(api: Api) -> None:
    queue, next_queue = await api.queue(retry=AT_ONCE), await api.queue()
    words: tuple[tuple[str, Any], ...] = (
        ("complete", {"result": 1}),
        ("complete", {"tasks": [{"queue": next_queue, "idempotency_key": "k", "payload": 1}]}),
        ("fail", {"error": "x", "retryable": False}),
        ("fail", {"error": "once"}),
        ("release", None),
        ("complete", None),
    )
    for n in range(4):
        await api.enqueue(queue, n)
    for verb, body in words:
        leased = await take(api, queue)
        await asyncio.sleep(0.02)
        for _ in range(2):  # a repeat is no attempt
            good(await say(api, leased, verb, body))
    found = await counted(api, queue)
    assert 0.12 <= found.pop("seconds") < 30
    assert found == {"succeeded": 3, "failed": 2, "released": 1}
    stats = good(await api.get(f"/queues/{queue}/stats"))
    assert 0 < stats["run_seconds"]["p50"] < 30 and stats["success_share"] == 0.75


@pytest.mark.ci
async def test_leases_that_end_without_a_word_are_counted_by_what_ended_them(api: Api) -> None:
    queue = await api.queue(retry={**AT_ONCE, "max_attempts": 1})
    batch = good(await api.post("/batches", json={"queue": queue, "tasks": [{"payload": 0}]}), 201)
    swept = await take(api, queue)
    good(await api.post(f"/batches/{batch['id']}/cancel"))
    await api.enqueue(queue)
    cancelled = await take(api, queue)
    good(await api.cancel(cancelled["id"]))
    for leased in (swept, cancelled):
        problem(await say(api, leased, "complete"), 409, "task_cancelled")
    good(await api.cancel((await api.enqueue(queue))["id"]))  # nobody had it
    assert (await counted(api, queue))["cancelled"] == 2

    await api.enqueue(queue)
    lost = await take(api, queue, lease_seconds=1)
    dead = await api.until(lost["id"], "dead")
    assert dead["reason"] == "attempts_exhausted"
    problem(await say(api, lost, "complete"), 409, "lease_lost")
    found = await counted(api, queue)
    assert 1 <= found.pop("seconds") < 30
    assert found == {"cancelled": 2, "lease_expired": 1}
    assert good(await api.get(f"/queues/{queue}/stats"))["run_seconds"]["p50"] >= 0.8, "as exact as its histogram"


@pytest.mark.ci
async def test_an_attempt_that_is_held_counts_once_at_its_end_with_all_its_time(api: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url, retry={"max_attempts": 1})

    async def hold(seconds: float) -> dict[str, Any]:
        handler.answer(Reply(202, {"sluice-hold": str(seconds)}))
        task = await api.enqueue(queue)

        async def is_held() -> bool:
            attempts = await api.attempts(task["id"])
            return bool(attempts) and attempts[0]["outcome"] == "held"

        await poll(is_held)
        call = next(request for request in handler.requests if request.task == task["id"])
        return {"id": task["id"], "lease_token": call.headers["sluice-lease-token"]}

    first = await hold(60)
    assert await counted_later(api, queue) == {}
    await asyncio.sleep(0.1)
    good(await say(api, first, "complete"))
    found = await counted(api, queue)
    assert found.pop("seconds") >= 0.1 and found == {"succeeded": 1}
    good(await say(api, await hold(60), "fail", {"error": "x"}))
    good(await api.cancel((await hold(60))["id"]))
    await api.until((await hold(0.2))["id"], "dead")
    found = await counted(api, queue)
    del found["seconds"]
    assert found == {"succeeded": 1, "failed": 1, "cancelled": 1, "lease_expired": 1}


async def counted_later(api: Api, queue: str) -> dict[str, float]:
    """Also what a call that has been answered would count only after its outcome is written."""
    await asyncio.sleep(0.05)
    text = (await api.get("/metrics")).text
    return {} if f'sluice_attempts_total{{outcome="held",queue="{queue}"' not in text else counted_in(text, queue)


@pytest.mark.ci
async def test_a_word_that_comes_before_the_answer_of_the_call_counts_once(api: Api, handler: Handler) -> None:
    queue, go = await api.queue_to(handler.url), asyncio.Event()
    handler.script(Reply(until=go))
    task = await api.enqueue(queue)
    [call] = await handler.received()
    good(await say(api, {"id": task["id"], "lease_token": call.headers["sluice-lease-token"]}, "complete"))
    go.set()

    async def there() -> bool:
        return "succeeded" in await counted(api, queue)

    await poll(there)
    await handler.idle()
    found = await counted(api, queue)
    del found["seconds"]
    assert found == {"succeeded": 1}
    stats = good(await api.get(f"/queues/{queue}/stats"))
    assert stats["per_minute"]["ended"] == pytest.approx(stats["per_minute"]["started"])


async def test_a_call_that_a_stop_cuts_is_counted_as_it_is_on_record(database_url: str, handler: Handler) -> None:
    settings = Settings.model_validate({"database_url": database_url, "port": 0, "drain_grace_seconds": 0})
    never = asyncio.Event()
    handler.script(Reply(until=never))
    async with replica_with(settings) as replica:
        api = Api(replica.client, replica.url)
        queue = await api.queue_to(handler.url)
        await api.enqueue(queue)
        await handler.received()
    found = counted_in(replica.sluice.core.metrics.render().decode(), queue)
    del found["seconds"]
    assert found == {"failed": 1}
    never.set()
