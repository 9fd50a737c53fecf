"""Queues as SQS has them, without a wire: what one key sees, what is encrypted, and what goes on without its request."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from app.domain.callbacks import Callback, Callbacks
from app.domain.callers import Caller
from app.domain.conditions import ANY
from app.domain.errors import Refusal
from app.domain.queues import QueueDefinition
from app.domain.sqs import NO_LIMIT, QueueAttributes, Redrive, new_definition, with_redrive
from app.runtime import acting
from app.runtime.core import Core
from app.service import moves, queues, sqs
from app.store import actions
from tests.cores import enqueue

pytestmark = pytest.mark.anyio


async def create(core: Core, caller: Caller, name: str, **redrive: Any) -> None:
    definition = new_definition(name, Redrive(**redrive) if redrive else None)
    assert await sqs.create(core, caller, name, definition, QueueAttributes()) is None


async def max_attempts(core: Core, name: str) -> int:
    found: int = await core.db.fetchval("select max_attempts from sluice.queues where name = $1", name)
    return found


async def test_the_number_of_receives_follows_whoever_changes_the_queue(core: Core, caller: Caller) -> None:
    await create(core, caller, "dead")
    await create(core, caller, "q")
    assert await max_attempts(core, "q") == NO_LIMIT
    await sqs.change(core, caller, "q", lambda q: (with_redrive(q.definition, Redrive("dead", 3)), q.attributes))
    assert await max_attempts(core, "q") == 3
    await sqs.change(core, caller, "q", lambda q: (with_redrive(q.definition, None), q.attributes))
    assert await max_attempts(core, "q") == NO_LIMIT
    five = replace(QueueDefinition().retry, max_attempts=5)
    await queues.put(core, caller, "q", QueueDefinition(retry=five), ANY)
    await sqs.change(core, caller, "q", lambda q: (q.definition, QueueAttributes(delay_seconds=1)))
    assert await max_attempts(core, "q") == 5


@pytest.mark.ci
async def test_a_change_that_nothing_came_in_between_of_is_written_once(core: Core, caller: Caller) -> None:
    await create(core, caller, "dead")
    await create(core, caller, "q")
    seen: list[QueueAttributes] = []

    def with_dead(queue: sqs.SqsQueue) -> tuple[QueueDefinition, QueueAttributes]:
        seen.append(queue.attributes)
        return with_redrive(queue.definition, Redrive("dead", 3)), queue.attributes

    await sqs.change(core, caller, "q", with_dead)
    assert len(seen) == 1


async def test_a_change_is_made_again_of_what_came_in_between(
    core: Core, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(core, caller, "dead")
    await create(core, caller, "q")
    save, others = queues.save, [lambda q: (q.definition, QueueAttributes(delay_seconds=1))]

    async def late(*args: Any, **kwargs: Any) -> Any:
        while others:  # another change, before this one is written
            await sqs.change(core, caller, "q", others.pop())
        return await save(*args, **kwargs)

    monkeypatch.setattr(queues, "save", late)
    await sqs.change(core, caller, "q", lambda q: (with_redrive(q.definition, Redrive("dead", 3)), q.attributes))
    found = await sqs.find(core, caller, "q")
    assert (found.attributes.delay_seconds, found.definition.retry.max_attempts) == (1, 3)


@pytest.mark.ci
async def test_what_a_deleted_queue_held_ends_although_its_request_did_not_work_on_it(
    start_core: Callable[[], Awaitable[Core]], core: Core, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    await create(core, caller, "q")
    ids = await enqueue(core, caller, "q", 3)

    async def gone(*_: object) -> None:
        raise ConnectionResetError

    with monkeypatch.context() as patched:
        patched.setattr(acting, "work", gone)
        with pytest.raises(ConnectionResetError):
            await sqs.delete(core, caller, "q")
    another = await start_core()
    (action,) = await actions.due(another.db)
    await acting.finish(another, another.db, action)
    rows = await core.db.fetch("select id::text, reason from sluice.task_history order by id")
    assert [tuple(row) for row in rows] == [(task_id, "purged") for task_id in sorted(ids)]


async def test_a_queue_of_the_same_name_keeps_what_was_enqueued_after_the_deletion(core: Core, caller: Caller) -> None:
    await create(core, caller, "q")
    await enqueue(core, caller, "q", 2)
    await sqs.delete(core, caller, "q")
    await create(core, caller, "q")
    await enqueue(core, caller, "q", 1)
    assert await sqs.count(core, caller, await sqs.find(core, caller, "q")) == {
        "ready": 1,
        "scheduled": 0,
        "running": 0,
    }


# keys that are confined to queues


@pytest.fixture
async def confined(core: Core, caller: Caller) -> Caller:
    """A key for a-*, beside queues of others: b-dead is the dead-letter queue of b-q and a-q, a-dead that of b-q2."""
    for name in ("b-dead", "a-dead", "a-other"):
        await create(core, caller, name)
    await create(core, caller, "b-q", target="b-dead", max_receive_count=3)
    await create(core, caller, "a-q", target="b-dead", max_receive_count=3)
    await create(core, caller, "b-q2", target="a-dead", max_receive_count=3)
    return replace(caller, scope="manage", queues=("a-*",), key_id="k")


async def refused(attempt: Awaitable[object]) -> str:
    with pytest.raises(Refusal) as refusal:
        await attempt
    return refusal.value.code


async def test_a_confined_key_lists_only_its_queues(core: Core, confined: Caller) -> None:
    assert await sqs.list_names(core, confined, "", None, 10) == (["a-dead", "a-other", "a-q"], False)
    assert await sqs.list_names(core, confined, "b", None, 10) == ([], False)
    assert await sqs.list_sources(core, confined, "a-dead", None, 10) == ([], False)
    assert await refused(sqs.list_sources(core, confined, "b-dead", None, 10)) == "queue_not_found"


async def test_a_confined_key_reaches_no_queue_beyond(core: Core, confined: Caller) -> None:
    definition = new_definition("b-new", None)
    attributes = QueueAttributes()
    for attempt in (
        sqs.find(core, confined, "b-q"),
        sqs.change(core, confined, "b-q", lambda q: (q.definition, attributes)),
        sqs.create(core, confined, "b-new", definition, attributes),
        sqs.delete(core, confined, "b-q"),
        sqs.empty(core, confined, "b-q"),
        moves.start(core, confined, "b-dead", "a-other", None),
        moves.start(core, confined, "a-dead", "b-q", None),
        moves.list_latest(core, confined, "b-dead", 1),
    ):
        assert await refused(attempt) == "queue_not_found"
    beyond = with_redrive(definition, Redrive("b-dead", 3))
    assert await refused(sqs.create(core, confined, "a-new", beyond, attributes)) == "invalid"


async def test_a_confined_key_moves_only_to_a_queue_that_it_names(core: Core, caller: Caller, confined: Caller) -> None:
    assert await refused(moves.start(core, confined, "a-dead", None, None)) == "forbidden"
    mine = await moves.start(core, confined, "a-dead", "a-other", None)
    theirs = await moves.start(core, caller, "a-dead", "b-q", None)
    shown = await moves.list_latest(core, confined, "a-dead", 10)
    assert [view.id for view in shown] == [mine]
    assert [view.id for view in await moves.list_latest(core, caller, "a-dead", 10)] == [theirs, mine]
    with pytest.raises(moves.NotThere):
        await moves.cancel(core, confined, theirs)


@pytest.mark.ci
async def test_another_tenant_sees_nothing(core: Core, caller: Caller, confined: Caller) -> None:
    other = replace(
        caller, tenant_id=await core.db.fetchval("insert into sluice.tenants (name) values ('t2') returning id")
    )
    assert await sqs.list_names(core, other, "", None, 10) == ([], False)
    action = await moves.start(core, caller, "a-dead", "a-other", None)
    assert await refused(moves.list_latest(core, other, "a-dead", 1)) == "queue_not_found"
    with pytest.raises(moves.NotThere):
        await moves.cancel(core, other, action)


@pytest.mark.ci
async def test_a_key_that_only_uses_queues_changes_none(core: Core, caller: Caller, confined: Caller) -> None:
    user = replace(caller, scope="use")
    for attempt in (
        sqs.create(core, user, "a-new", new_definition("a-new", None), QueueAttributes()),
        sqs.change(core, user, "a-q", lambda q: (q.definition, q.attributes)),
        sqs.delete(core, user, "a-q"),
        sqs.empty(core, user, "a-q"),
        moves.start(core, user, "a-dead", "a-other", None),
        moves.cancel(core, user, "0" * 32),
    ):
        assert await refused(attempt) == "forbidden"


async def test_nothing_moves_to_a_queue_that_encrypts_what_its_source_does_not(core: Core, caller: Caller) -> None:
    callbacks = Callbacks(dead=Callback("dead", "payload"))
    await queues.put(core, caller, "dead", QueueDefinition(), ANY)
    await queues.put(core, caller, "q", QueueDefinition(callbacks=callbacks), ANY)
    await queues.put(core, caller, "sealed", QueueDefinition(), ANY)
    await core.db.fetch("update sluice.queues set encrypt = true where name = 'sealed'")
    assert await refused(moves.start(core, caller, "dead", "sealed", None)) == "invalid"
