"""A walk through nearly all that a Sluice does, so that nearly every statement has run once on whatever stands below it."""

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.handlers import Handler, Reply
from tests.support import poll
from tests.wire.api import AT_ONCE, Api, fresh, good

ONCE = {**AT_ONCE, "max_attempts": 1}


async def walk(api: Api, handler: Handler) -> None:
    """Go through all of it on a replica with every role. What goes wrong fails here; nothing is left running."""
    name = await api.handler(handler.url, max_concurrency=50)
    await _push(api, handler, name)
    await _pull(api)
    await _batches(api, name)
    await _schedules(api, name)
    await _definitions(api, name)
    for path in ("/status", "/queues", "/handlers", "/schedules", "/batches", "/tasks", "/limits"):
        good(await api.get(path))
    assert (await api.get("/metrics")).status_code == 200


async def _push(api: Api, handler: Handler, name: str) -> None:
    queue = await api.queue(name, retry=AT_ONCE, max_concurrency=5, max_depth=100)
    task = await api.enqueue(
        queue,
        {"n": 1},
        tags=["a", "b"],
        headers={"x-a": "b"},
        idempotency_key="k",
        unique_key="u",
        type="t",
        ttl_seconds=600,
    )
    again = await api.post(
        f"/queues/{queue}/tasks", json={"payload": 2, "idempotency_key": "second", "unique_key": "u"}
    )
    assert again.status_code in (200, 201), again.text
    for task_id in (task["id"], again.json()["id"]):
        await api.until(task_id, "succeeded")
    handler.answer(Reply(500))
    retried = await api.enqueue(queue, 3)
    assert (await api.until(retried["id"], "succeeded"))["attempt"] == 2
    assert len(await api.attempts(retried["id"])) == 2

    once = await api.queue(name, retry=ONCE)
    handler.answer(Reply(500), Reply(500))
    dead = [await api.until((await api.enqueue(once, n))["id"], "dead") for n in range(2)]
    good(await api.retry(dead[0]["id"]))
    await api.until(dead[0]["id"], "succeeded")
    assert good(await api.post(f"/queues/{once}/redrive", json={}))["moved"] == 1
    await api.until(dead[1]["id"], "succeeded")

    items = [{"payload": n, "idempotency_key": f"k{n}", "delay_seconds": 3600} for n in range(5)]
    for atomic in (False, True):
        made = good(await api.post(f"/queues/{queue}/tasks/bulk", json={"tasks": items, "atomic": atomic}))["results"]
    assert {result["status"] for result in made} == {200}
    good(
        await api.client.patch(
            f"/tasks/{made[0]['id']}", json={"priority": 5, "tags": ["c"], "retry": {"max_attempts": 2}}
        )
    )
    good(await api.cancel(made[0]["id"]))
    good(await api.retry(made[1]["id"]))
    await api.until(made[1]["id"], "succeeded")
    assert good(await api.post(f"/queues/{queue}/purge"), 202)["purged"] == 3
    handler.answer(Reply(200, {"sluice-hold": "60"}))
    held = await api.enqueue(queue, 4)
    await api.until(held["id"], "running")
    good(await api.cancel(held["id"]))
    due = await api.enqueue(queue, 5, delay_seconds=0.2)
    await api.until(due["id"], "succeeded")
    late = await api.enqueue(await api.queue(), 6, ttl_seconds=0.2)
    assert (await api.until(late["id"], "dead"))["reason"] == "expired"
    good(await api.get(f"/queues/{queue}/stats"))
    good(await api.get("/tasks", params={"queue": queue, "state": "succeeded", "tag": "a", "include": "payload"}))


async def _pull(api: Api) -> None:
    queue = await api.queue(retry=AT_ONCE, max_concurrency=3)
    for n in range(3):
        await api.enqueue(queue, n)
    leased = good(await api.post(f"/queues/{queue}/leases", json={"max_tasks": 3}))["tasks"]
    assert len(leased) == 3
    said = {"tasks": [{"queue": queue, "idempotency_key": "f", "payload": 1}], "next": "page 2", "result": {"rows": 1}}
    good(await _say(api, leased[0], "renew", {"seconds": 60, "progress": {"done": 1}}))
    good(await _say(api, leased[0], "complete", {**said, "on_complete": {"queue": queue, "payload": "all"}}))
    assert good(await _say(api, leased[0], "complete", said))["state"] == "succeeded"
    good(await _say(api, leased[1], "fail", {"error": "no"}))
    good(await _say(api, leased[2], "release"))
    assert (await _say(api, leased[2], "renew", {"seconds": 5})).status_code == 409
    done: list[Any] = []

    async def all_done() -> bool:
        for task in good(await api.post(f"/queues/{queue}/leases", json={"max_tasks": 3}))["tasks"]:
            good(await _say(api, task, "complete"))
            done.append(task["payload"])
        return "all" in done

    await poll(all_done)


