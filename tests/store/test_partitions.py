"""The days of history, on a database of the test's own."""

import asyncio
from collections.abc import AsyncIterator
from datetime import date, timedelta

import asyncpg
import pytest

from app.domain.callers import Caller
from app.domain.conditions import ANY
from app.domain.queues import QueueDefinition, Retention
from app.engine.janitor import Janitor
from app.runtime.core import Core
from app.service import queues, sweeps, tasks
from app.store import partitions, views
from app.store.failures import PartitionMissing
from app.store.migrations import migrate
from app.store.numbers import Lock
from tests.cores import core_on, enqueue
from tests.support import poll

pytestmark = pytest.mark.anyio

PARENTS = ("task_history", "attempt_history")


@pytest.fixture
async def core(empty_database_url: str) -> AsyncIterator[Core]:
    await migrate(empty_database_url)
    async with core_on(empty_database_url) as core:
        yield core


@pytest.fixture
async def reader(empty_database_url: str, core: Core) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(empty_database_url)
    yield connection
    await connection.close()


async def today(core: Core) -> date:
    found: date = await core.db.fetchval("select (clock_timestamp() at time zone 'UTC')::date")
    return found


async def days(core: Core, parent: str) -> list[str]:
    rows = await core.db.fetch(
        "select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid "
        "where i.inhparent = $1::text::regclass and not i.inhdetachpending order by 1",
        f"sluice.{parent}",
    )
    return [row[0].removeprefix(f"{parent}_") for row in rows]


async def tables(core: Core, day: date) -> set[str]:
    rows = await core.db.fetch(
        "select relname from pg_class where relkind = 'r' and relname ~ ('_history_' || $1 || '$')", f"{day:%Y%m%d}"
    )
    return {row[0] for row in rows}


async def make_day(core: Core, day: date) -> None:
    """As the function makes them, which makes none of the past."""
    for parent in PARENTS:
        name = f"sluice.{parent}_{day:%Y%m%d}"
        await core.db.fetch(f"create table {name} (like sluice.{parent} including all)")
        await core.db.fetch(
            f"alter table sluice.{parent} attach partition {name} "
            f"for values from ('{day} 00:00+00') to ('{day + timedelta(days=1)} 00:00+00')"
        )


async def end_task(core: Core, kept_days: int) -> None:
    await core.db.fetch(
        "insert into sluice.task_history (id, kept_until, tenant_id, queue_id, handler_id, state, ended_at, priority, run_at, "
        "created_at, payload, attempt, claims) values (gen_random_uuid(), clock_timestamp() + make_interval(days => $1), "
        "1, 1, 0, 3, clock_timestamp(), 0, clock_timestamp(), clock_timestamp(), '', 1, 1)",
        kept_days,
    )


async def test_a_day_that_history_does_not_have_is_told_apart_in_any_language(core: Core) -> None:
    with pytest.raises(PartitionMissing):
        await end_task(core, 4000)


@pytest.mark.parametrize(
    ("definition", "last"),
    [
        (QueueDefinition(retention=Retention(succeeded_days=60)), 60),
        (QueueDefinition(retention=Retention(cancelled_days=61)), 61),
        (QueueDefinition(retention=Retention(dead_days=90)), 90),
        (QueueDefinition(idempotency_seconds=70 * 86_400), 70),
    ],
)
async def test_a_queue_that_keeps_longer_has_its_days_and_a_week_before_the_answer(
    core: Core, definition: QueueDefinition, last: int
) -> None:
    caller = Caller(1, "default", "manage")
    await queues.put(core, caller, "mail", QueueDefinition(), ANY)
    assert await days(core, "task_history") == await days(core, "attempt_history")
    await queues.put(core, caller, "mail", definition, ANY)
    wanted = f"{await today(core) + timedelta(days=last + 7):%Y%m%d}"
    for parent in PARENTS:
        assert wanted in await days(core, parent)
    await end_task(core, last)


