"""P1, P6, P7 of follow-up work: it is enqueued with the completion or not at all, each key once, and a batch completes once."""

import asyncio
import json
import random
from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from app.domain.callers import Caller
from app.domain.conditions import ANY
from app.domain.followups import FollowupPage, split_page
from app.domain.queues import QueueDefinition
from app.runtime import followups
from app.runtime.core import Core
from app.service import queues
from app.store import batches, pruning, tasks
from app.store import queues as store
from app.store.batches import Folded
from app.store.tasks import AttemptEnd, Claimed, LaneWant
from tests.cores import enqueue
from tests.handlers import Handler
from tests.promises.gates import shut
from tests.promises.records import outcomes
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import Api
from tests.wire.test_followups import answer, unit

pytestmark = pytest.mark.anyio

BATCHES, UNITS = 40, 6
# also those that wait for a row, which pg_locks shows without a database
BLOCKED = "select pid from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"


async def until_blocked(core: Core, count: int) -> None:
    """Until so many statements wait for a lock or a row."""

    async def so_many() -> bool:
        return len(await core.db.fetch(BLOCKED)) >= count

    await poll(so_many)


class Tree:
    """Listers and units of one tenant, without an engine: nothing is claimed, settled or folded but by the test."""

    def __init__(self, core: Core, caller: Caller) -> None:
        self.core, self.caller = core, caller
        self.ids: dict[str, int] = {}

    async def plant(self, *names: str, **fields: Any) -> None:
        for name in names:
            await queues.put(self.core, self.caller, name, QueueDefinition(**fields), ANY)
            row = await store.find(self.core.db, self.caller.tenant_id, name)
            assert row is not None
            self.ids[name] = row.id

    async def lease(self, queue: str, count: int = 1, seconds: float = 30) -> list[Claimed]:
        (found,) = await tasks.claim(
            self.core.db,
            [LaneWant(self.ids[queue], 0, count)],
            owner=None,
            replica="test",
            claim_id=str(uuid4()),
            not_after=self.core.clock.now() + timedelta(seconds=30),
            lease_seconds=seconds,
            pull=True,
        )
        assert len(found.tasks) == count
        return found.tasks

    async def root(self) -> Claimed:
        await enqueue(self.core, self.caller, "list")
        return (await self.lease("list"))[0]

    async def settle(self, core: Core, task: Claimed, page: FollowupPage) -> str:
        outcome = AttemptEnd(task.task_id, task.token, "succeeded", "succeeded")
        return await followups.settle(core, self.caller, outcome, page, (self.ids["list"], 0), task.options, None)

    async def count(self, table: str) -> int:
        return int(await self.core.db.fetchval(f"select count(*) from sluice.{table}"))  # a name of ours


def page(*keys: Any, **more: Any) -> FollowupPage:
    tasks = [{"queue": "unit", "idempotency_key": str(key), "payload": key} for key in keys]
    return split_page(json.dumps({"tasks": tasks, **more}).encode(), 1_048_576)


@pytest.fixture
async def tree(core: Core, caller: Caller) -> Tree:
    tree = Tree(core, caller)
    await tree.plant("list", "unit", "sum")
    return tree


async def test_racing_settlers_and_folders_complete_each_batch_exactly_once(tree: Tree, cores: list[Core]) -> None:
    roots = []
    for _ in range(BATCHES):
        roots.append(await tree.root())
        then = {"queue": "sum", "payload": roots[-1].task_id}
        assert await tree.settle(tree.core, roots[-1], page(*range(UNITS), on_complete=then)) == "applied"
    held = await tree.lease("unit", BATCHES * UNITS)
    random.Random(16).shuffle(held)
    told: list[Folded] = []
    settled = asyncio.Event()

    async def settle(core: Core, mine: list[Claimed]) -> None:
        for task in mine:
            kind = random.choice(("succeeded", "dead"))
            assert await tasks.settle(core.db, [AttemptEnd(task.task_id, task.token, kind, "x")]) == {
                task.token: "applied"
            }

    async def fold(core: Core) -> None:
        while not settled.is_set() or await tree.count("batch_deltas"):
            told.append(await batches.fold(core.db, 200))

    folders = [asyncio.create_task(fold(core)) for core in cores for _ in range(2)]
    await asyncio.gather(*(settle(core, held[n::6]) for n, core in enumerate([*cores, *cores])))
    settled.set()
    await asyncio.gather(*folders)
    completed = Counter(batch for folded in told for batch in folded.completed)
    assert completed == {root.task_id: 1 for root in roots}
    assert sum((folded.queues for folded in told), Counter()) == {tree.ids["sum"]: BATCHES}
    sums = [json.loads(task.payload) for task in await tree.lease("sum", BATCHES)]
    assert sorted(sums) == sorted(root.task_id for root in roots)
    rows = await tree.core.db.fetch("select total, succeeded + dead as ended, cancelled from sluice.batches")
    assert {tuple(row) for row in rows} == {(UNITS + 1, UNITS + 1, 0)} and len(rows) == BATCHES


