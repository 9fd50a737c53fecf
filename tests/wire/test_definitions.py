"""A document of definitions: what it would change, and changing it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from app.delivery.webhook.signing import new_secret
from tests.wire.api import Api, fresh, good, own_limits, problem

pytestmark = pytest.mark.anyio

URL = "http://127.0.0.1:9/"


class Names:
    """Of one test's handler, queue and schedule."""

    def __init__(self) -> None:
        self.handler, self.queue, self.schedule = fresh("h"), fresh("q"), fresh("s")

    def document(self, **more: Any) -> dict[str, Any]:
        return {
            "handlers": {self.handler: {"url": URL}},
            "queues": {self.queue: {"handler": self.handler, "max_concurrency": 4}},
            "schedules": {self.schedule: {"queue": self.queue, "cron": "*/5 * * * *", "payload": {"n": 1}}},
            **more,
        }


async def plan(api: Api, document: dict[str, Any]) -> dict[str, Any]:
    return good(await api.post("/definitions/plan", json=document))


async def apply(api: Api, document: dict[str, Any]) -> dict[str, Any]:
    return good(await api.post("/definitions/apply", json=document))


def actions(answer: dict[str, Any]) -> list[tuple[str, str | None, str]]:
    return [(change["kind"], change["name"], change["action"]) for change in answer["changes"]]


def changed(answer: dict[str, Any]) -> list[tuple[str, str, Any, Any]]:
    """(kind, field, from, to) of what differs."""
    return [
        (change["kind"], field["field"], field["from"], field["to"])
        for change in answer["changes"]
        for field in change["changes"]
    ]


async def test_a_plan_changes_nothing_and_an_apply_what_the_plan_has_said(api: Api) -> None:
    names = Names()
    planned = await plan(api, names.document())
    wanted = [("handler", names.handler), ("queue", names.queue), ("schedule", names.schedule)]
    assert actions(planned) == [(*one, "create") for one in wanted]
    problem(await api.get(f"/handlers/{names.handler}"), 404, "handler_not_found")
    applied = await apply(api, names.document(version=planned["version"]))
    assert applied["changes"] == planned["changes"]
    assert applied["secrets"][names.handler].startswith("whsec_"), "it is shown this once"
    assert good(await api.get(f"/queues/{names.queue}"))["max_concurrency"] == 4
    shown = good(await api.get(f"/schedules/{names.schedule}"))
    assert (shown["cron"], shown["payload"], shown["paused"]) == ("*/5 * * * *", {"n": 1}, False)


async def test_a_second_apply_changes_nothing(api: Api) -> None:
    names = Names()
    document = names.document()
    document["handlers"][names.handler] |= {"secret": new_secret(), "headers": {"x-key": "k"}, "fatal_statuses": [400]}
    document["handlers"][names.handler] |= {"group": {"max_tasks": 10, "wait_seconds": 1}}
    document["queues"][names.queue] |= {"payload_schema": {"type": "object"}, "retry": {"max_attempts": 3}}
    document["schedules"][names.schedule] |= {"on_complete": {"queue": names.queue, "payload": {"a": [1.0, 2]}}}
    await apply(api, document)
    before = [good(await api.get(path))["updated_at"] for path in paths(names)]
    again = await apply(api, document)
    assert {action for _, _, action in actions(again)} == {"unchanged"}
    assert (changed(again), again["secrets"]) == ([], {})
    assert [good(await api.get(path))["updated_at"] for path in paths(names)] == before


def paths(names: Names) -> list[str]:
    return [f"/handlers/{names.handler}", f"/queues/{names.queue}", f"/schedules/{names.schedule}"]


async def test_what_differs_is_shown_field_by_field(api: Api) -> None:
    names = Names()
    await apply(api, names.document())
    document = names.document()
    document["handlers"][names.handler] |= {"timeout_seconds": 5, "group": {"max_tasks": 10}}
    document["queues"][names.queue] = {"handler": names.handler, "retry": {"backoff": {"kind": "fixed", "seconds": 1}}}
    document["schedules"][names.schedule] |= {"cron": "@daily", "payload": {"n": 2}}
    planned = await plan(api, document)
    assert [action for _, _, action in actions(planned)] == ["update"] * 3
    assert changed(planned) == [
        ("handler", "timeout_seconds", 30.0, 5.0),
        ("handler", "group", None, {"max_tasks": 10, "wait_seconds": 0.0}),
        ("queue", "max_concurrency", 4, None),
        ("queue", "retry.backoff.kind", "exponential", "fixed"),
        ("queue", "retry.backoff.min_seconds", 1.0, None),
        ("queue", "retry.backoff.max_seconds", 3600.0, None),
        ("queue", "retry.backoff.factor", 2.0, None),
        ("queue", "retry.backoff.jitter", "equal", None),
        ("queue", "retry.backoff.seconds", None, 1.0),
        ("schedule", "payload", {"n": 1}, {"n": 2}),
        ("schedule", "cron", "*/5 * * * *", "@daily"),
    ]
    await apply(api, document)
    assert changed(await plan(api, document)) == []


