"""What ended actions have left on their lists is found without reading the lists of those that run."""

from typing import Any

import asyncpg
import pytest

from app.store import pruning
from tests.plans.plans import WatchedDatabase

pytestmark = [pytest.mark.ci, pytest.mark.anyio]

LISTED, LEFT = 50_000, 30
_ACTIONS = f"""
insert into sluice.actions (id, tenant_id, kind, filter, search, state, ended_at, listed)
select gen_random_uuid(), t.id, 'cancel', '{{}}', '{{}}', case when n <= 3 then 'running' else 'cancelled' end,
       case when n > 3 then clock_timestamp() end, true
from sluice.tenants t, generate_series(1, 6) n;
insert into sluice.action_tasks (action_id, task_id)
select a.id, gen_random_uuid() from sluice.actions a,
       generate_series(1, case when a.state = 'running' then {LISTED} else {LEFT} end)
"""


def read_of_lists(plan: dict[str, Any]) -> float:
    own = 0.0
    if plan.get("Relation Name") == "action_tasks" and plan["Node Type"] != "ModifyTable":
        own = (plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"]
    return own + sum(read_of_lists(child) for child in plan.get("Plans", []))


@pytest.mark.parametrize("statistics", ["", "analyze sluice.action_tasks, sluice.actions"], ids=["old", "new"])
async def test_pruning_reads_no_list_of_an_action_that_runs(database_url: str, statistics: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute(f"{_ACTIONS}; {statistics}")
    await connection.close()
    db = await WatchedDatabase.on(database_url)
    assert await pruning.actions(db) == 3 * LEFT + 3, "their rows, and that nothing is left of them"
    read = max(read_of_lists(told.plan) for told in db.told())
    assert read <= 3 * 3 * LEFT + 10
    assert await db.fetchval("select count(*) from sluice.action_tasks") == 3 * LISTED
    await db.close()
