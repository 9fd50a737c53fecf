"""Named limits, their keys, and the keys of queues: what may be defined, and how it reads."""

from typing import Any
from urllib.parse import quote

import pytest

from tests.wire.api import Api, fresh, good, problem

pytestmark = pytest.mark.anyio

RATE = {"limit": 500.0, "period_seconds": 60.0, "burst": 10}
NOTHING = {"holding": 0, "waiting_keys": 0, "holders": [], "next_at": None}


async def test_a_limit_reads_as_it_was_put(api: Api) -> None:
    name = fresh("l")
    given = {"max_concurrency": 20, "rate": RATE, "keyed": True, "description": "the mail service"}
    created = await api.put(f"/limits/{name}", json=given)
    body = good(created, 201)
    assert {field: body[field] for field in given} == given
    assert {field: body[field] for field in NOTHING} == NOTHING
    assert body["name"] == name and body["paused"] is False and body["overridden"] is False
    read = await api.get(f"/limits/{name}")
    assert good(read) == body and read.headers["etag"] == created.headers["etag"]
    replaced = good(await api.put(f"/limits/{name}", json={"keyed": True}))
    assert (replaced["max_concurrency"], replaced["rate"], replaced["description"]) == (None, None, None)


async def test_a_rate_has_defaults_and_shows_what_could_start(api: Api) -> None:
    name = await api.limit(rate={"limit": 500, "period_seconds": 60})
    body = good(await api.get(f"/limits/{name}"))
    assert body["rate"] == {"limit": 500.0, "period_seconds": 60.0, "burst": None}
    assert body["tokens"] == 1.0, "what 0.1 s brings, at least 1"
    name = await api.limit(rate={"limit": 100})
    assert good(await api.get(f"/limits/{name}"))["tokens"] == 10.0
    name = await api.limit(max_concurrency=3)
    body = good(await api.get(f"/limits/{name}"))
    assert (body["tokens"], body["effective_max_concurrency"]) == (None, 3)


async def test_conditions_guard_a_limit(api: Api) -> None:
    name = fresh("l")
    problem(await api.put(f"/limits/{name}", json={}, headers={"if-match": '"x"'}), 412, "etag_mismatch")
    made = await api.put(f"/limits/{name}", json={}, headers={"if-none-match": "*"})
    good(made, 201)
    problem(await api.put(f"/limits/{name}", json={}, headers={"if-none-match": "*"}), 412, "etag_mismatch")
    problem(await api.delete(f"/limits/{name}", headers={"if-match": '"x"'}), 412, "etag_mismatch")
    gone = await api.delete(f"/limits/{name}", headers={"if-match": made.headers["etag"]})
    assert gone.status_code == 204
    problem(await api.get(f"/limits/{name}"), 404, "limit_not_found")


async def test_a_limit_that_does_not_exist_is_not_found(api: Api) -> None:
    for method, path in (
        ("GET", ""),
        ("DELETE", ""),
        ("POST", "/pause"),
        ("POST", "/resume"),
        ("GET", "/keys"),
        ("GET", "/keys/k"),
        ("PUT", "/keys/k"),
        ("DELETE", "/keys/k"),
        ("POST", "/keys/k/pause"),
        ("POST", "/keys/k/resume"),
    ):
        body: dict[str, Any] = {"json": {}} if method == "PUT" else {}
        problem(await api.client.request(method, f"/limits/none{path}", **body), 404, "limit_not_found")


async def test_limits_are_listed_by_name_beside_the_tenant_s_own(api: Api) -> None:
    names = sorted([await api.limit(max_concurrency=n + 1) for n in range(3)])
    first = good(await api.get("/limits", params={"limit": 2}))
    assert {"max_concurrency", "rate", "items", "next_cursor"} <= first.keys()
    found, cursor = first["items"], first["next_cursor"]
    while cursor is not None:
        page = good(await api.get("/limits", params={"limit": 2, "cursor": cursor}))
        found, cursor = found + page["items"], page["next_cursor"]
    listed = [item["name"] for item in found]
    assert listed == sorted(listed) and set(names) <= set(listed)
    assert found[listed.index(names[0])] == good(await api.get(f"/limits/{names[0]}"))


