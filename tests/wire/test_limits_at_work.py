"""Limits, rates and keys through the wire: the examples of other services, what a task waits for, and changes while it waits."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.engine.snapshot import Snapshot
from tests.handlers import Handler, Received, Reply
from tests.promises.records import most_above
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import AT_ONCE, Api, fresh, good, problem
from tests.wire.test_limits import Gate

pytestmark = pytest.mark.anyio

ADMITTED = "sluice_limit_admitted_total"
SLOW = {"limit": 1, "period_seconds": 600}
"""A rate that admits one task in the time of a test."""


@pytest.fixture
async def gate(handler: Handler) -> AsyncIterator[Gate]:
    """A handler whose calls stay open until the test lets them go, and all at its end."""
    gate = Gate(handler)
    yield gate
    gate.open()


async def lease(api: Api, queue: str, **fields: Any) -> int:
    """How many tasks a pull worker gets."""
    return len(good(await api.post(f"/queues/{queue}/leases", json=fields))["tasks"])


async def starts(api: Api, ids: list[str]) -> list[datetime]:
    """When these tasks started, in order."""
    tasks = [await api.ended(task_id) for task_id in ids]
    assert {task["state"] for task in tasks} == {"succeeded"}
    return sorted(datetime.fromisoformat(task["started_at"]) for task in tasks)


async def waiting(api: Api, task: dict[str, Any], code: str) -> dict[str, Any] | None:
    """Wait until the task waits for this, and return on what."""

    async def so() -> bool:
        return (await api.task(task["id"]))["waiting_for"] == code

    try:
        await poll(so)
    except AssertionError:
        raise AssertionError(f"not {code}, but {(await api.task(task['id']))['waiting_for']}") from None
    found = await api.task(task["id"])
    [listed] = [item for item in await api.pages("/tasks", queue=task["queue"]) if item["id"] == task["id"]]
    assert listed["waiting_for"] == code
    on: dict[str, Any] | None = found["waiting_on"]
    return on


def soon(text: str) -> bool:
    """Whether the instant is within the ten minutes of SLOW."""
    return timedelta(0) < datetime.fromisoformat(text) - datetime.now(UTC) <= timedelta(seconds=601)


@pytest.mark.ci
async def test_cloud_tasks_dispatches_per_second_and_at_once(api: Api, handler: Handler) -> None:
    async def answer(request: Received) -> Reply:
        await asyncio.sleep(0.05)
        return Reply()

    handler.script(answer)
    rate = {"limit": 40, "burst": 2}  # maxDispatchesPerSecond, and its burst
    queue = await api.queue_to(handler.url, max_concurrency=3, rate=rate)  # maxConcurrentDispatches
    ids = await api.bulk(queue, [{"payload": n} for n in range(30)])
    times = await starts(api, ids)
    assert most_above([(at, 1) for at in times], 2, 40) < 1e-3
    assert timedelta(seconds=28 / 40 - 1e-3) <= times[-1] - times[0] < timedelta(seconds=10)
    assert handler.most_open_calls <= 3


@pytest.mark.ci
async def test_qstash_a_flow_control_key_has_a_rate_and_a_parallelism_over_all_urls(api: Api, handler: Handler) -> None:
    open_calls: dict[str, int] = {}
    most: dict[str, int] = {}

    async def answer(request: Received) -> Reply:
        key = request.json["key"]
        open_calls[key] = open_calls.get(key, 0) + 1
        most[key] = max(most.get(key, 0), open_calls[key])
        await asyncio.sleep(0.05)
        open_calls[key] -= 1
        return Reply()

    handler.script(answer)
    # Upstash-Flow-Control-Value: rate=20, period=1s, parallelism=2
    name = await api.limit(keyed=True, rate={"limit": 20, "period_seconds": 1, "burst": 2}, max_concurrency=2)
    queues = [await api.queue_to(handler.url), await api.queue_to(handler.url)]
    ids: dict[str, list[str]] = {"acme": [], "beta": []}
    for key, found in ids.items():
        for queue in queues:
            # Upstash-Flow-Control-Key: acme
            tasks = [{"payload": {"key": key}, "key": key, "limits": [{"name": name}]}] * 8
            found += await api.bulk(queue, tasks)
    for key, found in ids.items():
        times = await starts(api, found)
        assert most_above([(at, 1) for at in times], 2, 20) < 1e-3, key
        assert most[key] <= 2
    assert max(most.values()) == 2
    shown = good(await api.get(f"/limits/{name}"))
    assert (shown["holding"], shown["waiting_keys"], shown["holders"]) == (0, 0, [])


@pytest.mark.ci
async def test_sqs_fifo_a_group_runs_one_at_a_time_in_order_even_while_its_first_retries(
    api: Api, handler: Handler
) -> None:
    running: set[str] = set()
    overlaps: list[str] = []
    order: list[tuple[str, int]] = []

    async def answer(request: Received) -> Reply:
        group, number = request.json
        if group in running:
            overlaps.append(group)
        running.add(group)
        order.append((group, number))
        await asyncio.sleep(0.01)
        running.discard(group)
        failed = group == "a" and number == 0 and request.headers["sluice-attempt"] != "2"
        return Reply(500) if failed else Reply()

    handler.script(answer)
    retry = {"backoff": {"kind": "fixed", "seconds": 1}}
    queue = await api.queue_to(handler.url, key={"ordered": True, "required": True}, retry=retry)
    tasks = [{"payload": [group, n], "key": group} for n in range(4) for group in ("a", "b", "c")]
    ids = await api.bulk(queue, tasks)
    for task_id in ids:
        assert (await api.ended(task_id))["state"] == "succeeded"
    assert overlaps == []
    assert [n for group, n in order if group == "a"] == [0, 0, 1, 2, 3]
    assert [n for group, n in order if group == "b"] == [0, 1, 2, 3]
    assert order.index(("b", 3)) < order.index(("a", 1)), "other groups go on"


async def test_temporal_fairness_keys_share_two_thousand_starts_by_weight(api: Api) -> None:
    queue = await api.queue()
    good(await api.put(f"/queues/{queue}/keys/large", json={"weight": 3}))
    await api.bulk(queue, [{"payload": None, "key": "large"}] * 2000 + [{"payload": None, "key": "small"}] * 2000)
    started: Counter[str] = Counter()
    while started.total() < 2000:
        found = good(await api.post(f"/queues/{queue}/leases", json={"max_tasks": 100, "wait_seconds": 10}))["tasks"]
        assert found
        started.update(task["key"] for task in found)
    assert abs(started["large"] - 3 * started["small"]) <= 0.1 * 3 * started["small"]


async def test_a_task_behind_another_of_its_ordered_key_waits_for_ordering(api: Api, gate: Gate) -> None:
    queue = await api.queue_to(gate.handler.url, key={"ordered": True})
    first, second = await api.enqueue(queue, key="k"), await api.enqueue(queue, key="k")
    assert await waiting(api, second, "ordering") == {"limit": None, "key": "k", "until": None}
    gate.open(first["id"])
    await gate.handler.received(task=second["id"])


async def test_each_rate_is_waited_for_by_its_name(api: Api, gate: Gate) -> None:
    name = await api.limit(rate=SLOW)
    keyed = await api.limit(rate=SLOW, keyed=True)
    handler = await api.handler(gate.handler.url, rate=SLOW)
    cases: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
        ("queue_rate", await api.queue_to(gate.handler.url, rate=SLOW), {}, {"limit": None, "key": None}),
        ("handler_rate", await api.queue(handler), {}, {"limit": None, "key": None}),
        (
            "key_rate",
            await api.queue_to(gate.handler.url, key={"rate": SLOW}),
            {"key": "k"},
            {"limit": None, "key": "k"},
        ),
        ("limit_rate", await api.queue_to(gate.handler.url, limits=[name]), {}, {"limit": name, "key": None}),
        (
            "limit_rate",
            await api.queue_to(gate.handler.url, limits=[keyed]),
            {"key": "k"},
            {"limit": keyed, "key": "k"},
        ),
    ]
    for code, queue, fields, wanted in cases:
        await api.enqueue(queue, **fields)
        second = await api.enqueue(queue, **fields)
        on = await waiting(api, second, code)
        assert on is not None and {field: on[field] for field in wanted} == wanted
        assert soon(on["until"]), code
    shown = good(await api.get(f"/limits/{name}"))
    assert (shown["holding"], shown["waiting_keys"]) == (1, 1)
    assert shown["tokens"] < 1 and soon(shown["next_at"])


@pytest.mark.ci
async def test_the_rate_over_all_queues_is_waited_for(start_api: Callable[..., Awaitable[Api]], gate: Gate) -> None:
    api = await start_api()
    good(await api.put("/limits", json={"rate": SLOW}))
    queues = [await api.queue_to(gate.handler.url) for _ in range(2)]
    await api.enqueue(queues[0])
    await gate.holds(1)
    second = await api.enqueue(queues[1])
    on = await waiting(api, second, "global_rate")
    assert on is not None and soon(on["until"])
    good(await api.put("/limits", json={}))
    await gate.handler.received(task=second["id"])


@pytest.mark.ci
async def test_a_key_that_has_had_its_turn_waits_for_its_fair_share(
    start_api: Callable[..., Awaitable[Api]], gate: Gate
) -> None:
    api = await start_api(max_in_flight=1)
    queue = await api.queue_to(gate.handler.url)
    ids = await api.bulk(queue, [{"payload": None, "key": key} for key in "aabb"])
    await gate.holds(1)
    [running] = {request.task for request in gate.handler.requests}
    served = ids[:2] if running in ids[:2] else ids[2:]
    [second] = set(served) - {running}
    assert await waiting(api, {"id": second, "queue": queue}, "fair_share") is None
    others = [await api.task(task_id) for task_id in ids if task_id not in served]
    assert "fair_share" not in [task["waiting_for"] for task in others]
    gate.open(running)
    await gate.handler.received(2)
    assert {request.task for request in gate.handler.requests} < {running, *(task["id"] for task in others)}


async def test_a_full_key_and_a_full_limit_are_waited_for_and_shown(api: Api, gate: Gate) -> None:
    name = await api.limit(max_concurrency=1)
    queue = await api.queue_to(gate.handler.url, key={"max_concurrency": 1})
    first = await api.enqueue(queue, key="k", limits=[{"name": name}])
    await gate.holds(1)
    of_key, of_limit = await api.enqueue(queue, key="k"), await api.enqueue(queue, key="other", limits=[{"name": name}])
    assert await waiting(api, of_key, "key_limit") == {"limit": None, "key": "k", "until": None}
    assert await waiting(api, of_limit, "limit") == {"limit": name, "key": None, "until": None}
    shown = good(await api.get(f"/limits/{name}"))
    assert (shown["holding"], shown["effective_max_concurrency"], shown["waiting_keys"]) == (1, 1, 1)
    [holder] = shown["holders"]
    assert (holder["task"], holder["queue"], holder["key"]) == (first["id"], queue, "k")
    assert holder["started_at"] == (await api.task(first["id"]))["started_at"]
    key = good(await api.get(f"/queues/{queue}/keys/k"))
    assert (key["holding"], key["waiting"], key["waiting_keys"]) == (1, 1, 1)
    assert [one["task"] for one in key["holders"]] == [first["id"]]
    stats = good(await api.get(f"/queues/{queue}/stats"))["keys"]
    assert (stats["waiting"], stats["blocked"]) == (2, 2)
    assert sorted((top["key"], top["ready"]) for top in stats["top"]) == [("k", 1), ("other", 1)]
    assert all(top["oldest_age_seconds"] >= 0 for top in stats["top"])
    gate.open(first["id"])
    await gate.handler.received(3)
    gate.open()
    for task in (of_key, of_limit):
        await api.until(task["id"], "succeeded")
    assert good(await api.get(f"/queues/{queue}/stats"))["keys"] == {"waiting": 0, "blocked": 0, "top": []}


async def test_keys_of_a_limit_are_full_or_waited_for_by_themselves(api: Api, gate: Gate) -> None:
    name = await api.limit(max_concurrency=2, keyed=True)
    queue = await api.queue_to(gate.handler.url, limits=[name])
    await api.bulk(queue, [{"payload": None, "key": key} for key in "aaab"])
    await gate.holds(3)
    found = {key["key"]: key for key in await api.pages(f"/limits/{name}/keys")}

    async def counted() -> bool:
        nonlocal found
        found = {key["key"]: key for key in await api.pages(f"/limits/{name}/keys")}
        return [found[key]["waiting_keys"] for key in "ab"] == [1, 0]

    await poll(counted)
    assert [found[key]["holding"] for key in "ab"] == [2, 1]
    assert [key["key"] for key in await api.pages(f"/limits/{name}/keys", state="full")] == ["a"]
    assert [key["key"] for key in await api.pages(f"/limits/{name}/keys", state="waiting")] == ["a"]
    whole = good(await api.get(f"/limits/{name}"))
    assert (whole["holding"], whole["waiting_keys"], whole["tokens"]) == (3, 1, None)


async def test_an_override_admits_at_once_and_a_lowered_one_admits_nothing_until_it_has_drained(
    api: Api, gate: Gate
) -> None:
    name = await api.limit(max_concurrency=1, keyed=True)
    queue = await api.queue_to(gate.handler.url, limits=[name])
    ids = await api.bulk(queue, [{"payload": None, "key": "a"} for _ in range(5)])
    await gate.holds(1)
    good(await api.put(f"/limits/{name}/keys/a", json={"max_concurrency": 3}))
    await gate.holds(3)
    lowered = good(await api.put(f"/limits/{name}/keys/a", json={"max_concurrency": 2}))
    assert (lowered["holding"], lowered["effective_max_concurrency"]) == (3, 2)
    running = [request.task for request in gate.handler.requests]
    gate.open(running[0])
    await api.until(running[0], "succeeded")
    [last] = [task_id for task_id in ids if task_id not in running][:1]
    assert await waiting(api, await api.task(last), "limit") == {"limit": name, "key": "a", "until": None}
    assert gate.handler.open_calls == 2
    assert (await api.delete(f"/limits/{name}/keys/a")).status_code == 204
    gate.open(running[1])
    await api.until(running[1], "succeeded")
    gate.open(running[2])
    await gate.handler.received(4)
    assert gate.handler.open_calls <= 1


async def test_a_paused_key_and_a_paused_limit_hold_their_tasks_alone(api: Api, gate: Gate) -> None:
    name = await api.limit(keyed=True)
    queue = await api.queue_to(gate.handler.url, limits=[name])
    good(await api.post(f"/queues/{queue}/keys/a/pause"))
    good(await api.post(f"/limits/{name}/keys/b/pause"))
    tasks = {key: await api.enqueue(queue, key=key) for key in "abc"}
    await gate.handler.received(task=tasks["c"]["id"])
    assert await waiting(api, tasks["a"], "key_paused") == {"limit": None, "key": "a", "until": None}
    assert await waiting(api, tasks["b"], "key_paused") == {"limit": name, "key": "b", "until": None}
    good(await api.post(f"/queues/{queue}/keys/a/resume"))
    await gate.handler.received(task=tasks["a"]["id"])
    good(await api.post(f"/limits/{name}/keys/b/resume"))
    await gate.handler.received(task=tasks["b"]["id"])
    good(await api.post(f"/limits/{name}/pause"))
    held = await api.enqueue(queue, key="d")
    assert await waiting(api, held, "limit") == {"limit": name, "key": "d", "until": None}
    good(await api.post(f"/limits/{name}/resume"))
    await gate.handler.received(task=held["id"])


async def test_a_patch_of_key_or_limits_lets_a_waiting_task_go(api: Api, gate: Gate) -> None:
    name = await api.limit(max_concurrency=1)
    queue = await api.queue_to(gate.handler.url, key={"max_concurrency": 1})
    await api.enqueue(queue, key="k", limits=[{"name": name}])
    await gate.holds(1)
    of_key, of_limit = await api.enqueue(queue, key="k"), await api.enqueue(queue, limits=[{"name": name}])
    await waiting(api, of_key, "key_limit")
    await waiting(api, of_limit, "limit")
    good(await api.client.patch(f"/tasks/{of_key['id']}", json={"key": "free"}))
    await gate.handler.received(task=of_key["id"])
    good(await api.client.patch(f"/tasks/{of_limit['id']}", json={"limits": None}))
    await gate.handler.received(task=of_limit["id"])


async def test_pull_workers_get_what_keys_and_limits_admit(api: Api) -> None:
    name = await api.limit(max_concurrency=3)
    queue = await api.queue(key={"max_concurrency": 2}, limits=[name])
    await api.bulk(queue, [{"payload": None, "key": key} for key in "aaabbb"])
    leases = f"/queues/{queue}/leases"
    held: list[dict[str, Any]] = []

    async def three() -> bool:
        held.extend(good(await api.post(leases, json={"max_tasks": 10}))["tasks"])
        return len(held) >= 3

    await poll(three)
    assert len(held) == 3 and sorted(task["key"] for task in held) in (["a", "a", "b"], ["a", "b", "b"])
    assert held[0]["limits"] == [] and held[0]["waiting_for"] is None
    token = {"sluice-lease-token": held[0]["lease_token"]}
    good(await api.post(f"/tasks/{held[0]['id']}/complete", json={}, headers=token))
    [fourth] = good(await api.post(leases, json={"max_tasks": 10, "wait_seconds": 10}))["tasks"]
    assert fourth["id"] not in [task["id"] for task in held]


async def test_a_limit_that_becomes_keyed_counts_each_key_once_over_all_queues(api: Api) -> None:
    name = await api.limit(max_concurrency=1)
    queues = [await api.queue(), await api.queue()]
    fields: dict[str, Any] = {"key": "k", "limits": [{"name": name}]}
    tasks = [await api.enqueue(queues[0], **fields) for _ in range(2)]
    assert await lease(api, queues[0], wait_seconds=10) == 1
    assert await lease(api, queues[0]) == 0, "the second finds the limit reached"
    for task in tasks:
        assert (await api.cancel(task["id"])).status_code == 200
    good(await api.put(f"/limits/{name}", json={"max_concurrency": 1, "keyed": True}))
    for queue in queues:
        await api.enqueue(queue, **fields)
    assert await lease(api, queues[0], wait_seconds=10) == 1
    assert await lease(api, queues[1]) == 0


async def test_a_schedule_s_runs_and_follow_ups_carry_keys_and_limits(api: Api, handler: Handler) -> None:
    name = await api.limit(max_concurrency=5, keyed=True)
    target = await api.queue(key={"required": True, "max_depth": 1})
    page = {"tasks": [{"queue": target, "idempotency_key": "1", "payload": 1, "key": "a", "limits": [{"name": name}]}]}
    headers = {"content-type": "application/vnd.sluice.tasks+json"}
    handler.answer(Reply(200, headers, json.dumps(page).encode()))
    queue = await api.queue_to(handler.url, retry=AT_ONCE)
    schedule = fresh("s")
    given = {"queue": queue, "payload": 0, "cron": "@yearly", "key": "a", "limits": [{"name": name}]}
    good(await api.put(f"/schedules/{schedule}", json=given), 201)
    run = good(await api.post(f"/schedules/{schedule}/trigger", json={}))
    task = await api.until(run["task_id"], "succeeded")
    assert (task["key"], task["limits"]) == ("a", [{"name": name, "key": None, "cost": 1}])
    [child] = await api.pages("/tasks", queue=target)
    assert (child["key"], child["limits"], child["parent"]) == ("a", task["limits"], task["id"])


async def test_metrics_show_limits_by_name_and_never_by_key(api: Api, other: Api, shared: Replica, gate: Gate) -> None:
    name = await api.limit(max_concurrency=1, keyed=True)
    queue = await api.queue_to(gate.handler.url, limits=[name])
    await api.bulk(queue, [{"payload": None, "key": key} for key in ("k-1", "k-1", "k-2")])
    await gate.holds(2)

    async def of_limit(replica: Api) -> dict[str, float]:
        lines = [
            line.rsplit(" ", 1)
            for line in (await replica.get("/metrics")).text.splitlines()
            if f'limit="{name}"' in line or f'name="{name}"' in line
        ]
        return {line.partition("{")[0]: float(number) for line, number in lines}

    async def shown() -> dict[str, float] | None:
        await Snapshot(shared.sluice.core).look()
        found = await of_limit(api)
        # whichever replica admitted them
        admitted = found.pop(ADMITTED, 0) + (await of_limit(other)).get(ADMITTED, 0)
        return {**found, ADMITTED: admitted} if found.get("sluice_limit_waiting_keys") == 1 else None

    found = await poll(shown)
    assert found == {
        "sluice_limit_used": 2,
        "sluice_limit_waiting_keys": 1,
        ADMITTED: 2,
    }
    assert "k-1" not in (await api.get("/metrics")).text


@pytest.mark.ci
async def test_a_tenant_sees_and_holds_none_of_another_s_limits(two: tuple[Replica, Api, Api]) -> None:
    _, a, b = two
    good(await a.put("/limits/shared", json={"max_concurrency": 1, "keyed": True}), 201)
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/pause"), ("GET", "/keys"), ("GET", "/keys/k")):
        problem(await b.client.request(method, f"/limits/shared{path}"), 404, "limit_not_found")
    assert good(await b.get("/limits"))["items"] == []
    problem(await b.put("/queues/q", json={"limits": ["shared"]}), 422, "invalid", "/limits/0/name")
    good(await b.put("/limits/shared", json={"max_concurrency": 5, "keyed": True}), 201)
    for api in (a, b):
        good(await api.put("/queues/q", json={"limits": ["shared"]}), 201)
        await api.bulk("q", [{"payload": None, "key": "k"}] * 3)

    async def held(api: Api) -> int:
        await api.post("/queues/q/leases", json={"max_tasks": 10})
        holding: int = good(await api.get("/limits/shared/keys/k"))["holding"]
        return holding

    async def both() -> bool:
        return (await held(a), await held(b)) == (1, 3)

    await poll(both)
    problem(await b.get("/queues/q2/keys/k"), 404, "queue_not_found")
    assert good(await b.get("/queues/q/keys/k"))["holding"] == 3


async def test_a_page_that_does_not_fit_a_key_is_pressure_and_one_that_never_fits_is_refused(api: Api) -> None:
    target = await api.queue(key={"max_depth": 1})
    queue = await api.queue()
    await api.enqueue(target, key="a")
    await api.enqueue(queue)
    [held] = good(await api.post(f"/queues/{queue}/leases", json={"wait_seconds": 10}))["tasks"]
    token = {"sluice-lease-token": held["lease_token"]}
    one = {"queue": target, "idempotency_key": "1", "payload": 1, "key": "a"}
    full = await api.post(f"/tasks/{held['id']}/complete", json={"tasks": [one]}, headers=token)
    problem(full, 429, "key_full")
    assert (await api.task(held["id"]))["state"] == "running", "it keeps its lease"
    two = {"tasks": [{**one, "key": "b"}, {**one, "key": "b", "idempotency_key": "2"}]}
    problem(await api.post(f"/tasks/{held['id']}/complete", json=two, headers=token), 413, "too_large")
    fits = {"tasks": [{**one, "key": "b"}, {**one, "key": "c", "idempotency_key": "2"}]}
    good(await api.post(f"/tasks/{held['id']}/complete", json=fits, headers=token))
    assert sorted(task["key"] for task in await api.pages("/tasks", queue=target)) == ["a", "b", "c"]


async def test_a_batch_and_its_additions_carry_keys(api: Api) -> None:
    queue = await api.queue(key={"max_depth": 2})
    body = {"queue": queue, "sealed": False, "tasks": [{"payload": 1, "key": "a"}]}
    batch = good(await api.post("/batches", json=body), 201)
    more = {"tasks": [{"payload": 2, "key": "a"}, {"payload": 3, "key": "a"}, {"payload": 4, "key": ""}]}
    added = good(await api.post(f"/batches/{batch['id']}/tasks", json=more))
    assert [result["status"] for result in added["results"]] == [201, 429, 422]
    assert [task["key"] for task in await api.pages("/tasks", batch=batch["id"])] == ["a", "a"]
