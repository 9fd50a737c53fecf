"""What looking costs: overview, series, the strip of a schedule and watched tasks read what they show, beside much of others."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from app.runtime.looks import DEATHS_MINUTES, Looks
from app.store import ledger, looks, migrations, stats, views
from app.store.db import READING
from tests.databases import create_database, drop_database
from tests.plans.plans import WatchedDatabase

pytestmark = [pytest.mark.ci, pytest.mark.anyio, pytest.mark.timeout(180)]

QUEUES, OTHERS, DAYS, MINUTES = 1_000, 3_000, 38, 30
WAITING, DEAD, RUNNING = 10, 12, 3
"""Per queue of ours; of the dead, one in each of so many days."""
RUNS = 30_000

# Of ours every queue is in use. Another tenant has more queues, more tasks, and more that has ended; statistics are of nothing.
_ROWS = f"""
insert into sluice.tenants (name) values ('ours'), ('other');
insert into sluice.queues (tenant_id, name, retry, max_attempts, idempotency_seconds, succeeded_days, cancelled_days, dead_days,
                           etag)
select t.id, 'q' || g, '{{}}', 25, 86400, 3, 3, 30, '' from sluice.tenants t, generate_series(1, {OTHERS}) g
where t.name = 'other' or t.name = 'ours' and g <= {QUEUES};
select sluice.ensure_partitions_v1(14); select sluice.ensure_partitions_v1(28); select sluice.ensure_partitions_v1({DAYS});
analyze;
insert into sluice.tasks (id, tenant_id, queue_id, state, priority, run_at, created_at, payload)
select gen_random_uuid(), q.tenant_id, q.id, case when n < 8 then 0 else 2 end, 0,
       clock_timestamp() + case when n < 8 then '0 s' else '1 hour' end::interval, clock_timestamp(), '1'
from sluice.queues q, generate_series(1, {WAITING}) n;
insert into sluice.tasks (id, tenant_id, queue_id, state, priority, run_at, created_at, payload, claims, lease_token,
                          lease_handler_id, lease_expires_at, last_started_at)
select gen_random_uuid(), q.tenant_id, q.id, 1, 0, clock_timestamp(), clock_timestamp(), '1', 1, gen_random_uuid(), 0,
       clock_timestamp() + interval '1 hour', clock_timestamp()
from sluice.queues q, generate_series(1, {RUNNING}) n;
insert into sluice.task_history (id, kept_until, tenant_id, queue_id, handler_id, state, ended_at, priority, run_at, created_at,
                                 payload, attempt, claims)
select gen_random_uuid(), clock_timestamp() + make_interval(days => 1 + n % 30), q.tenant_id, q.id, 0,
       case when n <= {DEAD} then 4 else 3 end, clock_timestamp(), 0, clock_timestamp(), clock_timestamp(), '1', 1, 1
from sluice.queues q, generate_series(1, 2 * {DEAD}) n;
insert into sluice.queue_minutes (queue_id, minute, enqueued, started, succeeded, dead, wait, run)
select q.id, date_trunc('minute', clock_timestamp()) - n * interval '1 minute', 60, 60, 60,
       case when q.name like '%00' then 1 else 0 end, array[1, 2, 3], array[4, 5]
from sluice.queues q, generate_series(0, {MINUTES} - 1) n;
insert into sluice.tenant_minutes (tenant_id, minute, enqueued, started, succeeded, dead, cancelled, retried, wait, run)
select t.id, date_trunc('minute', clock_timestamp()) - n * interval '1 minute', 1, 1, 1, 0, 0, 0, '{{1}}', '{{1}}'
from sluice.tenants t, generate_series(2, 1440) n;
insert into sluice.schedules (tenant_id, name, queue_id, definition, payload, priority, etag)
select q.tenant_id, 's', q.id, '{{}}', '1', 0, '' from sluice.queues q join sluice.tenants t on t.id = q.tenant_id
where q.name = 'q1' and t.name = 'ours';
insert into sluice.schedule_runs (id, schedule_id, nominal_at, nominal_until, count, cause, extra, outcome, kept_until)
select gen_random_uuid(), s.id, clock_timestamp() - n * interval '10 seconds', clock_timestamp() - n * interval '10 seconds',
       1, 'cron', true, 'ran_ok', clock_timestamp() + interval '9 days'
