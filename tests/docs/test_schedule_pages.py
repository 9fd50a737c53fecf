"""The guide to schedules and the runbooks, as they stand there, against real replicas."""

import json
import shutil
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import ROOT, blocks
from tests.docs.shell import in_shell
from tests.handlers import Handler, Reply
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import Api, good

pytestmark = [
    pytest.mark.ci,
    pytest.mark.anyio,
    pytest.mark.skipif(shutil.which("curl") is None, reason="it is told in curl"),
]

RUNBOOKS = ROOT / "docs" / "runbooks"
ID = "hourly"
DAY = {"FROM": "2026-03-28T00:00:00Z", "TO": "2026-03-29T00:00:00Z"}
"""A day long ago: its times lie before the schedule."""
YEARLY = "0 0 1 1 *"


@pytest.fixture
def api(replica: Replica) -> Api:
    return Api(replica.client, replica.url)


async def scheduled(api: Api, handler: Handler, **fields: Any) -> str:
    """The queue of a schedule named ID."""
    queue = await api.queue_to(handler.url)
    body = {"queue": queue, "payload": None, "cron": "0 * * * *", **fields}
    good(await api.put(f"/schedules/{ID}", json=body), 201)
    return queue


async def ledger(api: Api, name: str = ID, **params: Any) -> list[dict[str, Any]]:
    return await api.pages(f"/schedules/{name}/history", **params)


async def settled(api: Api, count: int, name: str = ID) -> list[dict[str, Any]]:
    """The ledger, once all of so many runs have ended."""

    async def there() -> list[dict[str, Any]] | None:
        rows = [row for row in await ledger(api, name) if row["task_id"]]
        return rows if len(rows) == count and all(row["completed_at"] for row in rows) else None

    return await poll(there, 30, every_seconds=0.05)  # type: ignore[return-value]


def answers(said: str) -> list[Any]:
    """What stands there as JSON, one after another."""
    found, decoder, at = [], json.JSONDecoder(), 0
    while at < len(said):
        value, at = decoder.raw_decode(said, at)
        found.append(value)
        at += len(said[at:]) - len(said[at:].lstrip())
    return found


async def test_the_guide(api: Api, handler: Handler, tmp_path: Path) -> None:
    define, preview, operate, backfill, look = blocks(ROOT / "docs" / "guides" / "schedules.md", "sh")
    *_, daily = answers(await in_shell(tmp_path, define.replace("http://127.0.0.1:9000/", handler.url), S=api.url))
    assert daily["reading"].startswith("At 06:00 on Monday through Friday, Europe/Berlin time")
    new_york, saved = answers(await in_shell(tmp_path, preview, S=api.url))
    assert new_york["times"][2]["local"] == "2027-03-14T03:00:00-04:00"
    assert saved["times"] == daily["times"][:3]

    paused, run, resumed = answers(await in_shell(tmp_path, operate, S=api.url))
    assert (paused["paused"], run["cause"], resumed["paused"]) == (True, "trigger", False)
    await settled(api, 1, "daily")
    [filled] = answers(await in_shell(tmp_path, backfill, S=api.url))
    assert (filled["matched"], filled["started"], filled["waiting"], filled["skipped"]) == (22, 1, 21, 0)
    rows = await settled(api, 23, "daily")
    assert {row["outcome"] for row in rows} == {"ran_ok"}
    calls = [call.headers["sluice-scheduled-for"] for call in handler.requests]
    assert calls[1:] == sorted(calls[1:]) and calls[1] == "2026-03-02T05:00:00.000Z"
    newest, failed = answers(await in_shell(tmp_path, look, S=api.url))
    assert len(newest["items"]) == 10 and failed["items"] == []


async def test_a_schedule_that_did_not_fire_is_explained(api: Api, handler: Handler, tmp_path: Path) -> None:
    queue = await scheduled(api, handler, cron=YEARLY)
    good(await api.post(f"/queues/{queue}/pause"))
    good(await api.post(f"/schedules/{ID}/trigger", json={}))
    good(await api.post(f"/schedules/{ID}/pause"))
    first, second, third, fourth = blocks(RUNBOOKS / "schedule-did-not-fire.md", "sh")
    now = datetime.now(UTC)
    given = {"S": api.url, "ID": ID, "FROM": f"{now - timedelta(hours=2):%FT%TZ}", "TO": f"{now:%FT%H:59:59Z}"}

    shown, preview = answers(await in_shell(tmp_path, first, **given))
    assert shown["paused_reason"] == "paused by request" and len(preview["times"]) == 5
    [history] = answers(await in_shell(tmp_path, second, **given))
    assert [row["outcome"] for row in history["items"]] == ["running"]
    [status] = answers(await in_shell(tmp_path, third, **given))
    [row] = status["schedules"]
    assert (row["schedule"], row["paused"], row["overdue_seconds"]) == (ID, True, 0)
    assert ("all", False) in [(replica["roles"], replica["silent"]) for replica in status["replicas"]]
    task, attempts = answers(await in_shell(tmp_path, fourth, **given))
    assert task["waiting_for"] == "queue_paused" and attempts["items"] == []