async def test_a_pause_survives_a_put(api: Api) -> None:
    name = await api.limit(max_concurrency=1)
    paused = good(await api.post(f"/limits/{name}/pause"))
    assert paused["paused"] is True and paused["paused_at"] is not None
    assert good(await api.put(f"/limits/{name}", json={"max_concurrency": 2}))["paused"] is True
    assert good(await api.post(f"/limits/{name}/resume"))["paused"] is False


async def test_a_limit_that_something_names_is_not_deleted(api: Api) -> None:
    name = await api.limit(max_concurrency=1)
    queue = await api.queue(limits=[name])
    found = problem(await api.delete(f"/limits/{name}"), 409, "limit_in_use")
    assert queue in found["detail"]
    good(await api.put(f"/queues/{queue}", json={}))
    handler = await api.handler("https://example.com/", limits=[{"name": name}])
    assert handler in problem(await api.delete(f"/limits/{name}"), 409, "limit_in_use")["detail"]
    good(await api.put(f"/handlers/{handler}", json={"url": "https://example.com/"}))
    task = await api.enqueue(queue, limits=[{"name": name}], delay_seconds=600)
    assert "task" in problem(await api.delete(f"/limits/{name}"), 409, "limit_in_use")["detail"]
    good(await api.cancel(task["id"]))
    schedule = fresh("s")
    given = {"queue": queue, "cron": "@daily", "payload": 1, "limits": [{"name": name}]}
    good(await api.put(f"/schedules/{schedule}", json=given), 201)
    assert schedule in problem(await api.delete(f"/limits/{name}"), 409, "limit_in_use")["detail"]
    assert (await api.delete(f"/schedules/{schedule}")).status_code == 204
    assert (await api.delete(f"/limits/{name}")).status_code == 204


async def test_keyed_changes_only_while_nothing_names_the_limit(api: Api) -> None:
    name = await api.limit(max_concurrency=1)
    queue = await api.queue(limits=[name])
    problem(await api.put(f"/limits/{name}", json={"keyed": True}), 409, "limit_in_use", "/keyed")
    assert good(await api.get(f"/limits/{name}"))["max_concurrency"] == 1
    good(await api.put(f"/queues/{queue}", json={}))
    assert good(await api.put(f"/limits/{name}", json={"keyed": True}))["keyed"] is True


async def test_a_key_of_a_limit_may_have_values_of_its_own(api: Api) -> None:
    name = await api.limit(max_concurrency=2, keyed=True)
    plain = good(await api.get(f"/limits/{name}/keys/acme"))
    assert (plain["max_concurrency"], plain["overridden"], plain["holding"]) == (2, False, 0)
    assert good(await api.get(f"/limits/{name}/keys"))["items"] == []
    own = good(await api.put(f"/limits/{name}/keys/acme", json={"max_concurrency": 7, "rate": {"limit": 5}}))
    assert (own["max_concurrency"], own["effective_max_concurrency"], own["overridden"]) == (7, 7, True)
    assert own["rate"] == {"limit": 5.0, "period_seconds": 1.0, "burst": None} and own["tokens"] == 1.0
    assert good(await api.get(f"/limits/{name}"))["overridden"] is True
    assert good(await api.get(f"/limits/{name}/keys"))["items"] == [own]
    paused = good(await api.post(f"/limits/{name}/keys/acme/pause"))
    assert paused["paused"] is True
    assert [key["key"] for key in good(await api.get(f"/limits/{name}/keys?state=full"))["items"]] == ["acme"]
    assert good(await api.get(f"/limits/{name}/keys?state=waiting"))["items"] == []
    assert good(await api.put(f"/limits/{name}/keys/acme", json={}))["paused"] is True, "no PUT changes it"
    assert (await api.delete(f"/limits/{name}/keys/acme")).status_code == 204
    assert good(await api.get(f"/limits/{name}/keys/acme")) == plain


