"""A page of tasks costs neither queues times days of history, nor the history: whatever is asked for, by whoever."""

import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from app.domain.callers import Caller
from app.store import migrations, task_lists, windows
from app.store.db import READING
from app.store.task_lists import TaskQuery
from tests.databases import create_database, drop_database
from tests.plans.loading import VAULT
from tests.plans.plans import WatchedDatabase

pytestmark = [pytest.mark.ci, pytest.mark.anyio, pytest.mark.timeout(180)]

QUEUES, DAYS = 5_000, 38
ENDED, LIVE = 200_000, 50_000
MOST_ROWS = 3 * windows.MAX_WINDOW
"""Of all tables, in one statement."""
MOST_PROBES = 2 * (task_lists.FEW_QUEUES + 1) * (DAYS + 2)
MOST_SECONDS = 2.0
"""A page takes a tenth of it; the machine may have other things to do."""

# Half the queues are deleted. A fifth of what has ended is dead, kept over a month; the rest goes within three days.
_MANY_QUEUES = f"""
insert into sluice.tenants (name) values ('many'), ('few');
insert into sluice.queues (tenant_id, name, retry, max_attempts, idempotency_seconds, succeeded_days, cancelled_days, dead_days,
                           etag, deleted_at)
select n.id, 'q' || g, '{{}}', 25, 86400, 3, 3, 30, '', case when n.name = 'many' and g % 2 = 0 then clock_timestamp() end
from sluice.tenants n, generate_series(1, {QUEUES}) g where n.name = 'many' or n.name = 'few' and g <= 3;
select sluice.ensure_partitions_v1(14); select sluice.ensure_partitions_v1(28); select sluice.ensure_partitions_v1({DAYS});
analyze;
insert into sluice.task_history (id, kept_until, tenant_id, queue_id, handler_id, state, reason, ended_at, priority, run_at,
                                 created_at, payload, options, attempt, claims)
select ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid,
       clock_timestamp() + make_interval(days => case when n % 5 = 0 then 1 + n % 30 else 1 + n % 3 end),
       q.tenant_id, q.id, 0, case when n % 5 = 0 then 4 else 3 end, case when n % 5 = 0 then 'attempts_exhausted' end,
       clock_timestamp(), 0, clock_timestamp(), clock_timestamp(), convert_to(repeat('x', 200), 'UTF8'),
       '{{"type": "mail", "tags": ["a"]}}', 1, 1
from generate_series(1, {ENDED}) n
join sluice.tenants t on t.name = case when n <= 90 then 'few' else 'many' end
join sluice.queues q on q.tenant_id = t.id and q.name = 'q' || (1 + n % case when n <= 90 then 3 else {QUEUES} end);
insert into sluice.tasks (id, tenant_id, queue_id, state, priority, run_at, created_at, payload)
select ('00000000-0000-7000-9000-' || lpad(to_hex(n), 12, '0'))::uuid, q.tenant_id, q.id, 0, 0, clock_timestamp(),
       clock_timestamp(), '\\x6e756c6c'
from generate_series(1, {LIVE}) n join sluice.tenants t on t.name = 'many'
join sluice.queues q on q.tenant_id = t.id and q.name = 'q' || (1 + n % {QUEUES})
"""
# In so few queues, a queue's next tasks are near in the primary key, too, and one queue has none.
_FEW_QUEUES = f"""
insert into sluice.tenants (name) values ('busy');
insert into sluice.queues (tenant_id, name, retry, max_attempts, idempotency_seconds, succeeded_days, cancelled_days, dead_days,
                           etag)
select n.id, 'q' || g, '{{}}', 25, 86400, 3, 3, 30, '' from sluice.tenants n, generate_series(1, 21) g where n.name = 'busy';
insert into sluice.task_history (id, kept_until, tenant_id, queue_id, handler_id, state, reason, ended_at, priority, run_at,
                                 created_at, payload, options, attempt, claims)
select ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, clock_timestamp() + make_interval(days => 1 + n % 3),
       q.tenant_id, q.id, 0, case when n % 5 = 0 then 4 else 3 end, case when n % 5 = 0 then 'attempts_exhausted' end,
       clock_timestamp(), 0, clock_timestamp(), clock_timestamp(), 'null', '{{}}', 1, 1
from generate_series(1, {ENDED}) n join sluice.queues q on q.name = 'q' || (1 + n % 20);
insert into sluice.tasks (id, tenant_id, queue_id, state, priority, run_at, created_at, payload)
select ('00000000-0000-7000-9000-' || lpad(to_hex(n), 12, '0'))::uuid, q.tenant_id, q.id, 0, 0, clock_timestamp(),
       clock_timestamp(), 'null'
from generate_series(1, {ENDED}) n join sluice.queues q on q.name = 'q' || (1 + n % 20);
vacuum (analyze) sluice.task_history;
vacuum (analyze) sluice.tasks
"""
FILTERS: dict[str, dict[str, Any]] = {
    "everything": {},
    "no such tag": {"tag": "nosuch"},
    "no such handler": {"handler_ids": [999_999]},
    "dead": {"state": "dead"},
    "dead without the tag": {"state": "dead", "tag": "nosuch"},
    "cancelled": {"state": "cancelled"},
    "another reason": {"reason": "expired"},
    "succeeded": {"state": "succeeded"},
    "ready of another type": {"state": "ready", "type": "nosuch"},
    "scheduled": {"state": "scheduled"},
    "running": {"state": "running"},
    "a batch": {"batch": str(uuid4())},
}


