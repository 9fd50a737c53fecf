"""A page of follow-up work, its batch, and the list of that batch, beside many keys and tasks of other batches."""

import itertools
from typing import Any
from uuid import uuid4

from app.store import batches, pruning, tasks, views
from app.store.batches import Completion
from app.store.tasks import Claimed, Entry, Outcome
from app.store.views import TaskQuery
from tests.plans.loading import TASKS, task_id
from tests.plans.plans import WatchedDatabase

GROUP = 40
OTHER_KEYS = 200_000
LISTED = task_id(TASKS // 5)
"""The id of a batch of which few tasks are known, among two million of none."""

_numbers = itertools.count(1)

_OTHERS = f"""
insert into sluice.followup_keys (batch_id, root_id, queue_id, key)
select gen_random_uuid(), gen_random_uuid(), n % 20, n from generate_series(1, {OTHER_KEYS}) n;
update sluice.tasks set batch_id = '{LISTED}' where id in (select id from sluice.tasks where state = 2 order by id limit 60);
update sluice.task_history set batch_id = '{LISTED}' where id in (select id from sluice.task_history order by id limit 60)
"""


async def load_others(db: WatchedDatabase) -> None:
    await db.unwatched(_OTHERS)


def page(queues: list[tuple[int, int]]) -> list[Entry]:
    """New keys each time, every fifth task with a unique key."""
    number = next(_numbers)
    return [
        Entry(str(uuid4()), *queues[5 + n % 3], 0, b"null", f"k {number} {n}", None, None, f"f {uuid4()}" if n % 5 else None)
        for n in range(GROUP)
    ]


async def settle_followups(db: WatchedDatabase, queues: list[tuple[int, int]], root: Claimed) -> None:
    """A page, the same once more, and the fold of its batch; then it ends, and its keys are forgotten with it."""
    outcome, then = Outcome(root.task_id, root.token, "succeeded", "succeeded"), Completion(*queues[8], b"null")
    entries = page(queues)
    followed = await batches.settle_followups(db, outcome, entries, "next", then)
    assert followed.verdict == "applied" and sum(followed.created.values()) == GROUP
    assert (await batches.settle_followups(db, outcome, entries, "next", then)).verdict == "repeat"
    assert (await batches.fold(db, 200)).batches == 1
    await db.unwatched("update sluice.tasks set state = 2, run_at = '2100-01-01' where batch_id = $1", root.task_id)
    live = [str(row[0]) for row in await db.fetch("select id from sluice.tasks where batch_id = $1", root.task_id)]
    tenant = await db.fetchval("select id from sluice.tenants")
    await tasks.cancel(db, tenant, live, "requested")
    assert (await batches.fold(db, 200)).completed == [root.task_id]
    await db.unwatched("update sluice.batches set keys_until = '2000-01-01', kept_until = '2000-01-01' where id = $1", root.task_id)
    assert await pruning.followup_keys(db) == GROUP + 1 and await pruning.batches(db) == 1


async def list_batch(db: WatchedDatabase, queue_ids: list[int], **fields: Any) -> None:
    query = TaskQuery(queue_ids=queue_ids, before=None, limit=51, include_payload=False, batch=LISTED, **fields)
    assert len(await views.list_tasks(db, query)) == 51
