"""P8, P10 to P13: keys and named limits are exact, no task waits beside free room, keys share fairly, others pay nothing."""

import asyncio
import random
import time
from collections import Counter

import pytest

from app.domain.actions import ActionRequest
from app.domain.callers import Caller
from app.domain.conditions import ANY
from app.domain.tasks import State, TaskFilters
from app.runtime import acting
from app.runtime.core import Core
from app.service import limit_keys, queues
from app.service.actions import prepared
from app.store import actions, tasks
from app.store import flows as store
from app.store.numbers import Lock
from app.store.tasks import Claimed, cancel
from tests.cores import claim
from tests.promises.flows import Flows, keys_of, uses
from tests.promises.records import attempts, lose_leases, most_at_once

pytestmark = pytest.mark.anyio


@pytest.fixture
def flows(cores: list[Core], caller: Caller) -> Flows:
    return Flows(cores, caller)


async def test_each_key_of_a_queue_has_its_own_limit(flows: Flows) -> None:
    queue = await flows.queue("mail")
    await flows.limit("queue_key", owner=queue, max_concurrency=2)
    await flows.enqueue(queue, ["a"] * 5 + ["b"] * 3 + [None] * 2)
    first = await flows.claim(queue, 20)
    assert Counter(keys_of(first)) == {"a": 2, "b": 2, None: 2}
    again = await flows.claim(queue, 20)
    assert (again.tasks, again.verdict, again.full_at) == ([], "full", "flows")
    await flows.settle([task for task in first.tasks if task.options.key == "b"])
    assert keys_of(await flows.claim(queue, 20)) == ["b"]
    assert (await flows.claim(queue, 20)).verdict == "full"


async def test_a_named_limit_holds_over_queues_and_tasks_that_name_it(flows: Flows) -> None:
    one, two = await flows.queue("one"), await flows.queue("two")
    await flows.limit(name="db", max_concurrency=3)
    await flows.change(f'update sluice.queues set limits = \'[{{"name": "db"}}]\' where id = {one}')
    await flows.enqueue(one, [None] * 4)
    await flows.enqueue(two, [None] * 4, limits=uses("db"))
    await flows.enqueue(two, ["k"])
    taken = (await flows.claim(one, 2)).tasks + (await flows.claim(two, 9)).tasks
    assert Counter((task.options.key, bool(task.options.limits)) for task in taken) == {
        (None, False): 2,
        (None, True): 1,
        ("k", False): 1,
    }
    assert {(await flows.claim(queue, 9)).verdict for queue in (one, two)} == {"full"}
    await flows.settle(taken[:1])
    found = await flows.claim(two, 9)
    assert len(found.tasks) == 1
    # whoever claims tells which other lanes may go on
    assert (one, 0) in found.opened
    await flows.settle(found.tasks)
    assert len((await flows.claim(one, 9)).tasks) + len((await flows.claim(two, 9)).tasks) == 1


async def drain(flows: Flows, queues: list[int], claimers: int = 8, dice: int = 1) -> list[Claimed]:
    """Claim, hold for a moment and settle, by several at once, until nothing is left and nobody sweeps."""
    chance = random.Random(dice)
    done: list[Claimed] = []

    async def left() -> int:
        count: int = await flows.core.db.fetchval("select count(*) from sluice.tasks")
        return count

    async def claimer(number: int) -> None:
        idle = 0
        while idle < 400:
            queue = queues[(number + idle) % len(queues)]
            found = await flows.claim(queue, chance.randrange(1, 9), number % len(flows.cores))
            idle = 0 if found.tasks else idle + 1
            if idle % 50 == 1 and await left() == 0:
                return
            await asyncio.sleep(0)
            retried = [task for task in found.tasks if chance.random() < 0.2 and task.attempt < 3]
            ended = [task for task in found.tasks if task not in retried]
            await flows.settle(retried, chance.choice(["retry", "refund"]))
            await flows.settle(ended)
            done.extend(ended)

    await asyncio.gather(*(claimer(number) for number in range(claimers)))
    return done


