"""What the page on Postgres grants is enough, and no more is needed; who lacks it is told what."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from uuid import uuid4

import asyncpg
import pytest

from app.domain.keys import Grant
from app.main import migrate, wait_for_database
from app.runtime import alarms
from app.service import keys
from app.settings import Settings, SettingsError
from app.store import partitions
from app.store.db import Database
from tests.docs.pages import ROOT, blocks
from tests.handlers import Handler
from tests.sluices import Replica
from tests.support import poll
from tests.walk import walk
from tests.wire.api import Api

pytestmark = pytest.mark.anyio

ONE_ROLE, TWO_ROLES = blocks(ROOT / "docs" / "guides" / "postgres.md", "sql")
LATER = next(
    text for text in blocks(ROOT / "docs" / "guides" / "postgres.md", "text") if text.startswith("grant usage")
)

StartReplica = Callable[..., Awaitable[Replica]]


class Roles:
    """The page's roles under names of the test's own: roles belong to the whole server. Its owner is `owner`."""

    def __init__(self, url: str, owner: asyncpg.Connection) -> None:
        self.url = url
        self.owner = owner
        self.names: dict[str, str] = {}

    def named(self, sql: str) -> str:
        for name in re.findall(r"create role (\w+)", sql):
            self.names[name] = f"{name}_{uuid4().hex[:8]}"
        for name, ours in self.names.items():
            sql = re.sub(rf"(?<=role |. to ){name}\b|(?<=authorization ){name}\b", ours, sql)
        return sql

    def address(self, name: str) -> str:
        return re.sub(r"(?<=//)\w+(?=@)", self.names[name], self.url)


@pytest.fixture
async def roles(empty_database_url: str) -> AsyncIterator[Roles]:
    """On a database on which nobody may do anything that is not granted, except to enter."""
    owner = await asyncpg.connect(empty_database_url)
    await owner.execute("revoke all on schema public from public")
    roles = Roles(empty_database_url, owner)
    yield roles
    for name in roles.names.values():
        await owner.execute(f"drop owned by {name} cascade; drop role {name}")
    await owner.close()


@pytest.fixture
async def two(roles: Roles) -> Roles:
    """The schema is one role's, and another is to serve."""
    await roles.owner.execute(roles.named(TWO_ROLES))
    return roles


def settings(url: str) -> Settings:
    return Settings.model_validate({"database_url": url})


@pytest.mark.ci
async def test_a_role_that_owns_the_schema_migrates_and_serves(
    roles: Roles, start_replica: StartReplica, handler: Handler
) -> None:
    await roles.owner.execute(roles.named(ONE_ROLE))
    replica = await start_replica(database_url=roles.address("sluice"))
    await walk(Api(replica.client, replica.url), handler)
    assert await partitions.drop_expired(replica.sluice.core.db) == 0


@pytest.mark.ci
async def test_a_role_that_may_change_no_table_serves_once_the_owner_has_migrated(
    two: Roles, start_replica: StartReplica, handler: Handler
) -> None:
    await migrate(settings(two.address("sluice_owner")))
    replica = await start_replica(database_url=two.address("sluice_serving"))
    await walk(Api(replica.client, replica.url), handler)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await replica.sluice.core.db.fetch("create table sluice.mine ()")


async def test_who_serves_still_has_days_of_history_made_and_leaves_old_ones_to_the_owner(two: Roles) -> None:
    await migrate(settings(two.address("sluice_owner")))
    soon, old = await days(two)
    await two.owner.execute(f"drop table sluice.task_history_{soon}; drop table sluice.attempt_history_{soon}")
    await make_day(two, old)
    db = Database(two.address("sluice_serving"))
    await db.open()
    try:
        assert await partitions.ensure_ahead(db) == 2
        assert await partitions.drop_expired(db) == 0
    finally:
        await db.close()
    owner = await two.owner.fetch(
        "select distinct tableowner from pg_tables where schemaname = 'sluice' and tablename ~ 'history'"
    )
    assert {row[0] for row in owner} == {two.names["sluice_owner"]}
    await migrate(settings(two.address("sluice_owner")))
    assert await two.owner.fetchval(f"select to_regclass('sluice.task_history_{old}')") is None


