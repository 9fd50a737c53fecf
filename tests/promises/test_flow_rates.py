"""P9: in any window a rate admits at most its burst and what it brings, by the start of the attempts, whoever claims."""

import asyncio
import time
from datetime import datetime, timedelta
from typing import Any

import pytest

from app.domain.callers import Caller
from app.domain.limits import QueueKeyOverride
from app.runtime.core import Core
from app.service import limit_keys
from app.store import breakers, pruning
from app.store import flows as store
from tests.promises.flows import Flows, keys_of, uses
from tests.promises.records import attempts, most_above

pytestmark = pytest.mark.anyio


@pytest.fixture
def flows(cores: list[Core], caller: Caller) -> Flows:
    return Flows(cores, caller)


async def started(flows: Flows) -> list[tuple[datetime, int]]:
    return [(attempt.started_at, 1) for attempt in await attempts(flows.core.db)]


async def claim_for(flows: Flows, queues: list[int], seconds: float, claimers: int = 6) -> int:
    """Claim by several at once, each when a rate says so; return how many were started."""
    until, count = time.monotonic() + seconds, 0

    async def claimer(number: int) -> None:
        nonlocal count
        while time.monotonic() < until:
            found = await flows.claim(queues[number % len(queues)], 20, number % len(flows.cores))
            count += len(found.tasks)
            await flows.settle(found.tasks)
            if not found.tasks:
                await asyncio.sleep(max(0.0, found.wait_seconds or 0.001))

    await asyncio.gather(*(claimer(number) for number in range(claimers)))
    return count


@pytest.mark.parametrize("kind", ["queue_rate", "handler_rate", "tenant_rate", "named"])
async def test_no_window_admits_more_than_burst_and_rate(flows: Flows, kind: str) -> None:
    queues = [await flows.queue("one"), await flows.queue("two")]
    used = uses("api") if kind == "named" else ()
    rate: dict[str, Any] = {"rate_limit": 200.0, "rate_burst": 5}
    if kind == "named":
        await flows.limit(name="api", **rate)
    elif kind == "queue_rate":
        queues = queues[:1]
        await flows.limit(kind, owner=queues[0], **rate)
    else:
        sql = (
            "select handler_id from sluice.queues limit 1"
            if kind == "handler_rate"
            else "select id from sluice.tenants"
        )
        await flows.limit(kind, owner=await flows.core.db.fetchval(sql), **rate)
    for queue in queues:
        await flows.enqueue(queue, [f"key {number % 7}" if number % 2 else None for number in range(300)], limits=used)
    count = await claim_for(flows, queues, 0.5)
    assert most_above(await started(flows), 5, 200) <= 0
    assert count > 15, "and what it brings is used"
    assert (await store.sweep(flows.core.db)).rescued == 0


async def test_a_costly_task_waits_for_its_units_and_is_not_overtaken(flows: Flows) -> None:
    queue = await flows.queue("mail")
    await flows.limit(name="tokens", rate_limit=1, rate_period_seconds=60, rate_burst=10)
    await flows.enqueue(queue, ["cheap"] * 5, limits=uses("tokens"))
    assert len((await flows.claim(queue)).tasks) == 5
    await flows.enqueue(queue, ["costly"], limits=uses("tokens", cost=10))
    await flows.enqueue(queue, ["behind it"], limits=uses("tokens"))
    found = await flows.claim(queue)
    assert (found.tasks, found.verdict, found.full_at) == ([], "full", "flows")
    assert found.wait_seconds is not None and found.wait_seconds <= 5 * 60
    for number in range(3):  # these could be paid for at once
        await flows.enqueue(queue, [f"new {number}"], limits=uses("tokens"))
    assert not (await flows.claim(queue)).tasks
    await flows.let_pass(found.wait_seconds)
    assert keys_of(await flows.claim(queue, 1)) == ["costly"]