async def _say(api: Api, leased: dict[str, Any], verb: str, body: dict[str, Any] | None = None) -> Any:
    given: dict[str, Any] = {} if body is None else {"json": body}
    headers = {"sluice-lease-token": leased["lease_token"]}
    return await api.post(f"/tasks/{leased['id']}/{verb}", headers=headers, **given)


async def _batches(api: Api, name: str) -> None:
    queue, after = await api.queue(name), await api.queue()
    given = {"queue": queue, "tasks": [{"payload": n} for n in range(4)], "sealed": False}
    made = good(await api.post("/batches", json={**given, "on_complete": {"queue": after, "payload": "done"}}), 201)
    good(await api.post(f"/batches/{made['id']}/tasks", json={"tasks": [{"payload": 5}]}))
    good(await api.post(f"/batches/{made['id']}/seal"))

    async def completed() -> bool:
        return good(await api.get(f"/batches/{made['id']}"))["completed_at"] is not None

    await poll(completed)
    waiting = {"queue": after, "tasks": [{"payload": n, "delay_seconds": 600} for n in range(3)]}
    cancelled = good(await api.post("/batches", json=waiting), 201)
    good(await api.post(f"/batches/{cancelled['id']}/cancel"))

    async def swept() -> bool:
        return bool(good(await api.get(f"/batches/{cancelled['id']}"))["counts"]["cancelled"] == 3)

    await poll(swept)
    good(await api.post(f"/batches/{cancelled['id']}/retry"))


async def _schedules(api: Api, name: str) -> None:
    queue, schedule = await api.queue(name), fresh("s")
    # every Monday in a time zone west of Greenwich
    given = {"queue": queue, "payload": 1, "cron": "0 3 * * 1", "timezone": "America/New_York", "overlap": "allow_all"}
    good(await api.put(f"/schedules/{schedule}", json=given), 201)
    good(await api.put(f"/schedules/{schedule}", json={**given, "overlap": "buffer_all"}))
    good(await api.post(f"/schedules/{schedule}/trigger"))
    now = datetime.now(UTC)
    span = {"from": (now - timedelta(days=15)).isoformat(), "to": (now - timedelta(days=1)).isoformat()}
    good(await api.post(f"/schedules/{schedule}/backfill", json=span), 202)

    async def ran() -> bool:
        rows = good(await api.get(f"/schedules/{schedule}/history"))["items"]
        return len(rows) >= 3 and all(row["outcome"] == "ran_ok" for row in rows if row["task_id"])

    await poll(ran, 20)
    often = fresh("s")
    good(await api.put(f"/schedules/{often}", json={"queue": queue, "payload": 2, "every_seconds": 1}), 201)

    async def fired() -> bool:
        rows = good(await api.get(f"/schedules/{often}/history", params={"outcome": "ran_ok"}))["items"]
        return any(row["cause"] == "cron" for row in rows)

    await poll(fired)
    for verb in ("pause", "resume", "pause"):
        good(await api.post(f"/schedules/{often}/{verb}"))


async def _definitions(api: Api, name: str) -> None:
    good(await api.post(f"/handlers/{name}/rotate-secret", json={}))
    for verb in ("disable", "enable"):
        good(await api.post(f"/handlers/{name}/{verb}"))
    good(await api.post(f"/handlers/{name}/test"))
    queue = await api.queue(name)
    for verb in ("pause", "resume"):
        good(await api.post(f"/queues/{queue}/{verb}"))
    assert (await api.delete(f"/queues/{queue}")).status_code in (200, 204)
    good(await api.put("/limits", json={"max_concurrency": 100}))
    good(await api.put("/limits", json={"max_concurrency": None}))
