"""The audit's table: rows are only added, months are made when they are needed and forgotten as a whole."""

from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from app.domain.audit import changed
from app.domain.callers import Act, Caller
from app.domain.ids import make_api_key
from app.domain.keys import Grant
from app.runtime.core import Core
from app.service import keys
from app.store import audit, partitions
from app.store.audit import AuditFilters

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

PAUSE = Caller(1, "default", "operate", "abc", address="::1", request_id="r", act=Act("pause", "queue", "mail", "host"))


async def rows(core: Core) -> list[audit.AuditRow]:
    found, _ = await audit.list_page(core.db, None, AuditFilters(), None, 100)
    return found


async def months(core: Core) -> list[str]:
    found = await core.db.fetch(
        "select inhrelid::regclass::text from pg_inherits where inhparent = 'sluice.audit'::regclass"
    )
    return sorted(row[0].rpartition("_")[2] for row in found)


async def test_rows_are_neither_changed_nor_removed_even_by_their_owner(core: Core) -> None:
    await audit.record(core.db, PAUSE, {"paused": False}, {"paused": True})
    (month,) = {f"sluice.audit_{row.at:%Y%m}" for row in await rows(core)}
    for table in ("sluice.audit", month):
        for statement in (f"update {table} set verb = 'x'", f"delete from {table}", f"truncate {table}"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
                await core.db.fetch(statement)
    (row,) = await rows(core)
    assert (row.actor, row.actor_key, row.actor_tenant, row.actor_scope) == ("key", "abc", "default", "operate")
    assert (row.verb, row.noun, row.name, row.outcome, row.code) == ("pause", "queue", "mail", "done", None)
    assert (row.before, row.after) == ('{"paused":false}', '{"paused":true}')
    assert (row.address, row.request_id, row.replica, row.tenant) == ("::1", "r", "host", "default")


async def test_a_change_is_recorded_though_its_month_was_not_made(core: Core) -> None:
    before = await months(core)
    for month in before:
        await core.db.fetch(f"drop table sluice.audit_{month}")
    await audit.record(core.db, PAUSE, {}, {})
    assert len(await rows(core)) == 1
    await partitions.ensure_ahead(core.db)
    assert (await months(core))[:2] == before[:2]


async def test_months_are_made_ahead_and_dropped_once_they_ended_so_many_days_ago(core: Core) -> None:
    now: datetime = (await core.db.fetchval("select clock_timestamp()")).astimezone(UTC)
    kept = await months(core)
    assert kept[0] == f"{now:%Y%m}" and len(kept) >= 2
    for month, after in (("202401", "202402"), ("202312", "202401")):
        await core.db.fetch(f"create table sluice.audit_{month} (like sluice.audit including all)")
        bounds = [f"{text[:4]}-{text[4:]}-01 00:00+00" for text in (month, after)]
        await core.db.fetch(
            f"alter table sluice.audit attach partition sluice.audit_{month} for values from ('{bounds[0]}') to ('{bounds[1]}')"
        )
    days = (now - datetime(2024, 1, 2, tzinfo=UTC)).days
    assert await partitions.drop_expired(core.db, audit_days=days + 40) == 0
    assert await partitions.drop_expired(core.db, audit_days=days) == 1
    assert await months(core) == ["202401", *kept]
    assert await partitions.drop_expired(core.db) == 1
    assert await months(core) == kept


async def test_keys_made_and_revoked_on_the_database_itself_are_on_record(core: Core) -> None:
    made = await keys.create(core.db, "acme", Grant("manage"))
    await keys.rotate(core.db, made.id, 60)
    assert await keys.revoke(core.db, made.id)
    assert not await keys.revoke(core.db, made.id)
    bootstrap = make_api_key()
    await keys.seed_bootstrap(core.db, bootstrap.text)
    await keys.seed_bootstrap(core.db, bootstrap.text)
    found = [(row.actor, row.tenant, row.verb, row.noun, row.name) for row in reversed(await rows(core))]
    assert found == [
        ("cli", "acme", "create", "key", made.id),
        ("cli", "acme", "rotate", "key", made.id),
        ("cli", "acme", "revoke", "key", made.id),
        ("system", "default", "create", "key", bootstrap.id),
    ]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, ({"b": 2}, {"b": 3})),
        ({"a": 1}, {"a": 1}, ({}, {})),
        (None, {"a": 1, "b": None}, (None, {"a": 1})),
        ({"a": 1, "b": None}, None, ({"a": 1}, None)),
        (
            {"secret": "x", "headers": {}},
            {"secret": "y", "headers": {"k": "v"}},
            ({"headers": "***", "secret": "***"},) * 2,
        ),
        ({"payload": None}, {"payload": b"1"}, ({"payload": None}, {"payload": "***"})),
        (
            {"target": {"url": "u", "headers": {"k": "v"}}, "callbacks": [{"payload": 1}]},
            None,
            ({"target": {"url": "u", "headers": "***"}, "callbacks": [{"payload": "***"}]}, None),
        ),
    ],
)
def test_only_what_changed_is_recorded_without_secrets_and_content(before: Any, after: Any, expected: Any) -> None:
    assert changed(before, after) == expected
