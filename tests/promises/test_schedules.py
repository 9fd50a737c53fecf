"""P5: each nominal time of a schedule is in exactly one row of the ledger and has at most one root task, whoever fires it."""

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import asyncpg
import pytest

from app.store.db import Database, Reader
from tests.handlers import Handler
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import Api, good

pytestmark = pytest.mark.anyio

StartReplica = Callable[..., Awaitable[Replica]]

REPLICAS = 4
SCHEDULES = 24
EDITS = 20
ENOUGH = SCHEDULES + 50
SECOND = timedelta(seconds=1)
EVERY_SECOND = ({"every_seconds": 1}, {"cron": "* * * * * *", "seconds": True}, {"cron": "every 1 second"})
"""The same nominal times, said differently: an edit from one to the other leaves the line of them as it is."""
OVERLAPS = ("skip", "buffer_one", "buffer_all", "cancel_other", "allow_all")

LEDGER = """
select s.name, s.created_at, s.next_nominal_at, r.nominal_at, r.nominal_until, r.count, r.outcome, r.task_id, r.extra,
  r.fired_at
from sluice.schedules s join sluice.schedule_runs r on r.schedule_id = s.id order by s.name, r.nominal_at, r.id
"""
ROOTS = """
select id, options ->> 'schedule' as schedule, (options ->> 'scheduled_for')::timestamptz as scheduled_for, created_at, payload
from sluice.tasks where options ? 'schedule'
union all
select id, options ->> 'schedule' as schedule, (options ->> 'scheduled_for')::timestamptz as scheduled_for, created_at, payload
from sluice.task_history where options ? 'schedule'
"""


@dataclass
class Meddling:
    """Callers that edit, pause, resume, trigger and backfill schedules over every replica while these fire."""

    apis: list[Api]
    db: Reader
    """Of the test's own: those of the replicas are cut."""
    queue: str
    dice: random.Random = field(default_factory=lambda: random.Random(5))
    version: int = 0
    promised: defaultdict[str, list[tuple[datetime, int]]] = field(default_factory=lambda: defaultdict(list))
    """Schedule -> (when a PUT had been answered by the database's clock, what payload it put)."""
    answers: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    @property
    def api(self) -> Api:
        return self.dice.choice(self.apis)

    async def put(self, name: str) -> None:
        self.version += 1
        version, timing = self.version, self.dice.choice(EVERY_SECOND)
        body = {"queue": self.queue, "payload": version, "overlap": self.dice.choice(OVERLAPS), **timing}
        reply = await self.api.put(f"/schedules/{name}", json=body)
        self.answers[f"put {reply.status_code}"] += 1
        if reply.status_code in (200, 201):
            self.promised[name].append((await self.db.fetchval("select clock_timestamp()"), version))

    async def post(self, name: str, verb: str, body: dict[str, Any] | None = None) -> None:
        reply = await self.api.post(f"/schedules/{name}/{verb}", json=body)
        self.answers[f"{verb} {reply.status_code}"] += 1
        assert reply.status_code in (200, 202, 503), reply.text

    async def backfill(self, name: str) -> None:
        now: datetime = await self.db.fetchval("select clock_timestamp()")
        body = {"from": (now - 9 * SECOND).isoformat(), "to": (now - 3 * SECOND).isoformat(), "overlap": "allow_all"}
        await self.post(name, "backfill", body | {"rerun": self.dice.random() < 0.3})

    async def cut_connections(self) -> None:
        """Whatever a replica is at: between any two of its statements."""
        await self.db.fetch(
            "select pg_terminate_backend(pid, 10000) from pg_stat_activity "
            "where datname = current_database() and application_name = 'sluice' and random() < 0.2"
        )

    async def once(self, name: str) -> None:
        match self.dice.randrange(8):
            case 0 | 1 | 2:
                await self.put(name)
            case 3:
                await self.post(name, "pause")
            case 4 | 5:
                await self.post(name, "resume")
            case 6:
                await self.post(name, "trigger", {"overlap": "allow_all"})
            case _:
                await self.backfill(name)

    async def until(self, end: datetime, names: list[str]) -> None:
        """Until then, and until enough has been done, on a slow machine too."""
        while await self.db.fetchval("select clock_timestamp()") < end or sum(self.answers.values()) < ENOUGH:
            await self.once(self.dice.choice(names))


@pytest.fixture
async def own(database_url: str) -> AsyncIterator[Reader]:
    async with asyncpg.create_pool(database_url) as pool:
        yield pool


async def snapshot(db: Database) -> tuple[list[Any], list[Any]]:
    """The ledger and the root tasks of one moment."""
    async with db.transaction() as connection:
        await connection.execute("set transaction isolation level repeatable read")
        return await connection.fetch(LEDGER), await connection.fetch(ROOTS)


def assert_no_time_is_lost_or_doubled(rows: list[Any]) -> int:
    """The line of every schedule goes from its creation to its next time without a gap or an overlap; how many times."""
    lines: defaultdict[str, list[Any]] = defaultdict(list)
    for row in rows:
        if not row["extra"] and row["nominal_at"] > row["created_at"]:  # earlier ones were backfilled
            lines[row["name"]].append(row)
    for name, line in lines.items():
        expected = line[0]["created_at"].replace(microsecond=0) + SECOND
        for row in line:
            assert row["nominal_at"] == expected, (name, expected, dict(row))
            assert row["nominal_until"] == expected + (row["count"] - 1) * SECOND, (name, dict(row))
            expected = row["nominal_until"] + SECOND
        assert line[0]["next_nominal_at"] == expected, (name, expected)
    return sum(row["count"] for row in rows)