async def test_many_claimers_never_exceed_a_limit_and_leave_nothing_behind(flows: Flows) -> None:
    """Nobody sweeps here: a single lost signal would leave a task for ever."""
    queues = [await flows.queue(name) for name in ("one", "two", "three")]
    for queue in queues[:2]:
        await flows.limit("queue_key", owner=queue, max_concurrency=2)
    await flows.limit(name="db", max_concurrency=5)
    await flows.limit(name="per", keyed=True, max_concurrency=3)
    dice = random.Random(7)
    names: dict[str, set[str]] = {}
    for _ in range(30):
        queue, key = dice.choice(queues), dice.choice(["a", "b", "c", "d", None])
        limits = dice.choice([(), uses("db"), uses("per"), uses("db", "per")])
        for task_id in await flows.enqueue(queue, [key] * 8, limits=limits):
            used = {use.name if use.name == "db" else f"per {key or ''}" for use in limits}
            names[task_id] = used | ({f"{queue} {key}"} if key and queue in queues[:2] else set())
    await drain(flows, queues)
    assert await flows.core.db.fetchval("select count(*) from sluice.tasks") == 0
    every = await attempts(flows.core.db)
    for name in set().union(*names.values()):
        limit = 5 if name == "db" else 3 if name.startswith("per") else 2
        found = [attempt for attempt in every if name in names[attempt.task_id]]
        assert most_at_once(found) <= limit, name
    assert (await store.sweep(flows.core.db)).rescued == 0
    assert await flows.core.db.fetchval("select count(*) from sluice.holds") == 0
    assert await flows.core.db.fetchval("select count(*) from sluice.flow_signals") == 0


async def test_keys_share_by_weight(flows: Flows) -> None:
    queue = await flows.queue("mail")
    limit = await flows.limit("queue_key", owner=queue)
    await flows.change(
        "insert into sluice.limit_keys (limit_id, key, bucket_id, weight)"
        f" values ({limit}, 'big', sluice.bucket_v1({limit}, 'big'), 3)"
    )
    await flows.enqueue(queue, ["big"] * 2000)
    await flows.enqueue(queue, ["a"] * 2000 + ["b"] * 2000)
    got: Counter[str | None] = Counter()
    for want in [10, 64, 7, 300, 1, 1, 1, 1, 1, 14] * 5:
        found = await flows.claim(queue, want)
        assert len(found.tasks) == want
        got.update(keys_of(found))
    share = sum(got.values()) / 5
    assert all(
        abs(got[key] - weight * share) < 0.1 * weight * share for key, weight in (("big", 3), ("a", 1), ("b", 1))
    )


async def test_one_task_of_another_key_is_in_the_next_claims_whatever_waits_before_it(flows: Flows) -> None:
    queue = await flows.queue("mail")
    await flows.enqueue(queue, ["deep"] * 3000)
    assert len((await flows.claim(queue, 50)).tasks) == 50
    await flows.enqueue(queue, ["other"])
    found = keys_of(await flows.claim(queue, 1)) + keys_of(await flows.claim(queue, 1))
    assert "other" in found


async def test_priority_is_strict(flows: Flows) -> None:
    queue = await flows.queue("mail")
    await flows.enqueue(queue, ["a"] * 4)
    await flows.enqueue(queue, ["b"] * 2, priority=5)
    assert keys_of(await flows.claim(queue, 3)) == ["b", "b", "a"]


async def test_a_key_that_comes_often_with_one_task_does_not_starve_the_others(flows: Flows) -> None:
    queue = await flows.queue("mail")
    await flows.enqueue(queue, ["a"] * 4)
    seen = keys_of(await flows.claim(queue, 1))
    for _ in range(8):
        await flows.enqueue(queue, ["often"])
        seen += keys_of(await flows.claim(queue, 1))
    assert seen.count("a") == 4


