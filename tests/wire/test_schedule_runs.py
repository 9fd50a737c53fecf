"""Runs of a schedule on the wire: started, held back, ended, caught up; and what the ledger says of each time."""

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.handlers import Handler, Reply
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import AT_ONCE, Api, good, problem
from tests.wire.test_schedules import ledger, schedule

pytestmark = pytest.mark.anyio

YEARLY = {"cron": "0 0 1 1 *"}
ROW = {
    *("nominal_at", "nominal_until", "count", "cause", "fired_at", "started_at", "completed_at", "outcome"),
    *("lag_seconds", "task_id", "batch_id", "replica"),
}
GRACE = timedelta(seconds=60)


class Held:
    """A handler that answers no call before it is told to."""

    def __init__(self, handler: Handler) -> None:
        self.handler, self.until = handler, asyncio.Event()
        handler.script(lambda request: Reply(until=self.until))

    def let_go(self) -> None:
        self.until.set()
        self.until = asyncio.Event()


async def set_back(replica: Replica, name: str, first: datetime) -> None:
    """As if no replica had been there since just before `first`, a nominal time of the schedule that no row has."""
    await replica.sluice.core.db.fetch(
        "update sluice.schedules set next_nominal_at = $2, look_at = $2, seq = seq + 1,"
        " updated_at = $2::timestamptz - interval '1 second' where name = $1",
        name,
        first,
    )
    replica.sluice.core.signals.schedule_due_at(0)


