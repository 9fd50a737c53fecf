"""Backfill on the wire: times without a run are taken out of their rows, and every other time stays where it is."""

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.handlers import Handler
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import Api, good, problem
from tests.wire.test_schedule_runs import counted, ended, set_back
from tests.wire.test_schedules import ledger, schedule

pytestmark = pytest.mark.anyio

MINUTE = timedelta(minutes=1)
COUNTS = {"matched", "started", "waiting", "passed_over", "skipped"}


def text(at: datetime) -> str:
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


async def backfill(api: Api, name: str, from_: datetime, to: datetime, **more: Any) -> dict[str, Any]:
    found = good(await api.post(f"/schedules/{name}/backfill", json={"from": text(from_), "to": text(to), **more}), 202)
    assert set(found) == COUNTS
    return found


async def paused_for(api: Api, replica: Replica, queue: str, length: timedelta, **fields: Any) -> tuple[str, datetime]:
    """A schedule every minute whose newest times are one row, `paused`; its name and the first of them."""
    name = await schedule(api, queue, **{"every_seconds": 60, "overlap": "allow_all", **fields})
    good(await api.post(f"/schedules/{name}/pause"))
    first = datetime.now(UTC).replace(second=0, microsecond=0) - length
    await set_back(replica, name, first)
    await poll(lambda: _has_rows(api, name))
    return name, first


async def _has_rows(api: Api, name: str) -> bool:
    return bool(await ledger(api, name))


def ranges(rows: list[dict[str, Any]], first: datetime) -> list[tuple[str, int, int, int]]:
    """(outcome or cause, first and last minute, count) of each row, oldest first; the newest row is still growing."""

    def minute(at: str) -> int:
        return round((datetime.fromisoformat(at) - first) / MINUTE)

    return [
        (
            "run" if row["task_id"] else row["outcome"],
            minute(row["nominal_at"]),
            minute(row["nominal_until"]),
            row["count"],
        )
        for row in rows[::-1]
    ]


async def test_times_are_taken_out_of_a_range_which_is_split(api: Api, shared: Replica, handler: Handler) -> None:
    queue = await api.queue_to(handler.url)
    name, first = await paused_for(api, shared, queue, timedelta(minutes=60))
    found = await backfill(api, name, first + 10 * MINUTE, first + 12 * MINUTE)
    assert found == {"matched": 2, "started": 2, "waiting": 0, "passed_over": 0, "skipped": 0}
    rows = ranges(await ledger(api, name), first)
    assert rows[:3] == [("paused", 0, 9, 10), ("run", 10, 10, 1), ("run", 11, 11, 1)]
    assert rows[3][:2] == ("paused", 12) and sum(count for *_, count in rows) >= 61
    runs = await ended(api, name, 2)
    assert {row["cause"] for row in runs} == {"backfill"}
    assert all(row["lag_seconds"] is None and row["fired_at"] for row in runs), "nobody was late"
    assert [row["nominal_at"] for row in runs] == [text(first + 11 * MINUTE), text(first + 10 * MINUTE)]
    # at the edges of a row, and over what has run
    assert await backfill(api, name, first, first + 12 * MINUTE) == {
        "matched": 12,
        "started": 10,
        "waiting": 0,
        "passed_over": 2,
        "skipped": 0,
    }
    rows = ranges(await ledger(api, name), first)
    assert [row[:3] for row in rows[:12]] == [("run", n, n) for n in range(12)] and rows[12][0] == "paused"


async def test_a_rerun_adds_rows_of_its_own(api: Api, shared: Replica, handler: Handler) -> None:
    queue = await api.queue_to(handler.url)
    name, first = await paused_for(api, shared, queue, timedelta(minutes=30))
    window = (first + 5 * MINUTE, first + 8 * MINUTE)
    await backfill(api, name, *window)
    before = await ended(api, name, 3)
    assert (await backfill(api, name, *window))["passed_over"] == 3
    again = await backfill(api, name, *window, rerun=True)
    assert (again["matched"], again["started"], again["passed_over"]) == (3, 3, 0)
    after = await ended(api, name, 6)
    assert [row for row in after if row in before] == before
    assert counted(after, "nominal_at") == {row["nominal_at"]: 2 for row in before}
    assert len({row["task_id"] for row in after}) == 6


async def test_overlap_decides_which_of_a_window_start(api: Api, shared: Replica, handler: Handler) -> None:
    queue = await api.queue_to(handler.url)
    name, first = await paused_for(api, shared, queue, timedelta(minutes=60), overlap="skip")
    good(await api.post(f"/queues/{queue}/pause"))
    found = await backfill(api, name, first, first + 5 * MINUTE)
    assert (found["started"], found["skipped"]) == (1, 4)
    rows = ranges(await ledger(api, name), first)
    assert rows[0] == ("run", 0, 0, 1) and rows[1][:2] == ("paused", 1)  # what was skipped stays as it was
    found = await backfill(api, name, first, first + 5 * MINUTE, overlap="buffer_all")
    assert (found["waiting"], found["passed_over"]) == (4, 1)
    good(await api.post(f"/queues/{queue}/resume"))

    async def first_is_over() -> bool:
        return counted(await ledger(api, name), "outcome").get("ran_ok") == 1

    await poll(first_is_over)
    good(await api.post(f"/schedules/{name}/resume"))
    runs = (await ended(api, name, 5))[::-1]
    assert [row["nominal_at"] for row in runs[:5]] == [text(first + n * MINUTE) for n in range(5)]
    for before, after in itertools.pairwise(runs):
        assert before["completed_at"] <= after["fired_at"]