async def test_a_payload_that_differs_in_spaces_alone_is_the_same_and_1_is_not_1_0(api: Api) -> None:
    names = Names()
    await apply(api, names.document())
    same = b'{"queue": "%s", "cron": "*/5 * * * *", "payload": { "n" :  1 }}' % names.queue.encode()
    body = b'{"schedules": {"%s": %s}}' % (names.schedule.encode(), same)
    json_type = {"content-type": "application/json"}
    assert changed(good(await api.post("/definitions/plan", content=body, headers=json_type))) == []
    other = body.replace(b" 1 ", b" 1.0 ")
    found = changed(good(await api.post("/definitions/plan", content=other, headers=json_type)))
    assert found == [("schedule", "payload", {"n": 1}, {"n": 1.0})]


async def test_headers_and_secrets_are_compared_and_never_shown(api: Api) -> None:
    names, first, second = Names(), new_secret(), new_secret()
    document = names.document()
    document["handlers"][names.handler] |= {"secret": first, "headers": {"x-key": "old-value", "x-gone": "gone-value"}}
    reply = await api.post("/definitions/plan", json=document)
    assert first not in reply.text and "-value" not in reply.text
    await apply(api, document)
    document["handlers"][names.handler] |= {"secret": second, "headers": {"x-key": "new-value"}}
    reply = await api.post("/definitions/apply", json=document)
    assert first not in reply.text and second not in reply.text and "-value" not in reply.text
    assert changed(good(reply)) == [
        ("handler", "headers.x-key", "***", "***"),
        ("handler", "headers.x-gone", "***", None),
        ("handler", "secret", "***", "***"),
    ]
    assert changed(await plan(api, document)) == []


async def test_pauses_and_disabled_handlers_stay(api: Api) -> None:
    names = Names()
    await apply(api, names.document())
    for path, verb in zip(paths(names), ("disable", "pause", "pause"), strict=True):
        good(await api.post(f"{path}/{verb}"))
    document = names.document()
    assert changed(await plan(api, document)) == [], "they are no part of a definition"
    document["handlers"][names.handler]["url"] = URL + "new"
    document["queues"][names.queue]["max_concurrency"] = 5
    document["schedules"][names.schedule]["cron"] = "@daily"
    await apply(api, document)
    handler, queue, schedule = [good(await api.get(path)) for path in paths(names)]
    assert (handler["enabled"], queue["paused"], schedule["paused"]) == (False, True, True)


async def test_a_section_that_is_absent_is_left_alone(api: Api) -> None:
    names = Names()
    await apply(api, names.document())
    assert actions(await plan(api, {})) == []
    assert actions(await plan(api, {"handlers": None, "prune": True})) == []
    assert actions(await plan(api, {"schedules": {}})) == [], "nothing is deleted without prune"


@pytest.fixture
async def own(start_api: Callable[..., Awaitable[Api]]) -> Api:
    """A Sluice in which nothing else is defined."""
    return await start_api()


async def test_prune_deletes_what_is_absent_in_reverse_order_after_all_else(own: Api) -> None:
    old, new = Names(), Names()
    await apply(own, old.document())
    document = new.document(prune=True)
    planned = await plan(own, document)
    assert actions(planned) == [
        ("handler", new.handler, "create"),
        ("queue", new.queue, "create"),
        ("schedule", new.schedule, "create"),
        ("schedule", old.schedule, "delete"),
        ("queue", old.queue, "delete"),
        ("handler", old.handler, "delete"),
    ]
    await apply(own, document | {"version": planned["version"]})
    assert [queue["name"] for queue in await own.pages("/queues")] == [new.queue]
    assert [handler["name"] for handler in await own.pages("/handlers")] == [new.handler]
    assert [schedule["id"] for schedule in await own.pages("/schedules")] == [new.schedule]
    assert {action for *_, action in actions(await apply(own, document))} == {"unchanged"}


