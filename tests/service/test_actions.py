"""Actions on a core: what is listed, what becomes of a task that the database refuses, and of a start that cannot go on."""

import asyncio
from typing import Any

import asyncpg
import pytest

from app.domain.actions import ActionRequest
from app.domain.callers import Caller
from app.domain.conditions import ANY
from app.domain.queues import QueueDefinition
from app.domain.tasks import TaskFilters
from app.engine.janitor import Janitor
from app.runtime import acting
from app.runtime.core import Core
from app.service import actions as verbs
from app.service import queues
from app.service.actions import prepared
from app.store import actions, pruning
from app.store.actions import ChunkRefused, NewAction, StoredAction
from app.store.failures import Unavailable
from tests.cores import enqueue

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

CANCEL = ActionRequest("cancel", TaskFilters(queue="mail"), None, {"queue": "mail"})


@pytest.fixture
async def mail(core: Core, caller: Caller) -> None:
    await queues.put(core, caller, "mail", QueueDefinition(), ANY)


async def added(core: Core, caller: Caller, request: ActionRequest = CANCEL) -> NewAction:
    action = await prepared(core, caller, request)
    assert await actions.add(core.db, action)
    return action


async def stored(core: Core, action: NewAction) -> StoredAction:
    found = await actions.read(core.db, action.id)
    assert found is not None
    return found


async def tally(core: Core, action: NewAction) -> tuple[str, int, int, int]:
    view = (await stored(core, action)).view
    return view.state, view.matched, view.done, view.failed


@pytest.mark.usefixtures("mail")
async def test_a_task_enqueued_before_the_list_is_complete_is_not_on_it(core: Core, caller: Caller) -> None:
    await enqueue(core, caller, "mail", 2)
    action = await prepared(core, caller, CANCEL)
    await enqueue(core, caller, "mail")
    await actions.add(core.db, action)
    await acting.finish(core, core.db, action.id)
    assert await tally(core, action) == ("done", 2, 2, 0)


@pytest.mark.usefixtures("mail")
async def test_an_action_that_cannot_go_on_holds_up_no_other(core: Core, caller: Caller) -> None:
    await enqueue(core, caller, "mail", 2)
    broken, sound = await added(core, caller), await added(core, caller)
    await core.db.fetch("update sluice.actions set run_at = '-infinity' where id = $1", broken.id)
    with pytest.raises(ValueError, match="zone"):
        await Janitor(core).act()
    assert await tally(core, sound) == ("done", 2, 2, 0)


@pytest.mark.usefixtures("mail")
async def test_of_a_chunk_that_the_database_refuses_only_the_task_to_blame_fails(core: Core, caller: Caller) -> None:
    ids = await enqueue(core, caller, "mail", 5)
    watcher = await asyncpg.connect(core.db.dsn)
    await watcher.execute(
        "create function public.refuse() returns trigger language plpgsql as $$ begin raise 'not this one'; end $$;"
        f"create trigger refuse before delete on sluice.tasks for each row when (old.id = '{ids[2]}')"
        " execute function public.refuse()"
    )
    action = await added(core, caller)
    try:
        await acting.finish(core, core.db, action.id)
    finally:
        await watcher.execute("drop function public.refuse cascade")
        await watcher.close()
    assert await tally(core, action) == ("done", 5, 4, 1)
    (problem,) = (await stored(core, action)).view.errors
    assert (problem.task, problem.code) == (ids[2], "internal")


