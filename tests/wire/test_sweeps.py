"""Purge and redrive: one verb over many tasks of a queue."""

import asyncio
from typing import Any

import pytest

from app.telemetry import events
from tests.handlers import Handler, Reply
from tests.support import poll
from tests.wire.api import Api, fresh, good, problem

pytestmark = pytest.mark.anyio


async def fill(api: Api, queue: str, count: int, **fields: Any) -> list[str]:
    return await api.bulk(queue, [{"payload": n, **fields} for n in range(count)])


async def counts(api: Api, queue: str) -> dict[str, int]:
    found: dict[str, int] = good(await api.get(f"/queues/{queue}/stats"))["counts"]
    return found


async def killed(api: Api, stopper: Handler, queue: str, count: int, **fields: Any) -> list[str]:
    """The ids of new tasks that the handler has stopped."""
    stopper.script(Reply(400, headers={"sluice-retry": "no"}))
    before = (await counts(api, queue))["dead"]
    ids = await fill(api, queue, count, **fields)

    async def dead() -> bool:
        return (await counts(api, queue))["dead"] == before + count

    await poll(dead)
    return ids


async def redrive(api: Api, queue: str, **fields: Any) -> dict[str, Any]:
    return good(await api.post(f"/queues/{queue}/redrive", json=fields))


async def test_a_purge_cancels_what_waits_and_lets_what_runs_end(api: Api, handler: Handler) -> None:
    go = asyncio.Event()
    handler.script(Reply(until=go))
    queue = await api.queue_to(handler.url, max_concurrency=1)
    running = await api.enqueue(queue)
    await handler.received()
    ids = await fill(api, queue, 1200) + await fill(api, queue, 3, delay_seconds=600)
    assert good(await api.post(f"/queues/{queue}/purge"), 202) == {"purged": 1203}
    assert await counts(api, queue) == {
        "scheduled": 0, "ready": 0, "running": 1, "succeeded": 0, "dead": 0, "cancelled": 1203,
    }  # fmt: skip
    for task_id in (ids[0], ids[-1]):
        task = await api.task(task_id)
        assert (task["state"], task["reason"]) == ("cancelled", "purged") and task["ended_at"]
    go.set()
    await api.until(running["id"], "succeeded")
    assert good(await api.post(f"/queues/{queue}/purge", json={}), 202) == {"purged": 0}