from sluice.schedules s, generate_series(1, {RUNS}) n
"""


@pytest.fixture(scope="module")
async def loaded(server_url: str) -> AsyncIterator[str]:
    url = await create_database(server_url, f"sluice_plans_{uuid4().hex}")
    await migrations.migrate(url)
    connection = await asyncpg.connect(url)
    await connection.execute("set synchronous_commit = off")
    for sql in _ROWS.split(";\n"):
        await connection.execute(sql)
    await connection.execute("vacuum (analyze false) sluice.task_history")
    await connection.close()
    yield url
    await drop_database(server_url, url.partition("?")[0].rpartition("/")[2])


@pytest.fixture
async def db(loaded: str) -> AsyncIterator[WatchedDatabase]:
    db = await WatchedDatabase.on(loaded, **READING)
    yield db
    await db.close()


def read(plan: dict[str, Any]) -> Iterator[tuple[str, float]]:
    """(table, rows read) of each scan; days of history count as one table."""
    if "Relation Name" in plan:
        table = plan["Relation Name"].rstrip("0123456789").rstrip("_")
        yield table, (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
    for child in plan.get("Plans", []):
        yield from read(child)


async def rows_of(db: WatchedDatabase, call: Callable[[], Awaitable[object]]) -> dict[str, float]:
    """How many rows of each table the last of several calls reads: by then the plan is the one that is kept."""
    for _ in range(7):
        db.told()
        await call()
    found: dict[str, float] = {}
    for told in db.told():
        for table, rows in read(told.plan):
            found[table] = found.get(table, 0) + rows
    return found


async def ours(db: WatchedDatabase) -> int:
    found: int = await db.fetchval("select id from sluice.tenants where name = 'ours'")
    return found


async def test_a_look_reads_what_is_its_tenants_and_of_minutes_only_the_newest(db: WatchedDatabase) -> None:
    tenant, (now,) = await ours(db), (await db.fetch("select date_trunc('minute', clock_timestamp())"))[0]
    seen = await looks.look(db, tenant, now, now - timedelta(minutes=5), database=True)
    assert len(seen.queues) == QUEUES and {len(queue.minutes) for queue in seen.queues} <= {0, 1}
    assert {queue.dead_lately for queue in seen.queues} in ({0, 5}, {0, 6})
    found = await rows_of(db, lambda: looks.look(db, tenant, now, now, database=True))
    assert found["queue_minutes"] <= QUEUES
    assert found["task_history"] <= DEAD * QUEUES
    assert found["tasks"] <= (WAITING + RUNNING) * QUEUES
    assert found["queues"] <= QUEUES + 10


async def test_looks_ask_for_one_minute_of_each_queue_and_keep_the_others(
    db: WatchedDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[float, float]] = []
    look = looks.look

    async def asking(reader: Any, tenant: int, since: datetime, deaths_since: datetime, **more: Any) -> Any:
        seen = await look(db, tenant, since, deaths_since, **more)
        minute = seen.now.replace(second=0, microsecond=0)
        asked.append(((minute - since).total_seconds() / 60, (minute - deaths_since).total_seconds() / 60))
        return seen

    class Now:
        def now(self) -> datetime:
            return datetime.now(UTC)

    monkeypatch.setattr(looks, "look", asking)
    monkeypatch.setattr("app.runtime.looks.FRESH_SECONDS", 0.0)
    monkeypatch.setattr("app.runtime.looks.SHARE", 1e9)
    monkeypatch.setattr("app.runtime.looks.SETTLED_SECONDS", 0.0)
    db.reads = lambda *_: db  # type: ignore[method-assign, assignment]
    kept, tenant = Looks(db, Now()), await ours(db)  # type: ignore[arg-type]
    first, again = await kept.at(tenant, operates=False), await kept.at(tenant, operates=False)
    assert 5 <= asked[0][0] <= 7 and DEATHS_MINUTES - 1 <= asked[0][1] <= DEATHS_MINUTES + 1
    assert asked[1] in ((0, 0), (1, 1)), "a minute may have passed"
    for look_at in (first, again):
        assert max(queue.dead_lately for queue in look_at.seen.queues) in (DEATHS_MINUTES - 1, DEATHS_MINUTES)
        assert {recent.started for recent in look_at.recent} <= {300, 360}


async def test_a_series_of_a_tenant_adds_up_no_queues_but_in_the_newest_minutes(db: WatchedDatabase) -> None:
    tenant, (now,) = await ours(db), (await db.fetch("select date_trunc('minute', clock_timestamp())"))[0]
    upto = now - timedelta(minutes=1)
    found = await rows_of(db, lambda: stats.tenant_series(db, tenant, upto - timedelta(minutes=1440), upto))
    assert found["tenant_minutes"] <= 1440 and found["queue_minutes"] <= 2 * QUEUES + 1
    (row,) = await db.fetch("select id from sluice.queues where tenant_id = $1 and name = 'q7'", tenant)
    found = await rows_of(db, lambda: stats.series(db, [row["id"]], now - timedelta(minutes=1440)))
    assert found["queue_minutes"] <= MINUTES


async def test_minutes_that_are_over_are_summed_from_their_own_rows(db: WatchedDatabase, loaded: str) -> None:
    writes = await WatchedDatabase.on(loaded)
    (now,) = (await writes.fetch("select date_trunc('minute', clock_timestamp())"))[0]
    found = await rows_of(
        writes, lambda: stats.fold_minutes(writes, now - timedelta(minutes=3), now - timedelta(minutes=1))
    )
    await writes.close()
    assert found["queue_minutes"] <= 2 * (QUEUES + OTHERS)


async def test_the_strip_of_a_schedule_reads_a_bounded_part_of_its_ledger(db: WatchedDatabase) -> None:
    schedule = await db.fetchval("select id from sluice.schedules")
    since = datetime.now(UTC) - timedelta(days=30)
    days = await ledger.days(db, schedule, since)
    assert sum(times for _, _, times in days) == ledger.DAYS_ROWS < RUNS
    found = await rows_of(db, lambda: ledger.days(db, schedule, since))
    assert found["schedule_runs"] <= ledger.DAYS_ROWS


async def test_watched_tasks_are_read_by_their_ids(db: WatchedDatabase) -> None:
    live = await db.fetch("select id::text from sluice.tasks limit 20")
    ended = await db.fetch("select id::text from sluice.task_history limit 20")
    ids = [row["id"] for row in (*live, *ended)]
    found = await rows_of(db, lambda: views.watched(db, ids))
    assert len(await views.watched(db, ids)) == len(ids)
    assert found["tasks"] <= 3 * len(ids) and found["task_history"] <= len(ids)
    assert found["queues"] <= 2 * (QUEUES + OTHERS), (
        "PostgreSQL 15 reads the definitions of all queues, once for each side"
    )