@pytest.mark.usefixtures("mail")
async def test_what_passes_is_waited_for_and_nobody_is_blamed(
    core: Core, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    await enqueue(core, caller, "mail", 3)
    action, act, refused = await added(core, caller), actions.act, 0

    async def deadlocked(*args: Any, **kwargs: Any) -> Any:
        nonlocal refused
        refused += 1
        if refused <= 6:
            raise ChunkRefused("deadlock detected", passing=True)
        return await act(*args, **kwargs)

    monkeypatch.setattr(actions, "act", deadlocked)
    await acting.finish(core, core.db, action.id)
    assert await tally(core, action) == ("done", 3, 3, 0)


async def test_a_deadlock_passes_and_an_error_of_the_data_does_not(core: Core) -> None:
    class Refusing:
        def __init__(self, error: Exception) -> None:
            self._error = error

        async def fetch(self, sql: str, *args: Any) -> list[Any]:
            raise self._error

        async def fetchval(self, sql: str, *args: Any) -> Any:
            raise self._error

    for error, passing in (
        (asyncpg.DeadlockDetectedError("x"), True),
        (asyncpg.SerializationError("x"), True),
        (asyncpg.RaiseError("x"), False),
        (asyncpg.DataError("x"), False),
    ):
        with pytest.raises(ChunkRefused) as refused:
            await actions.act(Refusing(error), "", 1)
        assert refused.value.passing is passing


@pytest.mark.usefixtures("mail")
async def test_a_task_that_another_replica_has_acted_on_meanwhile_does_not_fail(core: Core, caller: Caller) -> None:
    await enqueue(core, caller, "mail", 3)
    action = await added(
        core, caller, ActionRequest("cancel", TaskFilters(queue="mail"), None, {}, rate_per_second=0.1)
    )
    await acting.work(core, core.db, action.id, 0)  # lists
    suspect = await actions.next_task(core.db, action.id)
    assert suspect is not None
    assert (await actions.act(core.db, action.id, 1)).done == 1
    await actions.fail_task(core.db, action.id, suspect)
    assert await tally(core, action) == ("running", 3, 1, 0)
    following = await actions.next_task(core.db, action.id)
    assert following not in (None, suspect)
    await actions.fail_task(core.db, action.id, following or "")
    assert await tally(core, action) == ("running", 3, 1, 1)


@pytest.mark.usefixtures("mail")
async def test_a_start_is_answered_once_it_is_stored_although_the_database_goes_away_then(
    core: Core, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    await enqueue(core, caller, "mail", 3)

    async def away(*_: Any) -> None:
        raise Unavailable("away")

    for module, name in ((acting, "work"), (verbs, "get")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, away)
            view, started = await verbs.start(core, caller, CANCEL)
        assert started and view.state in ("running", "done") and view.filter == {"queue": "mail"}
        await acting.finish(core, core.db, view.id)
        assert (await verbs.get(core, caller, view.id)).state == "done"


@pytest.mark.usefixtures("mail")
async def test_engines_hear_of_an_action_after_the_first_work_on_it_and_also_if_that_fails(
    core: Core, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    work = acting.work

    async def working(*args: Any) -> Any:
        done.append("worked")
        return await work(*args)

    async def away(*_: Any) -> None:
        raise Unavailable("away")

    monkeypatch.setattr(core.signals, "action_started", lambda: done.append("told"))
    monkeypatch.setattr(acting, "work", working)
    await verbs.start(core, caller, CANCEL)
    assert done == ["worked", "told"]
    monkeypatch.setattr(acting, "work", away)
    await verbs.start(core, caller, CANCEL)
    assert done == ["worked", "told", "told"]


@pytest.mark.usefixtures("mail")
async def test_repeats_under_an_idempotency_key_start_one_action(core: Core, caller: Caller) -> None:
    await enqueue(core, caller, "mail", 3)
    request = ActionRequest("cancel", TaskFilters(queue="mail"), None, {"queue": "mail"}, idempotency_key="once")
    racing = await asyncio.gather(*(verbs.start(core, caller, request) for _ in range(4)))
    assert len({view.id for view, _ in racing}) == 1 and [started for _, started in racing].count(True) == 1
    assert await core.db.fetchval("select count(*) from sluice.audit where verb = 'start'") == 1


@pytest.mark.usefixtures("mail")
async def test_what_an_ended_action_leaves_on_its_list_is_deleted_and_the_list_of_a_running_one_stays(
    core: Core, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "CHUNK", 2)
    await enqueue(core, caller, "mail", 5)
    slow = ActionRequest("set_priority", TaskFilters(queue="mail"), None, {}, priority=1, rate_per_second=0.001)
    stopped, running = await added(core, caller, slow), await added(core, caller, slow)
    for action in (stopped, running):
        await acting.work(core, core.db, action.id, 0)
    assert await actions.cancel(core.db, caller.tenant_id, stopped.id)
    assert await pruning.actions(core.db) > 0
    left = await core.db.fetch("select action_id::text, count(*) from sluice.action_tasks group by 1")
    assert [row[0] for row in left] == [running.id]
    await core.db.fetch("update sluice.actions set ended_at = ended_at - interval '31 days' where ended_at is not null")
    await pruning.actions(core.db)
    assert await actions.read(core.db, stopped.id) is None
    assert await actions.read(core.db, running.id) is not None
