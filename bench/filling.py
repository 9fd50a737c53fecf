"""Rows written straight into Sluice's tables, where millions are needed: copies of one that Sluice wrote itself."""

from typing import Any

import asyncpg

from bench.ground import QUEUE
from bench.subject import PAYLOAD, Subject

FAR_SECONDS = 30 * 86_400
CHUNK = 1_000_000

_COLUMNS = """
select array_agg(quote_ident(attname) order by attnum) from pg_attribute
where attrelid = $1::regclass and attnum > 0 and not attisdropped and attidentity = ''
"""
# in the order of s, as those that are made one after the other are
_ID = "(lpad(to_hex((extract(epoch from r.created_at) * 1000)::bigint + s), 12, '0') || '7' || substr(md5(s::text), 1, 19))::uuid"


async def copies(database: asyncpg.Connection, table: str, where: str, key: Any, count: int, **changed: str) -> None:
    """Insert `count` copies of the row `r` of `table` for which `where` holds with `key` as $1, but for these columns.

    All are SQL; in `changed`, `s` counts the copies from 1.
    """
    columns = await database.fetchval(_COLUMNS, table)
    values = ", ".join(changed.get(column, f"r.{column}") for column in columns)
    for begin in range(0, count, CHUNK):
        await database.execute(
            f"insert into {table} ({', '.join(columns)}) select {values} "
            f"from {table} r cross join generate_series({begin + 1}, {min(begin + CHUNK, count)}) s where {where}",
            key,
        )


async def idle_queues(subject: Subject, count: int) -> None:
    """Queues idle-1 to idle-N, each like the subject's own."""
    database = subject.database
    await copies(database, "sluice.queues", "r.name = $1", QUEUE, count, name="'idle-' || s")
    await database.execute(
        "insert into sluice.lanes select id, 0 from sluice.queues where name like 'idle-%' on conflict do nothing"
    )
    await database.execute("vacuum (analyze) sluice.queues, sluice.lanes")


async def delayed_tasks(subject: Subject, count: int, queues: int) -> None:
    """Tasks that are due in a month, in the idle queues."""
    task = await subject.ask("POST", "/queues/idle-1/tasks", {"payload": PAYLOAD, "delay_seconds": FAR_SECONDS})
    first = await subject.database.fetchval("select id from sluice.queues where name = 'idle-1'")
    await _tasks(
        subject, task["id"], count, queue_id=f"{first} + s % {queues}", run_at="r.run_at + s * interval '1 ms'"
    )


async def ready_tasks(subject: Subject, count: int, queue: str = QUEUE, key: str | None = None) -> None:
    """Ready tasks in a queue that delivers nothing yet."""
    task = await subject.ask("POST", f"/queues/{queue}/tasks", {"payload": PAYLOAD, "key": key})
    # without triggers: the copies are in the flow of the first, which has joined it and was signalled
    await subject.database.execute("set session_replication_role = replica")
    await _tasks(subject, task["id"], count, run_at="r.run_at + s * interval '1 us'")
    await subject.database.execute("reset session_replication_role")


async def _tasks(subject: Subject, task_id: str, count: int, **changed: str) -> None:
    await copies(subject.database, "sluice.tasks", "r.id = $1", task_id, count, id=_ID, **changed)
    await _settle_down(subject.database, "sluice.tasks")


async def history(subject: Subject, count: int, days: int, kept_until: str = "r.kept_until") -> None:
    """Tasks that have ended like the first one there, whose retention ends on so many days."""
    task_id, until = await subject.database.fetchrow("select id, kept_until::text from sluice.task_history limit 1")
    # that may be a copy itself, of which one with the same id is made for another day
    where = f"r.id = $1 and r.kept_until = '{until}'"
    spread = f"{kept_until} - (s % {days}) * interval '1 day'"
    await copies(subject.database, "sluice.task_history", where, task_id, count, id=_ID, kept_until=spread)
    await _settle_down(subject.database, "sluice.task_history")


async def _settle_down(database: asyncpg.Connection, table: str) -> None:
    """What the machine still has to do for so many rows would fall on what is measured next."""
    await database.execute(f"vacuum (analyze, freeze) {table}")
    await database.execute("checkpoint")
