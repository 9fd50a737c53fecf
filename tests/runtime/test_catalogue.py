"""The one way to deal with a definition that has changed since it was read."""

import pytest

from app.domain.callers import Caller
from app.domain.conditions import ANY
from app.domain.handlers import HandlerDefinition
from app.domain.queues import QueueDefinition
from app.runtime import catalogue
from app.runtime.catalogue import KeepsChanging, TargetCache, until_current
from app.runtime.core import Core
from app.service import handlers, queues
from app.store import queues as stored
from tests.cores import claim, enqueue

pytestmark = pytest.mark.anyio


async def test_targets_of_very_many_queues_and_handlers_are_not_all_kept(
    core: Core, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "MAX_TARGETS", 2)
    targets = TargetCache(core.db, core.vault)
    for n in range(5):
        await handlers.put(core, caller, f"h{n}", HandlerDefinition("http://127.0.0.1/"), None, ANY)
        await queues.put(core, caller, f"q{n}", QueueDefinition(handler=f"h{n}"), ANY)
        row = await stored.find(core.db, caller.tenant_id, f"q{n}")
        assert row is not None
        await enqueue(core, caller, f"q{n}")
        policy, target = await targets.of(row.id, await claim(core, row.id, 1))
        assert (policy.name, target.name) == (f"q{n}", f"h{n}")
        assert len(targets.policies) <= 2 and len(targets.targets) <= 2


@pytest.mark.parametrize("changes", [0, 1, catalogue.TRIES - 1])
async def test_what_was_decided_by_an_old_definition_is_decided_again(
    changes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "PAUSE_SECONDS", 0)
    tried: list[int] = []

    async def attempt() -> int | None:
        tried.append(len(tried))
        return None if len(tried) <= changes else len(tried)

    assert await until_current(attempt, "queue mail") == changes + 1


async def test_a_definition_that_changes_each_time_makes_the_request_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "PAUSE_SECONDS", 0)
    tried: list[int] = []

    async def attempt() -> None:
        tried.append(len(tried))

    with pytest.raises(KeepsChanging) as raised:
        await until_current(attempt, "queue mail")
    assert (raised.value.code, raised.value.retry_after_seconds) == ("unavailable", 1)
    assert raised.value.detail == "queue mail keeps changing; try again"
    assert len(tried) == catalogue.TRIES