async def outage(replica: Replica, api: Api, name: str, length: timedelta, every: timedelta) -> list[dict[str, Any]]:
    """The ledger, oldest first, once replicas are back after an outage over the times of an interval."""
    now = datetime.now(UTC)
    seconds = every.total_seconds()
    first = datetime.fromtimestamp((now - length).timestamp() // seconds * seconds + seconds, UTC)
    await set_back(replica, name, first)

    async def caught_up() -> bool:
        found = good(await api.get(f"/schedules/{name}"))["next_nominal_at"]
        return datetime.fromisoformat(found) > now

    await poll(caught_up)
    rows = (await ledger(api, name))[::-1]
    assert rows[0]["nominal_at"] == first.isoformat(timespec="microseconds").replace("+00:00", "Z")
    for before, after in itertools.pairwise(rows):
        gap = datetime.fromisoformat(after["nominal_at"]) - datetime.fromisoformat(before["nominal_until"])
        assert gap == every, (before, after)
    return rows


def counted(rows: list[dict[str, Any]], *by: str) -> dict[Any, int]:
    found: dict[Any, int] = {}
    for row in rows:
        key = tuple(row[name] for name in by) if len(by) > 1 else row[by[0]]
        found[key] = found.get(key, 0) + row["count"]
    return found


async def ended(api: Api, name: str, count: int = 1) -> list[dict[str, Any]]:
    """The runs, newest first, once so many have ended and none is running or waiting."""

    async def all_ended() -> list[dict[str, Any]] | None:
        rows = [row for row in await ledger(api, name) if row["task_id"] or row["outcome"] == "waiting"]
        return rows if len(rows) >= count and all(row["completed_at"] for row in rows) else None

    return await poll(all_ended)


async def test_a_trigger_starts_a_run_now_and_answers_with_its_row(api: Api, handler: Handler) -> None:
    name = await schedule(api, await api.queue_to(handler.url), **YEARLY, payload="mine")
    row = good(await api.post(f"/schedules/{name}/trigger"))
    assert set(row) == ROW
    assert (row["cause"], row["outcome"], row["count"]) == ("trigger", "running", 1)
    assert row["nominal_at"] == row["nominal_until"] and row["task_id"] == row["batch_id"] and row["replica"]
    assert row["fired_at"] >= row["nominal_at"] and 0 <= row["lag_seconds"] < 5
    [call] = await handler.received()
    assert (call.task, call.json) == (row["task_id"], "mine")
    [end] = await ended(api, name)
    assert end["outcome"] == "ran_ok" and end["nominal_at"] == row["nominal_at"]
    assert end["fired_at"] <= end["started_at"] <= end["completed_at"]


@pytest.mark.parametrize("payload", [{"other": 1}, None, 0, False])
async def test_a_trigger_may_bring_its_payload(api: Api, handler: Handler, payload: Any) -> None:
    name = await schedule(api, await api.queue_to(handler.url), **YEARLY, payload="mine")
    good(await api.post(f"/schedules/{name}/trigger", json={"payload": payload}))
    [call] = await handler.received()
    assert call.json == payload


async def test_a_trigger_is_judged_by_the_overlap_of_the_schedule_or_its_own(api: Api, handler: Handler) -> None:
    held = Held(handler)
    name = await schedule(api, await api.queue_to(handler.url), **YEARLY, payload="mine")
    trigger = f"/schedules/{name}/trigger"
    first = good(await api.post(trigger))
    skipped = good(await api.post(trigger))
    assert (skipped["outcome"], skipped["task_id"], skipped["fired_at"]) == ("skipped_overlap", None, None)
    waiting = good(await api.post(trigger, json={"overlap": "buffer_one", "payload": "late"}))
    assert (waiting["outcome"], waiting["task_id"]) == ("waiting", None)
    assert good(await api.post(trigger, json={"overlap": "buffer_one"}))["outcome"] == "skipped_overlap"
    beside = good(await api.post(trigger, json={"overlap": "allow_all"}))
    assert beside["outcome"] == "running"
    problem(await api.post(trigger, json={"overlap": "perhaps"}), 422, "invalid", "/overlap")
    problem(await api.post(trigger, json={"later": 1}), 422, "invalid", "/later")
    await handler.received(2)
    held.let_go()
    [*_, call] = await handler.received(3)
    assert call.json == "late" and call.task not in (first["task_id"], beside["task_id"])
    held.let_go()
    rows = await ended(api, name, 3)
    assert counted(await ledger(api, name), "outcome") == {"ran_ok": 3, "skipped_overlap": 2}
    assert {row["cause"] for row in rows} == {"trigger"}


async def test_cancel_other_cancels_what_runs_and_starts(api: Api, handler: Handler) -> None:
    held = Held(handler)
    name = await schedule(api, await api.queue_to(handler.url), **YEARLY, overlap="cancel_other")
    first = good(await api.post(f"/schedules/{name}/trigger"))
    await handler.received()
    second = good(await api.post(f"/schedules/{name}/trigger"))
    task = await api.until(first["task_id"], "cancelled")
    assert task["reason"] == "superseded"
    await handler.received(2)
    held.let_go()
    rows = await ended(api, name, 2)
    assert [(row["task_id"], row["outcome"]) for row in rows] == [
        (second["task_id"], "ran_ok"),
        (first["task_id"], "cancelled"),
    ]


async def test_a_run_ends_with_its_whole_batch_and_its_completion_comes_once(api: Api, handler: Handler) -> None:
    queue, then = await api.queue_to(handler.url), await api.queue()
    follow = json.dumps({"tasks": [{"queue": queue, "idempotency_key": str(n), "payload": n} for n in range(2)]})
    handler.answer(Reply(headers={"content-type": "application/vnd.sluice.tasks+json"}, body=follow.encode()))
    until = asyncio.Event()
    handler.script(lambda request: Reply(until=until))
    name = await schedule(api, queue, **YEARLY, on_complete={"queue": then, "type": "sum", "payload": "all done"})
    run = good(await api.post(f"/schedules/{name}/trigger"))
    await handler.received(3)
    root = await api.task(run["task_id"])
    [row] = await ledger(api, name)
    assert (root["state"], row["outcome"], row["completed_at"]) == ("succeeded", "running", None)
    assert good(await api.post(f"/schedules/{name}/trigger"))["outcome"] == "skipped_overlap"
    assert await api.pages("/tasks", queue=then) == []
    until.set()
    [end] = await ended(api, name)
    assert end["outcome"] == "ran_ok"

    async def completion() -> list[dict[str, Any]]:
        return await api.pages("/tasks", queue=then, include="payload")

    done: dict[str, Any]
    [done] = await poll(completion)
    assert (done["type"], done["payload"]) == ("sum", "all done") and (done["batch"], done["schedule"]) == (None, None)
    batch = good(await api.get(f"/batches/{run['batch_id']}"))
    assert (batch["total"], batch["completed_at"] is None) == (3, False)


async def test_a_run_of_which_a_task_is_dead_has_failed_and_a_redrive_leaves_it_so(api: Api, handler: Handler) -> None:
    queue, then = await api.queue_to(handler.url, retry={"max_attempts": 1}), await api.queue()
    handler.answer(Reply(500))
    name = await schedule(api, queue, **YEARLY, on_complete={"queue": then, "payload": 1})
    run = good(await api.post(f"/schedules/{name}/trigger"))
    [end] = await ended(api, name)
    assert end["outcome"] == "ran_failed"
    good(await api.post(f"/tasks/{run['task_id']}/retry"))
    await api.until(run["task_id"], "succeeded")

    async def folded() -> bool:
        return bool(good(await api.get(f"/batches/{run['batch_id']}"))["counts"]["succeeded"] == 1)

    await poll(folded)
    assert await ledger(api, name) == [end]
    assert len(await api.pages("/tasks", queue=then)) == 1


async def test_a_run_that_is_cancelled_says_so(api: Api, handler: Handler) -> None:
    Held(handler)
    name = await schedule(api, await api.queue_to(handler.url), **YEARLY)
    run = good(await api.post(f"/schedules/{name}/trigger"))
    await handler.received()
    assert (await api.cancel(run["task_id"])).status_code == 200
    assert [row["outcome"] for row in await ended(api, name)] == ["cancelled"]


async def test_failures_in_a_row_pause_a_schedule_and_a_success_starts_the_count_again(
    api: Api, handler: Handler
) -> None:
    queue = await api.queue_to(handler.url, retry={"max_attempts": 1, **AT_ONCE})
    name = await schedule(api, queue, **YEARLY, pause_after_failures=2, overlap="buffer_one")
    handler.answer(Reply(500), Reply(200), Reply(500), Reply(500))
    for n in range(1, 5):
        good(await api.post(f"/schedules/{name}/trigger"))
        await ended(api, name, n)
        assert good(await api.get(f"/schedules/{name}"))["paused"] is (n == 4)
    paused = good(await api.get(f"/schedules/{name}"))
    assert "2 runs in a row failed" in paused["paused_reason"] and paused["paused_at"]
    good(await api.post(f"/schedules/{name}/resume"))
    handler.answer(Reply(500))
    good(await api.post(f"/schedules/{name}/trigger"))
    await ended(api, name, 5)
    assert not good(await api.get(f"/schedules/{name}"))["paused"]


async def test_what_waits_stays_waiting_while_paused_and_is_dropped_by_an_edit(api: Api, handler: Handler) -> None:
    held = Held(handler)
    queue = await api.queue_to(handler.url)
    name = await schedule(api, queue, **YEARLY, overlap="buffer_all")
    for _ in range(3):
        good(await api.post(f"/schedules/{name}/trigger"))
    good(await api.post(f"/schedules/{name}/pause"))
    await handler.received()
    held.let_go()

    async def first_is_over() -> bool:
        return counted(await ledger(api, name), "outcome") == {"ran_ok": 1, "waiting": 2}

    await poll(first_is_over)
    good(await api.post(f"/schedules/{name}/resume"))
    await handler.received(2)
    assert counted(await ledger(api, name), "outcome") == {"ran_ok": 1, "running": 1, "waiting": 1}
    good(await api.put(f"/schedules/{name}", json={"queue": queue, "payload": "new", **YEARLY}))
    assert counted(await ledger(api, name), "outcome") == {"ran_ok": 1, "running": 1, "dropped": 1}
    held.let_go()
    await poll(lambda: handler.open_calls == 0)
    assert len(handler.requests) == 2


@pytest.mark.parametrize(
    ("mode", "minutes", "expected"),
    [
        ("none", 120, {("cron", "missed"): 118}),
        ("latest", 120, {("cron", "superseded"): 117, ("catch_up", "ran_ok"): 1}),
        ("all", 12, {("catch_up", "ran_ok"): 10}),
    ],
)
async def test_after_an_outage_times_are_caught_up_by_mode(
    api: Api, shared: Replica, handler: Handler, mode: str, minutes: int, expected: dict[tuple[str, str], int]
) -> None:
    queue = await api.queue_to(handler.url)
    name = await schedule(api, queue, every_seconds=60, overlap="allow_all", catch_up={"mode": mode})
    rows = await outage(shared, api, name, timedelta(minutes=minutes), timedelta(minutes=1))
    late = datetime.now(UTC) - GRACE - timedelta(seconds=10)
    on_time = [row for row in rows if row["cause"] == "cron" and row["task_id"]]
    assert 1 <= len(on_time) <= 3 and all(datetime.fromisoformat(row["nominal_at"]) > late for row in on_time)
    await ended(api, name)
    rows = await ledger(api, name)
    found = counted(rows, "cause", "outcome")
    assert sum(found.values()) in (minutes, minutes + 1)
    assert found.pop(("cron", "ran_ok")) >= 1 and set(found) == set(expected)
    for key, count in expected.items():
        assert abs(found[key] - count) <= 1
    assert len([row for row in rows if row["count"] > 1]) == (0 if mode == "all" else 1)


async def test_catch_up_of_all_goes_one_after_another(api: Api, shared: Replica, handler: Handler) -> None:
    queue = await api.queue_to(handler.url)
    name = await schedule(api, queue, every_seconds=3600, overlap="allow_all", catch_up={"mode": "all"})
    rows = await outage(shared, api, name, timedelta(hours=12), timedelta(hours=1))
    assert counted(rows, "cause") == {"catch_up": 12} or counted(rows, "cause") == {"catch_up": 11, "cron": 1}
    runs = [row for row in (await ended(api, name, 12))[::-1] if row["cause"] == "catch_up"]
    for before, after in itertools.pairwise(runs):
        assert before["completed_at"] <= after["fired_at"]


async def test_a_pause_of_a_year_is_one_row_and_a_resume_answers_quickly(
    api: Api, shared: Replica, handler: Handler
) -> None:
    name = await schedule(api, await api.queue_to(handler.url), cron="*/5 * * * *")
    good(await api.post(f"/schedules/{name}/pause"))
    year = timedelta(days=365)
    first = (datetime.now(UTC) - year).replace(minute=0, second=0, microsecond=0)
    await set_back(shared, name, first)
    begun = asyncio.get_running_loop().time()
    resumed = good(await api.post(f"/schedules/{name}/resume"))
    took = asyncio.get_running_loop().time() - begun
    [row] = await ledger(api, name, outcome="paused")
    assert 105_120 <= row["count"] <= 105_133 and row["nominal_at"][:16] == first.isoformat()[:16]
    assert resumed["next_nominal_at"] > row["nominal_until"]
    assert took < 10, took


async def test_an_edit_leaves_what_was_due_as_superseded_and_a_row_is_not_extended_over_it(
    api: Api, shared: Replica
) -> None:
    queue = await api.queue()
    name = await schedule(api, queue, every_seconds=60)
    await shared.sluice.core.db.fetch(  # due for ten minutes, and nobody looks
        "update sluice.schedules set next_nominal_at = date_trunc('minute', clock_timestamp()) - interval '10 minutes',"
        " look_at = null, seq = seq + 1 where name = $1",
        name,
    )
    good(await api.put(f"/schedules/{name}", json={"queue": queue, "payload": 2, "every_seconds": 60}))
    [row] = await ledger(api, name)
    assert (row["outcome"], row["cause"], row["task_id"]) == ("superseded", "cron", None) and row["count"] in (11, 12)


@pytest.mark.ci
async def test_max_runs_ends_a_schedule(api: Api, handler: Handler) -> None:
    name = await schedule(api, await api.queue_to(handler.url), every_seconds=1, max_runs=2, overlap="allow_all")
    await handler.received(2)

    async def over() -> bool:
        return good(await api.get(f"/schedules/{name}"))["next_nominal_at"] is None

    await poll(over)
    assert good(await api.get(f"/schedules/{name}"))["times"] == []
    assert [row["cause"] for row in await ended(api, name, 2)] == ["cron", "cron"]
    good(await api.post(f"/schedules/{name}/trigger"))
    assert len(await ended(api, name, 3)) == 3


async def test_a_one_shot_fires_at_its_instant_to_the_microsecond(api: Api, handler: Handler) -> None:
    at = (datetime.now(UTC) + timedelta(seconds=1)).replace(microsecond=123_457)
    text = at.isoformat(timespec="microseconds").replace("+00:00", "Z")
    name = await schedule(api, await api.queue_to(handler.url), at=text)
    [row] = await ended(api, name)
    assert (row["nominal_at"], row["cause"], row["outcome"]) == (text, "cron", "ran_ok")
    assert row["fired_at"] >= text and row["lag_seconds"] >= 0
    assert (await api.task(row["task_id"]))["scheduled_for"] == text
    assert good(await api.get(f"/schedules/{name}"))["next_nominal_at"] is None


@pytest.mark.ci
async def test_jitter_delays_the_firing_and_not_the_nominal_time(api: Api, handler: Handler) -> None:
    name = await schedule(
        api, await api.queue_to(handler.url), every_seconds=1, jitter_seconds=1, max_runs=2, overlap="allow_all"
    )
    rows = await ended(api, name, 2)
    assert all(row["nominal_at"].endswith(":{}.000000Z".format(row["nominal_at"][17:19])) for row in rows)
    delays = [
        (datetime.fromisoformat(row["fired_at"]) - datetime.fromisoformat(row["nominal_at"])).total_seconds()
        for row in rows
    ]
    assert all(delay >= row["lag_seconds"] >= 0 for delay, row in zip(delays, rows, strict=True))
    assert any(delay > row["lag_seconds"] + 0.001 for delay, row in zip(delays, rows, strict=True))


async def test_tasks_are_found_by_their_schedule(api: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url)
    mine, yours = [await schedule(api, queue, **YEARLY) for _ in range(2)]
    run = good(await api.post(f"/schedules/{mine}/trigger"))
    good(await api.post(f"/schedules/{yours}/trigger"))
    assert [task["id"] for task in await api.pages("/tasks", schedule=mine)] == [run["task_id"]]
    assert await api.pages("/tasks", schedule="no-such-schedule") == []


async def test_history_is_filtered_and_paged_newest_first(api: Api, handler: Handler) -> None:
    name = await schedule(api, await api.queue_to(handler.url), **YEARLY, overlap="allow_all")
    hours = {"from": "2025-03-01T00:00:00Z", "to": "2025-03-01T00:00:01Z"}
    good(await api.post(f"/schedules/{name}/backfill", json=hours), 202)
    for _ in range(5):
        good(await api.post(f"/schedules/{name}/trigger"))
    rows = await ended(api, name, 5)
    assert rows == await ledger(api, name, limit=2) == await ledger(api, name, outcome="ran_ok", limit=3)
    nominal = [row["nominal_at"] for row in rows]
    assert nominal == sorted(nominal, reverse=True)
    assert await ledger(api, name, outcome="missed") == []
    assert [row["nominal_at"] for row in await ledger(api, name, **{"from": nominal[2]})] == nominal[:3]
    assert [row["nominal_at"] for row in await ledger(api, name, to=nominal[2])] == nominal[3:]
    path = f"/schedules/{name}/history"
    problem(await api.get(path, params={"outcome": "great"}), 422, "invalid", "/outcome")
    problem(await api.get(path, params={"from": "noon"}), 422, "invalid", "/from")
    cursor = good(await api.get(path, params={"limit": 1}))["next_cursor"]
    refused = await api.get(path, params={"limit": 1, "cursor": cursor, "outcome": "ran_ok"})
    problem(refused, 422, "invalid", "/cursor")


async def test_a_row_that_reaches_into_a_window_is_in_it(
    start_api: Callable[..., Awaitable[Api]], start_replica: Callable[..., Awaitable[Replica]]
) -> None:
    replica = await start_replica()
    api = Api(replica.client, replica.url)
    name = await schedule(api, await api.queue(), every_seconds=3600, catch_up={"mode": "none"})
    rows = await outage(replica, api, name, timedelta(days=3), timedelta(hours=1))
    [missed] = [row for row in rows if row["outcome"] == "missed"]
    within = (datetime.fromisoformat(missed["nominal_at"]) + timedelta(hours=30)).isoformat()
    assert await ledger(api, name, **{"from": within})
    assert await ledger(api, name, **{"from": within, "to": within.replace("+00:00", "Z")}) in ([], [missed])
    assert (await ledger(api, name, **{"from": within}))[-1] == missed


async def test_a_run_knows_its_zone_and_its_local_time_by_the_definition_that_fired(api: Api, handler: Handler) -> None:
    """Midnight of the 29th in Berlin is on the 28th in UTC, and the clocks change three hours later."""
    pull, push = await api.queue(), await api.queue_to(handler.url, retry={**AT_ONCE, "max_attempts": 1})
    day = {"from": "2026-03-28T12:00:00Z", "to": "2026-03-29T12:00:00Z"}
    for queue in (pull, push):
        good(await api.post(f"/queues/{queue}/pause"))
        name = await schedule(api, queue, cron="0 0 * * *", timezone="Europe/Berlin")
        good(await api.post(f"/schedules/{name}/backfill", json=day), 202)
        await poll_started(api, name)
        moved = {"queue": queue, "payload": 1, "cron": "0 0 * * *", "timezone": "Asia/Tokyo"}
        good(await api.put(f"/schedules/{name}", json=moved))
        good(await api.post(f"/queues/{queue}/resume"))
    again = Reply(500, {"sluice-retry": "no"})
    more = {"content-type": "application/vnd.sluice.tasks+json"}
    handler.answer(again, Reply(200, more, b'{"next": "2"}'), Reply(200))
    first = (await handler.received(1))[0]
    await api.until(first.task, "dead")
    good(await api.retry(first.task))
    for call in await handler.received(3):
        assert call.headers["sluice-scheduled-for"] == "2026-03-28T23:00:00.000Z"
        assert call.headers["sluice-schedule-timezone"] == "Europe/Berlin"
        assert call.headers["sluice-scheduled-for-local"] == "2026-03-29T00:00:00.000+01:00"
    [leased] = good(await api.post(f"/queues/{pull}/leases", json={}))["tasks"]
    assert (leased["scheduled_for"], leased["schedule_timezone"], leased["scheduled_for_local"]) == (
        "2026-03-28T23:00:00.000000Z",
        "Europe/Berlin",
        "2026-03-29T00:00:00.000000+01:00",
    )
    await api.enqueue(pull)
    [plain] = good(await api.post(f"/queues/{pull}/leases", json={}))["tasks"]
    assert plain["schedule_timezone"] is plain["scheduled_for_local"] is None
    await api.enqueue(push)
    assert "sluice-schedule-timezone" not in (await handler.received(4))[3].headers


async def poll_started(api: Api, name: str) -> None:
    async def started() -> bool:
        return any(row["task_id"] for row in await ledger(api, name))

    await poll(started)
