"""Queues through their service, and the promise that a change holds from its answer on (P4)."""

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from app.domain.backoff import Backoff, RetryPolicy
from app.domain.callers import Caller
from app.domain.conditions import ANY, Conditions
from app.domain.errors import Refusal
from app.domain.handlers import HandlerDefinition
from app.domain.limits import Limits
from app.domain.queues import QueueDefinition, Retention
from app.runtime.core import Core
from app.service import handlers, queues, tenant_limits
from app.store import queues as store
from app.store.task_lists import queues_to_look_in
from tests.cores import claim, enqueue
from tests.promises.gates import WAITING
from tests.support import poll

pytestmark = pytest.mark.anyio

HOOK = HandlerDefinition("https://example.com/hook")


@pytest.fixture(autouse=True)
async def _handler(core: Core, caller: Caller) -> None:
    await handlers.put(core, caller, "hook", HOOK, None, ANY)


async def row_of(core: Core, caller: Caller, name: str = "mail") -> store.QueueRow:
    row = await store.find(core.db, caller.tenant_id, name)
    assert row is not None
    return row


async def running(core: Core) -> int:
    return int(await core.db.fetchval("select count(*) from sluice.tasks where state = 1"))


async def test_a_definition_comes_back_as_it_was_put(core: Core, caller: Caller) -> None:
    definition = QueueDefinition(
        handler="hook",
        max_concurrency=3,
        max_depth=100,
        timeout_seconds=2.5,
        retry=RetryPolicy(5, 60.0, Backoff(kind="list", seconds=(1.0, 5.0))),
        idempotency_seconds=60.0,
        retention=Retention(1, 2, 0),
        description="Letters to people",
    )
    saved = await queues.put(core, caller, "mail", definition, ANY)
    assert saved.created and saved.view.definition == definition
    assert await queues.get(core, caller, "mail") == (saved.view, saved.etag)
    row = await row_of(core, caller)
    assert (row.retry, row.max_attempts, row.handler) == (definition.retry, 5, "hook")
    policy = await store.load_policy(core.db, row.id)
    assert policy is not None and policy.limited and policy.retry == definition.retry and policy.tenant == "default"


async def test_a_replacement_returns_to_defaults_and_keeps_the_pause(core: Core, caller: Caller) -> None:
    first = await queues.put(core, caller, "mail", QueueDefinition(handler="hook", max_depth=5), ANY)
    await queues.pause(core, caller, "mail")
    saved = await queues.put(core, caller, "mail", QueueDefinition(), ANY)
    assert not saved.created and saved.etag != first.etag
    assert saved.view.definition == QueueDefinition()
    assert saved.view.paused and saved.view.paused_at is not None
    assert (await row_of(core, caller)).version == 2


async def test_an_identical_put_changes_nothing(core: Core, caller: Caller) -> None:
    definition = QueueDefinition(handler="hook", timeout_seconds=3)
    first = await queues.put(core, caller, "mail", definition, ANY)
    second = await queues.put(core, caller, "mail", definition, Conditions(if_match=(first.etag,)))
    assert (second.view, second.etag, second.created) == (first.view, first.etag, False)
    assert (await row_of(core, caller)).version == 1


async def test_only_one_of_racing_creations_creates(start_core: Callable[[], Awaitable[Core]], caller: Caller) -> None:
    cores = [await start_core() for _ in range(2)]
    definition = QueueDefinition(handler="hook")
    saved = await asyncio.gather(*(queues.put(core, caller, "mail", definition, ANY) for core in cores * 4))
    assert sum(one.created for one in saved) == 1
    assert len({one.etag for one in saved}) == 1


async def test_an_unknown_handler_is_named_in_the_refusal(core: Core, caller: Caller) -> None:
    with pytest.raises(Refusal, match="invalid") as refused:
        await queues.put(core, caller, "mail", QueueDefinition(handler="nobody"), ANY)
    assert [error.pointer for error in refused.value.errors] == ["/handler"]
    with pytest.raises(Refusal, match="queue_not_found"):
        await queues.get(core, caller, "mail")


