"""A schedule that nobody fires is seen by every replica: in /status, in /metrics, in the log."""

from collections.abc import Awaitable, Callable

import pytest

from app.engine.snapshot import Snapshot
from tests.sluices import Replica
from tests.support import poll

pytestmark = pytest.mark.anyio


async def test_a_replica_that_fires_nothing_still_sees_what_is_overdue(
    start_replica: Callable[..., Awaitable[Replica]], capsys: pytest.CaptureFixture[str]
) -> None:
    replica = await start_replica(role="api", log_level="warning")
    client, core = replica.client, replica.sluice.core
    await client.put("/queues/q", json={})
    for name in ("late", "fine", "stopped"):
        reply = await client.put(f"/schedules/{name}", json={"queue": "q", "payload": 1, "every_seconds": 3600})
        assert reply.status_code == 201
    await client.post("/schedules/stopped/pause")
    await core.db.fetch(
        "update sluice.schedules set look_at = look_at - interval '90 minutes', next_nominal_at = next_nominal_at"
        " - interval '90 minutes', missed = 3 where name <> 'fine'"
    )
    found = {row["schedule"]: row for row in (await client.get("/status")).json()["schedules"]}
    assert found["late"]["overdue_seconds"] > 1700 and found["late"]["missed"] == 3
    assert found["fine"]["overdue_seconds"] == found["stopped"]["overdue_seconds"] == 0
    assert found["stopped"]["paused"]
    [alarm] = [a for a in (await client.get("/status")).json()["alarms"] if a["code"] != "no_engine"]
    assert (alarm["code"], alarm["schedule"]) == ("schedule_overdue", "late")

    snapshot = Snapshot(core)
    await snapshot.look()
    await snapshot.look()
    metrics = (await client.get("/metrics")).text
    assert 'sluice_schedule_missed_total{schedule="late",tenant="default"} 3.0' in metrics
    [overdue] = [
        line for line in metrics.splitlines() if line.startswith("sluice_schedule_overdue_seconds") and "late" in line
    ]
    assert float(overdue.split()[-1]) > 1700
    assert capsys.readouterr().out.count("schedule_overdue") == 1


async def test_times_that_nobody_fired_are_missed_and_said(
    start_replica: Callable[..., Awaitable[Replica]], capsys: pytest.CaptureFixture[str]
) -> None:
    replica = await start_replica(log_level="warning", schedule_grace_seconds=1)
    client, core = replica.client, replica.sluice.core
    await client.put("/queues/q", json={})
    definition = {"queue": "q", "payload": 1, "every_seconds": 3600, "catch_up": {"mode": "none"}}
    await client.put("/schedules/hourly", json=definition)
    await core.db.fetch(
        "update sluice.schedules set look_at = clock_timestamp(), next_nominal_at = next_nominal_at - interval '5 hours',"
        " updated_at = updated_at - interval '6 hours', seq = seq + 1"
    )

    async def missed() -> list[dict[str, object]]:
        items: list[dict[str, object]] = (await client.get("/schedules/hourly/history")).json()["items"]
        return items

    [row] = await poll(missed)
    assert (row["outcome"], row["count"], row["task_id"]) == ("missed", 5, None)
    [found] = (await client.get("/status")).json()["schedules"]
    assert found["missed"] == 5
    assert capsys.readouterr().out.count("schedule_missed") == 1