async def test_the_daily_job_goes_on_from_what_is_there(core: Core) -> None:
    caller = Caller(1, "default", "manage")
    await queues.put(core, caller, "mail", QueueDefinition(retention=Retention(dead_days=40)), ANY)
    before = await days(core, "task_history")
    assert await partitions.ensure_ahead(core.db) == 0
    for parent in PARENTS:
        await core.db.fetch(f"drop table sluice.{parent}_{before[-1]}")
    made = await asyncio.gather(*(partitions.ensure_ahead(core.db) for _ in range(3)))
    assert sum(made) == 2
    assert await days(core, "task_history") == before


async def test_only_days_that_have_passed_are_dropped(core: Core) -> None:
    now = await today(core)
    ahead = await days(core, "task_history")
    await make_day(core, now - timedelta(days=2))
    await make_day(core, now - timedelta(days=3))
    await partitions.drop_expired(core.db)
    assert await days(core, "task_history") == await days(core, "attempt_history") == ahead
    assert await tables(core, now - timedelta(days=2)) == set()


async def test_a_long_read_of_history_holds_up_the_drop_and_nothing_else(
    core: Core, reader: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The detach is left half done, and finished by the next run."""
    monkeypatch.setattr(partitions, "LOCK_TIMEOUT_MS", 300)
    now = await today(core)
    old, older = now - timedelta(days=2), now - timedelta(days=3)
    await make_day(core, old)
    await make_day(core, older)
    reading = reader.transaction()
    await reading.start()
    await reader.fetch("select count(*) from sluice.task_history")

    dropping = asyncio.create_task(partitions.drop_expired(core.db))
    await poll(lambda: core.db.fetchval("select count(*) from pg_inherits where inhdetachpending"))
    async with asyncio.timeout(0.25):
        await end_task(core, 1)
        await core.db.fetch("select id from sluice.task_history where id = gen_random_uuid()")
    await dropping
    assert f"task_history_{older:%Y%m%d}" in await tables(core, older)
    assert f"task_history_{old:%Y%m%d}" in await tables(core, old)

    await reading.rollback()
    await partitions.drop_expired(core.db)
    assert await tables(core, old) == await tables(core, older) == set()


async def test_a_day_detached_by_a_replica_that_died_is_dropped(core: Core) -> None:
    old = await today(core) - timedelta(days=2)
    await make_day(core, old)
    await core.db.fetch(f"alter table sluice.task_history detach partition sluice.task_history_{old:%Y%m%d}")
    assert await partitions.drop_expired(core.db) == 2
    assert await tables(core, old) == set()


async def test_one_replica_drops_at_a_time(core: Core, reader: asyncpg.Connection) -> None:
    await make_day(core, await today(core) - timedelta(days=2))
    await reader.fetch("select pg_advisory_lock($1)", Lock.DROP_PARTITIONS)
    assert await partitions.drop_expired(core.db) == 0
    await reader.fetch("select pg_advisory_unlock($1)", Lock.DROP_PARTITIONS)
    assert await partitions.drop_expired(core.db) == 2


async def forget_days(core: Core) -> None:
    """As in a database restored from a copy so old that all its days have passed."""
    for parent in PARENTS:
        for day in await days(core, parent):
            await core.db.fetch(f"drop table sluice.{parent}_{day}")


async def test_a_task_ends_though_history_has_none_of_its_days(core: Core) -> None:
    caller = Caller(1, "default", "manage")
    await queues.put(core, caller, "mail", QueueDefinition(), ANY)

    async def cancel() -> bool:
        (task_id,) = await enqueue(core, caller, "mail")
        await tasks.cancel(core, caller, task_id)
        return (await views.find_task(core.db, core.vault, 1, task_id)).state == "cancelled"  # type: ignore[union-attr]

    async def purge() -> bool:
        await enqueue(core, caller, "mail", 2)
        return await sweeps.purge(core, caller, "mail") == 2

    async def expire() -> bool:
        (task_id,) = await enqueue(core, caller, "mail")
        await core.db.fetch("update sluice.tasks set expires_at = clock_timestamp() where id = $1", task_id)
        await Janitor(core).expire()
        return (await views.find_task(core.db, core.vault, 1, task_id)).reason == "expired"  # type: ignore[union-attr]

    for end in (cancel, purge, expire):
        await forget_days(core)
        assert await end(), end.__name__
        assert await days(core, "task_history")
