"""A task moves to history and back with everything it has: what a column of it is forgotten by, is found here."""

from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from app.store.db import Database
from app.store.tasks import AttemptEnd, cancel, retry, settle

pytestmark = pytest.mark.anyio

LEASE = {"lease_token", "lease_owner", "lease_claim", "lease_expires_at", "gated", "renewed_at"}
"""Only a running task has these."""
MADE = {"flow_id"}
"""Made of other columns."""
OF_THE_END = {"kept_until", "reason", "ended_at", "result", "result_format", "result_truncated", "callback"}
"""Only an ended task has these."""
MADE_ANEW = {"state", "run_at", "attempt"}
"""Given new values when a task comes back."""
SET_BY_A_SETTLE = {
    "last_ended_at",
    "last_outcome",
    "last_status",
    "last_message",
    "last_excerpt",
    "last_trace_id",
    "last_error",
}

TOKEN = "5b4a1f0e-0000-4000-8000-000000000000"
VALUES = {
    "uuid": "gen_random_uuid()",
    "bigint": "nextval('pg_temp.numbers')",
    "integer": "nextval('pg_temp.numbers')",
    "smallint": "7",
    "text": "'text ' || nextval('pg_temp.numbers')",
    "bytea": "'\\x31'",
    "boolean": "true",
    "jsonb": """'{"type": "t", "key": "k"}'""",
    "json": """'{"done": 1}'""",
    "timestamp with time zone": "clock_timestamp() + interval '1 hour'",
}


async def columns(connection: "asyncpg.Connection[Any]", table: str) -> dict[str, str]:
    rows = await connection.fetch(
        "select attname, format_type(atttypid, null) from pg_attribute"
        " where attrelid = $1::text::regclass and attnum > 0 and not attisdropped",
        f"sluice.{table}",
    )
    return dict(rows)


@pytest.fixture
async def db(database_url: str) -> Any:
    database = Database(database_url)
    await database.open(hold=False)
    yield database
    await database.close()


async def running(connection: "asyncpg.Connection[Any]") -> dict[str, Any]:
    """A running task with a value in every column."""
    await connection.execute("create temp sequence numbers start 100")
    queue = await connection.fetchval(
        "insert into sluice.queues (tenant_id, name, retry, max_attempts, idempotency_seconds, succeeded_days, cancelled_days,"
        " dead_days, etag) select id, 'q', '{}', 25, 86400, 3, 3, 30, '' from sluice.tenants returning id"
    )
    values = {name: VALUES[kind] for name, kind in (await columns(connection, "tasks")).items() if name not in MADE}
    values |= {
        "tenant_id": "(select id from sluice.tenants)",
        "queue_id": str(queue),
        "handler_id": "0",
        "state": "1",
        "claims": "1",
        "lease_token": f"'{TOKEN}'",
        "last_token": f"'{TOKEN}'",
    }
    row = await connection.fetchrow(
        f"insert into sluice.tasks ({', '.join(values)}) values ({', '.join(values.values())}) returning *"
    )
    assert all(value is not None for value in row.values())
    return dict(row)


async def test_every_column_of_a_task_is_in_history_or_of_its_lease(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        live, ended = await columns(connection, "tasks"), await columns(connection, "task_history")
    finally:
        await connection.close()
    assert live.keys() - ended.keys() == LEASE | MADE
    assert ended.keys() - live.keys() == OF_THE_END
    assert all(live[name] == ended[name] for name in live.keys() & ended.keys())


@pytest.mark.parametrize("way", ["settle", "cancel"])
async def test_a_task_comes_back_from_history_as_it_was(db: Database, database_url: str, way: str) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        before = await running(connection)
        task_id, tenant = str(before["id"]), before["tenant_id"]
        if way == "settle":
            outcome = AttemptEnd(
                task_id, str(before["lease_token"]), "dead", "failed", "fatal_status", 0.0, 400, "m", "e", b"r"
            )
            assert await settle(db, [outcome]) == {outcome.token: "applied"}
            said = {"last_outcome": "failed", "last_status": 400, "last_message": "m", "last_excerpt": "e",
                    "last_trace_id": None, "last_error": "m"}  # fmt: skip
        else:
            assert len(await cancel(db, tenant, [task_id], "requested")) == 1
            said = {"last_counted": False}
        history = dict(await connection.fetchrow("select * from sluice.task_history"))
        changed = MADE_ANEW | SET_BY_A_SETTLE | LEASE if way == "settle" else MADE_ANEW | LEASE | {
            "last_counted", "last_ended_at"}  # fmt: skip
        for name, value in before.items():
            if name not in changed | MADE:
                assert history[name] == value, f"{name} on the way to history"
        assert {name: history[name] for name in said} == said

        assert await retry(db, tenant, task_id) == "moved"
        after = dict(await connection.fetchrow("select * from sluice.tasks"))
        for name, value in history.items():
            if name not in MADE_ANEW | OF_THE_END:
                assert after[name] == value, f"{name} on the way back"
        assert (after["state"], after["attempt"]) == (0, 0)
        assert all(not after[name] for name in LEASE)
        assert after["flow_id"] == before["flow_id"]
        assert await connection.fetchval("select count(*) from sluice.task_history") == 0
    finally:
        await connection.close()


async def test_two_outcomes_under_one_token_in_a_group_end_a_task_once(db: Database, database_url: str) -> None:
    """A worker may send its answer twice at once: then the first one counts."""
    connection = await asyncpg.connect(database_url)
    try:
        task = await running(connection)
        given = str(task["id"]), str(task["lease_token"])
        outcomes = [
            AttemptEnd(*given, "succeeded", "succeeded"),
            AttemptEnd(*given, "dead", "failed", "stopped_by_worker"),
        ]
        outcomes.append(AttemptEnd(str(uuid4()), str(uuid4()), "succeeded", "succeeded"))
        assert await settle(db, outcomes) == {given[1]: "applied", outcomes[2].token: "unknown"}
        assert await connection.fetchval("select array_agg(state::integer) from sluice.task_history") == [3]
    finally:
        await connection.close()


@pytest.mark.parametrize("order", [1, -1])
async def test_a_hold_in_the_same_group_cannot_undo_the_completion_of_its_task(
    db: Database, database_url: str, order: int
) -> None:
    """A handler may complete the task while its answer, which holds the lease, is still being written."""
    connection = await asyncpg.connect(database_url)
    try:
        task = await running(connection)
        given = str(task["id"]), str(task["lease_token"])
        hold = AttemptEnd(*given, "hold", "held", delay_seconds=60.0, status=202)
        completed = AttemptEnd(*given, "succeeded", "succeeded", result=b"1", result_format="json")
        assert await settle(db, [hold, completed][::order]) == {given[1]: "applied"}
        assert await connection.fetchval("select result from sluice.task_history where id = $1", given[0]) == b"1"
        assert await connection.fetchval("select count(*) from sluice.tasks where id = $1", given[0]) == 0
    finally:
        await connection.close()