async def test_room_that_one_flow_cannot_use_goes_to_the_next(flows: Flows) -> None:
    queue = await flows.queue("mail")
    await flows.limit("queue_key", owner=queue, max_concurrency=1)
    await flows.limit(name="db", max_concurrency=1)
    await flows.enqueue(queue, ["holder"], limits=uses("db"))
    held = (await flows.claim(queue)).tasks
    await flows.enqueue(queue, ["a"], limits=uses("db"), priority=5)
    assert not (await flows.claim(queue)).tasks
    await flows.enqueue(queue, ["a"])
    assert keys_of(await flows.claim(queue)) == ["a"]
    await flows.enqueue(queue, ["b"], limits=uses("db"))
    assert not (await flows.claim(queue)).tasks
    await flows.settle(held)
    # the first that waits for the database is opened, and now its key blocks it
    assert keys_of(await flows.claim(queue)) + keys_of(await flows.claim(queue)) == ["b"]


async def test_two_thousand_blocked_keys_cost_a_claim_next_to_nothing(flows: Flows) -> None:
    queue = await flows.queue("mail")
    await flows.limit("queue_key", owner=queue, max_concurrency=1)
    names = [f"key {number}" for number in range(2000)]
    for start in range(0, len(names), 500):
        await flows.enqueue(queue, [name for name in names[start : start + 500] for _ in range(2)])
    held = 0
    while held < len(names):
        held += len((await flows.claim(queue, 400)).tasks)
    while (found := await flows.claim(queue, 400)).verdict == "ok":
        assert not found.tasks
    assert await flows.parked() == len(names)
    took = []
    for number in range(5):
        await flows.enqueue(queue, [f"free {number}"])
        began = time.perf_counter()
        assert keys_of(await flows.claim(queue, 10)) == [f"free {number}"]
        took.append(time.perf_counter() - began)
    assert min(took) < 0.05


@pytest.mark.parametrize("way", ["settle", "retry", "reap", "cancel", "release"])
async def test_whatever_ends_a_run_lets_the_next_one_start(flows: Flows, way: str) -> None:
    queue = await flows.queue("mail")
    await flows.limit("queue_key", owner=queue, max_concurrency=1)
    await flows.enqueue(queue, ["k", "k"])
    (held,) = (await flows.claim(queue)).tasks
    assert (await flows.claim(queue)).verdict == "full"
    if way == "settle":
        await flows.settle([held])
    elif way == "retry":
        await flows.settle([held], "retry", 60)
    elif way == "reap":
        await lose_leases(flows.core.db)
        await tasks.reap(flows.core.db, 10)
    elif way == "cancel":
        await cancel(flows.core.db, flows.caller.tenant_id, [held.task_id], "requested")
    else:
        claim_id = await flows.core.db.fetchval("select lease_claim from sluice.tasks where id = $1", held.task_id)
        await tasks.release_claim(flows.core.db, claim_id)
    assert len((await flows.claim(queue)).tasks) == 1


@pytest.mark.parametrize("way", ["cancel", "purge", "expire", "patch"])
async def test_whatever_takes_away_the_first_of_an_ordered_key_lets_the_next_one_start(flows: Flows, way: str) -> None:
    queue = await flows.queue("mail")
    await flows.limit("queue_key", owner=queue, ordered=True)
    await flows.limit(name="db", max_concurrency=1)
    db, tenant = flows.core.db, flows.caller.tenant_id
    (first,) = await flows.enqueue(queue, ["k"], delay_seconds=60)
    (second,) = await flows.enqueue(queue, ["k"], limits=uses("db"))
    assert (await flows.claim(queue)).verdict == "full"
    if way == "cancel":
        await cancel(db, tenant, [first], "requested")
    elif way == "purge":
        action = await prepared(
            flows.core, flows.caller, ActionRequest("purge", TaskFilters(state=State.SCHEDULED), None, {})
        )
        await actions.add(db, action)
        await acting.finish(flows.core, db, action.id)
    elif way == "expire":
        await db.fetch("update sluice.tasks set expires_at = created_at where id = $1", first)
        assert (await tasks.expire(db, 10))[0].moved == 1
    else:
        version = await db.fetchval("select version from sluice.queues where id = $1", queue)
        patch = '{"key": "another"}'
        assert await tasks.update(db, tenant, first, version, "{}", patch, None, None, "{}") == "done"
    assert [task.task_id for task in (await flows.claim(queue)).tasks] == [second]


