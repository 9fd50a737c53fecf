"""Health, status, metrics and statistics: what an operator sees after traffic whose numbers are known."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.embedded.postgres import EmbeddedPostgres
from app.settings import Settings
from app.telemetry.definitions import DEFINITIONS
from app.version import VERSION
from tests.handlers import Handler, Reply
from tests.sluices import Replica, replica_with
from tests.support import poll
from tests.wire.api import AT_ONCE, Api, good, problem

pytestmark = pytest.mark.anyio

StartApi = Callable[..., Awaitable[Api]]
NAMES = {definition.name.removesuffix("_total"): definition.kind for definition in DEFINITIONS}


async def traffic(api: Api, handler: Handler) -> str:
    """A queue in which 3 tasks succeeded (one at its second attempt), 1 died, 1 was cancelled, 1 is ready, 2 scheduled."""
    queue = await api.queue_to(handler.url, retry=AT_ONCE)
    handler.answer(Reply(200), Reply(200), Reply(503), Reply(200), Reply(400, {"sluice-retry": "no"}))
    for state in ("succeeded", "succeeded", "succeeded", "dead"):
        task = await api.enqueue(queue)
        await api.until(task["id"], state)
    good(await api.post(f"/queues/{queue}/pause"))
    good(await api.cancel((await api.enqueue(queue))["id"]))
    await api.enqueue(queue)
    for _ in range(2):
        await api.enqueue(queue, delay_seconds=600)
    return queue


async def samples(api: Api) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    reply = await api.get("/metrics")
    assert reply.status_code == 200 and reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(reply.text)
        for sample in family.samples
    }


async def test_the_metrics_are_those_of_the_contract(start_api: StartApi, handler: Handler) -> None:
    api = await start_api()
    await traffic(api, handler)
    text = (await api.get("/metrics")).text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert {name: family.type for name, family in families.items()} == NAMES
    assert all(family.documentation for family in families.values())
    assert text.endswith("\n") and "sluice_attempts_total{" in text


async def test_metrics_count_what_happened(start_api: StartApi, handler: Handler) -> None:
    api = await start_api()
    queue = await traffic(api, handler)
    found = await samples(api)

    def value(name: str, **labels: str) -> float | None:
        return found.get((name, frozenset({"queue": queue, "tenant": "default", **labels}.items())))

    assert value("sluice_attempts_total", outcome="succeeded") == 3
    assert value("sluice_attempts_total", outcome="failed") == 2
    assert value("sluice_attempt_seconds_count") == 5
    assert value("sluice_task_wait_seconds_count") == 5
    assert (value("sluice_task_wait_seconds_sum") or 0) < 5
    assert value("sluice_task_wait_seconds_bucket", le="+Inf") == 5
    assert found["sluice_leases_lost_total", frozenset()] == 0
    assert found["sluice_leases_reaped_total", frozenset()] == 0
    assert found["sluice_group_size_sum", frozenset({("statement", "enqueue")})] == 8
    assert found["sluice_group_size_sum", frozenset({("statement", "settle")})] == 5
    assert found["sluice_loop_lag_seconds", frozenset()] >= 0


async def test_gauges_show_the_whole_fleet_on_every_replica(start_api: StartApi, handler: Handler) -> None:
    queue = await traffic(await start_api(), handler)
    found = await samples(await start_api(role="api"))
    labels = {"queue": queue, "tenant": "default"}
    depths = {
        state: found["sluice_tasks", frozenset({**labels, "state": state}.items())]
        for state in ("scheduled", "ready", "running", "dead")
    }
    assert depths == {"scheduled": 2, "ready": 1, "running": 0, "dead": 1}
    assert found["sluice_oldest_ready_age_seconds", frozenset(labels.items())] > 0


async def test_every_ended_attempt_is_counted_under_the_outcome_on_record(
    start_replica: Callable[..., Awaitable[Replica]], handler: Handler
) -> None:
    holder = await start_replica()
    asked = await start_replica(role="api")
    api = Api(asked.client, asked.url)
    go = asyncio.Event()
    handler.script(Reply(until=go))
    queue = await api.queue_to(handler.url)
    revoked = await api.enqueue(queue)
    await handler.received()
    good(await api.cancel(revoked["id"]))
    await handler.idle()
    asked.sluice.core.signals.revoked = lambda *_: None
    late = await api.enqueue(queue)
    await handler.received(2)
    good(await api.cancel(late["id"]))
    go.set()

    async def stale() -> bool:
        return (await api.attempts(late["id"]))[0]["outcome"] == "stale"

    await poll(stale)

    async def counted() -> bool:
        found = await samples(Api(holder.client, holder.url))
        wanted = {"stale": 1.0, "cancelled": 1.0}
        return wanted == {
            dict(labels)["outcome"]: value for (name, labels), value in found.items() if name == "sluice_attempts_total"
        }

    await poll(counted)
    found = await samples(Api(holder.client, holder.url))
    assert found["sluice_leases_lost_total", frozenset()] == 1


async def test_a_queue_without_traffic_has_zeros_and_nulls(api: Api) -> None:
    queue = await api.queue()
    stats = good(await api.get(f"/queues/{queue}/stats"))
    nothing = {"p50": None, "p95": None, "p99": None}
    assert stats == {
        "queue": queue,
        "counts": dict.fromkeys(("scheduled", "ready", "running", "succeeded", "dead", "cancelled"), 0),
        "oldest_ready_age_seconds": None,
        "per_minute": {"enqueued": 0, "started": 0, "ended": 0},
        "success_share": None,
        "wait_seconds": nothing,
        "run_seconds": nothing,
        "keys": {"waiting": 0, "blocked": 0, "top": []},
        "as_of": stats["as_of"],
    }


async def test_stats_say_what_happened(api: Api, handler: Handler) -> None:
    queue = await traffic(api, handler)

    async def told() -> dict[str, Any] | None:
        """Another replica may have run some of it, and tells within seconds what it has counted."""
        stats = good(await api.get(f"/queues/{queue}/stats"))
        rates = stats["per_minute"]
        complete = rates["started"] * 8 == pytest.approx(rates["enqueued"] * 5) == rates["ended"] * 8
        return stats if complete and stats["success_share"] == 0.75 else None

    stats = await poll(told)
    assert stats is not None
    assert stats["counts"] == {"scheduled": 2, "ready": 1, "running": 0, "succeeded": 3, "dead": 1, "cancelled": 1}
    assert 0 < stats["oldest_ready_age_seconds"] < 30
    rates = stats["per_minute"]
    assert 8 / 6 <= rates["enqueued"] <= 8 / 5
    for name in ("wait_seconds", "run_seconds"):
        assert 0 <= stats[name]["p50"] <= stats[name]["p95"] <= stats[name]["p99"] < 30
    assert datetime.fromisoformat(stats["as_of"])


async def test_stats_count_running_and_due_tasks(api: Api, handler: Handler) -> None:
    go = asyncio.Event()
    handler.script(Reply(until=go))
    queue = await api.queue_to(handler.url)
    task = await api.enqueue(queue)
    await handler.received()
    assert good(await api.get(f"/queues/{queue}/stats"))["counts"]["running"] == 1
    go.set()
    await api.until(task["id"], "succeeded")


@pytest.mark.ci
async def test_without_its_database_a_replica_says_so_and_goes_on_once_it_is_back(
    durable_postgres: EmbeddedPostgres, handler: Handler
) -> None:
    url = durable_postgres.dsn
    settings = Settings.model_validate({"database_url": url, "port": 0, "drain_grace_seconds": 0})
    async with replica_with(settings) as replica:
        api = Api(replica.client, replica.url)
        queue = await api.queue_to(handler.url)
        for path in ("/health/live", "/health/ready"):
            assert good(await api.get(path)) == {"status": "ok"}
        await durable_postgres.stop()
        replies = await asyncio.gather(
            api.get("/queues"),
            api.get(f"/queues/{queue}/stats"),
            api.post(f"/queues/{queue}/tasks", json={"payload": 1}),
            api.put(f"/queues/{queue}", json={}),
            api.get("/tasks"),
            api.get("/status"),
        )
        for reply in replies:
            problem(reply, 503, "unavailable")
            assert "postgres" not in reply.text
        for path in ("/health/live", "/health/ready"):
            assert good(await api.get(path)) == {"status": "ok"}
        assert (await api.get("/metrics")).status_code == 200
        await durable_postgres.start()

        async def back() -> dict[str, Any] | None:
            reply = await api.post(f"/queues/{queue}/tasks", json={"payload": 1})
            return reply.json() if reply.status_code == 201 else None

        task = await poll(back)
        assert task is not None
        await handler.received(task=task["id"])


@pytest.mark.ci
async def test_a_draining_replica_is_live_and_serves_but_is_not_ready(database_url: str, handler: Handler) -> None:
    settings = Settings.model_validate({"database_url": database_url, "port": 0, "drain_grace_seconds": 20})
    replicas: asyncio.Queue[Replica] = asyncio.Queue()
    leave, go = asyncio.Event(), asyncio.Event()

    async def serve() -> None:
        async with replica_with(settings) as replica:
            replicas.put_nowait(replica)
            await leave.wait()

    serving = asyncio.create_task(serve())
    replica = await replicas.get()
    api = Api(replica.client, replica.url)
    handler.script(Reply(until=go))
    queue = await api.queue_to(handler.url)
    task = await api.enqueue(queue)
    await handler.received()
    # the client of `replica` is closed when its context is left, before the drain
    async with replica_client(replica) as client:
        api = Api(client, replica.url)
        leave.set()

        async def draining() -> bool:
            return (await api.get("/health/ready")).status_code == 503

        await poll(draining)
        assert problem(await api.get("/health/ready"), 503, "unavailable")["detail"] == "draining"
        assert (await api.get("/health/live")).status_code == 200
        later = await api.enqueue(queue)
        assert (await api.task(task["id"]))["state"] == "running"
        go.set()
    await serving
    async with replica_with(settings) as successor:
        api = Api(successor.client, successor.url)
        assert (await api.task(task["id"]))["state"] == "succeeded"
        await handler.received(task=later["id"])
    assert [request.task for request in handler.requests] == [task["id"], later["id"]]


@asynccontextmanager
async def replica_client(replica: Replica) -> AsyncIterator[Any]:
    async with httpx2.AsyncClient(base_url=replica.url, trust_env=False, verify=False, timeout=30) as client:
        yield client


async def test_status_shows_replicas_queues_database_and_alarms(start_api: StartApi, handler: Handler) -> None:
    api = await start_api()
    await start_api(role="api")
    queue = await traffic(api, handler)
    status = good(await api.get("/status"))
    assert set(status) == {"version", "replicas", "queues", "schedules", "database", "alarms"}
    assert status["version"] == VERSION and isinstance(status["schedules"], list)
    assert sorted(replica["roles"] for replica in status["replicas"]) == ["all", "api"]
    for replica in status["replicas"]:
        assert not replica["draining"] and not replica["silent"] and replica["version"] == VERSION
        assert datetime.fromisoformat(replica["started_at"]) <= datetime.fromisoformat(replica["seen_at"])
    [row] = status["queues"]
    assert (row["tenant"], row["queue"], row["paused"]) == ("default", queue, True)
    assert row["tasks"] == {"scheduled": 2, "ready": 1, "running": 0, "dead": 1}
    assert status["database"]["connections"] > 0 and status["database"]["size_bytes"] > 0
    assert {alarm["code"] for alarm in status["alarms"]} == {"queue_paused", "tasks_dying"}
    good(await api.post(f"/handlers/{row['handler']}/disable"))
    alarms = good(await api.get("/status"))["alarms"]
    assert alarms[0]["code"] == "handler_disabled"
    assert all(alarm["message"] and alarm["queue"] == queue for alarm in alarms)


async def test_a_task_runs_on_a_replica_that_status_knows(start_api: StartApi, handler: Handler) -> None:
    api = await start_api()
    task = await api.enqueue(await api.queue_to(handler.url))
    ended = await api.until(task["id"], "succeeded")
    names = [replica["name"] for replica in good(await api.get("/status"))["replicas"]]
    assert names == [ended["replica"]]


async def test_an_api_replica_takes_tasks_and_an_engine_delivers_them(start_api: StartApi, handler: Handler) -> None:
    api = await start_api(role="api")
    queue = await api.queue_to(handler.url)
    task = await api.enqueue(queue)
    assert (await api.task(task["id"]))["state"] == "ready"
    engine = await start_api(role="engine")
    await handler.received(task=task["id"])
    for path in ("/health/live", "/health/ready", "/status", "/metrics", "/openapi.json", "/docs"):
        assert (await engine.get(path)).status_code == 200, path
    for reply in (await engine.get("/queues"), await engine.post(f"/queues/{queue}/tasks", json={"payload": 1})):
        problem(reply, 404, "not_found")


async def test_documents_are_served(api: Api) -> None:
    document = good(await api.get("/openapi.json"))
    assert document["openapi"].startswith("3.") and "/queues/{name}/tasks" in document["paths"]
    docs = await api.get("/docs")
    assert docs.status_code == 200 and docs.headers["content-type"].startswith("text/html")


async def test_urls_handed_out_begin_with_the_public_url(start_api: StartApi, handler: Handler) -> None:
    api = await start_api(public_url="https://sluice.example.com/base/")
    queue = await api.queue_to(handler.url)
    reply = await api.post(f"/queues/{queue}/tasks", json={"payload": 1})
    url = f"https://sluice.example.com/base/tasks/{reply.json()['id']}"
    assert reply.headers["location"] == url
    [request] = await handler.received()
    assert request.headers["sluice-task-url"] == url