async def test_times_before_the_schedule_was_made_are_backfilled_too(api: Api, handler: Handler) -> None:
    name = await schedule(api, await api.queue_to(handler.url), cron="0 12 * * *", overlap="allow_all")
    found = await backfill(api, name, datetime(2025, 3, 1, tzinfo=UTC), datetime(2025, 3, 4, tzinfo=UTC))
    assert (found["matched"], found["started"]) == (3, 3)
    runs = await ended(api, name, 3)
    assert [row["nominal_at"][:16] for row in runs] == [f"2025-03-0{day}T12:00" for day in (3, 2, 1)]
    task = await api.task(runs[-1]["task_id"])
    assert (task["schedule"], task["scheduled_for"]) == (name, runs[-1]["nominal_at"])


async def test_the_window_does_not_include_its_end_and_catch_up_does_not_bound_it(api: Api, handler: Handler) -> None:
    fields = {"every_seconds": 60, "catch_up": {"mode": "none", "window_seconds": 1}, "max_runs": 1}
    name = await schedule(api, await api.queue_to(handler.url), overlap="allow_all", **fields)
    start = datetime(2025, 3, 1, tzinfo=UTC)
    assert (await backfill(api, name, start, start + 2 * MINUTE))["started"] == 2
    assert (await backfill(api, name, start, start + timedelta(seconds=30)))["passed_over"] == 1
    nothing = await backfill(api, name, start + timedelta(seconds=1), start + timedelta(seconds=59))
    assert nothing == dict.fromkeys(COUNTS, 0)


async def test_a_row_of_an_earlier_definition_keeps_the_count_of_its_times(
    api: Api, shared: Replica, handler: Handler
) -> None:
    queue = await api.queue_to(handler.url)
    name, first = await paused_for(api, shared, queue, timedelta(minutes=60))
    body = {"queue": queue, "payload": None, "every_seconds": 420, "phase_seconds": 30, "overlap": "allow_all"}
    good(await api.put(f"/schedules/{name}", json=body))
    before = sum(row["count"] for row in await ledger(api, name))
    found = await backfill(api, name, first, first + 60 * MINUTE)
    assert found["started"] == found["matched"] in (8, 9)
    rows = (await ledger(api, name))[::-1]
    assert sum(row["count"] for row in rows if row["outcome"] == "paused") == before
    for one, after in itertools.pairwise(rows):
        assert one["nominal_until"] < after["nominal_at"]


async def test_what_a_backfill_may_not_ask_is_refused(api: Api) -> None:
    name = await schedule(api, await api.queue(), every_seconds=60)
    path = f"/schedules/{name}/backfill"
    now = datetime.now(UTC)
    ahead = {"from": text(now - MINUTE), "to": text(now + MINUTE)}
    problem(await api.post(path, json=ahead), 422, "invalid", "/to")
    problem(await api.post(path, json={"from": text(now), "to": text(now)}), 422, "invalid", "/to")
    wide = {"from": text(now - 10_002 * MINUTE), "to": text(now)}
    problem(await api.post(path, json=wide), 422, "invalid", "/to")
    problem(await api.post(path, json={"from": "noon", "to": "later"}), 422, "invalid", "/from", "/to")
    problem(await api.post(path, json={}), 422, "invalid", "/from", "/to")
    problem(await api.post(path, json=wide | {"force": True}), 422, "invalid", "/force")
    beginning = {"from": "0001-01-01T00:00:00Z", "to": "2025-01-01T00:00:00Z"}
    problem(await api.post(path, json=beginning), 422, "invalid", "/to")
    assert await ledger(api, name, outcome="running") == []


@pytest.mark.ci
async def test_ten_thousand_times_are_backfilled_at_once(api: Api) -> None:
    name = await schedule(api, await api.queue(), every_seconds=60, overlap="allow_all")
    start = datetime(2025, 3, 1, tzinfo=UTC)
    found = await backfill(api, name, start, start + 10_000 * MINUTE)
    assert found["started"] == 10_000
    assert (await api.delete(f"/schedules/{name}")).status_code == 204


async def test_a_window_with_too_many_rows_of_the_ledger_is_refused(
    api: Api, shared: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.service.backfills.MAX_ROWS", 1)
    queue = await api.queue()
    name, first = await paused_for(api, shared, queue, 30 * MINUTE)
    await backfill(api, name, first + 5 * MINUTE, first + 6 * MINUTE)
    body = {"from": text(first), "to": text(first + 10 * MINUTE)}
    found = problem(await api.post(f"/schedules/{name}/backfill", json=body), 422, "invalid", "/to")
    assert "rows in the ledger" in found["detail"]
