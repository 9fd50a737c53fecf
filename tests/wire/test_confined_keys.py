"""Keys that are confined to queues: nothing else is there for them."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from app.domain.keys import Grant
from tests.wire.api import Api, fresh, good, problem

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

Granted = Callable[[str, Grant], Awaitable[Api]]
YEARLY = {"cron": "@yearly", "payload": 1}


class World:
    """A tenant with the queue mail-eu, which the key sees, and the queue other, which it does not; with something on each."""

    def __init__(self, boss: Api, asker: Api, things: dict[str, dict[str, Any]]) -> None:
        self.boss = boss
        self.asker = asker
        self.mine = things["mail-eu"]
        self.other = things["other"]


@pytest.fixture
async def world(granted: Granted) -> World:
    tenant = fresh("t")
    boss = await granted(tenant, Grant("manage"))
    for handler, limit in (("mailer", "postage"), ("biller", "money")):
        good(await boss.put(f"/limits/{limit}", json={"max_concurrency": 5}), 201)
        good(await boss.put(f"/handlers/{handler}", json={"url": "https://example.com/"}), 201)
    things = {}
    for queue, handler, limit in (("mail-eu", "mailer", "postage"), ("other", "biller", "money")):
        good(await boss.put(f"/queues/{queue}", json={"handler": handler, "limits": [{"name": limit}]}), 201)
        good(await boss.post(f"/queues/{queue}/pause"))
        good(await boss.put(f"/schedules/of-{queue}", json={"queue": queue, **YEARLY}), 201)
        batch = good(
            await boss.post("/batches", json={"queue": queue, "tasks": [{"payload": 1}], "sealed": False}), 201
        )
        things[queue] = {"task": (await boss.enqueue(queue))["id"], "batch": batch["id"]}
    return World(boss, await granted(tenant, Grant("manage", queues=("mail-*",))), things)


async def test_lists_show_what_is_on_its_queues_alone(world: World) -> None:
    asker = world.asker
    assert [queue["name"] for queue in await asker.pages("/queues", limit=1)] == ["mail-eu"]
    assert {task["queue"] for task in await asker.pages("/tasks", limit=1)} == {"mail-eu"}
    assert [batch["id"] for batch in await asker.pages("/batches")] == [world.mine["batch"]]
    assert [schedule["id"] for schedule in await asker.pages("/schedules", limit=1)] == ["of-mail-eu"]
    assert await asker.pages("/handlers") == []
    for given in ({"queue": "other"}, {"batch": world.other["batch"]}, {"handler": "biller"}, {"schedule": "of-other"}):
        assert await asker.pages("/tasks", **given) == []
    assert len(await world.boss.pages("/tasks")) == 4


async def test_what_is_on_its_queues_is_all_there(world: World) -> None:
    asker, mine = world.asker, world.mine
    good(await asker.get("/queues/mail-eu/stats"))
    await asker.enqueue("mail-eu", handler="mailer", limits=[{"name": "postage"}])
    good(await asker.get(f"/batches/{mine['batch']}"))
    good(await asker.post(f"/batches/{mine['batch']}/tasks", json={"tasks": [{"payload": 1}]}))
    good(await asker.post("/schedules/of-mail-eu/trigger"))
    good(await asker.cancel(mine["task"]))
    given = {"handler": "mailer", "limits": [{"name": "postage"}], "callbacks": {"dead": {"queue": "mail-dead"}}}
    good(await asker.put("/queues/mail-dead", json={}), 201)
    good(await asker.put("/queues/mail-us", json=given), 201)
    good(await asker.put("/schedules/mine", json={"queue": "mail-us", "handler": "mailer", **YEARLY}), 201)


async def test_what_is_on_other_queues_is_not_there(world: World) -> None:
    asker, other = world.asker, world.other
    missing: list[tuple[str, str, Any, str]] = [
        ("GET", "/queues/other", None, "queue"),
        ("PUT", "/queues/other", {}, "queue"),
        ("PUT", "/queues/new", {}, "queue"),
        ("DELETE", "/queues/other", None, "queue"),
        ("GET", "/queues/other/keys/k", None, "queue"),
        ("PUT", "/queues/other/keys/k", {}, "queue"),
        ("POST", "/queues/other/tasks", {"payload": 1}, "queue"),
        ("POST", "/queues/other/tasks/bulk", {"tasks": [{"payload": 1}]}, "queue"),
        *[
            ("POST", f"/queues/other/{verb}", None, "queue")
            for verb in ("pause", "resume", "purge", "redrive", "leases")
        ],
        ("GET", "/queues/other/stats", None, "queue"),
        ("GET", f"/tasks/{other['task']}", None, "task"),
        ("GET", f"/tasks/{other['task']}/attempts", None, "task"),
        ("PATCH", f"/tasks/{other['task']}", {"priority": 1}, "task"),
        *[("POST", f"/tasks/{other['task']}/{verb}", None, "task") for verb in ("cancel", "retry")],
        ("GET", f"/batches/{other['batch']}", None, "batch"),
        ("POST", f"/batches/{other['batch']}/tasks", {"tasks": [{"payload": 1}]}, "batch"),
        *[("POST", f"/batches/{other['batch']}/{verb}", None, "batch") for verb in ("seal", "cancel", "retry")],
        *[(method, "/schedules/of-other", None, "schedule") for method in ("GET", "DELETE")],
        ("PUT", "/schedules/of-other", {"queue": "mail-eu", **YEARLY}, "schedule"),
        *[("GET", f"/schedules/of-other/{noun}", None, "schedule") for noun in ("history", "preview")],
        *[("POST", f"/schedules/of-other/{verb}", None, "schedule") for verb in ("pause", "resume", "trigger")],
        *[(method, "/handlers/mailer", None, "handler") for method in ("GET", "DELETE")],
        ("PUT", "/handlers/mailer", {"url": "https://example.com/"}, "handler"),
        *[
            ("POST", f"/handlers/mailer/{verb}", None, "handler")
            for verb in ("enable", "disable", "rotate-secret", "test")
        ],
        *[(method, "/limits/postage", None, "limit") for method in ("GET", "DELETE")],
        ("PUT", "/limits/postage", {"max_concurrency": 1}, "limit"),
        *[("POST", f"/limits/postage/{verb}", None, "limit") for verb in ("pause", "resume")],
    ]
    for method, path, body, noun in missing:
        problem(await asker.client.request(method, path, json=body), 404, f"{noun}_not_found")
    for method, path, body in (("GET", "/limits", None), ("PUT", "/limits", {}), ("GET", "/audit", None)):
        problem(await asker.client.request(method, path, json=body), 404, "not_found")
    assert good(await world.boss.get(f"/tasks/{other['task']}"))["state"] == "ready"
    assert good(await world.boss.get(f"/batches/{other['batch']}"))["sealed"] is False
    assert good(await world.boss.get("/schedules/of-other"))["queue"] == "other"


@pytest.mark.parametrize(
    ("named", "where"),
    [
        ({"handler": "biller"}, "/handler"),
        ({"limits": [{"name": "money"}]}, "/limits/0/name"),
        ({"callbacks": {"dead": {"queue": "other"}}}, "/callbacks/dead/queue"),
    ],
)
async def test_what_its_queues_do_not_name_it_cannot_name(world: World, named: dict[str, Any], where: str) -> None:
    asker = world.asker
    problem(await asker.post("/queues/mail-eu/tasks", json={"payload": 1, **named}), 422, "invalid", where)
    items = {"tasks": [{"payload": 1}, {"payload": 1, **named}]}
    fine, refused = good(await asker.post("/queues/mail-eu/tasks/bulk", json=items))["results"]
    assert fine["status"] == 201 and refused["problem"]["errors"][0]["pointer"] == f"/tasks/1{where}"
    problem(await asker.post("/queues/mail-eu/tasks/bulk", json={**items, "atomic": True}), 422, "invalid")
    problem(await asker.put("/queues/mail-us", json=named), 422, "invalid", where)
    document = {"queues": {"mail-us": named}}
    problem(await asker.post("/definitions/plan", json=document), 422, "invalid", f"/queues/mail-us{where}")
    if "callbacks" not in named:
        patch = await asker.client.patch(f"/tasks/{world.mine['task']}", json=named)
        problem(patch, 422, "invalid", where)
        problem(await asker.put("/schedules/mine", json={"queue": "mail-eu", **YEARLY, **named}), 422, "invalid", where)
    then = {"queue": "other", "payload": 1}
    problem(await asker.post("/batches", json={"queue": "mail-eu", "on_complete": then}), 422, "invalid")
    problem(await asker.post("/batches", json={"queue": "other"}), 422, "invalid", "/queue")


async def test_definitions_plan_and_prune_its_queues_alone(world: World) -> None:
    asker = world.asker
    document: dict[str, Any] = {"queues": {"mail-eu": {"handler": "mailer"}}, "prune": True}
    assert [change["name"] for change in good(await asker.post("/definitions/plan", json=document))["changes"]] == [
        "mail-eu"
    ]
    good(await asker.post("/definitions/apply", json=document))
    for section in ("handlers", "named_limits", "limits"):
        reply = await asker.post("/definitions/apply", json={section: {}, "prune": True})
        assert problem(reply, 404, "not_found")["errors"][0]["pointer"] == f"/{section}"
    beyond: dict[str, Any] = {"queues": {"other": {}}}
    problem(await asker.post("/definitions/plan", json=beyond), 404, "queue_not_found", "/queues/other")
    for path in ("/queues/other", "/handlers/biller", "/limits/money", "/schedules/of-other"):
        good(await world.boss.get(path))


async def test_its_actions_reach_its_queues_and_others_are_not_there(world: World) -> None:
    boss, asker = world.boss, world.asker

    async def started(api: Api, filters: dict[str, Any]) -> dict[str, Any]:
        body = {"kind": "set_priority", "priority": 9, "filter": filters, "rate_per_second": 0.01}
        return good(await api.post("/actions", json=body), 202)

    own, of_its_queue = await started(asker, {"state": "ready"}), await started(boss, {"queue": "mail-eu"})
    assert (own["matched"], of_its_queue["matched"]) == (2, 2)
    beyond: tuple[dict[str, Any], ...] = ({"queue": "other"}, {"batch": world.other["batch"]}, {"handler": "biller"})
    for filters in beyond:
        assert (await started(asker, filters))["matched"] == 0
        reply = await asker.post("/actions", json={"kind": "purge", "filter": filters, "dry_run": True})
        assert good(reply)["matched"] == 0
    hidden = [await started(boss, filters) for filters in ({"queue": "other"}, {"state": "ready"})]
    assert [action["matched"] for action in hidden] == [2, 4]
    for action in hidden:
        problem(await asker.get(f"/actions/{action['id']}"), 404, "action_not_found")
        problem(await asker.post(f"/actions/{action['id']}/cancel"), 404, "action_not_found")
    seen = {action["id"] for action in await asker.pages("/actions", limit=1)}
    assert len(seen) == 5 and {own["id"], of_its_queue["id"]} <= seen
    assert good(await asker.post(f"/actions/{of_its_queue['id']}/cancel"))["state"] == "cancelled"


async def test_a_batch_that_it_cancels_ends_as_a_whole(world: World) -> None:
    boss, asker = world.boss, world.asker
    good(await boss.put("/queues/mail-pull", json={}), 201)
    batch = good(
        await asker.post("/batches", json={"queue": "mail-pull", "tasks": [{"payload": n} for n in (1, 2)]}), 201
    )
    [leased] = good(await boss.post("/queues/mail-pull/leases", json={}))["tasks"]
    follow_up = {"queue": "other", "idempotency_key": "k", "payload": 1}
    token = {"sluice-lease-token": leased["lease_token"]}
    good(await boss.post(f"/tasks/{leased['id']}/complete", json={"tasks": [follow_up]}, headers=token))
    [follows] = [task for task in await boss.pages("/tasks", batch=batch["id"]) if task["queue"] == "other"]
    good(await asker.post(f"/batches/{batch['id']}/cancel"))
    assert (await boss.task(follows["id"]))["state"] == "cancelled"


async def test_a_confined_operator_operates_nothing_beyond_its_tenant(granted: Granted, world: World) -> None:
    operator = await granted(fresh("t"), Grant("operate", queues=("mail-*",)))
    for path in ("/status", "/metrics", "/tenants/default/limits", "/keys?tenant=default"):
        problem(await operator.get(path), 403, "forbidden")
