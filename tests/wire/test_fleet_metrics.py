"""Metrics of tasks, pulled and pushed alike, and the gauges of the whole fleet."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.engine.snapshot import Snapshot
from tests.handlers import Handler, Reply
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import AT_ONCE, Api, good

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

OPEN = 0
"""The limit of a handler whose breaker is open."""
Found = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def look(replica: Replica) -> Found:
    """What the replica shows after it has flushed its counts and taken a snapshot."""
    core = replica.sluice.core
    await core.stats.flush(core.db)
    await Snapshot(core).look()
    text = (await replica.client.get("/metrics")).text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Found, name: str, /, **labels: str) -> float | None:
    return found.get((name, frozenset(labels.items())))


def ended(found: Found, queue: str) -> dict[tuple[str, str], float]:
    """By state and reason."""
    return {
        (given["state"], given["reason"]): count
        for (name, labels), count in found.items()
        if name == "sluice_tasks_ended_total" and (given := dict(labels))["queue"] == queue
    }


async def pull(api: Api, queue: str, verb: str, body: dict[str, Any]) -> None:
    [leased] = good(await api.post(f"/queues/{queue}/leases", json={}))["tasks"]
    headers = {"sluice-lease-token": leased["lease_token"]}
    good(await api.post(f"/tasks/{leased['id']}/{verb}", json=body, headers=headers))


async def test_tasks_are_counted_by_how_they_end_pulled_and_pushed_alike(
    start_replica: Callable[..., Awaitable[Replica]], handler: Handler
) -> None:
    replica = await start_replica()
    api = Api(replica.client, replica.url)
    pushed, pulled = await api.queue_to(handler.url, retry=AT_ONCE), await api.queue(retry=AT_ONCE)
    handler.answer(Reply(200), Reply(400, {"sluice-retry": "no"}))
    for state in ("succeeded", "dead"):
        await api.until((await api.enqueue(pushed))["id"], state)
    for verb, body in (("complete", {}), ("fail", {"error": "no", "retryable": False})):
        await api.enqueue(pulled)
        await pull(api, pulled, verb, body)
    await api.cancel((await api.enqueue(pulled))["id"])
    await api.enqueue(pulled, delay_seconds=60)
    good(await api.post(f"/queues/{pulled}/purge"), 202)
    last = await api.enqueue(pulled, ttl_seconds=0.05)
    await api.until(last["id"], "dead")

    found = await look(replica)
    for queue, reason in ((pushed, "stopped_by_handler"), (pulled, "stopped_by_worker")):
        own = {"queue": queue, "tenant": "default"}
        assert value(found, "sluice_attempts_total", outcome="succeeded", **own) == 1
        assert value(found, "sluice_attempts_total", outcome="failed", **own) == 1
        assert value(found, "sluice_task_wait_seconds_count", **own) == 2
        assert ended(found, queue).items() >= {("succeeded", ""): 1, ("dead", reason): 1}.items()
    assert len(ended(found, pushed)) == 2
    assert ended(found, pulled).keys() - {("succeeded", ""), ("dead", "stopped_by_worker")} == {
        ("cancelled", "requested"),
        ("cancelled", "purged"),
        ("dead", "expired"),
    }
    assert value(found, "sluice_tasks_enqueued_total", queue=pushed, tenant="default") == 2
    assert value(found, "sluice_tasks_enqueued_total", queue=pulled, tenant="default") == 5
    assert (
        value(found, "sluice_http_request_seconds_count", method="POST", route="/queues/{name}/tasks", status="201")
        == 7
    )


async def test_the_fleet_is_seen_by_every_replica(
    start_replica: Callable[..., Awaitable[Replica]], handler: Handler
) -> None:
    replica = await start_replica(role="api")
    api = Api(replica.client, replica.url)
    limit = await api.limit(max_concurrency=7)
    target = await api.handler(handler.url, max_concurrency=3, breaker={})
    queue = await api.queue(target, max_concurrency=5, max_depth=9, limits=[limit])
    await api.enqueue(queue)
    good(await api.post(f"/queues/{queue}/pause"))
    good(await api.post(f"/handlers/{target}/disable"))
    good(await api.post(f"/handlers/{target}/breaker", json={"open": True}))
    good(await api.put("/limits", json={"max_concurrency": 11}))

    async def seen() -> Found | None:
        """The heartbeat has been sent."""
        found = await look(replica)
        return found if value(found, "sluice_replicas", role="api") == 1 else None

    found = await poll(seen)
    own, by = {"queue": queue, "tenant": "default"}, {"handler": target, "tenant": "default"}
    assert value(found, "sluice_queue_paused", **own) == 1
    assert value(found, "sluice_queue_max_depth", **own) == 9
    assert value(found, "sluice_handler_enabled", **by) == 0
    assert value(found, "sluice_breaker_open", **by) == 1
    limits = {"tenant": ("default", 11), "handler": (target, OPEN), "queue": (queue, 5), "named": (limit, 7)}
    for level, (name, most) in limits.items():
        of = {"level": level, "name": name, "tenant": "default"}
        assert (value(found, "sluice_limit", **of), value(found, "sluice_limit_used", **of)) == (most, 0), level
    assert value(found, "sluice_replicas", role="all") == value(found, "sluice_replicas", role="engine") == 0
    alarms = {dict(labels)["code"]: on for (name, labels), on in found.items() if name == "sluice_alarm"}
    shown = {alarm["code"] for alarm in good(await api.get("/status"))["alarms"]}
    assert {code for code, on in alarms.items() if on} == shown >= {"no_engine", "queue_paused", "handler_disabled"}
    assert value(found, "sluice_database_up") == 1
    assert (
        0 < (value(found, "sluice_database_connections") or 0) < (value(found, "sluice_database_connections_max") or 0)
    )
    assert value(found, "sluice_database_oldest_xmin_seconds") is not None
