"""Handlers through their service: definitions, secrets, enabledness, the test request."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest
from standardwebhooks import Webhook

from app.domain.callers import Caller
from app.domain.conditions import ANY, Conditions
from app.domain.errors import Refusal
from app.domain.handlers import HandlerDefinition, is_secret
from app.domain.queues import QueueDefinition
from app.runtime.core import Core
from app.service import handlers, queues
from app.store import handlers as store
from tests.cores import enqueue
from tests.handlers import Handler, Reply

pytestmark = pytest.mark.anyio

HOOK = HandlerDefinition("https://example.com/hook")
SECRET = "whsec_" + "A" * 44


async def target_of(core: Core, caller: Caller, name: str) -> store.Target:
    handler_id = await store.id_of(core.db, caller.tenant_id, name)
    assert handler_id is not None
    target = await store.load_target(core.db, core.vault, handler_id)
    assert target is not None
    return target


async def test_creation_makes_a_secret_and_shows_it_this_once(core: Core, caller: Caller) -> None:
    saved = await handlers.put(core, caller, "mail", HOOK, None, ANY)
    assert saved.created
    assert saved.secret is not None and is_secret(saved.secret)
    assert (await handlers.put(core, caller, "mail", HOOK, None, ANY)).secret is None
    assert (await target_of(core, caller, "mail")).secrets == (saved.secret,)


async def test_a_replacement_keeps_secret_and_enabledness_and_drops_what_is_absent(core: Core, caller: Caller) -> None:
    full = HandlerDefinition(
        "https://example.com/a", 5.0, {"authorization": "Bearer x"}, 7, (400, 422), "Letters to people"
    )
    first = await handlers.put(core, caller, "mail", full, None, ANY)
    await handlers.disable(core, caller, "mail")
    second = await handlers.put(core, caller, "mail", HOOK, None, ANY)
    assert not second.created
    assert second.view.definition == HOOK
    assert not second.view.enabled and second.view.disabled_reason == "disabled by request"
    assert (await target_of(core, caller, "mail")).secrets == (first.secret,)
    assert second.etag != first.etag


async def test_an_identical_put_changes_nothing(core: Core, caller: Caller) -> None:
    first = await handlers.put(core, caller, "mail", HOOK, SECRET, ANY)
    before = await target_of(core, caller, "mail")
    second = await handlers.put(core, caller, "mail", HOOK, SECRET, ANY)
    assert (second.view, second.etag, second.created) == (first.view, first.etag, False)
    assert await target_of(core, caller, "mail") == before


async def test_a_secret_that_is_given_replaces_at_once_and_is_not_echoed(core: Core, caller: Caller) -> None:
    await handlers.put(core, caller, "mail", HOOK, None, ANY)
    await handlers.rotate_secret(core, caller, "mail", 3600)
    saved = await handlers.put(core, caller, "mail", HOOK, SECRET, ANY)
    assert saved.secret is None
    target = await target_of(core, caller, "mail")
    assert target.secrets == (SECRET,) and target.previous_until is None


async def test_rotation_signs_with_both_secrets_until_the_overlap_ends(core: Core, caller: Caller) -> None:
    await handlers.put(core, caller, "mail", HOOK, SECRET, ANY)
    version = (await target_of(core, caller, "mail")).version
    new = await handlers.rotate_secret(core, caller, "mail", 3600)
    target = await target_of(core, caller, "mail")
    assert target.secrets == (new, SECRET)
    assert target.previous_until is not None
    assert target.version > version, "replicas that keep the handler must notice"
    newest = await handlers.rotate_secret(core, caller, "mail", 0)
    assert (await target_of(core, caller, "mail")).secrets == (newest,)


async def test_an_overlap_that_has_ended_is_not_signed_for(core: Core, caller: Caller) -> None:
    await handlers.put(core, caller, "mail", HOOK, None, ANY)
    new = await handlers.rotate_secret(core, caller, "mail", 3600)
    await core.db.fetch("update sluice.handlers set previous_secret_until = clock_timestamp()")
    target = await target_of(core, caller, "mail")
    assert target.secrets == (new,) and target.previous_until is None


async def test_header_values_are_stored_sealed_and_shown_to_nobody(core: Core, caller: Caller) -> None:
    definition = HandlerDefinition("https://example.com/", headers={"authorization": "Bearer hush"})
    saved = await handlers.put(core, caller, "mail", definition, SECRET, ANY)
    views = [
        saved.view,
        (await handlers.get(core, caller, "mail"))[0],
        *(await handlers.list_page(core, caller, None, 9))[0],
    ]
    assert [view.definition.headers for view in views] == [{"authorization": "***"}] * 3
    (row,) = await core.db.fetch("select sealed_headers, sealed_secret from sluice.handlers")
    assert b"hush" not in row["sealed_headers"] and b"AAAA" not in row["sealed_secret"]
    assert (await target_of(core, caller, "mail")).headers == (("authorization", "Bearer hush"),)
    assert "hush" not in repr(await target_of(core, caller, "mail"))


async def test_a_mask_that_comes_back_does_not_replace_a_credential(core: Core, caller: Caller) -> None:
    definition = HandlerDefinition("https://example.com/", headers={"authorization": "***"})
    with pytest.raises(Refusal) as refused:
        await handlers.put(core, caller, "mail", definition, None, ANY)
    assert [error.pointer for error in refused.value.errors] == ["/headers/authorization"]


async def test_conditions_are_judged_against_what_is_stored(core: Core, caller: Caller) -> None:
    with pytest.raises(Refusal, match="etag_mismatch"):
        await handlers.put(core, caller, "mail", HOOK, None, Conditions(if_match=("*",)))
    saved = await handlers.put(core, caller, "mail", HOOK, None, Conditions(if_none_match_any=True))
    with pytest.raises(Refusal, match="etag_mismatch"):
        await handlers.put(core, caller, "mail", HOOK, None, Conditions(if_none_match_any=True))
    with pytest.raises(Refusal, match="etag_mismatch"):
        await handlers.delete(core, caller, "mail", Conditions(if_match=('"other"',)))
    assert await handlers.get(core, caller, "mail") == (saved.view, saved.etag)
    await handlers.delete(core, caller, "mail", Conditions(if_match=(saved.etag,)))


async def test_only_one_of_racing_creations_creates(start_core: Callable[[], Awaitable[Core]], caller: Caller) -> None:
    cores = [await start_core() for _ in range(2)]
    saved = await asyncio.gather(*(handlers.put(core, caller, "mail", HOOK, None, ANY) for core in cores * 4))
    assert sum(one.created for one in saved) == 1
    (made,) = [one.secret for one in saved if one.secret is not None]
    assert (await target_of(cores[0], caller, "mail")).secrets == (made,)


async def test_what_breaks_a_rule_is_refused_whole(core: Core, caller: Caller) -> None:
    with pytest.raises(Refusal, match="invalid") as refused:
        await handlers.put(core, caller, "mail", HandlerDefinition("ftp://x", 0.0), "short", ANY)
    assert {error.pointer for error in refused.value.errors} == {"/url", "/timeout_seconds", "/secret"}
    with pytest.raises(Refusal, match="handler_not_found"):
        await handlers.get(core, caller, "mail")


@pytest.mark.parametrize("url", ["http://169.254.169.254/latest", "http://10.0.0.8/hook", "http://[::ffff:10.0.0.8]/"])
async def test_an_address_that_may_not_be_called_is_refused_when_it_is_saved(
    core: Core, caller: Caller, url: str
) -> None:
    with pytest.raises(Refusal, match="egress_denied") as refused:
        await handlers.put(core, caller, "mail", HandlerDefinition(url), None, ANY)
    assert refused.value.errors[0].pointer == "/url"


async def test_a_handler_that_a_queue_names_is_not_deleted(core: Core, caller: Caller) -> None:
    await handlers.put(core, caller, "mail", HOOK, None, ANY)
    await queues.put(core, caller, "letters", QueueDefinition(handler="mail"), ANY)
    with pytest.raises(Refusal, match=r"handler_in_use.*letters"):
        await handlers.delete(core, caller, "mail", ANY)
    await queues.delete(core, caller, "letters", ANY)
    await handlers.delete(core, caller, "mail", ANY)
    with pytest.raises(Refusal, match="handler_not_found"):
        await handlers.delete(core, caller, "mail", ANY)


@pytest.mark.parametrize("state", [0, 2])
async def test_a_handler_that_an_unfinished_task_names_is_not_deleted(core: Core, caller: Caller, state: int) -> None:
    await handlers.put(core, caller, "mail", HOOK, None, ANY)
    await handlers.put(core, caller, "own", HOOK, None, ANY)
    await queues.put(core, caller, "letters", QueueDefinition(handler="mail"), ANY)
    own = await store.id_of(core.db, caller.tenant_id, "own")
    assert own is not None
    await enqueue(core, caller, "letters", handler_id=own)
    await core.db.fetch("update sluice.tasks set state = $1", state)
    with pytest.raises(Refusal, match="handler_in_use"):
        await handlers.delete(core, caller, "own", ANY)
    await core.db.fetch("delete from sluice.tasks")
    await handlers.delete(core, caller, "own", ANY)


async def test_a_name_can_be_used_again_and_is_another_handler(core: Core, caller: Caller) -> None:
    first = await handlers.put(core, caller, "mail", HOOK, None, ANY)
    old = await store.id_of(core.db, caller.tenant_id, "mail")
    await handlers.delete(core, caller, "mail", ANY)
    again = await handlers.put(core, caller, "mail", HOOK, None, ANY)
    assert again.created and again.secret != first.secret
    assert len(await store.ids(core.db, caller.tenant_id, "mail")) == 2
    assert await store.id_of(core.db, caller.tenant_id, "mail") != old


async def test_enabling_and_disabling_keep_the_first_reason_and_wake_every_lane(core: Core, caller: Caller) -> None:
    woken: list[str] = []
    core.signals.any_lane_ready = lambda: woken.append("any lane")
    await handlers.put(core, caller, "mail", HOOK, None, ANY)
    target = await target_of(core, caller, "mail")
    await store.disable_gone(core.db, target.id, "the handler answered 410 Gone", core.replica.name)
    view = await handlers.disable(core, caller, "mail")
    assert not view.enabled and view.disabled_at is not None
    assert view.disabled_reason == "the handler answered 410 Gone"
    await store.disable_gone(core.db, target.id, "another", core.replica.name)
    assert (await handlers.get(core, caller, "mail"))[0].disabled_reason == "the handler answered 410 Gone"
    assert (await target_of(core, caller, "mail")).version == target.version + 1
    assert woken == []
    view = await handlers.enable(core, caller, "mail")
    assert (view.enabled, view.disabled_at, view.disabled_reason) == (True, None, None)
    assert woken == ["any lane"]


async def test_lists_go_by_name_in_pages(core: Core, caller: Caller) -> None:
    for name in ("b", "a-1", "a", "a_2", "c"):
        await handlers.put(core, caller, name, HOOK, None, ANY)
    names: list[str] = []
    more = True
    while more:
        page, more = await handlers.list_page(core, caller, names[-1] if names else None, 2)
        names += [view.name for view in page]
    assert names == sorted(["b", "a-1", "a", "a_2", "c"])


async def test_one_tenant_sees_nothing_of_another(core: Core, caller: Caller) -> None:
    await handlers.put(core, caller, "mail", HOOK, None, ANY)
    (row,) = await core.db.fetch("insert into sluice.tenants (name) values ('other') returning id")
    other = Caller(row["id"], "other", "operate")
    assert await handlers.list_page(core, other, None, 10) == ([], False)
    for verb in (handlers.get, handlers.enable, handlers.disable):
        with pytest.raises(Refusal, match="handler_not_found"):
            await verb(core, other, "mail")
    with pytest.raises(Refusal, match="handler_not_found"):
        await handlers.test(core, other, "mail", None)
    with pytest.raises(Refusal, match="/handler"):
        await queues.put(core, other, "letters", QueueDefinition(handler="mail"), ANY)


async def test_changes_need_the_scope_manage(core: Core, caller: Caller) -> None:
    user = Caller(caller.tenant_id, caller.tenant, "use")
    await handlers.put(core, caller, "mail", HOOK, None, ANY)
    await handlers.get(core, user, "mail")
    for attempt in (
        handlers.put(core, user, "mail", HOOK, None, ANY),
        handlers.delete(core, user, "mail", ANY),
        handlers.disable(core, user, "mail"),
        handlers.enable(core, user, "mail"),
        handlers.rotate_secret(core, user, "mail", 0),
        handlers.test(core, user, "mail", None),
    ):
        with pytest.raises(Refusal, match="forbidden"):
            await attempt


async def test_the_test_request_is_signed_by_both_secrets_and_counts_nowhere(
    core: Core, caller: Caller, handler: Handler
) -> None:
    definition = HandlerDefinition(handler.url, headers={"Authorization": "Bearer hush"})
    old = (await handlers.put(core, caller, "mail", definition, None, ANY)).secret
    new = await handlers.rotate_secret(core, caller, "mail", 60)
    await handlers.disable(core, caller, "mail")
    handler.answer(Reply(202, body=b"thanks"))
    shown = await handlers.test(core, caller, "mail", b'{"n": 1}')

    (request,) = await handler.received()
    assert request.body == b'{"n": 1}'
    for secret in (old, new):
        assert secret is not None
        Webhook(secret).verify(request.body.decode(), dict(request.headers))
    assert request.headers["authorization"] == "Bearer hush"
    assert shown["sent"]["headers"]["authorization"] == "***"
    assert "hush" not in json.dumps(shown)
    assert shown["sent"]["headers"]["webhook-signature"] == request.headers["webhook-signature"]
    assert shown["received"]["status"] == 202 and shown["received"]["body"] == "thanks"
    assert (shown["outcome"], shown["error"]) == ("succeeded", None)
    assert await core.db.fetchval("select count(*) from sluice.tasks") == 0
    assert not core.metrics.queue("default", "test").outcomes


async def test_the_test_request_tells_why_nothing_came_back(core: Core, caller: Caller) -> None:
    await handlers.put(core, caller, "mail", HandlerDefinition("http://127.0.0.1:1/"), None, ANY)
    shown = await handlers.test(core, caller, "mail", None)
    assert shown["received"] is None and shown["outcome"] == "unreachable"
    assert "refused" in shown["error"]


async def test_a_failing_answer_to_the_test_request_changes_nothing(
    core: Core, caller: Caller, handler: Handler
) -> None:
    await handlers.put(core, caller, "mail", HandlerDefinition(handler.url), None, ANY)
    handler.answer(Reply(410))
    assert (await handlers.test(core, caller, "mail", None))["outcome"] == "failed"
    assert (await handlers.get(core, caller, "mail"))[0].enabled
