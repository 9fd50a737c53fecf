"""`why` of schedules: by the ledger, with what can still be done."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.domain.instants import format_instant
from tests.handlers import Handler
from tests.support import poll
from tests.wire.api import Api, fresh, good, problem

pytestmark = [pytest.mark.anyio, pytest.mark.ci]


async def why(api: Api, name: str, at: str | None = None) -> dict[str, Any]:
    return good(await api.get(f"/schedules/{name}/why", params={} if at is None else {"at": at}))


async def schedule(api: Api, queue: str, **fields: Any) -> str:
    name = fresh("s")
    given = {"queue": queue, "payload": None, "cron": "0 0 1 1 *", **fields}
    good(await api.put(f"/schedules/{name}", json=given), 201)
    return name


async def test_a_new_schedule_says_when_it_fires(api: Api) -> None:
    name = await schedule(api, await api.queue())
    found = await why(api, name)
    times = good(await api.get(f"/schedules/{name}"))["times"]
    assert found["verdict"] == "No time of it has come yet." and found["fires_next"] == times[0]["at"]
    assert not {"row", "next", "at", "paused_at"} & found.keys()
    assert "still to come" in (await why(api, name, times[1]["at"]))["verdict"]
    assert "no time at" in (await why(api, name, "2030-06-01T00:00:00Z"))["verdict"]
    assert "was created at" in (await why(api, name, "2020-01-01T00:00:00Z"))["verdict"]
    assert "was created at" in (await why(api, name, "0001-01-01T00:00:00Z"))["verdict"]
    assert "no time at" in (await why(api, name, "9999-12-31T23:59:59.999999Z"))["verdict"]
    problem(await api.get(f"/schedules/{name}/why", params={"at": "soon"}), 422, "invalid", "/at")
    problem(await api.get("/schedules/nosuch/why"), 404, "schedule_not_found")


async def test_a_run_is_told_by_its_row_and_what_was_skipped_can_still_run(api: Api, handler: Handler) -> None:
    queue = await api.queue()
    name = await schedule(api, queue)
    first = good(await api.post(f"/schedules/{name}/trigger", json={}))
    found = await why(api, name)
    assert found["row"]["outcome"] == "running" and first["task_id"] in found["verdict"]
    skipped = good(await api.post(f"/schedules/{name}/trigger", json={}))
    assert skipped["outcome"] == "skipped_overlap"
    found = await why(api, name)
    assert "an earlier run had not ended" in found["verdict"] and found["row"]["outcome"] == "skipped_overlap"
    assert good(await api.post(found["next"]["path"], json=found["next"]["body"]))["outcome"] == "running"


@pytest.mark.ci
async def test_times_that_passed_while_it_was_paused_can_still_run(api: Api, handler: Handler) -> None:
    name = await schedule(api, await api.queue_to(handler.url), cron=None, every_seconds=1)
    good(await api.post(f"/schedules/{name}/pause", json={}))
    found = await why(api, name, format_instant(datetime.now(UTC) + timedelta(days=1)))
    assert "is paused: paused by request." in found["verdict"] and found["paused_at"] and "fires_next" not in found
    over = datetime.fromisoformat(found["paused_at"]) + timedelta(seconds=1.1)
    await poll(lambda: datetime.now(UTC) > over)
    good(await api.post(found["next"]["path"]))
    good(await api.post(f"/schedules/{name}/pause", json={}))
    history = good(await api.get(f"/schedules/{name}/history", params={"outcome": "paused"}))["items"]
    at = history[-1]["nominal_at"]
    found = await why(api, name, at)
    assert found["row"] == history[-1] and "the schedule was paused" in found["verdict"]
    made = good(await api.post(found["next"]["path"], json=found["next"]["body"]), 202)
    assert made["started"] == history[-1]["count"] >= 1
    assert (await why(api, name, at))["row"]["outcome"] in ("running", "ran_ok")
