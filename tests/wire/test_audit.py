"""The audit: every change leaves a row that says who made it, in the transaction that makes it."""

from typing import Any

import pytest

from app.domain.audit import BY_SYSTEM
from app.domain.callers import Caller
from app.domain.conditions import ANY
from app.domain.queues import QueueDefinition
from app.service import queues
from app.store import audit
from tests.handlers import Handler, Reply
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import AT_ONCE, Api, fresh, good, problem

pytestmark = [pytest.mark.anyio, pytest.mark.ci]


@pytest.fixture(autouse=True)
def nothing_refused_lately(shared: Replica) -> None:
    """Of so many refused calls in a minute, as other tests make on this replica, only the first leave a row each."""
    shared.sluice.core.refusals._minutes.clear()


async def rows(api: Api, **filters: Any) -> list[dict[str, Any]]:
    """Newest first."""
    items: list[dict[str, Any]] = good(await api.get("/audit", params=filters))["items"]
    return items


async def test_a_change_leaves_who_what_when_from_where_and_what_changed(shared: Replica, api: Api) -> None:
    name = fresh("q")
    good(await api.put(f"/queues/{name}", json={"max_depth": 5, "description": "mail"}), 201)
    again = await api.put(f"/queues/{name}", json={"max_depth": 7}, headers={"x-request-id": "mine-1"})
    assert again.headers["x-request-id"] == "mine-1"
    good(await api.post(f"/queues/{name}/pause"))
    assert (await api.delete(f"/queues/{name}")).status_code == 204
    deleted, paused, changed, created = await rows(api, name=name)
    assert [row["verb"] for row in (created, changed, paused, deleted)] == ["put", "put", "pause", "delete"]
    assert created["before"] is None and created["after"]["max_depth"] == 5 and deleted["after"] is None
    assert changed["before"] == {"max_depth": 5, "description": "mail"}
    assert changed["after"] == {"max_depth": 7, "description": None}
    assert (paused["before"], paused["after"]) == ({"paused": False}, {"paused": True})
    assert changed["request_id"] == "mine-1" and paused["request_id"] not in (None, "mine-1", deleted["request_id"])
    for row in (created, changed, paused, deleted):
        assert row["actor"] == {"key": None, "tenant": "default", "scope": "operate"}
        assert (row["noun"], row["name"], row["tenant"], row["outcome"]) == ("queue", name, "default", "done")
        assert (row["address"], row["replica"], row["code"]) == ("127.0.0.1", shared.sluice.core.replica.name, None)


async def test_a_nul_in_what_changed_is_recorded_as_what_jsonb_can_hold(api: Api) -> None:
    name = fresh("q")
    schema = {"enum": ["\0\0", "\\\0", "\\u0000"], "properties": {"\0": {}}}
    good(await api.put(f"/queues/{name}", json={"payload_schema": schema}), 201)
    assert good(await api.get(f"/queues/{name}"))["payload_schema"] == schema
    [created] = await rows(api, name=name)
    shown = {"enum": ["\ufffd\ufffd", "\\\ufffd", "\\u0000"], "properties": {"\ufffd": {}}}
    assert created["after"]["payload_schema"] == shown
    problem(await api.delete("/queues/no%00name"), 422, "invalid")
    assert any(row["name"] == "no\ufffdname" for row in await rows(api, verb="delete", noun="queue"))


async def test_a_refused_call_leaves_a_row_with_its_code_wherever_it_was_refused(api: Api) -> None:
    name = fresh("q")
    problem(await api.delete(f"/queues/{name}"), 404, "queue_not_found")
    problem(await api.put(f"/queues/{name}", json={"max_dept": 5}), 422, "invalid")
    problem(
        await api.put(f"/queues/{name}", content="{", headers={"content-type": "application/json"}), 400, "malformed"
    )
    problem(await api.post(f"/queues/{name}/pause", params={"now": "1"}), 422, "invalid")
    found = await rows(api, name=name)
    assert [(row["verb"], row["code"]) for row in reversed(found)] == [
        ("delete", "queue_not_found"),
        ("put", "invalid"),
        ("put", "malformed"),
        ("pause", "invalid"),
    ]
    assert {row["outcome"] for row in found} == {"refused"} and {row["before"] for row in found} == {None}
    problem(await api.put("/queues/%00" + "x" * 400, json={}), 422, "invalid")
    assert len((await rows(api, verb="put", noun="queue"))[0]["name"]) == 300


