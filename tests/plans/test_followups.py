"""Follow-up work keeps its index plans: pages, folds, the forgetting of keys, and the list of one batch among many others.

Called seven times on one connection, so that custom and generic plans are seen, on statistics from before there was anything.
"""

import itertools
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from app.store import batches, enqueues, migrations, pruning, task_lists, tasks
from app.store.batches import Completion
from app.store.db import READING
from app.store.enqueues import Entry
from app.store.task_lists import TaskQuery
from app.store.tasks import AttemptEnd, Claimed, LaneWant
from tests.databases import create_database, drop_database
from tests.plans.loading import VAULT
from tests.plans.plans import WatchedDatabase

pytestmark = [pytest.mark.ci, pytest.mark.anyio, pytest.mark.timeout(120)]

CALLS, GROUP, QUEUES = 7, 40, 10
OTHERS = 100_000
MOST_ROWS = 1500
"""What one node of a plan may read of any table: some pages, two orders of magnitude below the tables."""
LISTED = "01900000-0000-7000-8000-00000000ffff"

_ALONE = """
analyze;
do $$ declare v_table text; begin
  for v_table in select c.oid::regclass from pg_class c where c.relnamespace = 'sluice'::regnamespace and c.relkind = 'r' loop
    execute format('alter table %s set (autovacuum_enabled = false)', v_table);
  end loop;
end $$
"""
_DEFINITIONS = f"""
insert into sluice.queues (tenant_id, name, retry, max_attempts, idempotency_seconds, succeeded_days, cancelled_days,
                           dead_days, etag)
select id, 'q' || n, '{{}}', 25, 86400, 3, 3, 30, '' from sluice.tenants, generate_series(1, {QUEUES}) n;
insert into sluice.lanes (queue_id, handler_id) select id, 0 from sluice.queues
"""
_ID = "('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid"
_COLUMNS = "id, tenant_id, queue_id, state, priority, run_at, created_at, payload, batch_id"
# most of no batch, some of one, and a batch with a few in each queue that are older than all others
_ROW = f"""
{_ID}, q.tenant_id, q.id, 2, 0, '2100-01-01', clock_timestamp(), '\\x6e756c6c',
case when n <= 100 then '{LISTED}'::uuid when n % 50 = 0 then '{uuid4()}'::uuid end
from generate_series(1, {OTHERS}) n join sluice.queues q on q.name = 'q' || (1 + n % {QUEUES})
"""
_OTHERS = f"""
insert into sluice.tasks ({_COLUMNS}) select {_ROW};
insert into sluice.task_history ({_COLUMNS}, handler_id, kept_until, ended_at, attempt, claims)
select id, tenant_id, queue_id, 4, priority, run_at, created_at, payload, batch_id, 0,
       clock_timestamp() + interval '1 day', now(), 1, 1
from sluice.tasks;
insert into sluice.followup_keys (batch_id, root_id, queue_id, key)
select {_ID}, {_ID}, n % {QUEUES}, n from generate_series(1, {OTHERS}) n;
insert into sluice.batches (id, tenant_id, queue_id, sealed, total, keys_until, kept_until)
select {_ID}, 1, 1, true, 1, '2100-01-01', '2100-01-01' from generate_series(1, {OTHERS} / 10) n
"""


@pytest.fixture
async def db(server_url: str) -> AsyncIterator[WatchedDatabase]:
    url = await create_database(server_url, f"sluice_plans_{uuid4().hex}")
    await migrations.migrate(url)
    connection = await asyncpg.connect(url)
    await connection.execute("set synchronous_commit = off")
    for sql in (_DEFINITIONS, _ALONE, _OTHERS):
        await connection.execute(sql)
    await connection.close()
    db = await WatchedDatabase.on(url, **READING)
    yield db
    await db.close()
    await drop_database(server_url, url.partition("?")[0].rpartition("/")[2])


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def problems(db: WatchedDatabase) -> set[str]:
    """What was read of a table that grows with it."""
    found = set()
    for told in db.told():
        for node in nodes(told.plan):
            read = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
            name = node.get("Relation Name", node.get("Index Name"))
            if name and read > MOST_ROWS:
                query = " ".join(told.query.split())[:80]
                found.add(f"{node['Node Type']} on {name} by {node.get('Index Name')} read {read:.0f} rows: {query}")
    return found