async def test_what_breaks_a_rule_is_refused_whole(core: Core, caller: Caller) -> None:
    broken = QueueDefinition(max_concurrency=0, max_depth=0, retention=Retention(dead_days=91))
    with pytest.raises(Refusal, match="invalid") as refused:
        await queues.put(core, caller, "mail", broken, ANY)
    assert [error.pointer for error in refused.value.errors] == [
        "/max_concurrency",
        "/max_depth",
        "/retention/dead_days",
    ]


async def test_a_queue_with_unfinished_tasks_is_not_deleted(core: Core, caller: Caller) -> None:
    await queues.put(core, caller, "mail", QueueDefinition(handler="hook"), ANY)
    row = await row_of(core, caller)
    await enqueue(core, caller, "mail")
    with pytest.raises(Refusal, match="queue_in_use"):
        await queues.delete(core, caller, "mail", ANY)
    await core.db.fetch("delete from sluice.tasks")
    await queues.delete(core, caller, "mail", ANY)
    assert await core.db.fetchval("select count(*) from sluice.lanes") == 0
    assert (await claim(core, row.id, 1)).verdict == "gone"
    with pytest.raises(Refusal, match="queue_not_found"):
        await queues.delete(core, caller, "mail", ANY)
    assert (await queues.put(core, caller, "mail", QueueDefinition(), ANY)).created
    assert len(await queues_to_look_in(core.db, caller, "mail") or ()) == 2, "history of the one before is still found"


async def test_pause_and_resume_can_be_repeated_and_resume_wakes_every_lane(core: Core, caller: Caller) -> None:
    woken: list[str] = []
    core.signals.any_lane_ready = lambda: woken.append("any lane")
    await queues.put(core, caller, "mail", QueueDefinition(handler="hook"), ANY)
    first = await queues.pause(core, caller, "mail")
    assert first.paused and await queues.pause(core, caller, "mail") == first
    assert woken == []
    assert not (await queues.resume(core, caller, "mail")).paused
    assert not (await queues.resume(core, caller, "mail")).paused
    assert woken


async def test_lists_go_by_name_in_pages(core: Core, caller: Caller) -> None:
    for name in ("b", "a-1", "a", "a_2", "c"):
        await queues.put(core, caller, name, QueueDefinition(), ANY)
    first, more = await queues.list_page(core, caller, None, 3)
    rest, none = await queues.list_page(core, caller, first[-1].name, 3)
    assert [view.name for view in first + rest] == sorted(["b", "a-1", "a", "a_2", "c"])
    assert (more, none) == (True, False)


async def test_one_tenant_sees_nothing_of_another(core: Core, caller: Caller) -> None:
    await queues.put(core, caller, "mail", QueueDefinition(), ANY)
    (row,) = await core.db.fetch("insert into sluice.tenants (name) values ('other') returning id")
    other = Caller(row["id"], "other", "operate")
    assert await queues.list_page(core, other, None, 10) == ([], False)
    for verb in (queues.get, queues.pause, queues.resume, queues.stats):
        with pytest.raises(Refusal, match="queue_not_found"):
            await verb(core, other, "mail")
    assert (await queues.put(core, other, "mail", QueueDefinition(), ANY)).created
    assert await queues_to_look_in(core.db, other, None) != await queues_to_look_in(core.db, caller, None)


async def test_changes_need_the_scope_manage(core: Core, caller: Caller) -> None:
    user = Caller(caller.tenant_id, caller.tenant, "use")
    await queues.put(core, caller, "mail", QueueDefinition(), ANY)
    await queues.get(core, user, "mail")
    assert (await tenant_limits.get(core, user)).max_concurrency is None
    for attempt in (
        queues.put(core, user, "mail", QueueDefinition(), ANY),
        queues.delete(core, user, "mail", ANY),
        queues.pause(core, user, "mail"),
        queues.resume(core, user, "mail"),
        tenant_limits.put(core, user, Limits(1)),
    ):
        with pytest.raises(Refusal, match="forbidden"):
            await attempt


