"""Schedules: what fires by itself, and the ledger of what became of each time."""

from typing import Any

import pytest

from tests.handlers import Handler
from tests.support import poll
from tests.wire.api import Api, fresh, good, problem

pytestmark = pytest.mark.anyio


async def schedule(api: Api, queue: str, **fields: Any) -> str:
    name = fresh("s")
    good(await api.put(f"/schedules/{name}", json={"queue": queue, "payload": None, **fields}), 201)
    return name


async def ledger(api: Api, name: str, **params: Any) -> list[dict[str, Any]]:
    return await api.pages(f"/schedules/{name}/history", **params)


async def test_a_schedule_fires_and_its_runs_are_in_the_ledger(api: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url)
    name = await schedule(api, queue, every_seconds=1, payload={"n": 1}, type="tick", overlap="allow_all")
    [first, second, *_] = await handler.received(2, 20)
    assert first.headers["sluice-schedule"] == name and first.json == {"n": 1}
    assert first.headers["sluice-batch"] == first.task

    async def done() -> list[dict[str, Any]] | None:
        rows = [row for row in await ledger(api, name) if row["outcome"] == "ran_ok"]
        return rows if len(rows) >= 2 else None

    rows = await poll(done)
    await api.delete(f"/schedules/{name}")
    oldest = rows[-1]
    assert oldest["task_id"] == first.task == oldest["batch_id"]
    assert (oldest["cause"], oldest["count"], oldest["nominal_at"]) == ("cron", 1, oldest["nominal_until"])
    assert 0 <= oldest["lag_seconds"] < 5
    task = await api.task(first.task)
    assert (task["schedule"], task["scheduled_for"], task["batch"]) == (name, oldest["nominal_at"], first.task)
    problem(await api.get(f"/schedules/{name}"), 404, "schedule_not_found")
