"""Two million ready tasks in a few seconds: without the indexes first, then each index in one go, none of it logged."""

from typing import Any

import asyncpg

from app.store.vault import Vault

VAULT = Vault(bytes(32))

TASKS = 2_000_000
HISTORY = 200_000
QUEUES = 20

# Autovacuum would analyze what is meant to stay unknown.
_ALONE = """
do $$ declare v_table text; begin
  for v_table in select c.oid::regclass from pg_class c where c.relnamespace = 'sluice'::regnamespace and c.relkind = 'r' loop
    execute format('alter table %s set (autovacuum_enabled = false)', v_table);
  end loop;
end $$
"""

_DEFINITIONS = """
insert into sluice.handlers (tenant_id, name, url, timeout_seconds, targets, sealed_headers, etag, sealed_secret)
select id, 'hook', 'https://example.com', 30, 'own', '', '', '' from sluice.tenants;
insert into sluice.queues (tenant_id, name, handler_id, retry, max_attempts, idempotency_seconds, succeeded_days, cancelled_days,
                           dead_days, etag)
select h.tenant_id, 'q' || n, h.id, '{}', 25, 86400, 3, 3, 30, '' from sluice.handlers h, generate_series(1, %(queues)s) n;
insert into sluice.lanes (queue_id, handler_id) select id, 0 from sluice.queues;
"""

# Every tenth has a unique key, every tenth is in a batch of a hundred.
_COLUMNS = "id, tenant_id, queue_id, state, priority, run_at, created_at, payload, unique_key, batch_id"
_ROW = """
('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, q.tenant_id, q.id, {state}, n %% 3,
clock_timestamp() + make_interval(secs => (n - {many}) * 0.001 + case when n %% 9 = 0 then 86400 else 0 end),
clock_timestamp(), '\\x6e756c6c', case when n %% 10 = 0 then 'unique ' || n end,
case when n %% 10 = 1 then ('00000000-0000-7000-9000-' || lpad(to_hex(n / 1000), 12, '0'))::uuid end
"""
_FROM = "from generate_series({first}, {last}) n join sluice.queues q on q.name = 'q' || (1 + n %% %(queues)s)"

# What statistics remember: a handful of tasks, all of them running.
_BEFORE = (
    f"insert into sluice.tasks ({_COLUMNS}, lease_token, lease_expires_at) select "
    + _ROW.format(state=1, many=TASKS)
    + ", gen_random_uuid(), clock_timestamp() "
    + _FROM.format(first=1, last=500)
    + "; analyze; delete from sluice.tasks"
)

# Every ninth waits for a time to come.
_WAITING = (
    f"insert into sluice.tasks ({_COLUMNS}) select "
    + _ROW.format(state="case when n %% 9 = 0 then 2 else 0 end", many=TASKS)
    + _FROM.format(first=1, last=TASKS)
)

_ENDED = (
    f"insert into sluice.task_history ({_COLUMNS}, handler_id, kept_until, ended_at, attempt, claims, last_token) select "
    + _ROW.format(state="3 + n %% 3", many=TASKS)
    + ", 0, clock_timestamp() + make_interval(days => (1 + n / 3 %% 3)::integer), clock_timestamp(), 2, 2, gen_random_uuid() "
    + _FROM
)

# An earlier attempt of some that wait for their time, and of all that have ended.
_EARLIER = """
insert into sluice.attempts (task_id, number, token, counted, started_at, outcome)
select id, 1, id, true, clock_timestamp(), 'failed' from sluice.tasks where state = 2 and id > '{middle}';
insert into sluice.attempt_history (task_id, number, kept_until, token, counted, started_at, outcome)
select id, 1, kept_until, id, true, clock_timestamp(), 'failed' from sluice.task_history
"""