async def test_a_prune_touches_only_what_its_owner_has(own: Api) -> None:
    """What others manage, what nobody does, and what a PUT has made since."""
    of_a, of_b, of_none = Names(), Names(), Names()
    for names, more in ((of_a, {"owner": "a"}), (of_b, {"owner": "b"}), (of_none, {})):
        await apply(own, names.document(**more))
    good(await own.put("/queues/by-hand", json={}), 201)
    empty: dict[str, Any] = {"handlers": {}, "queues": {}, "schedules": {}, "prune": True}
    deleted = [("schedule", of_a.schedule), ("queue", of_a.queue), ("handler", of_a.handler)]
    assert actions(await apply(own, empty | {"owner": "a"})) == [(*one, "delete") for one in deleted]
    assert actions(await plan(own, empty | {"owner": "a"})) == []
    assert actions(await plan(own, empty)) == [
        ("schedule", of_none.schedule, "delete"),
        *(("queue", name, "delete") for name in sorted(("by-hand", of_none.queue))),
        ("handler", of_none.handler, "delete"),
    ]
    others = {"queues": {"mine": {"handler": of_b.handler}}, "handlers": {}, "prune": True, "owner": "c"}
    assert actions(await plan(own, others)) == [("queue", "mine", "create")], "what a prune leaves can be named"


async def test_who_owns_a_definition_is_shown_and_survives_a_put(api: Api) -> None:
    names = Names()
    planned = await apply(api, names.document(owner="team-1"))
    assert [change for change in changed(planned) if change[1] == "owner"] == [
        (kind, "owner", None, "team-1") for kind in ("handler", "queue", "schedule")
    ]
    handler, queue, schedule = [good(await api.get(path)) for path in paths(names)]
    assert handler["owner"] == queue["owner"] == schedule["owner"] == "team-1"
    good(await api.put(f"/queues/{names.queue}", json={"max_concurrency": 9}))
    good(await api.put(f"/handlers/{names.handler}", json={"url": URL, "timeout_seconds": 9}))
    good(await api.put(f"/schedules/{names.schedule}", json={"queue": names.queue, "every_seconds": 60, "payload": 1}))
    assert [good(await api.get(path))["owner"] for path in paths(names)] == ["team-1"] * 3
    await apply(api, names.document())
    assert [good(await api.get(path))["owner"] for path in paths(names)] == ["team-1"] * 3
    taken = await apply(api, names.document(owner="team-2"))
    assert changed(taken) == [(kind, "owner", "team-1", "team-2") for kind in ("handler", "queue", "schedule")]
    assert {action for *_, action in actions(await apply(api, names.document(owner="team-2")))} == {"unchanged"}
    assert "owner" not in good(await api.get(f"/queues/{await api.queue()}"))


async def test_a_plan_of_one_owner_is_not_carried_out_for_another(api: Api) -> None:
    names = Names()
    await apply(api, names.document(owner="a"))
    planned = await plan(api, names.document(owner="a"))
    document = names.document(version=planned["version"])
    problem(await api.post("/definitions/apply", json=document), 412, "etag_mismatch")


async def test_what_is_in_use_ends_the_apply_there_and_says_how_far_it_came(own: Api) -> None:
    names, other = Names(), Names()
    await apply(own, names.document())
    good(await own.post(f"/queues/{names.queue}/pause"))
    task = await own.enqueue(names.queue)
    document = other.document(prune=True)
    found = problem(await own.post("/definitions/apply", json=document), 409, "queue_in_use", f"/queues/{names.queue}")
    assert "the first 4 of 6 changes were made" in found["detail"]
    good(await own.cancel(task["id"]))
    rest = [change for change in actions(await apply(own, document)) if change[2] != "unchanged"]
    assert rest == [("queue", names.queue, "delete"), ("handler", names.handler, "delete")]


async def test_limits_are_compared_and_put(own: Api) -> None:
    assert changed(await apply(own, {"limits": {"max_concurrency": 7}})) == [("limits", "max_concurrency", None, 7)]
    assert await own_limits(own) == {"max_concurrency": 7}
    assert actions(await plan(own, {"limits": {"max_concurrency": 7}})) == [("limits", None, "unchanged")]
    await apply(own, {"limits": {}})
    assert await own_limits(own) == {"max_concurrency": None}


