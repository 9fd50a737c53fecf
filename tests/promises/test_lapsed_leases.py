"""A lease that has run out is none from that instant on: a claim, a pull and every count treat it so, without a reap."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from statistics import median

import asyncpg
import pytest

from app.domain.callers import Caller
from app.domain.conditions import ANY
from app.domain.queues import QueueDefinition
from app.runtime.core import Core
from app.service import queues
from app.store import batches, stats, tasks, views
from app.store import queues as store
from app.store.task_lists import TaskQuery, list_page
from tests.cores import claim, enqueue
from tests.promises import records
from tests.promises.records import lose_leases
from tests.promises.test_limits import lanes, limit_queue, limit_tenant
from tests.sluices import Replica
from tests.wire.api import Api, good

__all__ = ["lanes"]
pytestmark = pytest.mark.anyio


@pytest.fixture
async def pull(core: Core, caller: Caller) -> int:
    """The id of a queue for workers."""
    await queues.put(core, caller, "pull", QueueDefinition(), ANY)
    row = await store.find(core.db, caller.tenant_id, "pull")
    assert row is not None
    return row.id


async def test_a_pull_takes_a_task_whose_lease_has_run_out_in_the_same_instant(
    core: Core, caller: Caller, pull: int
) -> None:
    """No reaper runs here: the claim makes its own way."""
    (task_id,) = await enqueue(core, caller, "pull")
    (first,) = (await claim_pull(core, pull)).tasks
    assert (await claim_pull(core, pull)).tasks == []
    await lose_leases(core.db)
    (second,) = (await claim_pull(core, pull)).tasks
    assert (second.task_id, second.number, second.attempt) == (task_id, 2, 2)
    assert second.token != first.token
    lost, held = await records.attempts(core.db, task_id)
    assert (lost.outcome, lost.counted, held.outcome) == ("lease_expired", True, None)
    assert lost.ended_at is not None and lost.ended_at < held.started_at
    assert await tasks.fate_of_lease(core.db, task_id, first.token) == "lost"


async def test_a_pull_of_several_takes_it_beside_those_that_never_ran(core: Core, caller: Caller, pull: int) -> None:
    (lost,) = await enqueue(core, caller, "pull")
    await claim_pull(core, pull)
    await lose_leases(core.db)
    (new,) = await enqueue(core, caller, "pull")
    found = await core.claiming.pull(caller.tenant_id, pull, 3, 30)
    assert {(task.task_id, task.number) for task in found.tasks} == {(lost, 2), (new, 1)}
    assert found.count == 2


async def test_a_claim_ends_a_task_at_its_last_attempt_and_says_it_is_empty(core: Core, caller: Caller) -> None:
    definition = QueueDefinition()
    await queues.put(core, caller, "pull", definition, ANY)
    row = await store.find(core.db, caller.tenant_id, "pull")
    assert row is not None
    (task_id,) = await enqueue(core, caller, "pull")
    await core.db.fetch("update sluice.tasks set max_attempts = 1")
    assert len((await claim_pull(core, row.id)).tasks) == 1
    await lose_leases(core.db)
    found = await claim_pull(core, row.id)
    assert (found.verdict, found.tasks) == ("empty", [])
    view = await views.find_task(core.db, core.vault, caller.tenant_id, task_id)
    assert view is not None and (view.state, view.reason) == ("dead", "attempts_exhausted")


@pytest.mark.parametrize("level", [limit_queue, limit_tenant])
async def test_a_lease_that_has_run_out_takes_no_slot_of_a_limit(
    core: Core, caller: Caller, lanes: list[int], level: Callable[..., Awaitable[object]]
) -> None:
    """Of another queue of the tenant as little as of its own."""
    await level(core, caller, 3)
    held, other = (lanes[0], lanes[0]) if level is limit_queue else (lanes[1], lanes[0])
    await enqueue(core, caller, "news" if held == lanes[1] else "mail", 3)
    assert len((await claim(core, held, 3)).tasks) == 3
    await enqueue(core, caller, "mail", 9)
    full = await claim(core, other, 9)
    assert (full.verdict, await core.claiming.reap_lapsed([full])) == ("full", set())
    await lose_leases(core.db)
    full = await claim(core, other, 9)
    assert (full.verdict, await core.claiming.reap_lapsed([full])) == ("full", {caller.tenant_id})
    assert len((await claim(core, other, 9)).tasks) == 3
    found = await records.attempts(core.db)
    assert records.most_at_once(found) == 3


async def test_a_lease_that_is_being_renewed_in_time_keeps_its_slot(
    core: Core, caller: Caller, lanes: list[int], database_url: str
) -> None:
    """Its renewal has been admitted and is not committed; what a claim can see of it says it has run out."""
    await limit_queue(core, caller, 1)
    await enqueue(core, caller, "mail", 2)
    (holder,) = (await claim(core, lanes[0], 1)).tasks
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction():
            await lose_leases(core.db)
            # not committed, as the renewal is not: the lease was still valid when that was admitted
            await connection.execute("update sluice.tasks set lease_expires_at = clock_timestamp() + interval '1 minute'"
                                     " where state = 1")  # fmt: skip
            renewed = "select sluice.renew_v1($1, $2, 30)"
            assert await connection.fetchval(renewed, [holder.task_id], [holder.token]) is not None
            found = await claim(core, lanes[0], 1)
            assert (found.verdict, found.tasks) == ("full", [])
            assert found.lapsed == caller.tenant_id, "as far as the claim can see"
            assert await core.claiming.reap_lapsed([found]) == set()
    finally:
        await connection.close()
    assert await records.running(core.db) == 1
    assert await tasks.fate_of_lease(core.db, holder.task_id, holder.token) == "held"
    assert (await claim(core, lanes[0], 1)).verdict == "full"


async def test_every_count_takes_it_for_ready(core: Core, caller: Caller, pull: int) -> None:
    batch_id = core.ids.uuid7(int(core.clock.seconds() * 1000))
    (task_id,) = await enqueue(core, caller, "pull")
    row = await store.find(core.db, caller.tenant_id, "pull")
    assert row is not None
    await batches.create(core.db, caller.tenant_id, batch_id, (row.id, row.version), sealed=False, completion=None)
    await core.db.fetch("update sluice.tasks set batch_id = $1", batch_id)
    await core.db.fetch("update sluice.batches set total = 1")

    async def counted() -> tuple[list[object], list[object]]:
        view = await views.find_task(core.db, core.vault, caller.tenant_id, task_id)
        counts = await stats.count(core.db, pull)
        [queue] = await stats.overview(core.db)
        batch = await batches.find(core.db, caller.tenant_id, batch_id)
        assert view is not None and batch is not None
        listed = [
            len(
                (
                    await list_page(
                        core.db, core.vault, TaskQuery(caller.tenant_id, [pull], None, 5, False, state=state)
                    )
                ).items
            )
            for state in ("ready", "running")
        ]
        lease = None if view.lease is None else "lease"
        ready = [counts.ready, queue.ready, batch.counts.ready, listed[0]]
        running = [counts.running, queue.running, batch.counts.running, listed[1]]
        return [view.state, lease, *ready], [*running]

    assert len((await claim_pull(core, pull)).tasks) == 1
    assert await counted() == (["running", "lease", 0, 0, 0, 0], [1, 1, 1, 1])
    await lose_leases(core.db)
    assert await counted() == (["ready", None, 1, 1, 1, 1], [0, 0, 0, 0])


async def claim_pull(core: Core, queue_id: int) -> tasks.Claim:
    return await core.claiming.pull(1, queue_id, 1, 30)


@pytest.mark.parametrize("role", ["all", "api"])
async def test_a_worker_that_waits_gets_it_at_once(start_replica: Callable[..., Awaitable[Replica]], role: str) -> None:
    """On a replica without an engine too. Leases end at five instants spread over a second: who looks once a second is late for
    three of them by 0.4 s or more, whatever the machine does. One round that was not is enough."""
    replica = await start_replica(role=role)
    api = Api(replica.client, replica.url)

    async def late(lease_seconds: float) -> float:
        queue = await api.queue()
        task = await api.enqueue(queue)
        asked = {"lease_seconds": lease_seconds}
        (first,) = good(await api.post(f"/queues/{queue}/leases", json=asked))["tasks"]
        (second,) = good(await api.post(f"/queues/{queue}/leases", json={"wait_seconds": 10}))["tasks"]
        assert first["id"] == second["id"] == task["id"]
        ended = datetime.fromisoformat(first["lease_expires_at"])
        [again, lost] = await api.attempts(task["id"])
        assert (lost["outcome"], datetime.fromisoformat(lost["ended_at"])) == ("lease_expired", ended)
        return (datetime.fromisoformat(again["started_at"]) - ended).total_seconds()

    medians: list[float] = []
    while len(medians) < 5 and min(medians, default=1.0) >= 0.25:
        found = await asyncio.gather(*(late(1 + n / 5) for n in range(5)))
        assert min(found) >= 0
        medians.append(median(found))
    assert min(medians) < 0.25, medians
