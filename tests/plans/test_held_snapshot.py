"""Claims and outcomes find their tasks one by one beside a held snapshot, where statistics say few tasks, many pages.

A transaction that idles keeps the index entries of all tasks that have ended since. An analyze then finds few tasks in an index of
many pages, and to the planner walking all of it looks cheaper than a few probes of a third of it each.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest

from app.store import migrations, tasks
from app.store.tasks import AttemptEnd, LaneWant
from tests.databases import create_database, drop_database
from tests.plans.plans import WatchedDatabase

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

CALLS, GROUP, ENDED = 7, 10, 20_000

_DEFINITIONS = """
alter table sluice.tasks set (autovacuum_enabled = false);
insert into sluice.handlers (tenant_id, name, url, timeout_seconds, sealed_headers, etag, sealed_secret)
select id, 'hook', 'https://example.com', 30, '', '', '' from sluice.tenants;
insert into sluice.queues (tenant_id, name, handler_id, retry, max_attempts, idempotency_seconds, succeeded_days, cancelled_days,
                           dead_days, etag)
select h.tenant_id, 'q', h.id, '{}', 25, 86400, 3, 3, 30, '' from sluice.handlers h;
insert into sluice.lanes (queue_id, handler_id) select id, 0 from sluice.queues
"""
_KEYED = """
insert into sluice.limits (tenant_id, kind, owner_id, max_concurrency) select tenant_id, 'queue_key', id, 1000 from sluice.queues;
update sluice.queues set flows = true
"""
_READY = """
insert into sluice.tasks (id, tenant_id, queue_id, state, priority, run_at, created_at, payload, options)
select ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, q.tenant_id, q.id, 0, 0, clock_timestamp(),
       clock_timestamp(), '\\x31', {options}
from generate_series({first}, {last}) n, sluice.queues q
"""


@pytest.fixture
async def url(server_url: str) -> AsyncIterator[str]:
    url = await create_database(server_url, f"sluice_plans_{uuid4().hex}")
    await migrations.migrate(url)
    yield url
    await drop_database(server_url, url.partition("?")[0].rpartition("/")[2])


@pytest.mark.parametrize("keyed", [False, True], ids=["plain", "keyed"])
async def test_no_claim_and_no_outcome_walks_an_index_beside_a_held_snapshot(url: str, keyed: bool) -> None:
    options = "jsonb_build_object('key', 'k' || n % 3)" if keyed else "null"
    holder, other = await asyncpg.connect(url), await asyncpg.connect(url)
    try:
        await other.execute(_DEFINITIONS)
        if keyed:
            await other.execute(_KEYED)
        await other.execute(_READY.format(first=1, last=ENDED, options="null"))
        await holder.execute("begin isolation level repeatable read; select 1 from sluice.queues")
        await other.execute("delete from sluice.tasks where id > $1", "00000000-0000-7000-8000-000000000001")
        await other.execute("vacuum analyze sluice.tasks")
        assert await other.fetchval("select reltuples from pg_class where oid = 'sluice.tasks'::regclass") <= 1
        await other.execute(_READY.format(first=ENDED + 1, last=ENDED + CALLS * GROUP, options=options))
        queue_id = await other.fetchval("select id from sluice.queues")
        db = await WatchedDatabase.on(url)
        try:
            for _ in range(CALLS):
                (claim,) = await tasks.claim(
                    db,
                    [LaneWant(queue_id, 0, GROUP)],
                    owner=str(uuid4()),
                    replica="replica",
                    claim_id=str(uuid4()),
                    not_after=datetime.now(UTC) + timedelta(minutes=1),
                    lease_seconds=30,
                )
                assert len(claim.tasks) == GROUP
                kinds = ("hold", "retry", *["succeeded"] * (GROUP - 2))
                ends = [AttemptEnd(t.task_id, t.token, kind, kind) for t, kind in zip(claim.tasks, kinds, strict=True)]
                assert list((await tasks.settle(db, ends)).values()) == ["applied"] * GROUP
            told = db.told()
        finally:
            await db.close()
        walks = {
            (node["Index Name"], text.query[:60])
            for text in told
            for node in text.nodes()
            if node.get("Relation Name") == "tasks"
            and node["Node Type"].startswith("Index")
            and "Index Cond" not in node
        }
        assert not walks
    finally:
        await holder.close()
        await other.close()