async def test_an_apply_refuses_what_has_changed_since_its_plan(api: Api) -> None:
    names = Names()
    await apply(api, names.document())
    document = names.document()
    document["queues"][names.queue]["max_concurrency"] = 5
    planned = await plan(api, document)
    good(await api.put(f"/queues/{names.queue}", json={"handler": names.handler, "max_concurrency": 9}))
    problem(await api.post("/definitions/apply", json=document | {"version": planned["version"]}), 412, "etag_mismatch")
    assert good(await api.get(f"/queues/{names.queue}"))["max_concurrency"] == 9
    fresh_plan = await plan(api, document)
    document["queues"][names.queue]["max_concurrency"] = 6
    problem(
        await api.post("/definitions/apply", json=document | {"version": fresh_plan["version"]}), 412, "etag_mismatch"
    )


async def test_a_fault_anywhere_changes_nothing_and_every_fault_is_named(api: Api) -> None:
    names = Names()
    document = names.document()
    document["handlers"]["-UP"] = {"url": URL}
    problem(await api.post("/definitions/apply", json=document), 422, "invalid", "/handlers/-UP")
    document = names.document()
    document["handlers"][names.handler] = {"url": "ftp://x", "secret": "whsec_short"}
    document["queues"][names.queue] |= {"handler": "nobody", "retry": {"max_attempts": 0}}
    document["schedules"][names.schedule] |= {"cron": "61 * * * *", "colour": "red"}
    document["limits"] = {"max_concurrency": 0}
    problem(
        await api.post("/definitions/apply", json=document),
        422,
        "invalid",
        f"/queues/{names.queue}/retry/max_attempts",
        f"/schedules/{names.schedule}/colour",
        f"/schedules/{names.schedule}/cron",
        "/limits/max_concurrency",
    )
    document = names.document()
    document["handlers"][names.handler] = {"url": "ftp://x", "secret": "whsec_short"}
    document["queues"][names.queue]["handler"] = "nobody"
    document["schedules"][names.schedule] |= {"queue": "nowhere", "handler": "nobody"}
    problem(
        await api.post("/definitions/apply", json=document),
        422,
        "invalid",
        f"/handlers/{names.handler}/url",
        f"/handlers/{names.handler}/secret",
        f"/queues/{names.queue}/handler",
        f"/schedules/{names.schedule}/queue",
        f"/schedules/{names.schedule}/handler",
    )
    for path in paths(names):
        assert (await api.get(path)).status_code == 404


async def test_the_payloads_of_schedules_fit_the_schemas_of_queues_as_they_will_be(api: Api) -> None:
    names = Names()
    document = names.document()
    document["queues"][names.queue]["payload_schema"] = {"type": "object", "required": ["m"]}
    where = f"/schedules/{names.schedule}/payload"
    problem(await api.post("/definitions/plan", json=document), 422, "payload_schema_mismatch", where)
    document["schedules"][names.schedule]["payload"] = {"m": 1}
    await apply(api, document)
    document["schedules"][names.schedule]["handler"] = names.handler
    document["queues"][names.queue] = {}
    found = problem(await api.post("/definitions/plan", json=document), 422, "invalid")
    assert "pull workers" in found["detail"]


async def test_a_handler_where_nothing_may_be_delivered_is_refused_by_a_plan(api: Api) -> None:
    document = {"handlers": {fresh("h"): {"url": "http://169.254.169.254/"}}}
    [name] = document["handlers"]
    problem(await api.post("/definitions/plan", json=document), 422, "egress_denied", f"/handlers/{name}/url")


async def test_what_prune_would_take_away_cannot_be_named(own: Api) -> None:
    names = Names()
    await apply(own, names.document())
    kept = names.document()["schedules"]
    document = {"queues": {}, "schedules": kept, "prune": True}
    problem(await own.post("/definitions/plan", json=document), 422, "invalid", f"/schedules/{names.schedule}/queue")