async def test_a_late_schedule_shows_where_it_waits(api: Api, handler: Handler, tmp_path: Path) -> None:
    queue = await scheduled(api, handler, cron=YEARLY, overlap="buffer_one")
    handler.script(Reply(503, {"retry-after": "3600"}))
    for _ in range(2):
        good(await api.post(f"/schedules/{ID}/trigger", json={}))
    await handler.received(1)
    first, second, third, fourth = blocks(RUNBOOKS / "schedule-is-late.md", "sh")
    given = {"S": api.url, "ID": ID, "QUEUE": queue}
    [history] = answers(await in_shell(tmp_path, first, **given))
    assert [row["outcome"] for row in history["items"]] == ["waiting", "running"]
    assert '"schedules"' in await in_shell(tmp_path, second, **given)
    said = answers(await in_shell(tmp_path, third, **given))
    assert [row["outcome"] for row in said[0]["items"]] == ["running"] and said[1]["id"] == said[0]["items"][0][
        "task_id"
    ]
    remembered = third.splitlines()[1]
    task, stats = answers(await in_shell(tmp_path, f"{remembered}\n{fourth}", **given))
    assert task["waiting_for"] == "run_at" and stats
    good(await api.post(f"/batches/{said[1]['id']}/cancel", json={}))
    await poll(lambda: len(handler.requests) == 2)


async def test_what_nobody_fires_is_an_alarm_until_somebody_does(
    start_replica: Callable[..., Awaitable[Replica]], handler: Handler, tmp_path: Path
) -> None:
    only_api = await start_replica(role="api", schedule_grace_seconds=1)
    api = Api(only_api.client, only_api.url)
    await scheduled(api, handler, cron="every 1 second", catch_up={"mode": "all"})
    look = blocks(RUNBOOKS / "schedule-is-late.md", "sh")[1]

    async def alarm() -> bool:
        status = good(await api.get("/status"))
        return any(alarm["code"] == "schedule_overdue" for alarm in status["alarms"])

    await poll(alarm, 20, every_seconds=0.1)

    async def metric() -> bool:
        return f'schedule="{ID}"' in await in_shell(tmp_path, look, S=api.url)

    await poll(metric, 20, every_seconds=0.1)
    await start_replica(schedule_grace_seconds=1)
    await handler.received(3, 20)
    (await api.delete(f"/schedules/{ID}")).raise_for_status()


async def test_a_day_is_backfilled(api: Api, handler: Handler, tmp_path: Path) -> None:
    queue = await scheduled(api, handler, end_at=DAY["TO"])
    before, fill, watch, undo = blocks(RUNBOOKS / "backfill-a-day.md", "sh")
    given = {"S": api.url, "ID": ID, **DAY}
    empty, preview = answers(await in_shell(tmp_path, before, **given))
    assert empty["items"] == [] and len(preview["times"]) == 24
    [made] = answers(await in_shell(tmp_path, fill, **given))
    assert made == {"matched": 24, "started": 24, "waiting": 0, "passed_over": 0, "skipped": 0}
    await settled(api, 24)
    rows, failed = answers(await in_shell(tmp_path, watch, **given))
    assert {(row["cause"], row["outcome"]) for row in rows["items"]} == {("backfill", "ran_ok")}
    assert failed["items"] == []
    expected = [f"2026-03-28T{hour:02}:00:00.000Z" for hour in range(24)]
    assert sorted(call.headers["sluice-scheduled-for"] for call in handler.requests) == expected
    [again] = answers(await in_shell(tmp_path, fill, **given))
    assert (again["started"], again["passed_over"]) == (0, 24)

    good(await api.post(f"/queues/{queue}/pause"))
    rerun = fill.replace('{\\"from', '{\\"rerun\\": true, \\"from')
    [made] = answers(await in_shell(tmp_path, rerun, **given))
    assert (made["started"], made["passed_over"]) == (24, 0)
    cancelled = answers(await in_shell(tmp_path, undo, **given))
    assert len(cancelled) == 24 and all(batch["cancelled_at"] for batch in cancelled)
    rows = await settled(api, 48)
    assert sorted(row["outcome"] for row in rows) == ["cancelled"] * 24 + ["ran_ok"] * 24


@pytest.mark.timeout(120)
async def test_everything_is_paused_and_goes_on_afterwards(api: Api, handler: Handler, tmp_path: Path) -> None:
    write_down, pause, wait, resume, passed = blocks(RUNBOOKS / "pause-everything.md", "sh")
    queue = await scheduled(api, handler, cron="every 1 second", overlap="allow_all")
    kept = await api.queue_to(handler.url)
    good(await api.post(f"/queues/{kept}/pause"))
    write_down = write_down.replace("limit=200", "limit=1")

    await handler.received(1)
    given = {"S": api.url, "ID": ID}
    await in_shell(tmp_path, f"cd {tmp_path}\n{write_down}", **given)
    assert (tmp_path / "schedules.txt").read_text().split() == [ID]
    assert (tmp_path / "queues.txt").read_text().split() == [queue]
    await in_shell(tmp_path, f"cd {tmp_path}\n{pause}\n{wait}", **given)
    seen = len(handler.requests)
    await api.enqueue(queue)
    paused_at = good(await api.get(f"/schedules/{ID}"))["paused_at"]

    over = datetime.fromisoformat(paused_at) + timedelta(seconds=2)
    await poll(lambda: datetime.now(UTC) > over)
    assert len(handler.requests) == seen
    await in_shell(tmp_path, f"cd {tmp_path}\n{resume}", **given)
    [history] = answers(await in_shell(tmp_path, f"cd {tmp_path}\n{passed}", **given))
    [row] = history["items"]
    assert row["outcome"] == "paused" and row["count"] >= 1 and row["nominal_until"] >= paused_at
    await handler.received(seen + 2)
    states = {found["name"]: found["paused"] for found in await api.pages("/queues")}
    assert states == {queue: False, kept: True}
    (await api.delete(f"/schedules/{ID}")).raise_for_status()
