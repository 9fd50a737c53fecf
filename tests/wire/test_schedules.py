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
    [first, *_] = await handler.received(2, 20)
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


async def test_a_definition_is_previewed_before_it_is_saved(api: Api) -> None:
    asked = {"cron": "30 2 * * *", "timezone": "Europe/Berlin", "count": 3, "after": "2026-03-27T12:00:00Z"}
    shown = good(await api.post("/schedules/preview", json=asked))
    assert [time["local"] for time in shown["times"]] == [
        "2026-03-28T02:30:00+01:00",
        "2026-03-29T03:00:00+02:00",  # 02:30 is skipped that day: the first valid instant after it
        "2026-03-30T02:30:00+02:00",
    ]
    assert shown["times"][0]["at"] == "2026-03-28T01:30:00.000000Z" and "02:30" in shown["reading"]
    problem(await api.post("/schedules/preview", json={"cron": "* * * * *", "count": 0}), 422, "invalid", "/count")
    problem(await api.post("/schedules/preview", json={"cron": "* * * * *", "after": "noon"}), 422, "invalid", "/after")
    problem(await api.post("/schedules/preview", json={"cron": "0 0 30 2 *"}), 422, "invalid", "/cron")
    problem(await api.post("/schedules/preview", json=[]), 422, "invalid", "")
    problem(await api.post("/schedules/preview"), 400, "malformed")