async def test_whoever_waits_for_a_rate_has_a_timer_also_when_it_was_spent_to_the_last_unit(flows: Flows) -> None:
    queue = await flows.queue("mail")
    await flows.limit(name="slow", rate_limit=1, rate_period_seconds=60, rate_burst=1)
    await flows.enqueue(queue, ["a", "b", "c"], limits=uses("slow"))
    found = await flows.claim(queue)
    assert len(found.tasks) == 1 and await flows.parked() == 2
    assert found.wait_seconds is not None
    await flows.let_pass(found.wait_seconds)
    # the one that the timer opened takes the unit, and nobody is refused
    found = await flows.claim(queue)
    assert len(found.tasks) == 1 and await flows.parked() == 1
    assert found.wait_seconds is not None
    await flows.let_pass(found.wait_seconds)
    assert len((await flows.claim(queue)).tasks) == 1


async def test_no_claim_acts_on_more_than_a_thousand_timers(flows: Flows) -> None:
    """All keys of a tenant may be due at once, after an outage."""
    limit = await flows.limit(name="api", keyed=True, rate_limit=1)
    await flows.core.db.fetch(
        "insert into sluice.rate_clocks (bucket_id, tenant_id, limit_id, tat, unit_seconds, open_at)"
        f" select n, {flows.caller.tenant_id}, {limit}, now(), 1, now() + interval '1 hour' * (n % 2)"
        " from generate_series(1, 4998) n"
    )
    fold = f"select more from sluice.fold_flows_v1({flows.caller.tenant_id})"
    assert [await flows.core.db.fetchval(fold) for _ in range(3)] == [True, True, False]
    timers = await flows.core.db.fetch("select open_at > now(), count(*) from sluice.rate_clocks group by 1")
    assert {row[0]: row[1] for row in timers} == {None: 2499, True: 2499}


async def test_a_changed_rate_keeps_what_it_owes_in_units(flows: Flows) -> None:
    queue = await flows.queue("mail")
    limit = await flows.limit(name="slow", rate_limit=1.0, rate_period_seconds=3600.0, rate_burst=10)
    await flows.enqueue(queue, ["k"] * 60, limits=uses("slow"))
    assert len((await flows.claim(queue, 60)).tasks) == 10
    # ten units of ten hours: at the new pace they are paid back in ten minutes
    await flows.change("update sluice.limits set rate_period_seconds = 60", limit)
    assert not (await flows.claim(queue, 60)).tasks
    await flows.let_pass(10 * 60)
    assert len((await flows.claim(queue, 60)).tasks) == 10


async def test_a_pause_and_an_override_hold_from_the_change_on(flows: Flows) -> None:
    queue = await flows.queue("mail")
    limit = await flows.limit("queue_key", owner=queue, max_concurrency=1)
    await flows.enqueue(queue, ["a"] * 4 + ["b"] * 4)
    bucket = f"sluice.bucket_v1({limit}, 'a')"
    await flows.change(
        f"insert into sluice.limit_keys (limit_id, key, bucket_id, paused) values ({limit}, 'a', {bucket}, true)", limit
    )
    assert keys_of(await flows.claim(queue)) == ["b"]
    await flows.change("update sluice.limit_keys set paused = false, max_concurrency = 3", limit)
    assert keys_of(await flows.claim(queue)) == ["a", "a", "a"]
    await flows.change("update sluice.limits set paused = true", limit)
    await flows.settle((await flows.claim(queue)).tasks)
    assert not (await flows.claim(queue)).tasks


async def test_the_first_values_of_a_key_hold_for_what_waits_and_runs_already(flows: Flows) -> None:
    """Its queue says nothing of keys before, so no claim has looked for a limit of them."""
    queue = await flows.queue("mail")
    await flows.enqueue(queue, ["a"] * 9)
    running = (await flows.claim(queue, 2)).tasks
    assert keys_of(await flows.claim(queue, 2)) == ["a", "a"]
    await limit_keys.put_of_queue(flows.core, flows.caller, "mail", "a", QueueKeyOverride(max_concurrency=3))
    assert not (await flows.claim(queue)).tasks
    await flows.settle(running)
    assert keys_of(await flows.claim(queue)) == ["a"]
    await limit_keys.pause_of_queue(flows.core, flows.caller, "mail", "a")
    assert not (await flows.claim(queue)).tasks


