"""What an operator is shown of the fleet."""

import json
from datetime import datetime
from uuid import uuid4

import asyncpg
import pytest

from app.domain.callers import Caller
from app.domain.conditions import ANY
from app.domain.connections import Connections, split
from app.domain.handlers import HandlerDefinition
from app.domain.queues import QueueDefinition
from app.engine.snapshot import Snapshot
from app.runtime import alarms, overview
from app.runtime.core import Core
from app.service import handlers, queues, status
from app.store import replicas, stats
from app.store.replicas import Load
from tests.cores import enqueue
from tests.runtime.test_counting import end_tasks
from tests.support import poll

pytestmark = pytest.mark.anyio

ALL = split(20)


async def beat(
    core: Core,
    replica_id: str,
    name: str = "r",
    version: str = "1",
    *,
    draining: bool = False,
    connections: Connections = ALL,
) -> tuple[datetime, int, int]:
    return await replicas.beat(
        core.db,
        replica_id,
        name,
        "all",
        version,
        draining=draining,
        deaf=False,
        load=Load(),
        connections=connections,
        max_payload_bytes=1_048_576,
    )


async def codes(core: Core) -> list[str]:
    return [alarm["code"] for alarm in (await status.status(core))["alarms"]]


async def test_the_whole_fleet_is_shown_as_json(core: Core, caller: Caller) -> None:
    await handlers.put(core, caller, "hook", HandlerDefinition("https://example.com/"), None, ANY)
    await queues.put(core, caller, "mail", QueueDefinition(handler="hook"), ANY)
    (row,) = await core.db.fetch("insert into sluice.tenants (name) values ('other') returning id")
    other = Caller(row["id"], "other", "operate")
    await queues.put(core, other, "pull", QueueDefinition(), ANY)
    await enqueue(core, other, "pull", 2)
    await beat(core, core.replica.id, core.replica.name, "1.2.3")

    shown = await status.status(core)
    assert set(shown) == {"version", "replicas", "queues", "schedules", "database", "alarms"}
    assert [(r["id"], r["version"], r["silent"]) for r in shown["replicas"]] == [(core.replica.id, "1.2.3", False)]
    assert [(q["tenant"], q["queue"], q["handler"], q["handler_enabled"]) for q in shown["queues"]] == [
        ("default", "mail", "hook", True),
        ("other", "pull", None, None),
    ]
    assert shown["queues"][1]["tasks"] == {"scheduled": 0, "ready": 2, "running": 0, "dead": 0}
    assert shown["queues"][1]["oldest_ready_age_seconds"] >= 0
    database = shown["database"]
    assert database["schema_version"] == 1 and database["size_bytes"] > 0
    assert 0 < database["connections"] <= database["max_connections"]
    assert json.loads(json.dumps(shown)) == shown


async def test_nothing_needs_an_operator_at_first(core: Core, caller: Caller) -> None:
    await queues.put(core, caller, "mail", QueueDefinition(), ANY)
    await queues.pause(core, caller, "mail")
    assert await codes(core) == []


async def test_what_needs_an_operator_is_said_the_gravest_first(core: Core, caller: Caller) -> None:
    await handlers.put(core, caller, "hook", HandlerDefinition("https://example.com/"), None, ANY)
    await queues.put(core, caller, "mail", QueueDefinition(handler="hook"), ANY)
    await queues.put(core, caller, "halted", QueueDefinition(), ANY)
    await enqueue(core, caller, "halted", 3)
    await queues.pause(core, caller, "halted")
    await handlers.disable(core, caller, "hook")
    core.stats.ended(
        await core.db.fetchval("select id from sluice.queues where name = 'mail'"), "dead", 1.0, "attempts_exhausted"
    )
    await beat(core, str(uuid4()), "lost-1")
    await core.db.fetch("update sluice.replicas set seen_at = seen_at - interval '1 minute'")

    alarms = (await status.status(core))["alarms"]
    assert [(alarm["code"], alarm.get("queue")) for alarm in alarms] == [
        ("replica_silent", None),
        ("handler_disabled", "mail"),
        ("queue_paused", "halted"),
        ("tasks_dying", "mail"),
    ]
    assert all(alarm["message"] for alarm in alarms)
    assert "disabled by request" in alarms[1]["message"] and "3 tasks" in alarms[2]["message"]