@pytest.mark.parametrize("way", ["promote", "retry", "redrive", "patch"])
async def test_whatever_makes_a_task_ready_lets_it_start(flows: Flows, way: str) -> None:
    queue = await flows.queue("mail")
    db, tenant = flows.core.db, flows.caller.tenant_id
    (task_id,) = await flows.enqueue(queue, ["k"], delay_seconds=0.001 if way == "promote" else 60)
    assert (await flows.claim(queue)).verdict == "empty"
    if way == "promote":
        while not (await tasks.promote(db, 10)).moved:
            await asyncio.sleep(0.001)
    elif way == "redrive":
        await cancel(db, tenant, [task_id], "requested")
        assert (await flows.claim(queue)).verdict == "empty"
        await tasks.retry(db, tenant, task_id)
    elif way == "retry":
        await tasks.retry(db, tenant, task_id)
    else:
        version = await db.fetchval("select version from sluice.queues where id = $1", queue)
        assert (
            await tasks.update(db, tenant, task_id, version, '{"delay_seconds": 0}', "{}", None, None, "{}") == "done"
        )
    assert [task.task_id for task in (await flows.claim(queue)).tasks] == [task_id]


async def test_a_hold_counts_only_while_its_task_runs(flows: Flows) -> None:
    """As if the signal of its end had been lost: the slot is free all the same."""
    queue = await flows.queue("mail")
    await flows.limit(name="db", max_concurrency=1)
    await flows.enqueue(queue, ["k"], limits=uses("db"))
    await flows.settle((await flows.claim(queue)).tasks, "retry", 60)
    await flows.core.db.fetch("delete from sluice.flow_signals")
    assert await flows.core.db.fetchval("select count(*) from sluice.holds") == 1
    await flows.enqueue(queue, ["other"], limits=uses("db"))
    assert keys_of(await flows.claim(queue)) == ["other"]


async def test_nothing_is_left_of_the_flows_of_a_queue_that_is_deleted(flows: Flows) -> None:
    """Its parked flows would raise the alarm of flows that wait beside free room, and its open ones would be claimed for ever."""
    queue = await flows.queue("mail")
    await flows.limit("queue_key", owner=queue, max_concurrency=1)
    await limit_keys.pause_of_queue(flows.core, flows.caller, "mail", "p")
    await flows.enqueue(queue, ["a", "a", "p"])
    running = (await flows.claim(queue)).tasks
    assert (len(running), await flows.parked()) == (1, 2)
    await flows.enqueue(queue, ["b"])
    waiting = await flows.core.db.fetch("select id from sluice.tasks where lease_token is null")
    await cancel(flows.core.db, flows.caller.tenant_id, [str(row[0]) for row in waiting], "unwanted")
    await flows.settle(running)
    await queues.delete(flows.core, flows.caller, "mail", ANY)
    assert (await store.sweep(flows.core.db)).rescued == 0
    assert await flows.core.db.fetchval("select count(*) from sluice.flows") == 0