async def test_keys_are_paged_in_byte_order_whatever_they_hold(api: Api) -> None:
    name = await api.limit(max_concurrency=2, keyed=True)
    keys = ["a/b", "a b", "ä", "%2F", "Z", "pause", "x/pause"]
    for key in keys:
        path = f"/limits/{name}/keys/{quote(key, safe='')}"
        assert good(await api.put(path, json={"max_concurrency": 1}))["key"] == key
        assert good(await api.get(path))["overridden"] is True
    good(await api.post(f"/limits/{name}/keys/{quote('x/pause', safe='')}/pause"))
    found = await api.pages(f"/limits/{name}/keys", limit=2)
    assert [item["key"] for item in found] == sorted(keys, key=str.encode)
    assert [item["key"] for item in found if item["paused"]] == ["x/pause"]


async def test_a_key_of_a_queue_may_weigh_more_and_be_paused(api: Api) -> None:
    queue = await api.queue(key={"max_concurrency": 2})
    plain = good(await api.get(f"/queues/{queue}/keys/acme"))
    assert (plain["max_concurrency"], plain["weight"], plain["overridden"], plain["waiting"]) == (2, 1, False, 0)
    own = good(await api.put(f"/queues/{queue}/keys/acme", json={"max_concurrency": 5, "weight": 3}))
    assert (own["max_concurrency"], own["weight"], own["overridden"]) == (5, 3, True)
    await api.enqueue(queue, key="acme")
    await api.enqueue(queue, key="acme", delay_seconds=600)
    assert good(await api.get(f"/queues/{queue}/keys/acme"))["waiting"] == 2
    assert good(await api.post(f"/queues/{queue}/keys/acme/pause"))["paused"] is True
    assert good(await api.post(f"/queues/{queue}/keys/acme/resume"))["paused"] is False
    good(await api.put(f"/queues/{queue}", json={}))
    kept = good(await api.get(f"/queues/{queue}/keys/acme"))
    assert (kept["max_concurrency"], kept["weight"]) == (5, 3), "they outlive the queue's key"
    assert good(await api.put(f"/queues/{queue}/keys/acme", json={}))["overridden"] is False


async def test_a_queue_and_a_handler_read_as_they_were_put(api: Api) -> None:
    name = await api.limit(rate={"limit": 100, "burst": 50}, keyed=True)
    other = await api.limit()
    queue = fresh("q")
    given = {
        "rate": RATE,
        "key": {"max_concurrency": 2, "rate": RATE, "max_depth": 9, "ordered": False, "required": True},
        "limits": [{"name": name, "key": "task", "cost": 50}, other],
    }
    shown = [{"name": name, "key": None, "cost": 50}, {"name": other, "key": None, "cost": 1}]
    made = await api.put(f"/queues/{queue}", json=given)
    body = good(made, 201)
    assert body["rate"] == RATE and body["key"] == given["key"] and body["limits"] == shown
    read = await api.get(f"/queues/{queue}")
    assert good(read) == body
    again = await api.put(f"/queues/{queue}", json={**given, "limits": shown})
    assert again.headers["etag"] == made.headers["etag"] and good(again)["updated_at"] == body["updated_at"]
    assert good(await api.put(f"/queues/{queue}", json={"key": {}}))["key"] is None
    handler = fresh("h")
    given = {"url": "https://example.com/", "rate": RATE, "limits": [{"name": name, "key": "one"}]}
    body = good(await api.put(f"/handlers/{handler}", json=given), 201)
    assert body["rate"] == RATE and body["limits"] == [{"name": name, "key": "one", "cost": 1}]
    assert {**good(await api.get(f"/handlers/{handler}")), "secret": body["secret"]} == body