async def test_pages_of_one_root_that_race_enqueue_each_key_once(tree: Tree, cores: list[Core]) -> None:
    """Each names all keys in an order of its own, and one key is of all of them the only one in common order."""
    root = await tree.root()
    await tree.settle(tree.core, root, page(*(f"root {n}" for n in range(6))))
    below = await tree.lease("unit", 6)
    dice, keys = random.Random(6), list(range(60))
    async with shut(tree.core.db.dsn, "followup_keys"):
        racing = []
        for n, task in enumerate(below):
            order = dice.sample(keys, len(keys))
            racing.append(asyncio.create_task(tree.settle(cores[n % 3], task, page(*order))))
        await until_blocked(tree.core, 6)
    assert await asyncio.gather(*racing) == ["applied"] * 6
    made = [json.loads(task.payload) for task in await tree.lease("unit", 60)]
    assert sorted(made) == keys
    await batches.fold(tree.core.db, 200)
    row = await tree.core.db.fetch("select total, succeeded from sluice.batches")
    assert [tuple(r) for r in row] == [(67, 7)]


async def test_a_page_that_is_told_several_times_at_once_is_written_once(tree: Tree, cores: list[Core]) -> None:
    root = await tree.root()
    async with shut(tree.core.db.dsn, "followup_keys"):
        racing = [asyncio.create_task(tree.settle(core, root, page(1, 2, next="more"))) for core in cores]
        await until_blocked(tree.core, 3)
    assert sorted(await asyncio.gather(*racing)) == ["applied", "repeat", "repeat"]
    assert (await tree.count("tasks"), await tree.count("task_history")) == (3, 1)


async def test_a_cancel_that_races_a_page_comes_wholly_before_it_or_after_it(tree: Tree, cores: list[Core]) -> None:
    first, second = await tree.root(), await tree.root()
    async with shut(tree.core.db.dsn, "followup_keys"):
        settling = asyncio.create_task(tree.settle(cores[0], first, page(1)))
        await until_blocked(tree.core, 1)
        cancelling = asyncio.create_task(tasks.cancel(cores[1].db, tree.caller.tenant_id, [first.task_id], "requested"))
        await until_blocked(tree.core, 2)
    assert (await settling, await cancelling) == ("applied", [])
    async with shut(tree.core.db.dsn, "task_history"):
        cancelling = asyncio.create_task(
            tasks.cancel(cores[1].db, tree.caller.tenant_id, [second.task_id], "requested")
        )
        await until_blocked(tree.core, 1)
        settling = asyncio.create_task(tree.settle(cores[0], second, page(1)))
        await until_blocked(tree.core, 2)
    assert (await settling, len(await cancelling)) == ("stale", 1)
    assert await tree.count("batches") == 1 and await tree.count("tasks") == 1
    assert await outcomes(tree.core.db, second.task_id) == ["stale"]