async def test_the_sweep_finds_what_nobody_signalled(flows: Flows) -> None:
    queue = await flows.queue("mail")
    await flows.limit("queue_key", owner=queue, max_concurrency=1)
    await flows.enqueue(queue, ["k", "k"])
    held = (await flows.claim(queue)).tasks
    assert (await flows.claim(queue)).verdict == "full"
    assert (await store.sweep(flows.core.db)).rescued == 0
    await flows.settle(held)
    await flows.core.db.fetch("delete from sluice.flow_signals")
    assert (await flows.claim(queue)).verdict == "full"
    assert await store.sweep(flows.core.db) == ([(queue, 0)], 1)
    assert len((await flows.claim(queue)).tasks) == 1


async def test_a_sweep_does_not_hold_the_gates_of_all_tenants_until_it_has_looked_after_the_last(flows: Flows) -> None:
    """Forty tenants with five hundred parked flows each take it some hundred milliseconds."""
    async with flows.core.db.transaction() as connection:
        await connection.execute("""
            with tenants as (
              insert into sluice.tenants (name) select 'tenant-' || n from generate_series(1, 40) n returning id),
            limits as (
              insert into sluice.limits (tenant_id, kind, name, paused) select id, 'named', 'l', true from tenants
              returning id, tenant_id)
            insert into sluice.flows (id, tenant_id, queue_id, handler_id, plain, vt, clock, parked_on, parked_limit, costs)
            select l.id * 1000 + n, l.tenant_id, l.tenant_id, 0, n = 0, 0, 0, nullif(n, 0), case when n > 0 then l.id end, '{1}'
            from limits l, generate_series(0, 500) n""")
        await connection.execute("analyze sluice.flows")
    async with flows.core.db.transaction() as connection:
        assert await store.sweep(connection) == ([], 0)
        gates = await connection.fetchval(
            "select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"
        )
    assert 1 <= gates < 40


async def test_tasks_without_keys_and_limits_pay_nothing_for_those_of_others(flows: Flows) -> None:
    """They are claimed while another claim of their tenant has its gate, and nothing is written for them."""
    plain, keyed = await flows.queue("plain"), await flows.queue("keyed")
    await flows.limit("queue_key", owner=keyed, max_concurrency=1)
    await flows.enqueue(keyed, ["k", "k"])
    async with flows.core.db.transaction() as claiming:
        await claiming.fetch("select pg_advisory_xact_lock($1, $2)", Lock.GATE, flows.caller.tenant_id)
        assert (await claim(flows.core, keyed, 1)).verdict == "busy"
        await flows.enqueue(plain, [None] * 5)
        found = await claim(flows.core, plain, 2)
        assert (found.verdict, len(found.tasks)) == ("ok", 2)
        await flows.settle(found.tasks[:1])
    written = [
        await flows.core.db.fetchval(f"select count(*) from sluice.{table} where queue_id = $1", plain)
        for table in ("flows", "flow_signals")
    ]
    assert written == [0, 0] and await flows.core.db.fetchval("select count(*) from sluice.holds") == 0


async def test_an_ordered_key_runs_one_task_at_a_time_in_the_order_of_enqueueing(flows: Flows) -> None:
    queue = await flows.queue("mail")
    await flows.limit("queue_key", owner=queue, ordered=True)
    await flows.limit(name="db", max_concurrency=1)
    first, second, third = [
        (await flows.enqueue(queue, ["k"], priority=priority, limits=limits))[0]
        for priority, limits in ((0, uses("db")), (9, ()), (5, uses("db")))
    ]
    (task,) = (await flows.claim(queue)).tasks
    assert task.task_id == first
    assert (await flows.claim(queue)).verdict == "full"
    await flows.settle([task], "retry", 0.02)
    assert (await flows.claim(queue)).verdict == "full"
    await asyncio.sleep(0.03)
    await tasks.promote(flows.core.db, 10)
    (task,) = (await flows.claim(queue)).tasks
    assert task.task_id == first
    await flows.settle([task], "dead")
    (task,) = (await flows.claim(queue)).tasks
    assert task.task_id == second
    assert not (await flows.claim(queue)).tasks
    await flows.settle([task])
    (task,) = (await flows.claim(queue)).tasks
    assert task.task_id == third