def assert_one_task_a_run(rows: list[Any], roots: list[Any]) -> None:
    fired = {row["task_id"]: (row["name"], row["nominal_at"]) for row in rows if row["task_id"] is not None}
    assert len(fired) == sum(row["task_id"] is not None for row in rows)
    assert len(roots) == len({root["id"] for root in roots})
    assert fired == {root["id"]: (root["schedule"], root["scheduled_for"]) for root in roots}
    nominal = [(row["name"], row["nominal_at"]) for row in rows if row["task_id"] is not None and not row["extra"]]
    assert len(nominal) == len(set(nominal))


def assert_no_old_definition_fired(roots: list[Any], promised: dict[str, list[tuple[datetime, int]]]) -> None:
    """What began after the answer to a PUT has its payload, or that of a later one."""
    for root in roots:
        least = max((version for at, version in promised[root["schedule"]] if at < root["created_at"]), default=0)
        assert json.loads(root["payload"]) >= least, dict(root)


@pytest.mark.parametrize("seconds", [3, pytest.param(8, marks=pytest.mark.ci)])
async def test_every_nominal_time_is_in_one_row_while_definitions_are_edited_and_paused(
    start_replica: StartReplica, handler: Handler, own: Reader, seconds: int
) -> None:
    replicas = [await start_replica() for _ in range(REPLICAS)]
    apis = [Api(replica.client, replica.url) for replica in replicas]
    db = replicas[0].sluice.core.db
    meddling = Meddling(apis, own, await apis[0].queue_to(handler.url))
    names = [f"s{n}" for n in range(SCHEDULES)]
    await asyncio.gather(*map(meddling.put, names))
    end: datetime = await own.fetchval("select clock_timestamp() + make_interval(secs => $1)", seconds)
    busy, quiet = names[: SCHEDULES // 2], names[SCHEDULES // 2 :]
    await meddling.post(quiet[0], "pause")
    await asyncio.gather(*(meddling.until(end, busy[n::3]) for n in range(3)), meddling.cut_connections())
    await meddling.post(quiet[0], "resume")

    async def all_have_gone_on() -> bool:
        rows, _ = await snapshot(db)
        newest = {row["name"]: row["nominal_until"] for row in rows if not row["extra"]}
        return set(newest) == set(names) and all(newest[name] > end - SECOND for name in quiet)

    await poll(all_have_gone_on)
    rows, roots = await snapshot(db)
    assert assert_no_time_is_lost_or_doubled(rows) >= SCHEDULES // 2 * (seconds - 1)
    assert_one_task_a_run(rows, roots)
    assert_no_old_definition_fired(roots, meddling.promised)
    assert {row["outcome"] for row in rows} >= {"ran_ok", "paused"}, meddling.answers
    replicas_seen = await db.fetch("select distinct replica from sluice.schedule_runs where replica is not null")
    assert len(replicas_seen) > 1


async def test_after_the_answer_to_a_put_the_old_definition_never_fires(
    start_replica: StartReplica, handler: Handler, own: Reader
) -> None:
    """Edits as fast as they are answered, each racing what four replicas fire at that moment."""
    replicas = [await start_replica() for _ in range(REPLICAS)]
    apis = [Api(replica.client, replica.url) for replica in replicas]
    db = replicas[0].sluice.core.db
    meddling = Meddling(apis, own, await apis[0].queue_to(handler.url))
    names = [f"s{n}" for n in range(4)]
    await asyncio.gather(*map(meddling.put, names))
    end: datetime = await own.fetchval("select clock_timestamp() + interval '2 seconds'")

    async def edit(name: str) -> None:
        while await own.fetchval("select clock_timestamp()") < end or meddling.answers["put 200"] <= EDITS:
            await db.fetch(  # due this very moment, as if the second had just turned
                "update sluice.schedules set look_at = clock_timestamp(), seq = seq + 1 where name = $1", name
            )
            for replica in replicas:
                replica.sluice.core.signals.schedule_due_at(0)
            await meddling.put(name)

    await asyncio.gather(*map(edit, names))
    rows, roots = await snapshot(db)
    assert_no_time_is_lost_or_doubled(rows)
    assert_one_task_a_run(rows, roots)
    assert_no_old_definition_fired(roots, meddling.promised)


async def test_a_run_ends_once_and_starts_one_of_those_that_wait(start_replica: StartReplica, handler: Handler) -> None:
    """Three finishers at once over what waits under buffer_all: never two runs beside each other, and all of them run."""
    replicas = [await start_replica() for _ in range(3)]
    api, db = Api(replicas[0].client, replicas[0].url), replicas[0].sluice.core.db
    queue = await api.queue_to(handler.url)
    names = [f"s{n}" for n in range(6)]
    for name in names:
        body = {"queue": queue, "payload": name, "cron": "0 0 1 1 *", "overlap": "buffer_all"}
        good(await api.put(f"/schedules/{name}", json=body), 201)
        past = {"from": "2025-01-01T00:00:00Z", "to": "2025-01-01T00:01:00Z"}
        good(await api.post(f"/schedules/{name}/backfill", json=past), 202)
    for _ in range(7):
        for name in names:
            good(await api.post(f"/schedules/{name}/trigger"))

    async def all_ran() -> bool:
        return int(await db.fetchval("select count(*) from sluice.schedule_runs where outcome = 'ran_ok'")) == 8 * 6

    await poll(all_ran, 20)
    spans = await db.fetch("select schedule_id, fired_at, completed_at from sluice.schedule_runs order by 1, 2")
    for before, after in pairwise(spans):
        if before["schedule_id"] == after["schedule_id"]:
            assert before["completed_at"] <= after["fired_at"]
