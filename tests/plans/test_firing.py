"""Firing many schedules at once keeps its index plans while statistics have not yet noticed the runs and batches of the burst."""

import json
from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest

from app.store import migrations
from app.store.statements import call
from tests.databases import create_database, drop_database
from tests.plans.plans import WatchedDatabase

pytestmark = [pytest.mark.ci, pytest.mark.anyio]

CALLS, GROUP, RUNNING = 7, 20, 3000
MOST_ROWS = 500
"""What one node of a plan may read: a few groups."""
APPLY = call("apply_schedules_v1", 3)
DUE = "2026-11-01T00:00:00Z"

_BEFORE = """
insert into sluice.queues (tenant_id, name, retry, max_attempts, idempotency_seconds, succeeded_days, cancelled_days,
                           dead_days, etag)
select id, 'q', '{}', 25, 86400, 3, 3, 30, '' from sluice.tenants;
analyze;
alter table sluice.schedules set (autovacuum_enabled = false);
alter table sluice.schedule_runs set (autovacuum_enabled = false);
alter table sluice.batches set (autovacuum_enabled = false)
"""
_SCHEDULES = f"""
insert into sluice.schedules (tenant_id, name, queue_id, definition, payload, priority, etag)
select q.tenant_id, 's' || n, q.id, '{{}}', 'null', 0, '' from sluice.queues q, generate_series(1, {RUNNING} + {CALLS * GROUP}) n
"""
_RUNS = f"""
with open as (
  insert into sluice.batches (id, tenant_id, queue_id, sealed, run_open, total)
  select gen_random_uuid(), s.tenant_id, s.queue_id, true, true, 1 from sluice.schedules s order by s.id limit {RUNNING}
  returning id),
numbered as (select id, row_number() over () as n from open)
insert into sluice.schedule_runs
  (id, schedule_id, nominal_at, nominal_until, count, cause, extra, outcome, fired_at, task_id, kept_until)
select gen_random_uuid(), s.id, '{DUE}', '{DUE}', 1, 'cron', false, 'running', now(), b.id, '2100-01-01'
from (select id, row_number() over (order by id) as n from sluice.schedules) s join numbered b using (n)
"""


@pytest.fixture
async def db(server_url: str) -> AsyncIterator[WatchedDatabase]:
    url = await create_database(server_url, f"sluice_plans_{uuid4().hex}")
    await migrations.migrate(url)
    connection = await asyncpg.connect(url)
    for sql in (_BEFORE, _SCHEDULES, _RUNS):
        await connection.execute(sql)
    await connection.close()
    db = await WatchedDatabase.on(url)
    yield db
    await db.close()
    await drop_database(server_url, url.partition("?")[0].rpartition("/")[2])


async def test_a_group_reads_no_runs_and_batches_but_its_own(db: WatchedDatabase) -> None:
    ids = [row["id"] for row in await db.fetch("select id from sluice.schedules order by id")]
    open_runs = await db.fetch("select id, schedule_id, task_id from sluice.schedule_runs order by schedule_id")
    db.told()
    for turn in range(CALLS):
        fresh = ids[RUNNING + turn * GROUP :][:GROUP]
        ended = open_runs[turn * GROUP :][:GROUP]
        changes = [_change(schedule_id, rows=[_row()]) for schedule_id in fresh]
        changes += [_change(run["schedule_id"], ends=[_end(run)], cancel=True) for run in ended]
        assert len(await db.fetch(APPLY, json.dumps(changes), "replica", False)) == 2 * GROUP
    told = db.told()
    assert any("superseded" in one.query for one in told) and any(
        "insert into sluice.tasks" in one.query for one in told
    )
    problems = {f"{problem}: {one.query[:90]}" for one in told for problem in one.problems(MOST_ROWS)}
    assert not problems, problems


def _change(schedule_id: int, **given: object) -> dict[str, object]:
    nothing = {"next": None, "look": None, "missed": 0, "failures": 0, "pause": None, "drop": False, "cancel": False}
    lists: dict[str, object] = {"rows": [], "starts": [], "ends": []}
    return {"id": schedule_id, "version": 1, "seq": 0, "runs": 1, **nothing, **lists, **given}


def _row() -> dict[str, object]:
    row = {"id": str(uuid4()), "task": str(uuid4()), "at": DUE, "until": DUE, "n": 1, "cause": "cron", "extra": False}
    return row | {"outcome": "running", "jitter": 0, "overlap": None}


def _end(run: asyncpg.Record) -> dict[str, str]:
    return {"id": str(run["id"]), "task": str(run["task_id"]), "outcome": "succeeded"}