async def test_a_change_that_is_rolled_back_leaves_no_row(
    shared: Replica, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, wrote = fresh("q"), audit.record

    async def record_then_fail(*args: Any, **kwargs: Any) -> None:
        await wrote(*args, **kwargs)
        raise RuntimeError("after the row, before the commit")

    monkeypatch.setattr(queues, "record", record_then_fail)
    with pytest.raises(RuntimeError):
        await queues.put(shared.sluice.core, Caller(1, "default", "operate"), name, QueueDefinition(), ANY)
    problem(await api.get(f"/queues/{name}"), 404, "queue_not_found")
    assert await rows(api, name=name) == []


async def test_pages_of_the_audit_follow_each_other(api: Api) -> None:
    name = await api.queue()
    for verb in ("pause", "resume", "pause"):
        good(await api.post(f"/queues/{name}/{verb}"))
    page = good(await api.get("/audit", params={"name": name, "limit": 3}))
    assert [row["verb"] for row in page["items"]] == ["pause", "resume", "pause"]
    rest = good(await api.get("/audit", params={"name": name, "limit": 3, "cursor": page["next_cursor"]}))
    assert [row["verb"] for row in rest["items"]] == ["put"] and rest["next_cursor"] is None
    assert len(await rows(api, name=name, verb="pause")) == 2
    at = page["items"][1]["at"]
    assert [row["verb"] for row in await rows(api, name=name, **{"from": at})] == ["pause", "resume"]
    assert [row["verb"] for row in await rows(api, name=name, to=at)] == ["pause", "put"]
    assert await rows(api, name=name, actor="system") == []
    for bad in ({"from": "yesterday"}, {"name": "a\0b"}, {"actor": "x" * 301}, {"verb": ""}, {"cursor": "mine"}):
        problem(await api.get("/audit", params=bad), 422, "invalid")


async def test_secrets_headers_and_content_are_not_in_the_audit(api: Api) -> None:
    """Every field that could hold one, created, changed and deleted."""
    canary = "canary-" + fresh("x")
    secret = "whsec_" + "A" * 32
    name = fresh("n")
    given = {"url": "https://example.com/", "headers": {"x-key": canary}, "secret": secret, "targets": "path"}
    good(await api.put(f"/handlers/{name}", json=given), 201)
    rotated = good(await api.post(f"/handlers/{name}/rotate-secret"))["secret"]
    good(
        await api.put(
            f"/handlers/{name}", json=given | {"headers": {"x-key": canary + "2"}, "secret": secret[:-1] + "B"}
        )
    )
    callback = {"queue": name, "target": {"path": "/x", "headers": {"x-key": canary}}}
    for depth in (5, 6):
        queue = {"handler": name, "callbacks": {"dead": callback}, "max_depth": depth}
        assert (reply := await api.put(f"/queues/{name}", json=queue)).is_success, reply.text
    carried = {"payload": canary, "headers": {"x-note": canary}, "target": {"path": "/x", "headers": {"x-key": canary}}}
    for hour in (3, 4):
        schedule = {
            "queue": name,
            "cron": f"0 {hour} * * *",
            "on_complete": {"queue": name, "payload": canary},
            **carried,
        }
        assert (await api.put(f"/schedules/{name}", json=schedule)).is_success
    task = await api.enqueue(name, canary, delay_seconds=600)
    patch = {**carried, "payload": canary + "3", "priority": 3}
    good(await api.client.patch(f"/tasks/{task['id']}", json=patch))
    good(await api.client.patch(f"/tasks/{task['id']}", json={"payload_base64": "Y2FuYXJ5"}))
    good(await api.post(f"/schedules/{name}/trigger", json={"payload": canary}))
    assert (await api.delete(f"/schedules/{name}")).status_code == 204
    shown = [await api.get("/audit", params={"name": one, "limit": 200}) for one in (name, task["id"])]
    assert [len(good(reply)["items"]) for reply in shown] == [9, 2]
    for reply in shown:
        assert "***" in reply.text and not any(one in reply.text for one in (canary, secret, rotated, "Y2FuYXJ5"))
    changed = (await rows(api, name=task["id"]))[-1]
    assert changed["before"] == {"headers": "***", "payload": "***", "priority": 0, "target": None}
    assert changed["after"]["priority"] == 3


async def by_system(api: Api, name: str) -> list[tuple[str, str, Any, Any]]:
    found = [row for row in await rows(api, name=name) if row["actor"] == "system"]
    assert all(row["address"] is None and row["request_id"] is None and row["replica"] for row in found)
    assert {(row["verb"], row["noun"]) for row in found} <= BY_SYSTEM.keys(), "the reference does not list it"
    return [(row["verb"], row["noun"], row["before"], row["after"]) for row in found]


async def test_what_happens_by_itself_is_the_system_s(api: Api, handler: Handler) -> None:
    gone = await api.handler(handler.url)
    shaky = await api.handler(handler.url, breaker={"min_calls": 1})
    queue = await api.queue(gone, retry={"max_attempts": 1, **AT_ONCE})
    schedule = fresh("s")
    definition = {"queue": queue, "cron": "0 3 1 1 *", "payload": 1, "handler": shaky, "pause_after_failures": 1}
    good(await api.put(f"/schedules/{schedule}", json=definition), 201)
    handler.script(Reply(500))
    good(await api.post(f"/schedules/{schedule}/trigger"))
    await poll(lambda: by_system(api, schedule))
    reason = good(await api.get(f"/schedules/{schedule}"))["paused_reason"]
    paused = ("pause", "schedule", {"paused": False}, {"paused": True, "reason": reason})
    assert await by_system(api, schedule) == [paused]
    await poll(lambda: by_system(api, shaky))
    opened = ("set_breaker", "handler", {"breaker": "closed"}, {"breaker": "open"})
    assert (await by_system(api, shaky))[-1] == opened
    handler.script(Reply(410))
    await api.enqueue(queue, 1)
    await poll(lambda: by_system(api, gone))
    after = {"enabled": False, "disabled_reason": "the handler answered 410 Gone"}
    assert await by_system(api, gone) == [("disable", "handler", {"enabled": True, "disabled_reason": None}, after)]


async def test_what_moves_many_tasks_names_the_action_that_does(api: Api) -> None:
    queue = await api.queue()
    await api.enqueue(queue, 1)
    assert good(await api.post(f"/queues/{queue}/purge"), 202)["purged"] == 1
    (row,) = await rows(api, name=queue, verb="purge")
    action = good(await api.get(f"/actions/{row['after']['action']}"))
    assert (action["kind"], action["done"], action["state"]) == ("purge", 1, "done")