async def test_the_tenant_s_own_limits_have_a_rate(api: Api) -> None:
    own = good(await api.put("/limits", json={"max_concurrency": 50, "rate": RATE}))
    assert own == {"max_concurrency": 50, "rate": RATE}
    found = good(await api.get("/limits"))
    assert (found["max_concurrency"], found["rate"]) == (50, RATE)
    assert good(await api.put("/limits", json={})) == {"max_concurrency": None, "rate": None}


async def test_a_task_shows_its_key_and_limits_wherever_it_reads(api: Api) -> None:
    name = await api.limit(rate={"limit": 100}, keyed=True)
    queue = await api.queue()
    task = await api.enqueue(queue, key="acme", limits=[{"name": name, "cost": 3}], delay_seconds=600)
    shown = {"key": "acme", "limits": [{"name": name, "key": None, "cost": 3}]}
    assert {field: task[field] for field in shown} == shown
    read = await api.task(task["id"])
    assert {field: read[field] for field in shown} == shown
    [listed] = await api.pages("/tasks", queue=queue)
    assert {field: listed[field] for field in shown} == shown
    patched = good(await api.client.patch(f"/tasks/{task['id']}", json={"key": "beta", "limits": [{"name": name}]}))
    assert (patched["key"], patched["limits"]) == ("beta", [{"name": name, "key": None, "cost": 1}])
    patched = good(await api.client.patch(f"/tasks/{task['id']}", json={"key": None, "limits": None}))
    assert (patched["key"], patched["limits"]) == (None, [])
    plain = await api.enqueue(queue)
    assert (plain["key"], plain["limits"], plain["waiting_on"]) == (None, [], None)


async def test_an_idempotent_repeat_must_have_the_same_key_and_limits(api: Api) -> None:
    name = await api.limit()
    queue = await api.queue()
    given = {"key": "acme", "limits": [{"name": name}], "idempotency_key": "k"}
    task = await api.enqueue(queue, **given)
    again = await api.post(f"/queues/{queue}/tasks", json={"payload": None, **given})
    assert good(again)["id"] == task["id"]
    others: list[dict[str, Any]] = [{"key": "beta"}, {"limits": []}]
    for more in others:
        body = {"payload": None, **given, **more}
        problem(await api.post(f"/queues/{queue}/tasks", json=body), 422, "idempotency_mismatch")


async def test_a_key_holds_exactly_its_max_depth(api: Api) -> None:
    queue = await api.queue(key={"max_depth": 2})
    path = f"/queues/{queue}/tasks"
    for key in ("a", "a", "b"):
        await api.enqueue(queue, key=key)
    full = await api.post(path, json={"payload": 1, "key": "a"})
    assert "a" in problem(full, 429, "key_full")["detail"] and full.headers["retry-after"] == "1"
    await api.enqueue(queue)
    tasks = [{"payload": n, "key": key} for n, key in enumerate(["a", "b", "b", "c", "c", "c"])]
    results = good(await api.post(path + "/bulk", json={"tasks": tasks}))["results"]
    assert [result["status"] for result in results] == [429, 201, 429, 201, 201, 429]
    assert results[0]["problem"]["code"] == "key_full"
    waiting = await api.enqueue(queue, key="d", delay_seconds=600)
    problem(await api.client.patch(f"/tasks/{waiting['id']}", json={"key": "a"}), 429, "key_full")
    assert (await api.task(waiting["id"]))["key"] == "d"
    good(await api.client.patch(f"/tasks/{waiting['id']}", json={"key": "d", "priority": 1}))
    replaceable = {"payload": 1, "unique_key": "u", "on_duplicate": "replace"}
    held = good(await api.post(path, json={**replaceable, "key": "e"}), 201)
    problem(await api.post(path, json={**replaceable, "key": "a", "idempotency_key": "i"}), 429, "key_full")
    assert good(await api.post(path, json={**replaceable, "key": "e", "idempotency_key": "i"}))["id"] == held["id"]
