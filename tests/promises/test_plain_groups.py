"""Groups of tasks with nothing but a payload are inserted by a statement of their own, under the rules of every other."""

from typing import Any
from uuid import uuid4

import pytest

from app.domain.callers import Caller
from app.domain.conditions import ANY
from app.domain.queues import QueueDefinition
from app.runtime.core import Core
from app.runtime.entries import new_ids
from app.service import queues
from app.store import enqueues, tenants
from app.store import queues as store
from app.store.enqueues import Entry, Receipt
from app.store.queues import QueueRow

pytestmark = pytest.mark.anyio


async def queue_row(core: Core, caller: Caller, name: str = "mail", **fields: Any) -> QueueRow:
    await queues.put(core, caller, name, QueueDefinition(**fields), ANY)
    row = await store.find(core.db, caller.tenant_id, name)
    assert row is not None
    return row


def plain(core: Core, row: QueueRow, count: int) -> list[Entry]:
    return [
        Entry(task_id, row.id, row.version, 0, b"%d" % n, None, None) for n, task_id in enumerate(new_ids(core, count))
    ]


async def enqueue(core: Core, entries: list[Entry]) -> Receipt:
    return await enqueues.enqueue(core.db, str(uuid4()), entries)


async def count(core: Core) -> int:
    return int(await core.db.fetchval("select count(*) from sluice.tasks"))


@pytest.mark.parametrize("paused", [False, True])
async def test_a_plain_group_is_stored_as_the_same_tasks_are_beside_one_with_options(
    core: Core, caller: Caller, paused: bool
) -> None:
    row = await queue_row(core, caller)
    if paused:
        await queues.pause(core, caller, "mail")
    alone, beside = plain(core, row, 3), plain(core, row, 3)
    assert enqueues._plain(alone) is not None
    receipt = await enqueue(core, alone)
    other = Entry(new_ids(core, 1)[0], row.id, row.version, 0, b"null", "key", b"print", "unique", 7)
    mixed = [*beside, other]
    assert enqueues._plain(mixed) is None
    assert (await enqueue(core, mixed)).waiting == receipt.waiting == {row.id: "queue_paused" if paused else "worker"}
    ids = [[entry.task_id for entry in group] for group in (alone, beside)]
    rows = [
        await core.db.fetch(
            """select (to_jsonb(t) - '{id,run_at,created_at}'::text[])::text, run_at = created_at
               from sluice.tasks t where id = any($1) order by id""",
            found,
        )
        for found in ids
    ]
    assert rows[0] == rows[1] and len(rows[0]) == 3
    [kept] = await core.db.fetch(
        "select idempotency_key, unique_key, priority from sluice.tasks where id = $1", other[0]
    )
    assert tuple(kept) == ("key", "unique", 7)


@pytest.mark.parametrize(
    "change",
    [
        *({"handler_id": 5}, {"key": "k", "fingerprint": b"f"}, {"unique_key": "u"}, {"priority": 1}),
        *({"delay_seconds": 1.0}, {"ttl_seconds": 1.0}, {"max_attempts": 1}, {"options": "{}"}),
    ],
)
def test_one_entry_with_anything_else_makes_a_group_not_plain(change: dict[str, Any]) -> None:
    bare = Entry("id", 1, 1, 0, b"null", None, None)
    assert enqueues._plain([bare, bare, bare]) == ((1,), (1,), ("id",) * 3, (b"null",) * 3)
    assert enqueues._plain([bare, bare._replace(**change), bare]) is None
    assert enqueues._plain([bare._replace(**change), bare]) is None


async def test_a_repeated_plain_group_gets_the_same_receipt_and_stores_nothing(core: Core, caller: Caller) -> None:
    entries, group = plain(core, await queue_row(core, caller), 5), str(uuid4())
    first = await enqueues.enqueue(core.db, group, entries)
    await core.db.fetch("delete from sluice.tasks where id = $1", entries[0].task_id)  # it has ended meanwhile
    assert await enqueues.enqueue(core.db, group, entries) == first
    assert await count(core) == 4


