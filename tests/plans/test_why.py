"""What `why` and lists of waiting tasks read is bounded, in a queue of 200,000 ready tasks and on outdated statistics."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from app.domain.waiting import WaitingFor
from app.domain.why import MAX_AHEAD
from app.store import migrations, views, why
from app.store.db import READING
from tests.databases import create_database, drop_database
from tests.plans.loading import VAULT
from tests.plans.plans import WatchedDatabase

pytestmark = [pytest.mark.ci, pytest.mark.anyio, pytest.mark.timeout(120)]

TASKS, RUNNING, CALLS = 200_000, 3_000, 7
MOST_ROWS = 1_500
"""What one node may read, but for the count of those that come first and what runs, which limits bound."""
LEVELS = (WaitingFor.GLOBAL_LIMIT, WaitingFor.HANDLER_LIMIT, WaitingFor.QUEUE_LIMIT)

_ROWS = f"""
insert into sluice.tenants (name) values ('acme');
insert into sluice.handlers (tenant_id, name, url, timeout_seconds, sealed_headers, sealed_secret, etag, max_concurrency)
select id, 'h', 'http://h', 30, '', '', '', {RUNNING} from sluice.tenants where name = 'acme';
insert into sluice.queues (tenant_id, name, handler_id, retry, max_attempts, idempotency_seconds, succeeded_days, cancelled_days,
                           dead_days, etag, max_concurrency)
select n.id, 'q' || g, h.id, '{{}}', 25, 86400, 3, 3, 30, '', {RUNNING}
from sluice.tenants n join sluice.handlers h on h.tenant_id = n.id, generate_series(1, 20) g where n.name = 'acme';
analyze;
insert into sluice.tasks (id, tenant_id, queue_id, state, priority, run_at, created_at, payload)
select ('00000000-0000-7000-9000-' || lpad(to_hex(n), 12, '0'))::uuid, q.tenant_id, q.id, 0, 0,
       clock_timestamp() - make_interval(secs => {TASKS} - n), clock_timestamp(), '\\x6e756c6c'
from generate_series(1, {TASKS}) n join sluice.queues q on q.name = case when n % 100 = 0 then 'q2' else 'q1' end;
insert into sluice.tasks (id, tenant_id, queue_id, state, priority, run_at, created_at, payload)
select ('00000000-0000-7000-a000-' || lpad(to_hex(n), 12, '0'))::uuid, q.tenant_id, q.id, 2, 0,
       clock_timestamp() + interval '1 hour', clock_timestamp(), '\\x6e756c6c'
from generate_series(1, 50000) n join sluice.queues q on q.name = 'q1';
insert into sluice.tasks (id, tenant_id, queue_id, state, priority, run_at, created_at, payload, claims, lease_token,
                          lease_handler_id, lease_expires_at, last_started_at)
select ('00000000-0000-7000-b000-' || lpad(to_hex(n), 12, '0'))::uuid, q.tenant_id, q.id, 1, 0, clock_timestamp(),
       clock_timestamp(), '\\x6e756c6c', 1, gen_random_uuid(), q.handler_id, clock_timestamp() + interval '1 hour',
       clock_timestamp()
from generate_series(1, {RUNNING}) n join sluice.queues q on q.name = 'q1'
"""


@pytest.fixture
async def loaded(server_url: str) -> AsyncIterator[str]:
    url = await create_database(server_url, f"sluice_plans_{uuid4().hex}")
    await migrations.migrate(url)
    connection = await asyncpg.connect(url)
    await connection.execute("set synchronous_commit = off")
    for sql in _ROWS.split(";\n"):
        await connection.execute(sql)
    await connection.close()
    yield url
    await drop_database(server_url, url.partition("?")[0].rpartition("/")[2])


async def test_what_is_said_of_waiting_tasks_reads_little(loaded: str) -> None:
    db = await WatchedDatabase.on(loaded, **READING)
    (row,) = await db.fetch("select id, tenant_id from sluice.queues where name = 'q1'")
    queue_id, tenant_id, now = row["id"], row["tenant_id"], datetime.now(UTC)
    last = f"00000000-0000-7000-9000-{TASKS - 1:012x}"
    page = [f"00000000-0000-7000-9000-{TASKS - n:012x}" for n in range(1, 51)]

    async def explained(task_id: str) -> Any:
        found = await why.find(db, VAULT, tenant_id, task_id)
        assert found is not None and found[1] is not None and found[1].behind
        return await why.evidence(db, tenant_id, found[1], found[2], LEVELS, now)

    assert (await explained(last)).ahead == MAX_AHEAD
    held = (await explained(last)).holders
    assert {code: len(tasks) for code, tasks in held.items()} == dict.fromkeys(LEVELS, 20)
    assert (await why.flow_of(db, tenant_id, queue_id, now)).ready == TASKS * 99 // 100
    calls: dict[str, tuple[Callable[[], Awaitable[object]], float]] = {
        "a task": (lambda: why.find(db, VAULT, tenant_id, last), RUNNING + MOST_ROWS),
        "evidence": (lambda: explained(last), MAX_AHEAD + MOST_ROWS),
        "heads": (lambda: why.heads(db, tenant_id, queue_id), 2 * RUNNING + MOST_ROWS),
        # limits of three levels are counted for each task of a page, as before
        "a page": (
            lambda: views.show_tasks(db, VAULT, [tenant_id, page], ["t.tenant_id = $1"], [], payloads=False),
            3 * len(page) * RUNNING,
        ),
    }
    too_much: list[str] = []
    for name, (call, most) in calls.items():
        db.told()
        for _ in range(CALLS):
            await call()
            too_much += [f"{name}: {problem}" for told in db.told() for problem in told.problems(most)]
    db.told()
    await calls["a page"][0]()
    probes = [
        node["Actual Loops"] for told in db.told() for node in told.nodes() if node.get("Index Name") == "tasks_ready"
    ]
    assert probes == [1], "the head of a lane is looked for once, however many tasks of it a page shows"
    await db.close()
    assert not too_much, "\n".join(sorted(set(too_much)))
