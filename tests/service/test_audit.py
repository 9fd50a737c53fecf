"""Who sees what of the audit, and what becomes of it where a call does not end as it should."""

from dataclasses import replace
from typing import Any

import pytest

from app.domain.callers import Caller
from app.domain.conditions import ANY
from app.domain.errors import Refusal
from app.domain.queues import QueueDefinition
from app.runtime.core import Core
from app.runtime.refusals import MOST
from app.service import audit, queues, tasks
from app.store import audit as store
from app.store import tenants
from app.store.audit import AuditFilters
from app.store.failures import Unavailable
from tests.cores import enqueue

pytestmark = pytest.mark.anyio


async def seen(core: Core, caller: Caller, **filters: Any) -> list[tuple[str, str, str | None, str | None]]:
    """Oldest first."""
    rows, _ = await audit.list_page(core, caller, AuditFilters(**filters), None, 100)
    return [(row.tenant, row.verb, row.name, row.code) for row in reversed(rows)]


async def test_a_manager_sees_its_own_tenant_and_an_operator_all(core: Core, caller: Caller) -> None:
    async with core.db.begin(None) as connection:
        other = Caller(await tenants.ensure(connection, "other"), "other", "manage", "k2")
    await queues.put(core, replace(caller, key_id="k1"), "mail", QueueDefinition(), ANY)
    await queues.put(core, other, "mail", QueueDefinition(), ANY)
    ours, theirs = ("default", "put", "mail", None), ("other", "put", "mail", None)
    assert await seen(core, caller) == [ours, theirs]
    assert await seen(core, replace(caller, scope="manage")) == [ours]
    assert await seen(core, other) == [theirs]
    assert await seen(core, caller, actor="k2") == [theirs] and await seen(core, caller, actor="k3") == []
    for less, code in ((replace(caller, scope="use"), "forbidden"), (replace(caller, queues=("mail",)), "not_found")):
        with pytest.raises(Refusal, match=code):
            await seen(core, less)


async def test_a_scope_too_low_is_on_record(core: Core, caller: Caller) -> None:
    with pytest.raises(Refusal, match="forbidden"):
        await queues.pause(core, replace(caller, scope="read", key_id="k1"), "mail")
    assert await seen(core, caller, actor="k1") == [("default", "pause", "mail", "forbidden")]


async def test_a_call_about_which_nothing_was_decided_leaves_no_row(
    core: Core, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> None:
        raise Unavailable("away")

    monkeypatch.setattr(queues, "locked", away)
    with pytest.raises(Unavailable):
        await queues.pause(core, caller, "mail")
    assert await seen(core, caller) == []


async def test_a_refusal_that_cannot_be_recorded_is_still_that_refusal(
    core: Core, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> None:
        raise Unavailable("away")

    monkeypatch.setattr(store, "record_refusal", away)
    with pytest.raises(Refusal, match="queue_not_found"):
        await queues.pause(core, caller, "mail")


async def test_a_key_fills_the_audit_with_a_bounded_number_of_refused_calls(
    core: Core, caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    mean, other = replace(caller, scope="use", key_id="k1"), replace(caller, key_id="k2", address="10.0.0.1")
    further = 7

    async def flood(times: int) -> None:
        for n in range(times):
            for verb, code in ((queues.pause, "forbidden"), (queues.resume, "forbidden")):
                with pytest.raises(Refusal, match=code):
                    await verb(core, mean, f"made-up-{n}")

    async def rows(key: str) -> list[tuple[str, str | None, str | None, int]]:
        """Oldest first."""
        found, _ = await audit.list_page(core, caller, AuditFilters(actor=key), None, 200)
        return [(row.verb, row.name, row.code, row.calls) for row in reversed(found)]

    await flood(MOST // 2 + further)
    with pytest.raises(Refusal, match="queue_not_found"):
        await queues.pause(core, other, "mail")
    assert await rows("k2") == [("pause", "mail", "queue_not_found", 1)], "one key does not use up what another has"
    await core.refusals.note(core.db)
    assert len(await rows("k1")) == MOST, "the minute is not over"

    async def away(*_: Any) -> None:
        await flood(1)
        raise Unavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(store, "record_refusals", away)
        with pytest.raises(Unavailable):
            await core.refusals.note(core.db, now=True)
    for _ in range(2):
        await core.refusals.note(core.db, now=True)
    assert sorted((await rows("k1"))[MOST + 2 :]) == [
        ("pause", None, "forbidden", further),
        ("resume", None, "forbidden", further),
    ]


@pytest.mark.parametrize("verb", [tasks.cancel, tasks.retry])
async def test_a_task_is_not_changed_without_its_row(
    core: Core, caller: Caller, monkeypatch: pytest.MonkeyPatch, verb: Any
) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no row")

    await queues.put(core, caller, "mail", QueueDefinition(), ANY)
    (task_id,) = await enqueue(core, caller, "mail")
    if verb is tasks.retry:
        await tasks.cancel(core, caller, task_id)
    before = (await tasks.get(core, caller, task_id)).state
    monkeypatch.setattr(tasks, "record", fail)
    with pytest.raises(RuntimeError):
        await verb(core, caller, task_id)
    assert (await tasks.get(core, caller, task_id)).state == before