async def test_who_serves_can_add_to_the_audit_and_not_cover_its_tracks(two: Roles) -> None:
    await migrate(settings(two.address("sluice_owner")))
    serving, role = two.address("sluice_serving"), two.names["sluice_serving"]
    db = Database(serving)
    await db.open()
    try:
        made = await keys.create(db, "acme", Grant("manage"))
        for statement in (
            "update sluice.audit set name = 'x'",
            "delete from sluice.audit",
            "alter table sluice.audit disable trigger all",
            "set session_replication_role = replica",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await db.fetch(statement)
        assert await db.fetchval("select name from sluice.audit") == made.id
    finally:
        await db.close()
    await two.owner.execute(f"revoke update, delete on sluice.audit from {role}")
    await wait_for_database(serving)
    await two.owner.execute(f"revoke insert on sluice.audit from {role}")
    assert "lacks rights in the schema sluice (audit)" in await refusal(serving)


async def days(roles: Roles) -> tuple[str, str]:
    """One that comes, and one that has passed."""
    day = "to_char((clock_timestamp() at time zone 'UTC')::date + $1::integer, 'YYYYMMDD')"
    return await roles.owner.fetchval(f"select {day}", 5), await roles.owner.fetchval(f"select {day}", -3)


async def make_day(roles: Roles, day: str) -> None:
    for parent in ("task_history", "attempt_history"):
        name = f"sluice.{parent}_{day}"
        await roles.owner.execute(
            f"create table {name} (like sluice.{parent} including all); alter table {name} owner to {roles.names['sluice_owner']};"
            f" alter table sluice.{parent} attach partition {name}"
            f" for values from ('{day}'::date at time zone 'UTC') to (('{day}'::date + 1) at time zone 'UTC')"
        )


async def refusal(url: str) -> str:
    with pytest.raises(SettingsError) as caught:
        await wait_for_database(url)
    (line,) = caught.value.lines
    return line


async def test_who_lacks_a_right_is_told_which_before_anything_starts(two: Roles) -> None:
    serving, role = two.address("sluice_serving"), two.names["sluice_serving"]
    assert "may not migrate the schema sluice from version 0 to 1" in (said := await refusal(serving))
    assert "run `sluice migrate` as the role that owns it" in said
    await migrate(settings(two.address("sluice_owner")))
    await wait_for_database(serving)
    await two.owner.execute(f"revoke delete on sluice.queues, sluice.tasks from {role}")
    await two.owner.execute(f"revoke execute on function sluice.act_v1 from public, {role}")
    said = await refusal(serving)
    assert said.startswith(
        f"Role {role} lacks rights in the schema sluice (act_v1, queues, tasks): as its owner, grant"
    )
    await two.owner.execute(f"revoke usage on schema sluice from {role}")
    assert "permission denied for schema sluice" in (said := await refusal(serving))
    assert "grant usage on it, select, insert, update, delete on all its tables" in said
    await two.owner.execute(two.named(LATER))
    await wait_for_database(serving)


async def test_the_days_of_history_raise_an_alarm_before_they_run_out_and_when_they_pile_up(replica: Replica) -> None:
    core = replica.sluice.core

    async def calm() -> partitions.Reach | None:
        """The tables may have been made before a midnight: yesterday is dropped, and a new last day is made."""
        await partitions.ensure_ahead(core.db)
        await partitions.drop_expired(core.db)
        reach = await partitions.reach(core.db)
        return reach if reach.left_over == 0 and reach.ahead >= reach.needed + partitions.MARGIN_DAYS else None

    reach = await poll(calm)
    assert (reach.ahead, reach.left_over) == (reach.needed + partitions.MARGIN_DAYS, 0)

    def codes(**changes: int) -> list[str]:
        changed = partitions.Reach(**{"ahead": reach.ahead, "needed": reach.needed, "left_over": 0, **changes})
        return [alarm["code"] for alarm in alarms._partition_alarms(changed)]

    assert codes() == codes(ahead=reach.ahead - 2, left_over=2) == []
    assert codes(ahead=reach.ahead - 3) == ["partitions_short"]
    assert codes(left_over=3) == ["partitions_left"]


async def test_history_reaches_to_the_first_day_that_is_missing(empty_database_url: str) -> None:
    await wait_for_database(empty_database_url)
    db = Database(empty_database_url)
    await db.open()
    try:
        await partitions.ensure_ahead(db)
        (row,) = await db.fetch("select to_char((clock_timestamp() at time zone 'UTC')::date + 5, 'YYYYMMDD') as day")
        await db.fetch(f"drop table sluice.attempt_history_{row['day']}")
        assert (await partitions.reach(db)).ahead == 4
    finally:
        await db.close()
