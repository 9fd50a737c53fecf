"""A page of the audit reads its windows, however many rows there are and however few of them match."""

from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from app.store import audit, migrations, windows
from app.store.audit import AuditFilters, Position
from app.store.db import READING
from tests.databases import create_database, drop_database
from tests.plans.plans import WatchedDatabase

pytestmark = [pytest.mark.ci, pytest.mark.anyio, pytest.mark.timeout(180)]

ROWS = 200_000
"""Over thirteen months, all but ten of one tenant."""
_ROWS = f"""
select sluice.ensure_partitions_v1(120);
do $$ declare v_month date; begin
  for v_month in select date_trunc('month', now()) - n * interval '1 month' from generate_series(1, 12) n loop
    execute format('create table sluice.%I partition of sluice.audit for values from (%L) to (%L)',
                   'audit_' || to_char(v_month, 'YYYYMM'), v_month, v_month + interval '1 month');
  end loop;
end $$;
insert into sluice.tenants (name) values ('many'), ('few');
insert into sluice.audit (at, tenant_id, actor, actor_key, verb, noun, name, outcome)
select now() - n * interval '2.6 minutes', t.id, 'key', 'k' || n % 7, case n % 3 when 0 then 'pause' else 'resume' end, 'queue',
       'q' || n % 1000, 'done'
from generate_series(1, {ROWS}) n join sluice.tenants t on t.name = case when n % 20000 = 0 then 'few' else 'many' end;
analyze sluice.audit
"""
MOST_ROWS = 1.1 * windows.MAX_WINDOW
FILTERS = {
    "all": AuditFilters(),
    "verb": AuditFilters(verb="pause"),
    "no such verb": AuditFilters(verb="sing"),
    "no such key": AuditFilters(actor="k99"),
    "by the system": AuditFilters(actor="system"),
    "name": AuditFilters(name="q7"),
    "name and verb": AuditFilters(name="q7", verb="pause"),
    "no such name": AuditFilters(name="nobody"),
}


@pytest.fixture
async def loaded(server_url: str) -> Any:
    url = await create_database(server_url, "sluice_plans_audit")
    await migrations.migrate(url)
    connection = await asyncpg.connect(url)
    await connection.execute(_ROWS)
    await connection.close()
    yield url
    await drop_database(server_url, "sluice_plans_audit")


def read_by(plan: dict[str, Any]) -> Iterator[float]:
    if plan.get("Relation Name", "").startswith("audit"):
        yield (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
    for child in plan.get("Plans", []):
        yield from read_by(child)


async def test_no_page_of_the_audit_reads_more_than_its_windows(loaded: str) -> None:
    db = await WatchedDatabase.on(loaded, **READING)
    (many,), (few,) = await db.fetch("select id from sluice.tenants where name <> 'default' order by name desc")
    too_much, found = [], {}
    for tenant_id in (None, many, few):
        for name, filters in FILTERS.items():
            position: Position | None = None
            pages, items = 0, 0
            while position is not None or pages == 0:
                db.told()
                rows, position = await audit.list_page(db, tenant_id, filters, position, 50)
                pages, items = pages + 1, items + len(rows)
                for told in db.told():
                    if (read := sum(read_by(told.plan))) > MOST_ROWS:
                        too_much.append(f"tenant {tenant_id}, {name}: {read:.0f} rows")
                if items >= 200:
                    break
            found[tenant_id, name] = items
    await db.close()
    assert not too_much, "\n".join(too_much)
    assert found[few, "all"] == 10 and found[None, "name"] == 200 and found[many, "no such verb"] == 0
    assert found[None, "by the system"] == 0 and found[few, "name and verb"] == 0