async def test_a_plain_group_made_for_another_definition_is_refused_whole(core: Core, caller: Caller) -> None:
    entries = plain(core, await queue_row(core, caller), 3)
    await queue_row(core, caller, description="changed")
    assert (await enqueue(core, entries)).verdicts == {n: ["changed"] for n in (1, 2, 3)}
    await queues.delete(core, caller, "mail", ANY)
    assert (await enqueue(core, entries)).verdicts == {n: ["changed"] for n in (1, 2, 3)}
    assert await count(core) == 0


async def test_a_plain_group_fills_a_queue_to_its_depth_in_order(core: Core, caller: Caller) -> None:
    row = await queue_row(core, caller, max_depth=4)
    assert (await enqueue(core, plain(core, row, 3))).verdicts == {}
    entries = plain(core, row, 3)
    assert (await enqueue(core, entries)).verdicts == {2: ["queue_full"], 3: ["queue_full"]}
    stored = await core.db.fetch("select payload from sluice.tasks where id = $1", entries[0].task_id)
    assert [bytes(row[0]) for row in stored] == [b"0"]
    assert await count(core) == 4


def test_a_plain_group_names_the_queue_of_each_task_unless_it_is_the_same() -> None:
    bare = Entry("id", 1, 1, 0, b"null", None, None)
    assert enqueues._plain([bare, bare._replace(queue_id=2)]) == ((1, 2), (1, 1), ("id",) * 2, (b"null",) * 2)
    assert enqueues._plain([bare, bare._replace(queue_version=2)]) == ((1, 1), (1, 2), ("id",) * 2, (b"null",) * 2)


async def test_a_plain_group_of_several_queues_is_stored_as_each_of_them_is(core: Core, caller: Caller) -> None:
    """Whoever's they are, and whatever their tasks wait for."""
    other = Caller(await tenants.ensure(core.db, "other"), "other", "operate")
    rows = [
        await queue_row(core, caller),
        await queue_row(core, other),
        await queue_row(core, caller, "halted"),
    ]
    await queues.pause(core, caller, "halted")
    together = [entry for entries in zip(*(plain(core, row, 2) for row in rows), strict=True) for entry in entries]
    apart = [plain(core, row, 2) for row in rows]
    group = str(uuid4())
    receipt = await enqueues.enqueue(core.db, group, together)
    assert receipt.verdicts == {}
    assert receipt.waiting == {rows[0].id: "worker", rows[1].id: "worker", rows[2].id: "queue_paused"}
    for entries in apart:
        await enqueue(core, entries)
    found = [
        await core.db.fetch(
            """select (to_jsonb(t) - '{id,run_at,created_at}'::text[])::text, run_at = created_at
               from sluice.tasks t where id = any($1) order by queue_id, id""",
            [entry.task_id for entry in entries],
        )
        for entries in (together, [entry for entries in apart for entry in entries])
    ]
    assert found[0] == found[1] and len(found[0]) == 6
    assert await enqueues.enqueue(core.db, group, together) == receipt
    assert await count(core) == 12


async def test_a_plain_group_of_several_queues_is_refused_where_one_has_changed_or_is_full(
    core: Core, caller: Caller
) -> None:
    rows = [
        await queue_row(core, caller),
        await queue_row(core, caller, "changing"),
        await queue_row(core, caller, "full", max_depth=1),
    ]
    await queue_row(core, caller, "changing", description="changed")
    entries = [entry for row in rows for entry in plain(core, row, 2)]
    assert (await enqueue(core, entries)).verdicts == {3: ["changed"], 4: ["changed"], 6: ["queue_full"]}
    stored = await core.db.fetch("select id::text from sluice.tasks order by id")
    assert [task_id for (task_id,) in stored] == sorted(entries[n].task_id for n in (0, 1, 4))