@contextlib.asynccontextmanager
async def filled(server_url: str, rows: str) -> AsyncIterator[str]:
    url = await create_database(server_url, f"sluice_plans_{uuid4().hex}")
    await migrations.migrate(url)
    connection = await asyncpg.connect(url)
    await connection.execute("set synchronous_commit = off")
    for sql in rows.split(";\n"):
        await connection.execute(sql)
    await connection.close()
    yield url
    await drop_database(server_url, url.partition("?")[0].rpartition("/")[2])


@pytest.fixture
async def many_queues(server_url: str) -> AsyncIterator[str]:
    async with filled(server_url, _MANY_QUEUES) as url:
        yield url


@pytest.fixture
async def few_queues(server_url: str) -> AsyncIterator[str]:
    async with filled(server_url, _FEW_QUEUES) as url:
        yield url


def scans(plan: dict[str, Any]) -> Iterator[tuple[float, float]]:
    """(rows read, times begun) of each scan of a table of tasks."""
    if plan.get("Relation Name", "").startswith("task"):
        loops = plan["Actual Loops"]
        yield (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * loops, loops
    for child in plan.get("Plans", []):
        yield from scans(child)


@pytest.mark.parametrize("patterns", [None, ("q*",)], ids=["every queue", "a confined key"])
async def test_no_page_reads_more_than_its_windows_with_5000_queues(
    many_queues: str, patterns: tuple[str, ...] | None
) -> None:
    db = await WatchedDatabase.on(many_queues, **READING)
    too_much: list[str] = []
    for tenant_id, tenant in await db.fetch("select id, name from sluice.tenants where name <> 'default' order by id"):
        caller = Caller(tenant_id, tenant, "read", queues=patterns)
        for name, filters in FILTERS.items():
            position, pages, found = None, 0, 0
            while position is not None or pages == 0:
                db.told()
                began = time.monotonic()
                queue_ids = await task_lists.queues_to_look_in(db, caller, None)
                query = TaskQuery(tenant_id, queue_ids, position, limit=50, include_payload=False, **filters)
                page = await task_lists.list_page(db, VAULT, query)
                took = time.monotonic() - began
                for told in db.told():
                    read = [sum(counts) for counts in zip(*scans(told.plan), strict=True)] or [0, 0]
                    if read[0] > MOST_ROWS or read[1] > MOST_PROBES:
                        too_much.append(f"{tenant}, {name}: {read[0]:.0f} rows, {read[1]:.0f} probes")
                if took > MOST_SECONDS:
                    too_much.append(f"{tenant}, {name}: {took:.1f} s")
                position, pages, found = page.position, pages + 1, found + len(page.items)
                if found >= 200:
                    break
            assert found == 0 or "nosuch" not in filters.values()
            if name in ("everything", "dead", "succeeded"):
                wanted = {"everything": 90, "dead": 18, "succeeded": 72}[name] if tenant == "few" else 200
                assert found == wanted, f"{tenant}, {name}: {found}"
    await db.close()
    assert not too_much, "\n".join(too_much)


async def test_no_page_reads_more_than_its_windows_with_few_queues_of_which_one_is_empty(few_queues: str) -> None:
    db = await WatchedDatabase.on(few_queues, **READING)
    [tenant_id] = [row["id"] for row in await db.fetch("select id from sluice.tenants where name = 'busy'")]
    queue_ids = await task_lists.queues_to_look_in(db, Caller(tenant_id, "busy", "read"), None)
    assert queue_ids is not None and len(queue_ids) == 21
    db.told()
    for ascending in (False, True):
        for name, filters in FILTERS.items():
            query = TaskQuery(tenant_id, queue_ids, None, 50, include_payload=False, ascending=ascending, **filters)
            await task_lists.look_through(db, query, windows.FIRST_WINDOW, 51)
            for told in db.told():
                read = sum(rows for rows, _ in scans(told.plan))
                assert read <= MOST_ROWS, f"{name}, {ascending=}: {read:.0f} rows"
    await db.close()