async def test_of_too_many_queues_those_are_shown_that_hold_tasks_or_are_shut(
    core: Core, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("busy", "idle", "shut"):
        await queues.put(core, caller, name, QueueDefinition(), ANY)
    await enqueue(core, caller, "busy")
    await queues.pause(core, caller, "shut")
    assert len((await status.status(core))["queues"]) == 3
    monkeypatch.setattr(status, "MAX_QUEUES", 2)
    assert [row["queue"] for row in (await status.status(core))["queues"]] == ["busy", "shut"]


async def test_connections_that_run_short_are_an_alarm(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    await beat(core, core.replica.id, "roomy")
    assert "connections_short" not in await codes(core)
    await beat(core, str(uuid4()), "tight", connections=split(12, wanted=20))
    [alarm] = (await status.status(core))["alarms"]
    assert (alarm["code"], alarm["replica"]) == ("connections_short", "tight")
    assert "found 12 connections" in alarm["message"] and "take 20" in alarm["message"]
    monkeypatch.setattr(alarms, "FULL_CONNECTIONS_SHARE", 0)
    first, *_ = (await status.status(core))["alarms"]
    assert first["code"] == "connections_short" and "raise the server's max_connections (now 300" in first["message"]


async def test_a_transaction_left_open_is_an_alarm(
    core: Core, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alarms, "OLD_XMIN_SECONDS", 0.05)
    holder = await asyncpg.connect(database_url)
    try:
        async with holder.transaction(isolation="repeatable_read"):
            await holder.fetch("select count(*) from sluice.tasks")

            async def alarmed() -> bool:
                return "old_xmin" in await codes(core)

            await poll(alarmed)
            database = (await status.status(core))["database"]
            assert database["oldest_xmin_age_seconds"] > 0 and database["oldest_xmin_age_transactions"] is not None
    finally:
        await holder.close()


async def test_a_replica_that_says_goodbye_is_not_missed(core: Core) -> None:
    here, there = str(uuid4()), str(uuid4())
    for replica_id in (here, there):
        await beat(core, replica_id)
    now, others, oldest = await beat(core, here, draining=True)
    assert (others, oldest) == (1, 1) and now is not None
    await replicas.gone(core.db, there)
    (left,) = await replicas.list_recent(core.db)
    assert left.id == here and left.draining
    await core.db.fetch("update sluice.replicas set seen_at = seen_at - interval '2 hours'")
    await replicas.forget_silent(core.db)
    assert await core.db.fetchval("select count(*) from sluice.replicas") == 0


async def test_the_snapshot_is_what_the_gauges_show(core: Core, caller: Caller) -> None:
    await queues.put(core, caller, "mail", QueueDefinition(), ANY)
    await queues.put(core, caller, "quiet", QueueDefinition(), ANY)
    queue_id = int(await core.db.fetchval("select id from sluice.queues where name = 'mail'"))
    ids = await enqueue(core, caller, "mail", 4)
    await core.db.fetch("update sluice.tasks set run_at = run_at - interval '1 minute' where id = $1", ids[0])
    await core.db.fetch("update sluice.tasks set state = 2, run_at = run_at + interval '1 hour' where id = $1", ids[1])
    await end_tasks(core, queue_id, 4, 2)
    await end_tasks(core, queue_id, 4, 3, kept="0")
    await end_tasks(core, queue_id, 3, 5)
    mail, quiet = await stats.overview(core.db)
    assert overview.depths(mail) == {"scheduled": 1, "ready": 3, "running": 0, "dead": 2}
    assert mail.oldest_ready_age_seconds is not None and 60 <= mail.oldest_ready_age_seconds < 90
    assert not any(overview.depths(quiet).values()) and quiet.oldest_ready_age_seconds is None
    await Snapshot(core).look()
    assert b'sluice_tasks{queue="mail",state="dead",tenant="default"} 2.0' in core.metrics.render()