async def test_a_limit_of_tenant_or_handler_makes_replicas_read_the_policies_anew(core: Core, caller: Caller) -> None:
    await queues.put(core, caller, "mail", QueueDefinition(handler="hook"), ANY)
    row = await row_of(core, caller)

    async def limited() -> tuple[int, bool]:
        policy = await store.load_policy(core.db, row.id)
        assert policy is not None
        return policy.version, policy.limited

    assert await limited() == (1, False)
    await tenant_limits.put(core, caller, Limits(5))
    assert await limited() == (2, True)
    await tenant_limits.put(core, caller, Limits(6))
    assert await limited() == (2, True)
    await tenant_limits.put(core, caller, Limits(None))
    await handlers.put(core, caller, "hook", HandlerDefinition(HOOK.url, max_concurrency=2), None, ANY)
    assert await limited() == (4, True)


Change = Callable[[Core, Caller], Awaitable[object]]


async def limit_queue(core: Core, caller: Caller) -> None:
    await queues.put(core, caller, "mail", QueueDefinition(handler="hook", max_concurrency=4), ANY)


async def limit_handler(core: Core, caller: Caller) -> None:
    await handlers.put(core, caller, "hook", HandlerDefinition(HOOK.url, max_concurrency=4), None, ANY)


async def limit_tenant(core: Core, caller: Caller) -> None:
    await tenant_limits.put(core, caller, Limits(4))


async def pause(core: Core, caller: Caller) -> None:
    await queues.pause(core, caller, "mail")


async def disable(core: Core, caller: Caller) -> None:
    await handlers.disable(core, caller, "hook")


CHANGES = pytest.mark.parametrize("change", [limit_queue, limit_handler, limit_tenant, pause, disable])


@CHANGES
async def test_nothing_is_admitted_against_a_change_once_it_is_answered(
    start_core: Callable[[], Awaitable[Core]], caller: Caller, change: Change
) -> None:
    """Claimers of two replicas run against the change; what runs at its answer may stay, more may not come."""
    cores = [await start_core() for _ in range(2)]
    await queues.put(cores[0], caller, "mail", QueueDefinition(handler="hook"), ANY)
    row = await row_of(cores[0], caller)
    await enqueue(cores[0], caller, "mail", 400)
    answered = asyncio.Event()

    async def claimer(core: Core) -> None:
        further = 0
        while further < 5:
            further += answered.is_set()
            await claim(core, row.id, 1)

    claimers = [asyncio.create_task(claimer(core)) for core in cores * 4]
    await poll(lambda: running(cores[0]))
    await change(cores[0], caller)
    admitted = await running(cores[0])
    answered.set()
    await asyncio.gather(*claimers)
    assert admitted >= 1
    assert await running(cores[0]) <= max(admitted, 4)
    assert await running(cores[0]) < 400, "there was more to claim"


@CHANGES
async def test_a_change_waits_for_the_claim_in_flight(
    core: Core, caller: Caller, database_url: str, change: Change
) -> None:
    await queues.put(core, caller, "mail", QueueDefinition(handler="hook"), ANY)
    row = await row_of(core, caller)
    await enqueue(core, caller, "mail", 2)
    other = await asyncpg.connect(database_url)
    try:
        flight = other.transaction()
        await flight.start()
        await other.fetch(
            "select * from sluice.claim_v1(array[($1::bigint, 0, 1, null, null)::sluice.lane_v1], gen_random_uuid(), 'x',"
            " gen_random_uuid(), clock_timestamp() + '9 s', 30, false)",
            row.id,
        )
        changing = asyncio.ensure_future(change(core, caller))
        await poll(lambda: core.db.fetchval(WAITING))
        assert not changing.done()
        await flight.commit()
        await changing
    finally:
        await other.close()
    assert await running(core) == 1


async def test_a_handler_cannot_go_while_a_queue_is_made_that_names_it(core: Core, caller: Caller) -> None:
    """Whichever comes first, no queue ends up with a handler that has been deleted."""
    for turn in range(10):
        name = f"h{turn}"
        await handlers.put(core, caller, name, HOOK, None, ANY)
        await asyncio.gather(
            queues.put(core, caller, "mail", QueueDefinition(handler=name), ANY),
            handlers.delete(core, caller, name, ANY),
            return_exceptions=True,
        )
        orphans = await core.db.fetchval(
            "select count(*) from sluice.queues q join sluice.handlers h on h.id = q.handler_id "
            "where q.deleted_at is null and h.deleted_at is not null"
        )
        assert orphans == 0