@pytest.mark.parametrize(
    ("document", "pointer"),
    [
        ([], ""),
        ({"tasks": {}}, "/tasks"),
        ({"handlers": []}, "/handlers"),
        ({"queues": {"a": 3}}, "/queues/a"),
        ({"schedules": {"a": 3}}, "/schedules/a"),
        ({"limits": 3}, "/limits"),
        ({"prune": 1}, "/prune"),
        ({"owner": 1}, "/owner"),
        ({"owner": "a b"}, "/owner"),
        ({"version": 1}, "/version"),
        ({"version": "v" * 101}, "/version"),
        ({"handlers": {"a/b": {}}}, "/handlers/a~1b"),
    ],
)
async def test_a_document_of_another_shape_is_refused(api: Api, document: Any, pointer: str) -> None:
    problem(await api.post("/definitions/apply", json=document), 422, "invalid", pointer)


@pytest.mark.parametrize("value", [None, 3, [], "x"])
async def test_what_is_no_object_is_told_in_the_words_of_json(api: Api, value: Any) -> None:
    document = {"handlers": {"a": value}, "queues": {"a": value, "b": {"retention": value}}}
    found = problem(await api.post("/definitions/plan", json=document), 422, "invalid")
    assert [error["detail"] for error in found["errors"]] == ["expected an object"] * 3
    found = problem(await api.put("/queues/a", json={"retry": 3, "retention": value}), 422, "invalid")
    assert "In" not in found["detail"] and {error["detail"] for error in found["errors"]} == {"expected an object"}


async def test_a_plan_takes_no_version(api: Api) -> None:
    problem(await api.post("/definitions/plan", json={"version": '"x"'}), 422, "invalid", "/version")


async def test_applies_at_once_of_two_replicas_lose_no_change_in_silence(api: Api, other: Api) -> None:
    names = Names()
    await apply(api, names.document())

    async def with_limit(sluice: Api, limit: int) -> httpx2.Response:
        document = names.document()
        document["queues"][names.queue]["max_concurrency"] = limit
        return await sluice.post("/definitions/apply", json=document)

    for round_ in range(5):
        replies = await asyncio.gather(*(with_limit((api, other)[n % 2], 10 * round_ + n + 5) for n in range(6)))
        assert {reply.status_code for reply in replies} <= {200, 412}
        assert any(reply.status_code == 200 for reply in replies)
        refused = [reply for reply in replies if reply.status_code == 412]
        for reply in refused:
            problem(reply, 412, "etag_mismatch", f"/queues/{names.queue}")


async def test_named_limits_come_before_what_names_them_and_go_after(own: Api) -> None:
    document: dict[str, Any] = {
        "owner": "a",
        "named_limits": {"mail-api": {"rate": {"limit": 500, "period_seconds": 60}, "max_concurrency": 20}},
        "queues": {"mail": {"limits": ["mail-api"], "key": {"max_concurrency": 2}, "rate": {"limit": 5}}},
        "limits": {"rate": {"limit": 100}},
    }
    assert actions(await apply(own, document)) == [
        ("named_limit", "mail-api", "create"),
        ("queue", "mail", "create"),
        ("limits", None, "update"),
    ]
    assert {action for *_, action in actions(await plan(own, document))} == {"unchanged"}
    assert good(await own.get("/limits/mail-api"))["owner"] == "a"
    assert good(await own.get("/limits"))["rate"]["limit"] == 100
    good(await own.post("/limits/mail-api/pause"))
    document["named_limits"]["mail-api"]["max_concurrency"] = 30
    document["queues"]["mail"]["key"]["ordered"] = True
    del document["queues"]["mail"]["key"]["max_concurrency"]
    assert changed(await apply(own, document)) == [
        ("named_limit", "max_concurrency", 20, 30),
        ("queue", "key.max_concurrency", 2, None),
        ("queue", "key.ordered", False, True),
    ]
    assert good(await own.get("/limits/mail-api"))["paused"] is True, "pausing is operational"
    empty: dict[str, Any] = {"named_limits": {}, "queues": {}, "prune": True, "owner": "a"}
    assert actions(await apply(own, empty)) == [("queue", "mail", "delete"), ("named_limit", "mail-api", "delete")]


async def test_a_prune_stops_at_a_limit_that_others_name(own: Api) -> None:
    await apply(own, {"named_limits": {"shared": {}}, "owner": "a"})
    good(await own.put("/queues/theirs", json={"limits": ["shared"]}), 201)
    body = {"named_limits": {}, "prune": True, "owner": "a"}
    problem(await own.post("/definitions/apply", json=body), 409, "limit_in_use", "/named_limits/shared")
