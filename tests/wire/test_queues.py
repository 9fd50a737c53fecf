"""`/queues` and `/limits`: definitions, pause, deletion, and what follows a change."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.handlers import Handler, Reply
from tests.support import poll
from tests.wire.api import AT_ONCE, Api, fresh, good, own_limits, problem

pytestmark = pytest.mark.anyio

RETRY: dict[str, Any] = {
    "max_attempts": 25,
    "retry_after_max_seconds": 3600.0,
    "backoff": {"kind": "exponential", "min_seconds": 1.0, "max_seconds": 3600.0, "factor": 2.0, "jitter": "equal"},
}
DEFAULTS: dict[str, Any] = {
    "encrypt": False,
    "handler": None,
    "max_concurrency": None,
    "max_depth": None,
    "rate": None,
    "key": None,
    "limits": [],
    "timeout_seconds": None,
    "retry": RETRY,
    "idempotency_seconds": 86_400.0,
    "payload_schema": None,
    "callbacks": {"succeeded": None, "dead": None, "cancelled": None},
    "retention": {"succeeded_days": 3, "cancelled_days": 3, "dead_days": 30},
    "description": None,
    "paused": False,
    "paused_at": None,
}
STAMPS = {"created_at", "updated_at"}


async def test_a_put_creates_with_the_defaults(api: Api) -> None:
    name = fresh("q")
    reply = await api.put(f"/queues/{name}", json={})
    shown = good(reply, 201)
    assert shown == DEFAULTS | {key: shown[key] for key in STAMPS} | {"name": name}
    read = await api.get(f"/queues/{name}")
    assert good(read) == shown and read.headers["etag"] == reply.headers["etag"]


async def test_a_put_replaces_and_absent_fields_return_to_their_defaults(api: Api) -> None:
    name, handler = fresh("q"), await api.handler("https://example.com/")
    full = {
        "handler": handler,
        "max_concurrency": 2,
        "max_depth": 10,
        "timeout_seconds": 5.5,
        "retry": {"max_attempts": 3, "backoff": {"kind": "list", "seconds": [1, 2.5, 60]}},
        "idempotency_seconds": 60,
        "payload_schema": {"type": "object", "properties": {"b": {"minimum": 1.0}, "a": {"const": True}}},
        "retention": {"succeeded_days": 0, "dead_days": 90},
        "description": "mail",
    }
    first = good(await api.put(f"/queues/{name}", json=full), 201)
    assert {key: first[key] for key in full} == full | {
        "retry": RETRY | {"max_attempts": 3, "backoff": {"kind": "list", "seconds": [1.0, 2.5, 60.0]}},
        "retention": {"succeeded_days": 0, "cancelled_days": 3, "dead_days": 90},
    }
    again = good(await api.put(f"/queues/{name}", json={key: first[key] for key in full}))
    assert again == first
    second = good(await api.put(f"/queues/{name}", json={}))
    assert {key: second[key] for key in DEFAULTS} == DEFAULTS
    assert second["created_at"] == first["created_at"]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({"kind": "fixed", "seconds": 5}, {"kind": "fixed", "seconds": 5.0}),
        ({"kind": "list", "seconds": [0, 1]}, {"kind": "list", "seconds": [0.0, 1.0]}),
        ({"kind": "exponential", "factor": 3}, RETRY["backoff"] | {"factor": 3.0}),
        ({"jitter": "none", "min_seconds": 0}, RETRY["backoff"] | {"jitter": "none", "min_seconds": 0.0}),
        ({}, RETRY["backoff"]),
    ],
)
async def test_each_kind_of_backoff_is_shown_complete(api: Api, given: Any, shown: Any) -> None:
    queue = good(await api.put(f"/queues/{fresh('q')}", json={"retry": {"backoff": given}}), 201)
    assert queue["retry"]["backoff"] == shown


@pytest.mark.parametrize(
    ("field", "value", "pointer"),
    [
        ("handler", "No Name", "/handler"),
        ("handler", "nobody", "/handler"),
        ("handler", 5, "/handler"),
        ("max_concurrency", 0, "/max_concurrency"),
        ("max_concurrency", -1, "/max_concurrency"),
        ("max_concurrency", "5", "/max_concurrency"),
        ("max_concurrency", True, "/max_concurrency"),
        ("max_depth", 0, "/max_depth"),
        ("max_depth", 10**30, "/max_depth"),
        ("timeout_seconds", 0, "/timeout_seconds"),
        ("timeout_seconds", 1e300, "/timeout_seconds"),
        ("idempotency_seconds", -1, "/idempotency_seconds"),
        ("idempotency_seconds", None, "/idempotency_seconds"),
        ("idempotency_seconds", 10**9, "/idempotency_seconds"),
        ("payload_schema", {"type": "objekt"}, "/payload_schema/type"),
        ("retention", {"succeeded_days": 91}, "/retention/succeeded_days"),
        ("retention", {"dead_days": -1}, "/retention/dead_days"),
        ("retention", {"dead_days": 1.5}, "/retention/dead_days"),
        ("retention", {"never": 1}, "/retention/never"),
        ("retention", [], "/retention"),
        ("retry", [], "/retry"),
        ("retry", {"max_attempts": 0}, "/retry/max_attempts"),
        ("retry", {"max_attempts": 1.5}, "/retry/max_attempts"),
        ("retry", {"max_attempts": 10**30}, "/retry/max_attempts"),
        ("retry", {"tries": 1}, "/retry/tries"),
        ("retry", {"retry_after_max_seconds": -1}, "/retry/retry_after_max_seconds"),
        ("retry", {"backoff": 5}, "/retry/backoff"),
        ("retry", {"backoff": {"kind": "magic"}}, "/retry/backoff/kind"),
        ("retry", {"backoff": {"kind": "fixed"}}, "/retry/backoff/seconds"),
        ("retry", {"backoff": {"kind": "fixed", "seconds": [1]}}, "/retry/backoff/seconds"),
        ("retry", {"backoff": {"kind": "list", "seconds": []}}, "/retry/backoff/seconds"),
        ("retry", {"backoff": {"kind": "list", "seconds": [1, -1]}}, "/retry/backoff/seconds/1"),
        ("retry", {"backoff": {"kind": "exponential", "seconds": 1}}, "/retry/backoff/seconds"),
        ("retry", {"backoff": {"factor": 0.5}}, "/retry/backoff/factor"),
        ("retry", {"backoff": {"jitter": "some"}}, "/retry/backoff/jitter"),
        ("retry", {"backoff": {"min_seconds": 9, "max_seconds": 1}}, "/retry/backoff/min_seconds"),
        ("description", "a\u0000b", "/description"),
        ("paused", True, "/paused"),
    ],
)
async def test_a_definition_that_breaks_a_rule_is_refused_and_nothing_is_stored(
    api: Api, field: str, value: object, pointer: str
) -> None:
    name = fresh("q")
    problem(await api.put(f"/queues/{name}", json={field: value}), 422, "invalid", pointer)
    problem(await api.get(f"/queues/{name}"), 404, "queue_not_found")


@pytest.mark.parametrize("number", ["1e400", "-1e400", "1e-400", "123456789012345678901234567890.5"])
async def test_numbers_beyond_every_range_are_refused_cleanly(api: Api, number: str) -> None:
    body = (
        '{"max_depth": N, "idempotency_seconds": N, "timeout_seconds": N, "retry": {"max_attempts": N,'
        ' "backoff": {"min_seconds": N, "factor": N}}, "retention": {"dead_days": N}}'
    ).replace("N", number)
    reply = await api.put(f"/queues/{fresh('q')}", content=body, headers={"content-type": "application/json"})
    problem(reply, 422, "invalid")


async def test_pause_and_resume_can_be_repeated_and_no_put_changes_a_pause(api: Api) -> None:
    name = await api.queue()
    paused = good(await api.post(f"/queues/{name}/pause"))
    assert paused["paused"] is True and paused["paused_at"]
    assert good(await api.post(f"/queues/{name}/pause", json={})) == paused
    put = good(await api.put(f"/queues/{name}", json={"description": "x"}))
    assert (put["paused"], put["paused_at"]) == (True, paused["paused_at"])
    resumed = good(await api.post(f"/queues/{name}/resume"))
    assert (resumed["paused"], resumed["paused_at"]) == (False, None)
    assert good(await api.post(f"/queues/{name}/resume")) == resumed


async def test_the_etag_is_strong_over_the_definition_and_guards_changes(api: Api) -> None:
    name = fresh("q")
    problem(await api.put(f"/queues/{name}", json={}, headers={"if-match": '"x"'}), 412, "etag_mismatch")
    made = await api.put(f"/queues/{name}", json={}, headers={"if-none-match": "*"})
    tag = made.headers["etag"]
    assert made.status_code == 201 and tag.startswith('"')
    await api.post(f"/queues/{name}/pause")
    shown = await api.get(f"/queues/{name}", headers={"if-none-match": tag})
    assert shown.headers["etag"] == tag and good(shown)["paused"], (
        "it shows more than the definition, so it is never a 304"
    )
    assert (await api.put(f"/queues/{name}", json={"retry": RETRY})).headers["etag"] == tag
    changed = await api.put(f"/queues/{name}", json={"max_depth": 1}, headers={"if-match": tag})
    assert changed.headers["etag"] != tag
    problem(await api.put(f"/queues/{name}", json={}, headers={"if-match": tag}), 412, "etag_mismatch")
    problem(await api.put(f"/queues/{name}", json={}, headers={"if-none-match": "*"}), 412, "etag_mismatch")
    problem(await api.delete(f"/queues/{name}", headers={"if-match": tag}), 412, "etag_mismatch")
    assert (await api.delete(f"/queues/{name}", headers={"if-match": "*"})).status_code == 204
    for header in ({"if-match": "x"}, {"if-none-match": '"x"'}, {"if-match": ""}):
        assert (await api.put(f"/queues/{name}", json={}, headers=header)).status_code in (400, 422)


async def test_a_queue_with_unfinished_tasks_is_not_deleted(api: Api) -> None:
    name = await api.queue()
    ready, scheduled = await api.enqueue(name), await api.enqueue(name, delay_seconds=600)
    for task in (ready, scheduled):
        problem(await api.delete(f"/queues/{name}"), 409, "queue_in_use")
        good(await api.cancel(task["id"]))
    assert (await api.delete(f"/queues/{name}")).status_code == 204
    for reply in (
        await api.get(f"/queues/{name}"),
        await api.get(f"/queues/{name}/stats"),
        await api.delete(f"/queues/{name}"),
        await api.post(f"/queues/{name}/pause"),
        await api.post(f"/queues/{name}/resume"),
        await api.post(f"/queues/{name}/tasks", json={"payload": 1}),
    ):
        problem(reply, 404, "queue_not_found")
    assert (await api.task(ready["id"]))["queue"] == name
    problem(await api.retry(ready["id"]), 409, "task_not_editable")
    good(await api.put(f"/queues/{name}", json={}), 201)
    problem(await api.retry(ready["id"]), 409, "task_not_editable")


async def test_a_queue_with_a_running_task_is_not_deleted(api: Api, handler: Handler) -> None:
    go = asyncio.Event()
    handler.script(Reply(until=go))
    name = await api.queue_to(handler.url)
    task = await api.enqueue(name)
    await handler.received()
    problem(await api.delete(f"/queues/{name}"), 409, "queue_in_use")
    go.set()
    await api.until(task["id"], "succeeded")
    assert (await api.delete(f"/queues/{name}")).status_code == 204


async def test_what_one_replica_changed_the_other_goes_by_at_once(api: Api, other: Api) -> None:
    name = await api.queue()
    await other.enqueue(name)
    good(await api.put(f"/queues/{name}", json={"max_depth": 1, "retry": {"max_attempts": 7}}))
    problem(await other.post(f"/queues/{name}/tasks", json={"payload": 1}), 429, "queue_full")
    good(await api.put(f"/queues/{name}", json={"retry": {"max_attempts": 7}}))
    task = await other.enqueue(name)
    assert task["max_attempts"] == 7
    for found in (await api.get("/tasks", params={"queue": name})).json()["items"]:
        good(await api.cancel(found["id"]))
    assert (await api.delete(f"/queues/{name}")).status_code == 204
    problem(await other.post(f"/queues/{name}/tasks", json={"payload": 1}), 404, "queue_not_found")


async def test_tasks_follow_their_queue_s_current_handler(api: Api, handler: Handler, start_handler: Any) -> None:
    second = await start_handler()
    old, new = await api.handler(handler.url), await api.handler(second.url)
    name = await api.queue(old)
    good(await api.post(f"/queues/{name}/pause"))
    task = await api.enqueue(name)
    assert task["handler"] == old and (await api.task(task["id"]))["handler"] == old
    good(await api.put(f"/queues/{name}", json={"handler": new}))
    assert (await api.task(task["id"]))["handler"] == new
    good(await api.post(f"/queues/{name}/resume"))
    [request] = await second.received()
    assert request.task == task["id"] and handler.requests == []


async def test_a_task_s_own_handler_stays_when_the_queue_s_changes(
    api: Api, handler: Handler, start_handler: Any
) -> None:
    second = await start_handler()
    own, old, new = [await api.handler(url) for url in (handler.url, second.url, second.url)]
    name = await api.queue(old)
    good(await api.post(f"/queues/{name}/pause"))
    task = await api.enqueue(name, handler=own)
    assert task["handler"] == own
    good(await api.put(f"/queues/{name}", json={"handler": new}))
    good(await api.post(f"/queues/{name}/resume"))
    [request] = await handler.received()
    assert request.task == task["id"] and second.requests == []
    assert (await api.until(task["id"], "succeeded"))["handler"] == own


async def test_from_the_answer_to_a_pause_nothing_starts(api: Api, other: Api, handler: Handler) -> None:
    name = await api.queue_to(handler.url)
    tasks = await asyncio.gather(*((api, other)[n % 2].enqueue(name) for n in range(40)))
    good(await other.post(f"/queues/{name}/pause"))
    claimed = [task for task in await api.pages("/tasks", queue=name) if task["state"] not in ("ready", "scheduled")]
    late = await api.enqueue(name)
    assert late["waiting_for"] == "queue_paused"
    for task in claimed:
        await api.until(task["id"], "succeeded")
    assert len(handler.requests) == len(claimed)
    good(await api.post(f"/queues/{name}/resume"))
    await handler.received(len(tasks) + 1)


async def test_a_retry_policy_that_changes_holds_for_tasks_already_there(api: Api, handler: Handler) -> None:
    handler.script(Reply(500))
    named = await api.handler(handler.url)
    name = await api.queue(named, retry=AT_ONCE)
    good(await api.post(f"/queues/{name}/pause"))
    task = await api.enqueue(name)
    good(await api.put(f"/queues/{name}", json={"handler": named, "retry": AT_ONCE | {"max_attempts": 2}}))
    assert (await api.task(task["id"]))["max_attempts"] == 2
    good(await api.post(f"/queues/{name}/resume"))
    await api.until(task["id"], "dead", reason="attempts_exhausted", attempt=2)


async def test_a_queue_made_again_under_a_name_starts_empty(api: Api) -> None:
    name = await api.queue()
    first = await api.enqueue(name, idempotency_key="k")
    good(await api.cancel(first["id"]))
    assert (await api.delete(f"/queues/{name}")).status_code == 204
    good(await api.put(f"/queues/{name}", json={}), 201)
    assert good(await api.get(f"/queues/{name}/stats"))["counts"]["cancelled"] == 0
    assert (await api.enqueue(name, idempotency_key="k"))["id"] != first["id"]


async def test_retention_of_no_days_makes_ended_tasks_read_as_gone(api: Api, handler: Handler) -> None:
    name = await api.queue_to(
        handler.url, retention={"succeeded_days": 0, "cancelled_days": 0, "dead_days": 0}, retry={"max_attempts": 1}
    )
    handler.answer(Reply(200), Reply(500))
    for _ in range(2):
        task = await api.enqueue(name)
        await handler.received(task=task["id"])

        async def gone(task_id: str = task["id"]) -> bool:
            return (await api.get(f"/tasks/{task_id}")).status_code == 404

        await poll(gone)
        problem(await api.get(f"/tasks/{task['id']}/attempts"), 404, "task_not_found")
        problem(await api.retry(task["id"]), 404, "task_not_found")
    waiting = await api.enqueue(name, delay_seconds=600)
    assert good(await api.cancel(waiting["id"]))["state"] == "cancelled"
    problem(await api.get(f"/tasks/{waiting['id']}"), 404, "task_not_found")
    assert good(await api.get("/tasks", params={"queue": name}))["items"] == []


async def test_the_limit_over_all_queues_is_read_and_replaced(api: Api) -> None:
    assert await own_limits(api) == {"max_concurrency": None}
    assert good(await api.put("/limits", json={"max_concurrency": 50_000})) == {"max_concurrency": 50_000, "rate": None}
    assert await own_limits(api) == {"max_concurrency": 50_000}
    for value in (0, -1, "5", 1.5, True, 10**30):
        problem(await api.put("/limits", json={"max_concurrency": value}), 422, "invalid", "/max_concurrency")
    problem(await api.put("/limits", json={"max": 1}), 422, "invalid", "/max")
    assert good(await api.put("/limits", json={})) == {"max_concurrency": None, "rate": None}


async def test_names_keep_to_their_alphabet(api: Api) -> None:
    for name in ("a", "A", "0", "a.b_C-d", "x" * 100, "tasks", "stats"):
        assert (await api.put(f"/queues/{name}", json={})).status_code in (200, 201), name
        assert (await api.post(f"/queues/{name}/tasks", json={"payload": 1})).status_code == 201, name
    for name in ("_a", "-a", ".a", "x" * 101, "a b", "a%00", "%C3%A9", "a%0A"):
        problem(await api.put(f"/queues/{name}", json={}), 422, "invalid", "/name")


async def test_a_tenant_has_so_many_queues_handlers_and_schedules_as_is_set(
    start_api: Callable[..., Awaitable[Api]],
) -> None:
    api = await start_api(max_definitions=1)
    queue = await api.queue()
    handler = await api.handler("https://example.com/")
    schedule = {"queue": queue, "payload": 1, "every_seconds": 3600}
    good(await api.put("/schedules/s", json=schedule), 201)
    for path, body in (
        ("/queues/more", {}),
        ("/handlers/more", {"url": "https://example.com/"}),
        ("/schedules/more", schedule),
    ):
        found = problem(await api.put(path, json=body), 422, "invalid", "")
        assert "SLUICE_MAX_DEFINITIONS" in found["detail"]
    good(await api.put(f"/queues/{queue}", json={"handler": handler}))
    good(await api.put(f"/handlers/{handler}", json={"url": "https://example.org/"}))
    good(await api.put("/schedules/s", json=schedule | {"payload": 2}))


@pytest.mark.ci
async def test_names_are_compared_as_they_stand(api: Api) -> None:
    name = fresh("q")
    lower = await api.put(f"/queues/{name}", json={"description": "lower"})
    upper = await api.put(f"/queues/{name.upper()}", json={"description": "upper"})
    assert (lower.status_code, upper.status_code) == (201, 201)
    task = await api.enqueue(name.upper())
    assert task["queue"] == name.upper()
    assert good(await api.get(f"/queues/{name}"))["description"] == "lower"
    assert good(await api.get("/tasks", params={"queue": name}))["items"] == []
    names = [queue["name"] for queue in await api.pages("/queues", limit=1)]
    assert names == sorted(names) and {name, name.upper()} <= set(names)