async def test_a_purge_is_one_line_in_the_log_and_none_where_nothing_waited(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr(events, "emit", lambda log, event, **fields: lines.append({"event": event, **fields}))
    queue = await api.queue()
    await api.post(f"/queues/{queue}/purge")
    await fill(api, queue, 600)
    await api.post(f"/queues/{queue}/purge")
    said = [line for line in lines if line["event"] is events.TASKS_PURGED]
    assert said == [{"event": events.TASKS_PURGED, "tenant": "default", "queue": queue, "tasks": 600}]


async def test_what_is_enqueued_after_a_purge_stays_and_no_enqueue_waits_for_one(api: Api, other: Api) -> None:
    queue = await api.queue()
    await fill(api, queue, 3000)
    purge = asyncio.create_task(api.post(f"/queues/{queue}/purge"))
    meanwhile = []
    while not purge.done():
        meanwhile.append((await other.enqueue(queue))["id"])
    purged = good(await purge, 202)["purged"]
    later = await api.enqueue(queue)
    left = {task["id"] for task in await api.pages("/tasks", queue=queue, state="ready", limit=200)}
    gone = [task_id for task_id in meanwhile if task_id not in left]
    assert later["id"] in left and purged == 3000 + len(gone)
    assert gone == meanwhile[: len(gone)], "only what was there before the purge began"
    assert len(gone) < len(meanwhile)


async def test_a_purge_needs_a_queue(api: Api) -> None:
    problem(await api.post(f"/queues/{fresh('q')}/purge"), 404, "queue_not_found")
    problem(await api.post(f"/queues/{fresh('q')}/redrive"), 404, "queue_not_found")
    problem(await api.post(f"/queues/{await api.queue()}/purge", json={"x": 1}), 422, "invalid", "")


async def test_dead_tasks_come_back_with_a_fresh_allowance_and_their_attempts(api: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url)
    ids = await killed(api, handler, queue, 5)
    assert await redrive(api, queue, dry_run=True) == {"matched": 5, "moved": 0, "remaining": 5}
    good(await api.post(f"/queues/{queue}/pause"))
    assert await redrive(api, queue, limit=2) == {"matched": 5, "moved": 2, "remaining": 3}
    assert [(await api.task(task_id))["state"] for task_id in ids] == ["ready"] * 2 + ["dead"] * 3
    assert good(await api.post(f"/queues/{queue}/redrive")) == {"matched": 3, "moved": 3, "remaining": 0}
    handler.script(Reply(200))
    good(await api.post(f"/queues/{queue}/resume"))
    for task_id in ids:
        task = await api.until(task_id, "succeeded", attempt=1)
        assert task["reason"] is None
        assert [attempt["number"] for attempt in await api.attempts(task_id)] == [2, 1]
    assert await redrive(api, queue) == {"matched": 0, "moved": 0, "remaining": 0}


@pytest.mark.ci
async def test_more_than_a_chunk_comes_back(api: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url)
    await killed(api, handler, queue, 1100)
    good(await api.post(f"/queues/{queue}/pause"))
    assert await redrive(api, queue) == {"matched": 1100, "moved": 1000, "remaining": 100}
    assert (await counts(api, queue))["ready"] == 1000


async def test_only_what_matches_comes_back(api: Api, handler: Handler) -> None:
    own = await api.handler(handler.url)
    queue = await api.queue_to(handler.url)
    kinds: list[dict[str, Any]] = [{"type": "t"}, {"tags": ["a", "b"]}, {"correlation_id": "c"}, {"handler": own}]
    for kind in kinds:
        await killed(api, handler, queue, 1, **kind)
    wanted: list[dict[str, Any]] = [{"type": "t"}, {"tag": "b"}, {"correlation_id": "c"}, {"handler": own}]
    good(await api.post(f"/queues/{queue}/pause"))
    ended = [(await api.pages("/tasks", queue=queue, type="t"))[0]["ended_at"]]
    assert (await redrive(api, queue, reason="expired"))["matched"] == 0
    assert (await redrive(api, queue, ended_to=ended[0]))["matched"] == 0
    assert (await redrive(api, queue, ended_from=ended[0], reason="stopped_by_handler", dry_run=True))["matched"] == 4
    for fields in wanted:
        assert await redrive(api, queue, **fields) == {"matched": 1, "moved": 1, "remaining": 0}


async def test_what_cannot_come_back_stays_and_holds_nobody_up(api: Api, handler: Handler) -> None:
    own = await api.handler(handler.url)
    queue = await api.queue_to(handler.url)
    await killed(api, handler, queue, 1, handler=own)
    [held] = await killed(api, handler, queue, 1, unique_key="u")
    [free] = await killed(api, handler, queue, 1, unique_key="v")
    [twin] = await killed(api, handler, queue, 1, unique_key="v")
    assert (await api.delete(f"/handlers/{own}")).status_code == 204
    good(await api.post(f"/queues/{queue}/pause"))
    await api.enqueue(queue, unique_key="u")
    assert await redrive(api, queue) == {"matched": 4, "moved": 1, "remaining": 3}
    assert [(await api.task(task_id))["state"] for task_id in (held, free, twin)] == ["dead", "ready", "dead"]


async def test_racing_redrives_move_each_task_once(api: Api, other: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url)
    await killed(api, handler, queue, 200)
    good(await api.post(f"/queues/{queue}/pause"))
    replies = await asyncio.gather(*((api, other)[n % 2].post(f"/queues/{queue}/redrive", json={}) for n in range(4)))
    assert sum(good(reply)["moved"] for reply in replies) == 200
    assert (await counts(api, queue))["ready"] == 200


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("reason", "requested"),
        ("limit", 0),
        ("limit", 10_001),
        ("dry_run", 1),
        ("type", "a\x00"),
        ("tag", ""),
        ("handler", "No Name"),
        ("ended_from", "yesterday"),
        ("ended_to", 5),
        ("state", "dead"),
    ],
)
async def test_a_redrive_refuses_what_it_does_not_know(api: Api, field: str, value: Any) -> None:
    reply = await api.post(f"/queues/{await api.queue()}/redrive", json={field: value})
    problem(reply, 422, "invalid", f"/{field}")
