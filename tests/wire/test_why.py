"""`why`: one test for each code through the wire, and the action that it names removes the blocker."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from app.domain.instants import parse_instant
from tests.handlers import Handler, Reply
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import Api, good, problem
from tests.wire.test_limits import Gate

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

SLOW = {"limit": 1, "period_seconds": 600}
"""A rate that admits one task in the time of a test."""
BREAKER = {"window_seconds": 30, "min_calls": 1, "failure_percent": 1, "open_seconds": 300}


@pytest.fixture
async def gate(handler: Handler) -> AsyncIterator[Gate]:
    gate = Gate(handler)
    yield gate
    gate.open()


async def why(api: Api, task: dict[str, Any]) -> dict[str, Any]:
    return good(await api.get(f"/tasks/{task['id']}/why"))


async def blockers(api: Api, task: dict[str, Any], *codes: str) -> list[dict[str, Any]]:
    """Wait until exactly these hold, in this order, and return them."""

    async def so() -> dict[str, Any] | None:
        found = await why(api, task)
        return found if [blocker["code"] for blocker in found["blockers"]] == list(codes) else None

    try:
        found = await poll(so)
    except AssertionError:
        raise AssertionError(f"not {codes}, but {await why(api, task)}") from None
    assert (await api.task(task["id"]))["waiting_for"] == codes[0], "waiting_for is the first blocker"
    assert found["verdict"].startswith(found["blockers"][0]["detail"])
    assert all(
        blocker["detail"].endswith(".") and blocker["next"]["text"].endswith(".") for blocker in found["blockers"]
    )
    assert not any(value is None for blocker in found["blockers"] for value in blocker.values()), (
        "null fields are left out"
    )
    made: list[dict[str, Any]] = found["blockers"]
    return made


async def act(api: Api, blocker: dict[str, Any]) -> None:
    """Do what it says would remove it."""
    step = blocker["next"]
    body = {} if "body" not in step else {"json": step["body"]}
    reply = await api.client.request(step["method"], step["path"], **body)
    assert reply.status_code == 200, f"{step} {reply.text}"


async def test_a_scheduled_task_is_started_now(api: Api, handler: Handler) -> None:
    task = await api.enqueue(await api.queue_to(handler.url), delay_seconds=600)
    [blocker] = await blockers(api, task, "run_at")
    assert blocker["until"] == task["run_at"] and (await why(api, task))["starts_about"] == task["run_at"]
    await act(api, blocker)
    await handler.received(task=task["id"])


async def test_a_failed_task_says_with_which_error_and_until_when(api: Api, handler: Handler) -> None:
    handler.answer(Reply(500))
    task = await api.enqueue(await api.queue_to(handler.url, retry={"backoff": {"kind": "fixed", "seconds": 600}}))
    await api.until(task["id"], "scheduled")
    [blocker] = await blockers(api, task, "retry_backoff")
    assert "500" in blocker["detail"] and blocker["since"] < blocker["until"]
    await act(api, blocker)
    await handler.received(2, task=task["id"])


async def test_a_paused_queue_and_all_else_at_once(api: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url)
    name = good(await api.get(f"/queues/{queue}"))["handler"]
    good(await api.post(f"/queues/{queue}/pause"))
    good(await api.post(f"/handlers/{name}/disable"))
    first, task = await api.enqueue(queue), await api.enqueue(queue)
    paused, disabled, behind = await blockers(api, task, "queue_paused", "handler_disabled", "behind")
    assert paused["since"] and disabled["since"] and "by request" in disabled["detail"]
    found = await why(api, task)
    assert (found["ahead"], found["verdict"]) == (1, f"Queue {queue} is paused. 2 more things stand in its way.")
    assert "starts_about" not in found
    await act(api, paused)
    await blockers(api, task, "handler_disabled", "behind")
    await act(api, behind)
    [disabled] = await blockers(api, task, "handler_disabled")
    await act(api, disabled)
    await handler.received(task=task["id"])
    await handler.received(task=first["id"])


async def test_a_parked_handler(api: Api, handler: Handler) -> None:
    handler.answer(Reply(503, {"retry-after": "600"}))
    name = await api.handler(handler.url, adaptive={}, max_concurrency=4, park_on_retry_after="handler")
    queue = await api.queue(name)
    await api.enqueue(queue)
    await handler.received()
    task = await api.enqueue(queue)
    [blocker] = await blockers(api, task, "handler_parked")
    assert blocker["until"]
    await act(api, blocker)
    await handler.received(task=task["id"])


async def test_an_open_breaker(api: Api, handler: Handler) -> None:
    handler.answer(Reply(500))
    name = await api.handler(handler.url, breaker=BREAKER)
    queue = await api.queue(name, retry={"backoff": {"kind": "fixed", "seconds": 600}})
    await api.enqueue(queue)

    async def opened() -> bool:
        return good(await api.get(f"/handlers/{name}/health"))["state"] == "open"

    await poll(opened)
    task = await api.enqueue(queue)
    [blocker] = await blockers(api, task, "breaker_open")
    assert blocker["since"] < blocker["until"]
    await act(api, blocker)
    await handler.received(task=task["id"])


async def test_no_engine_and_a_paused_queue(start_api: Callable[..., Awaitable[Api]], handler: Handler) -> None:
    api = await start_api(role="api")
    queue = await api.queue_to(handler.url)
    task = await api.enqueue(queue)
    [blocker] = await blockers(api, task, "no_engine")
    assert "method" not in blocker["next"] and "role" in blocker["next"]["text"]
    good(await api.post(f"/queues/{queue}/pause"))
    later = await api.enqueue(queue, delay_seconds=600)
    await blockers(api, later, "run_at", "queue_paused", "no_engine")
    found = good(await api.get(f"/queues/{queue}/why"))
    assert [blocker["code"] for blocker in found["blockers"]] == ["queue_paused", "no_engine"]
    assert (found["ready"], found["first"]) == (1, task["id"]) and "drains_about" not in found
    await start_api(role="engine")
    await blockers(api, task, "queue_paused")


async def test_a_queue_without_a_worker_for_a_minute(start_replica: Callable[..., Awaitable[Replica]]) -> None:
    replica = await start_replica()
    api = Api(replica.client, replica.url)
    queue = await api.queue(max_concurrency=1)
    first, task = await api.enqueue(queue), await api.enqueue(queue)
    await blockers(api, first, "worker")
    await replica.sluice.core.db.fetch("update sluice.queues set updated_at = updated_at - interval '2 minutes'")
    none, _ = await blockers(api, task, "no_worker", "behind")
    assert f"sluice work {queue}" in none["next"]["text"]
    [leased] = good(await api.post(f"/queues/{queue}/leases", json={}))["tasks"]
    full, _ = await blockers(api, task, "queue_limit", "worker")
    assert [holder["task"] for holder in full["holders"]] == [leased["id"]]
    await act(api, full)
    await blockers(api, task, "worker")


@pytest.mark.ci
async def test_full_levels_name_their_holders_and_one_more_is_let_in(
    start_api: Callable[..., Awaitable[Api]], gate: Gate
) -> None:
    api = await start_api()
    name = await api.handler(gate.handler.url, max_concurrency=1)
    queue = await api.queue(name, max_concurrency=1, description="kept", rate={"limit": 1000, "burst": 50})
    good(await api.put("/limits", json={"max_concurrency": 1}))
    first = await api.enqueue(queue)
    await gate.holds(1)
    task = await api.enqueue(queue)
    levels = await blockers(api, task, "global_limit", "handler_limit", "queue_limit")
    assert [blocker["limit"]["name"] for blocker in levels] == ["default", name, queue]
    for blocker in levels:
        assert (blocker["limit"]["used"], blocker["limit"]["max"]) == (1, 1)
        [holder] = blocker["holders"]
        assert (holder["task"], holder["queue"]) == (first["id"], queue)
        assert holder["replica"] and holder["started_at"] < holder["lease_expires_at"]
        await act(api, blocker)
    await gate.holds(2)
    kept = good(await api.get(f"/queues/{queue}"))
    assert (kept["max_concurrency"], kept["description"], kept["rate"]["burst"]) == (2, "kept", 50)


@pytest.mark.ci
@pytest.mark.parametrize("level", ["queue", "handler", "global"])
async def test_a_spent_rate_lets_one_more_start(
    start_api: Callable[..., Awaitable[Api]], gate: Gate, level: str
) -> None:
    api = await start_api()
    name = await api.handler(gate.handler.url, rate=SLOW if level == "handler" else None)
    queue = await api.queue(name, rate=SLOW if level == "queue" else None)
    if level == "global":
        good(await api.put("/limits", json={"rate": SLOW}))
    await api.enqueue(queue)
    await gate.holds(1)
    task = await api.enqueue(queue)
    [blocker] = await blockers(api, task, f"{level}_rate")
    assert blocker["until"] > blocker.get("since", "")
    assert (await why(api, task))["starts_about"] >= blocker["until"]
    await act(api, blocker)
    await gate.handler.received(task=task["id"])


async def test_a_full_key_and_a_full_limit(api: Api, gate: Gate) -> None:
    name, keyed = await api.limit(max_concurrency=1), await api.limit(max_concurrency=1, keyed=True)
    queue = await api.queue_to(gate.handler.url, key={"max_concurrency": 1})
    first = await api.enqueue(queue, key="k", limits=[{"name": name}, {"name": keyed, "key": "a b"}])
    await gate.holds(1)
    of_key = await api.enqueue(queue, key="k")
    of_limit = await api.enqueue(queue, key="other", limits=[{"name": name}])
    of_both = await api.enqueue(queue, key="third", limits=[{"name": keyed, "key": "a b"}])
    [key] = await blockers(api, of_key, "key_limit")
    [limit] = await blockers(api, of_limit, "limit")
    [part] = await blockers(api, of_both, "limit")
    assert key["limit"] == {"name": queue, "key": "k", "used": 1, "max": 1}
    assert limit["limit"] == {"name": name, "used": 1, "max": 1}
    assert part["limit"] == {"name": keyed, "key": "a b", "used": 1, "max": 1}
    for blocker, task in ((key, of_key), (limit, of_limit), (part, of_both)):
        assert [holder["task"] for holder in blocker["holders"]] == [first["id"]]
        await act(api, blocker)
        await gate.handler.received(task=task["id"])


async def test_spent_rates_of_keys_and_limits(api: Api, gate: Gate) -> None:
    name = await api.limit(rate=SLOW)
    queue = await api.queue_to(gate.handler.url, key={"rate": SLOW})
    await api.enqueue(queue, key="k", limits=[{"name": name}])
    await gate.holds(1)
    of_key, of_limit = await api.enqueue(queue, key="k"), await api.enqueue(queue, key="o", limits=[{"name": name}])
    for task, code in ((of_key, "key_rate"), (of_limit, "limit_rate")):
        [blocker] = await blockers(api, task, code)
        assert blocker["until"]
        await act(api, blocker)
        await gate.handler.received(task=task["id"])


async def test_paused_keys_and_limits_are_resumed(api: Api, handler: Handler) -> None:
    name = await api.limit(max_concurrency=9)
    queue = await api.queue_to(handler.url, key={"max_concurrency": 9})
    good(await api.post(f"/queues/{queue}/keys/k/pause"))
    good(await api.post(f"/limits/{name}/pause"))
    of_key, of_limit = await api.enqueue(queue, key="k"), await api.enqueue(queue, limits=[{"name": name}])
    for task, code in ((of_key, "key_paused"), (of_limit, "limit")):
        [blocker] = await blockers(api, task, code)
        assert blocker["since"] and "paused" in blocker["detail"] and "starts_about" not in await why(api, task)
        await act(api, blocker)
        await handler.received(task=task["id"])


async def test_an_ordered_key_names_the_task_before(api: Api, handler: Handler) -> None:
    handler.answer(Reply(500))
    retry = {"backoff": {"kind": "fixed", "seconds": 600}}
    queue = await api.queue_to(handler.url, key={"ordered": True}, retry=retry)
    first = await api.enqueue(queue, key="k")
    await api.until(first["id"], "scheduled")
    task = await api.enqueue(queue, key="k")
    [blocker] = await blockers(api, task, "ordering")
    assert first["id"] in blocker["detail"] and [one["task"] for one in blocker["holders"]] == [first["id"]]
    await act(api, blocker)
    await handler.received(task=task["id"])


@pytest.mark.ci
async def test_busy_replicas_and_who_is_behind(start_replica: Callable[..., Awaitable[Replica]], gate: Gate) -> None:
    replica = await start_replica(max_in_flight=1)
    api = Api(replica.client, replica.url)
    queue = await api.queue_to(gate.handler.url)
    await api.enqueue(queue)
    await gate.holds(1)
    second, third = await api.enqueue(queue), await api.enqueue(queue)
    await blockers(api, second, "replicas_busy")
    busy, behind = await blockers(api, third, "replicas_busy", "behind")
    assert "SLUICE_MAX_IN_FLIGHT" in busy["next"]["text"] and "1 task" in behind["detail"]
    assert (await why(api, third))["ahead"] == 1
    await act(api, behind)
    await blockers(api, third, "replicas_busy")
    found = good(await api.get(f"/queues/{queue}/why"))
    assert [blocker["code"] for blocker in found["blockers"]] == ["replicas_busy"] and found["ready"] == 2


@pytest.mark.ci
async def test_a_key_that_has_had_its_turn(start_api: Callable[..., Awaitable[Api]], gate: Gate) -> None:
    api = await start_api(max_in_flight=1)
    queue = await api.queue_to(gate.handler.url)
    ids = await api.bulk(queue, [{"payload": None, "key": key} for key in "aabb"])
    await gate.holds(1)
    [running] = {request.task for request in gate.handler.requests}
    [second] = {*(ids[:2] if running in ids[:2] else ids[2:])} - {running}
    fair, _ = await blockers(api, {"id": second}, "fair_share", "replicas_busy")
    await act(api, fair)
    gate.open(running)
    await gate.handler.received(task=second)


async def test_a_running_task_says_who_has_it_and_when_it_was_renewed(api: Api, gate: Gate) -> None:
    pull = await api.queue()
    pulled = await api.enqueue(pull)
    [leased] = good(await api.post(f"/queues/{pull}/leases", json={}))["tasks"]
    token = {"sluice-lease-token": leased["lease_token"]}
    assert "renewed_at" not in (await why(api, pulled))["running"]
    renewal = {"seconds": 60, "progress": {"done": 3}}
    good(await api.post(f"/tasks/{pulled['id']}/renew", json=renewal, headers=token))
    found = await why(api, pulled)
    running = found["running"]
    assert running["started_at"] < running["renewed_at"] < running["lease_expires_at"]
    assert running["progress"] == {"done": 3} and "replica" not in running and found["blockers"] == []
    task = await api.enqueue(await api.queue_to(gate.handler.url))
    await gate.holds(1)
    found = await why(api, task)
    assert found["running"]["replica"] and found["state"] == "running"
    await act(api, {"next": found["actions"][0]})
    assert (await api.task(task["id"]))["state"] == "cancelled"


async def test_an_ended_task_says_how_by_whom_and_what_can_be_done(api: Api, handler: Handler) -> None:
    handler.answer(Reply(500), Reply(500))
    queue = await api.queue_to(handler.url, retry={"max_attempts": 2, "backoff": {"kind": "fixed", "seconds": 0}})
    task = await api.enqueue(queue)
    await api.until(task["id"], "dead")
    found = await why(api, task)
    assert "its last attempt failed" in found["verdict"] and found["reason"] == "attempts_exhausted"
    assert [line.split(" after ")[0] for line in found["attempts"]] == ["2: failed 500", "1: failed 500"]
    assert "by" not in found
    await act(api, {"next": found["actions"][0]})
    await api.until(task["id"], "succeeded")
    assert "succeeded" in (await why(api, task))["verdict"]

    waiting = await api.enqueue(await api.queue())
    good(await api.cancel(waiting["id"]))
    found = await why(api, waiting)
    assert found["by"]["actor"] == "key" and found["by"]["at"] and found["reason"] == "requested"
    problem(await api.get(f"/tasks/{waiting['id'][:-4]}ffff/why"), 404, "task_not_found")


async def test_a_task_that_an_action_ended_says_by_whom(start_api: Callable[..., Awaitable[Api]]) -> None:
    """On a database of its own: it is told only if no other action can have been it."""
    api = await start_api()
    purged, swept = await api.queue(), await api.queue()
    tasks = [await api.enqueue(queue) for queue in (purged, swept)]
    good(await api.post(f"/queues/{purged}/purge"), 202)
    good(await api.post("/actions", json={"kind": "cancel", "filter": {"queue": swept}}), 202)
    for task, reason in zip(tasks, ("purged", "requested"), strict=True):
        await api.until(task["id"], "cancelled")
        found = await why(api, task)
        assert found["reason"] == reason and found["by"]["actor"] == "key" and found["by"]["at"]


async def test_a_task_that_ended_with_its_batch_says_who_cancelled_that(api: Api) -> None:
    queue = await api.queue()
    batch = good(await api.post("/batches", json={"queue": queue, "tasks": [{"payload": 1}, {"payload": 2}]}), 201)
    first, second = [result["id"] for result in batch["results"]]
    good(await api.cancel(first), 200)
    headers = {"x-request-id": "the-batch"}
    good(await api.post(f"/batches/{batch['id']}/cancel", headers=headers))
    await api.until(second, "cancelled")
    assert (await why(api, {"id": second}))["by"]["request_id"] == "the-batch"
    assert (await why(api, {"id": first}))["by"]["request_id"] != "the-batch", "somebody cancelled it alone"


async def test_a_queue_that_drains_says_when_and_one_that_grows_does_not(
    start_replica: Callable[..., Awaitable[Replica]],
) -> None:
    replica = await start_replica()
    api, db = Api(replica.client, replica.url), replica.sluice.core.db
    queue = await api.queue()
    await api.bulk(queue, [{"payload": n} for n in range(120)])
    good(await api.post(f"/queues/{queue}/leases", json={}))  # a worker is there
    past = (
        "insert into sluice.queue_minutes (queue_id, minute, enqueued, started, succeeded, dead) "
        "select id, date_trunc('minute', clock_timestamp()) - n * interval '1 minute', $2, 60, 50, 10 "
        "from sluice.queues, generate_series(1, 5) n where name = $1 "
        "on conflict (queue_id, minute) do update set enqueued = excluded.enqueued"
    )
    await replica.sluice.core.stats.flush(db)
    await db.fetch("delete from sluice.queue_minutes")
    await db.fetch(past, queue, 30)
    draining = good(await api.get(f"/queues/{queue}/why"))
    assert draining["ready"] == 119 and [blocker["code"] for blocker in draining["blockers"]] == ["worker"]
    # 60 end in a minute and 30 come; the current minute has none of either, and up to 6 minutes are looked at
    left = parse_instant(draining["drains_about"]) - parse_instant(draining["as_of"])  # type: ignore[operator]
    assert 119 / 30 * 60 - 1 <= left.total_seconds() <= 119 / 30 * 60 * 6 / 5 + 1
    await db.fetch(past, queue, 61)
    assert "drains_about" not in good(await api.get(f"/queues/{queue}/why"))
    await db.fetch(past, queue, 30)
    good(await api.post(f"/queues/{queue}/pause"))
    assert "drains_about" not in good(await api.get(f"/queues/{queue}/why")), "nothing starts"


async def test_a_quiet_queue_says_that_nothing_is_ready(api: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url)
    found = good(await api.get(f"/queues/{queue}/why"))
    assert (found["verdict"], found["blockers"], found["ready"]) == ("Nothing is ready.", [], 0)
    task = await api.enqueue(queue, delay_seconds=600)
    found = good(await api.get(f"/queues/{queue}/why"))
    assert found["next_run_at"] == task["run_at"] and task["run_at"] in found["verdict"]
    problem(await api.get("/queues/nosuch/why"), 404, "queue_not_found")


async def test_keys_see_their_tenants_alone(two: tuple[Replica, Api, Api]) -> None:
    _, a, b = two
    queue = await a.queue()
    task = await a.enqueue(queue)
    good(await a.get(f"/tasks/{task['id']}/why"))
    problem(await b.get(f"/tasks/{task['id']}/why"), 404, "task_not_found")
    problem(await b.get(f"/queues/{queue}/why"), 404, "queue_not_found")