# The batches, and for a quarter of all tasks the keys of their follow-ups and of enqueues.
_KEYS = """
insert into sluice.batches (id, tenant_id, queue_id, sealed, total)
select ('00000000-0000-7000-9000-' || lpad(to_hex(n), 12, '0'))::uuid, q.tenant_id, q.id, true, 100
from generate_series(0, {batches}) n join sluice.queues q on q.name = 'q1';
insert into sluice.followup_keys (batch_id, root_id, queue_id, key)
select t.batch_id, t.batch_id, t.queue_id, t.id::text from sluice.tasks t where t.batch_id is not null and t.id > '{middle}';
insert into sluice.idempotency_keys (queue_id, key, fingerprint, task_id, expires_at)
select t.queue_id, t.unique_key, '', t.id, clock_timestamp() + interval '1 day' from sluice.tasks t
where t.unique_key is not null and t.id > '{middle}'
"""

# Two hours of calls of 50 handlers, one of which is there.
_CALLS = """
insert into sluice.handler_calls (handler_id, second, period, calls, failures, pushed_back, found_full, durations)
select h.id - n % 50, floor(extract(epoch from statement_timestamp()))::bigint + 300 - n / 50, 0, 9, 3, 1, false, array[1, 2, 3]
from sluice.handlers h, generate_series(0, 50 * 7200) n;
insert into sluice.handler_health (handler_id, health, look_at)
select h.id - n, '{}', case when n % 1000 = 0 then clock_timestamp() end from sluice.handlers h, generate_series(0, 5000) n;
"""

# As after an analyze of an almost empty table that had been large: as many pages as there are, a few rows in all of them.
_STALE = """
update pg_class c set reltuples = 500, relpages = pg_relation_size(c.oid) / 8192
where c.oid = 'sluice.tasks'::regclass or c.oid in (select indexrelid from pg_index where indrelid = 'sluice.tasks'::regclass)
"""

_INDEXES = """
select i.indexrelid::regclass::text as name, pg_get_indexdef(i.indexrelid) as definition, k.conname as key,
       pg_get_constraintdef(k.oid) as key_definition
from pg_index i left join pg_constraint k on k.conindid = i.indexrelid and k.contype = 'p'
where i.indrelid = 'sluice.tasks'::regclass
"""


async def load(connection: "asyncpg.Connection[Any]") -> None:
    """Tasks 1 to TASKS are live, those from there on have ended; statistics know of 500 running ones, and of less history."""
    run = connection.execute
    given = {"queues": QUEUES}
    await run(_ALONE)
    await run(_DEFINITIONS % given)
    await run("set synchronous_commit = off; set maintenance_work_mem = '512MB'; alter table sluice.tasks set unlogged")
    await run(_BEFORE % given)
    indexes = await connection.fetch(_INDEXES)
    for index in indexes:
        if index["key"]:
            await run(f"alter table sluice.tasks drop constraint {index['key']}")
        else:
            await run(f"drop index {index['name']}")
    await run(_WAITING % given)
    for index in indexes:
        if index["key"]:
            await run(f"alter table sluice.tasks add constraint {index['key']} {index['key_definition']}")
        else:
            await run(index["definition"])
    await run("vacuum (analyze false, index_cleanup off) sluice.tasks")
    await run(_STALE)
    await run(_KEYS.format(middle=task_id(TASKS * 3 // 4), batches=(TASKS + HISTORY) // 1000))
    await run(_ENDED.format(first=TASKS + 1, last=TASKS + HISTORY // 100) % given + "; analyze sluice.task_history")
    await run(_ENDED.format(first=TASKS + HISTORY // 100 + 1, last=TASKS + HISTORY) % given)
    await run(_CALLS)
    await run(_EARLIER.format(middle=task_id(TASKS // 2)))
    await run("vacuum (analyze false) sluice.task_history")


def task_id(number: int) -> str:
    return f"00000000-0000-7000-8000-{number:012x}"


def batch_id(number: int) -> str:
    """The batch of the tasks from 1000 times this number on."""
    return f"00000000-0000-7000-9000-{number:012x}"