async def test_values_of_one_key_let_only_that_key_be_looked_at(flows: Flows) -> None:
    queue = await flows.queue("mail")
    await flows.limit("queue_key", owner=queue, max_concurrency=1)
    await flows.enqueue(queue, ["a", "b", "c"] * 3)
    assert len((await flows.claim(queue)).tasks) == await flows.parked() == 3
    await limit_keys.put_of_queue(flows.core, flows.caller, "mail", "a", QueueKeyOverride(max_concurrency=2, weight=5))
    assert await flows.parked() == 2
    assert keys_of(await flows.claim(queue)) == ["a"]
    weights = await flows.core.db.fetch("select key, weight from sluice.flows where not plain order by key")
    assert [tuple(row) for row in weights] == [("a", 5), ("b", 1), ("c", 1)]


async def test_a_limit_counts_what_ran_before_it_was_made(flows: Flows) -> None:
    queue = await flows.queue("mail")
    await flows.enqueue(queue, [None] * 6)
    assert len((await flows.claim(queue, 3)).tasks) == 3
    await flows.limit(name="db", max_concurrency=4)
    await flows.change(f'update sluice.queues set limits = \'[{{"name": "db"}}]\' where id = {queue}')
    found = (await flows.claim(queue)).tasks
    assert len(found) == 1
    assert timedelta(0) < found[0].lease_expires_at - (await attempts(flows.core.db, found[0].task_id))[0].started_at


async def test_a_change_of_limits_waits_for_no_run_that_could_wait_for_it(flows: Flows) -> None:
    """Whoever ends a task has its row, and waits for the queue of its callback, which the change may hold."""
    queue = await flows.queue("mail")
    await flows.limit(name="db", max_concurrency=4)
    await flows.enqueue(queue, ["a"] * 9)
    assert len((await flows.claim(queue, 2)).tasks) == 2
    async with flows.cores[1].db.begin(flows.caller.tenant_id) as connection:
        await connection.fetch("select from sluice.tasks where lease_token is not null for update")
        async with asyncio.timeout(5):
            await flows.change(f'update sluice.queues set limits = \'[{{"name": "db"}}]\' where id = {queue}')
    assert len((await flows.claim(queue)).tasks) == 2


@pytest.mark.parametrize("rate", [None, 1000.0])
async def test_a_key_that_its_handler_has_parked_stays_so_when_limits_change(flows: Flows, rate: float | None) -> None:
    queue = await flows.queue("mail")
    await flows.limit("queue_key", owner=queue, rate_limit=rate)
    assert await breakers.park_key(flows.core.db, flows.caller.tenant_id, queue, "a", 60.0)
    await flows.limit(name="db", max_concurrency=4)
    await flows.enqueue(queue, ["a", "b"])
    assert keys_of(await flows.claim(queue)) == ["b"]
    await flows.limit("queue_key", owner=queue, rate_limit=None if rate else 1000.0)
    assert (await flows.claim(queue)).verdict == "full"


async def test_clocks_of_rates_that_were_long_unused_are_deleted(flows: Flows) -> None:
    queue = await flows.queue("mail")
    await flows.limit("queue_rate", owner=queue, rate_limit=1000, rate_period_seconds=1, rate_burst=1000)
    await flows.enqueue(queue, [None])
    assert len((await flows.claim(queue)).tasks) == 1
    assert await pruning.rate_clocks(flows.core.db) == 0
    await flows.core.db.fetch(
        "update sluice.rate_clocks set tat = tat - interval '2 hours', open_at = clock_timestamp()"
    )
    assert await pruning.rate_clocks(flows.core.db) == 0
    await flows.core.db.fetch("update sluice.rate_clocks set open_at = null")
    assert await pruning.rate_clocks(flows.core.db) == 1