class Pages:
    def __init__(self, db: WatchedDatabase, queues: list[tuple[int, int]], tenant: int) -> None:
        self.db, self.queues, self.tenant = db, queues, tenant
        self.numbers = itertools.count(1)

    async def root(self) -> Claimed:
        entry = Entry(str(uuid4()), *self.queues[0], 0, b"null", None, None, None)
        await enqueues.enqueue(self.db, str(uuid4()), [entry])
        (claim,) = await tasks.claim(
            self.db,
            [LaneWant(self.queues[0][0], 0, 1)],
            owner=None,
            replica="replica",
            claim_id=str(uuid4()),
            not_after=datetime.now(UTC) + timedelta(hours=1),
            lease_seconds=60,
            pull=True,
        )
        return claim.tasks[0]

    def entries(self) -> list[Entry]:
        """New keys each time, some with a unique key."""
        call = next(self.numbers)
        made = []
        for n in range(GROUP):
            unique = f"f {call} {n}" if n % 5 == 0 else None
            made.append(Entry(str(uuid4()), *self.queues[1 + n % 3], 0, b"null", f"{call} {n}", None, unique))
        return made

    async def settle(self) -> None:
        """A page, the same once more, the folds of its batch until that has completed, and the end of its keys."""
        root = await self.root()
        outcome, then = (
            AttemptEnd(root.task_id, root.token, "succeeded", "succeeded"),
            Completion(*self.queues[4], b"digest", b"1"),
        )
        entries = self.entries()
        followed = await batches.settle_followups(self.db, outcome, entries, "next", then)
        assert followed.verdict == "applied" and sum(followed.created.values()) == GROUP
        assert (await batches.settle_followups(self.db, outcome, entries, "next", then)).verdict == "repeat"
        assert (await batches.fold(self.db, 200)).completed == []
        rows = await self.db.fetch("select id from sluice.tasks where batch_id = $1", root.task_id)
        assert len(await tasks.cancel(self.db, self.tenant, [str(row[0]) for row in rows], "requested")) == GROUP + 1
        assert (await batches.fold(self.db, 200)).completed == [root.task_id]
        due = f"keys_until = '2000-01-01', kept_until = '2000-01-01' where id = '{root.task_id}'"
        await self.db.unwatched(f"update sluice.batches set {due}")
        assert await pruning.followup_keys(self.db) == GROUP + 1

    async def list_one(self, **fields: Any) -> None:
        ids = [queue_id for queue_id, _ in self.queues]
        query = TaskQuery(
            self.tenant, queue_ids=ids, before=None, limit=50, include_payload=False, batch=LISTED, **fields
        )
        assert len((await task_lists.list_page(self.db, VAULT, query)).items) == 50


async def test_follow_up_work_keeps_its_index_plans_beside_other_batches(db: WatchedDatabase) -> None:
    queues = [tuple(row) for row in await db.fetch("select id, version from sluice.queues order by id")]
    pages = Pages(db, queues, await db.fetchval("select id from sluice.tenants"))
    db.told()
    found: set[str] = set()
    for _ in range(CALLS):
        await pages.settle()
        found |= problems(db)
    assert not found, "\n".join(sorted(found))


@pytest.mark.parametrize("fields", [{}, {"state": "scheduled"}, {"state": "dead"}])
async def test_the_list_of_a_batch_reads_that_batch_alone(db: WatchedDatabase, fields: dict[str, Any]) -> None:
    queues = [tuple(row) for row in await db.fetch("select id, version from sluice.queues order by id")]
    pages = Pages(db, queues, await db.fetchval("select id from sluice.tenants"))
    db.told()
    for _ in range(CALLS):
        await pages.list_one(**fields)
    found = problems(db)
    assert not found, "\n".join(sorted(found))