async def test_a_lease_that_runs_out_while_its_page_is_written_takes_the_page_with_it(tree: Tree) -> None:
    await enqueue(tree.core, tree.caller, "list")
    (root,) = await tree.lease("list", seconds=0.5)
    async with shut(tree.core.db.dsn, "batch_completions"):
        then = {"queue": "sum", "payload": 1}
        settling = asyncio.create_task(tree.settle(tree.core, root, page(1, 2, next="more", on_complete=then)))
        await until_blocked(tree.core, 1)

        async def over() -> bool:
            return bool(await tree.core.db.fetchval("select clock_timestamp() > $1", root.lease_expires_at))

        await poll(over)
    assert await settling == "stale"
    for table, rows in {
        "tasks": 1,
        "batches": 0,
        "batch_deltas": 0,
        "followup_keys": 0,
        "batch_completions": 0,
    }.items():
        assert await tree.count(table) == rows, table
    assert (await tasks.reap(tree.core.db, 10)).reaped[0].task_id == root.task_id
    assert await outcomes(tree.core.db, root.task_id) == ["stale"]


async def test_keys_and_batches_stay_until_all_has_ended_again(tree: Tree) -> None:
    """A redrive after the completion, and after keys and batch were due to be forgotten, finds both."""

    async def age() -> None:
        await tree.core.db.fetch(
            "update sluice.batches set keys_until = least(keys_until, '2000-01-01'), kept_until = '2000-01-01'"
        )

    root = await tree.root()
    await tree.settle(tree.core, root, page(1, 2))
    dying, other = await tree.lease("unit", 2)
    for task in (dying, other):
        await tasks.settle(tree.core.db, [AttemptEnd(task.task_id, task.token, "dead", "failed")])
    assert (await batches.fold(tree.core.db, 9)).completed == [root.task_id]
    assert await pruning.followup_keys(tree.core.db) + await pruning.batches(tree.core.db) == 0
    assert await tasks.retry(tree.core.db, tree.caller.tenant_id, dying.task_id) == "moved"
    await age()
    assert await pruning.batches(tree.core.db) == 0, "what is not folded yet counts"
    await batches.fold(tree.core.db, 9)
    assert await pruning.followup_keys(tree.core.db) + await pruning.batches(tree.core.db) == 0
    (again,) = await tree.lease("unit")
    assert await tree.settle(tree.core, again, page(1, 2, 3)) == "applied"
    (third,) = await tree.lease("unit")
    assert json.loads(third.payload) == 3
    await tasks.settle(tree.core.db, [AttemptEnd(third.task_id, third.token, "succeeded", "succeeded")])
    assert (await batches.fold(tree.core.db, 9)).completed == []
    assert await pruning.followup_keys(tree.core.db) + await pruning.batches(tree.core.db) == 0
    await age()
    assert await pruning.followup_keys(tree.core.db) > 0 and await tree.count("followup_keys") == 0
    assert await pruning.batches(tree.core.db) == 1 and await tree.count("batches") == 0


@pytest.mark.parametrize("table", ["batches", "followup_keys", "batch_completions", "task_history"])
async def test_follow_up_work_and_completion_are_one_transaction(
    replica: Replica, handler: Handler, table: str
) -> None:
    """Its connection is killed in the middle of it, twice: nothing is there, and then all of it, of one answer."""
    api, core = Api(replica.client, replica.url), replica.sluice.core
    lister, units = await api.queue_to(handler.url), await api.queue()
    then = {"queue": units, "payload": "sum"}
    handler.script(answer(result=1, tasks=[unit(units, str(n)) for n in range(5)], on_complete=then))
    connection = await asyncpg.connect(core.db.dsn)
    async with shut(core.db.dsn, table):
        root = await api.enqueue(lister)
        for _ in range(2):
            await until_blocked(core, 1)
            for (pid,) in await connection.fetch(BLOCKED):
                await connection.fetch("select pg_terminate_backend($1)", pid)

            async def gone() -> bool:
                return not await connection.fetch(BLOCKED)

            await poll(gone)
            assert await api.pages("/tasks", queue=units) == []
            assert (await api.task(root["id"]))["state"] == "running"
            for empty in ("batches", "followup_keys", "batch_deltas", "batch_completions"):
                assert await connection.fetchval(f"select count(*) from sluice.{empty}") == 0
    await connection.close()
    done = await api.until(root["id"], "succeeded", result=1, attempt=1)
    assert len(await api.pages("/tasks", batch=done["id"])) == 6
    assert len(handler.requests) == 1 and len(await api.attempts(root["id"])) == 1
