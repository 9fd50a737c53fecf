"""What an action lists: what was there when it was asked for."""

import pytest

from app.domain.actions import ActionRequest
from app.domain.callers import Caller
from app.domain.conditions import ANY
from app.domain.queues import QueueDefinition
from app.domain.tasks import TaskFilters
from app.engine.janitor import Janitor
from app.runtime import acting
from app.runtime.core import Core
from app.service import queues
from app.service.actions import prepared
from app.store import actions
from tests.cores import enqueue

pytestmark = [pytest.mark.anyio, pytest.mark.ci]


async def test_a_task_enqueued_before_the_list_is_complete_is_not_on_it(core: Core, caller: Caller) -> None:
    await queues.put(core, caller, "mail", QueueDefinition(), ANY)
    await enqueue(core, caller, "mail", 2)
    action = await prepared(core, caller, ActionRequest("cancel", TaskFilters(queue="mail"), None, {"queue": "mail"}))
    await enqueue(core, caller, "mail")
    await actions.add(core.db, action)
    await acting.finish(core, core.db, action.id)
    found = await actions.read(core.db, action.id)
    assert found is not None and (found.view.matched, found.view.done) == (2, 2)


async def test_an_action_that_cannot_go_on_holds_up_no_other(core: Core, caller: Caller) -> None:
    await queues.put(core, caller, "mail", QueueDefinition(), ANY)
    await enqueue(core, caller, "mail", 2)
    request = ActionRequest("cancel", TaskFilters(queue="mail"), None, {"queue": "mail"})
    broken, sound = [await prepared(core, caller, request) for _ in range(2)]
    for action in (broken, sound):
        await actions.add(core.db, action)
    await core.db.fetch("update sluice.actions set run_at = '-infinity' where id = $1", broken.id)
    with pytest.raises(ValueError, match="zone"):
        await Janitor(core).act()
    found = await actions.read(core.db, sound.id)
    assert found is not None and (found.view.state, found.view.done) == ("done", 2)
