"""What limits and keys add to enqueues and reads keeps its index plans beside 100,000 tasks, on statistics of an empty table."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from app.domain.limits import LimitDefinition
from app.store import enqueues, limit_uses, limits, migrations, stats, tasks, views
from app.store.db import READING
from app.store.enqueues import Entry
from app.store.limits import StoredLimit
from tests.databases import create_database, drop_database
from tests.plans.loading import VAULT
from tests.plans.plans import WatchedDatabase

pytestmark = [pytest.mark.ci, pytest.mark.anyio, pytest.mark.timeout(120)]

CALLS, TASKS, KEYS = 7, 100_000, 1_000
MOST_ROWS = 500
"""What one node of a plan may read of any table: the tasks of a few keys."""

_ALONE = """
analyze;
do $$ declare v_table text; begin
  for v_table in select c.oid::regclass from pg_class c where c.relnamespace = 'sluice'::regnamespace and c.relkind = 'r' loop
    execute format('alter table %s set (autovacuum_enabled = false)', v_table);
  end loop;
end $$
"""
_QUEUES = """
insert into sluice.queues (tenant_id, name, retry, max_attempts, idempotency_seconds, succeeded_days, cancelled_days,
                           dead_days, etag)
select id, 'q' || n, '{}', 25, 86400, 3, 3, 30, '' from sluice.tenants, generate_series(1, 2) n;
insert into sluice.lanes (queue_id, handler_id) select id, 0 from sluice.queues;
insert into sluice.limits (tenant_id, kind, owner_id, max_depth) select tenant_id, 'queue_key', id, 1000000 from sluice.queues;
insert into sluice.limits (tenant_id, kind, name, keyed, max_concurrency)
select id, 'named', 'l' || n, n = 1, 5 from sluice.tenants, generate_series(1, 3) n
"""
# half of them plain; of the others each has one of the keys, and one in two names a limit
_TASKS = f"""
insert into sluice.tasks (id, tenant_id, queue_id, state, priority, run_at, created_at, payload, options, lease_token, gated)
select ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, q.tenant_id, q.id,
  case when n <= 40 then 1 when n % 4 < 2 then 2 else 0 end, 0, clock_timestamp(), clock_timestamp(), '\\x31',
  case when n % 2 = 0 then jsonb_build_object('key', 'k' || n / 2 % {KEYS}) || case when n % 4 = 0
    then jsonb_build_object('limits', jsonb_build_array(jsonb_build_object('name', 'l' || 1 + n / 4 % 2))) else '{{}}' end end,
  case when n <= 40 then gen_random_uuid() end, n <= 40
from generate_series(1, {TASKS}) n join sluice.queues q on q.name = 'q' || 1 + n % 2
"""  # ours


def task_id(number: int) -> str:
    return f"00000000-0000-7000-8000-{number:012x}"


@pytest.fixture
async def loaded(server_url: str) -> AsyncIterator[str]:
    url = await create_database(server_url, f"sluice_plans_{uuid4().hex}")
    await migrations.migrate(url)
    connection = await asyncpg.connect(url)
    for statement in (_ALONE, _QUEUES, "set synchronous_commit = off", _TASKS):
        await connection.execute(statement)
    await connection.close()
    yield url
    await drop_database(server_url, url.partition("?")[0].rpartition("/")[2])


async def stored(db: WatchedDatabase, tenant: int, name: str) -> StoredLimit:
    limit_id = await limits.id_of(db, tenant, name)
    assert limit_id is not None
    row = await limits.read(db, limit_id)
    assert row is not None and row.view.definition == LimitDefinition(max_concurrency=5, keyed=name == "l1")
    return row


async def test_what_limits_and_keys_add_keeps_its_index_plans(loaded: str) -> None:
    db, reads = await WatchedDatabase.on(loaded), await WatchedDatabase.on(loaded, **READING)
    queues: list[Any] = await db.fetch("select id, version from sluice.queues order by id")
    tenant = await db.fetchval("select id from sluice.tenants")
    keyed, shared = await stored(db, tenant, "l1"), await stored(db, tenant, "l2")
    queue_id, version = queues[0]

    async def enqueue(n: int) -> None:
        options = f'{{"key": "k{n}", "limits": [{{"name": "l1"}}]}}'
        entries = [Entry(str(uuid4()), queue_id, version, 0, b"1", None, None, options=options) for _ in range(20)]
        assert (await enqueues.enqueue(db, str(uuid4()), entries)).verdicts == {}

    async def patch(n: int) -> None:
        options = f'{{"key": "k{n + 1}", "limits": [{{"name": "l2"}}]}}'
        waiting = task_id(TASKS // 2 + 4 * n + 1)
        assert await tasks.update(db, tenant, waiting, queues[1][1], "{}", options, None, None, "{}") == "done"

    async def read(n: int) -> None:
        task = await views.find_task(reads, VAULT, tenant, task_id(TASKS // 2 + 4 * n + 2))
        assert task is not None and task.key is not None

    async def use(n: int) -> None:
        [found, _] = await limit_uses.use_of(reads, tenant, [keyed, shared])
        assert found.holding == 5
        assert len(await limit_uses.list_keys(reads, tenant, keyed, None, None, 200)) == 5
        assert (await limit_uses.show_key(reads, tenant, keyed, f"k{n}"))[0].key == f"k{n}"

    async def key_of_queue(n: int) -> None:
        _, _, waiting = await limit_uses.show_queue_key(reads, tenant, queue_id, f"k{n + 100}", None)
        assert waiting == TASKS // 2 // KEYS

    async def user(n: int) -> None:
        assert await limits.user_of(db, tenant, "l3") is None
        assert await limits.user_of(db, tenant, "l1") == "an unfinished task"

    problems: dict[str, set[str]] = {}
    for call in (enqueue, patch, read, use, key_of_queue, user):
        db.told(), reads.told()
        for n in range(CALLS):
            await call(n)
        for told in [*db.told(), *reads.told()]:
            for problem in told.problems(MOST_ROWS):
                problems.setdefault(f"{call.__name__}: {problem}", set()).add(" ".join(told.query.split())[:100])
    # it counts what is ready, from an index alone
    counted = await stats.count_keys(reads, queue_id)
    assert counted.waiting == 0, "no claim has looked at them"
    await limit_uses.overview(reads, 100)
    for told in reads.told():
        for problem in told.problems(float("inf")):
            problems.setdefault(f"statistics: {problem}", set()).add(" ".join(told.query.split())[:100])
    await db.close()
    await reads.close()
    assert not problems, "\n".join(f"{problem}\n    {', '.join(queries)}" for problem, queries in problems.items())
