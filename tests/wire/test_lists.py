"""Lists: pages by key, cursors that belong to their filters, every filter, the order."""

import asyncio
import base64
from typing import Any

import pytest

from tests.handlers import Handler, Reply
from tests.wire.api import AT_ONCE, Api, fresh, good, problem

pytestmark = pytest.mark.anyio


def ids(items: list[dict[str, Any]]) -> list[str]:
    return [item["id"] for item in items]


async def test_tasks_come_newest_first_in_pages_over_live_and_ended_ones(api: Api) -> None:
    queue = await api.queue()
    made = [(await api.enqueue(queue, n))["id"] for n in range(11)]
    for task_id in made[::3]:
        good(await api.cancel(task_id))
    for limit in (1, 4, 11, 200):
        assert ids(await api.pages("/tasks", queue=queue, limit=limit)) == made[::-1]
    exact = good(await api.get("/tasks", params={"queue": queue, "limit": 11}))
    assert exact["next_cursor"] is None


async def test_a_page_has_fifty_items_unless_asked_otherwise(api: Api) -> None:
    queue = await api.queue()
    await asyncio.gather(*(api.enqueue(queue, n) for n in range(51)))
    page = good(await api.get("/tasks", params={"queue": queue}))
    assert len(page["items"]) == 50 and page["next_cursor"]


async def test_pages_neither_repeat_nor_skip_while_tasks_come_and_end(api: Api) -> None:
    queue = await api.queue()
    made = [(await api.enqueue(queue, n))["id"] for n in range(6)]
    page = good(await api.get("/tasks", params={"queue": queue, "limit": 3}))
    await api.enqueue(queue, "later")
    for task_id in made:
        good(await api.cancel(task_id))
    rest = good(await api.get("/tasks", params={"queue": queue, "limit": 50, "cursor": page["next_cursor"]}))
    assert ids(page["items"]) + ids(rest["items"]) == made[::-1]


@pytest.mark.parametrize("limit", ["0", "-1", "201", "x", "", "1e1", "99999999999999999999", "1 or 1=1"])
async def test_a_limit_out_of_bounds_is_refused(api: Api, limit: str) -> None:
    for path in ("/tasks", "/queues", "/handlers"):
        problem(await api.get(path, params={"limit": limit}), 422, "invalid", "/limit")


async def test_a_cursor_is_bound_to_its_list_and_filters(api: Api) -> None:
    queue, second = await api.queue(), await api.queue()
    for name in (queue, second):
        for n in range(3):
            await api.enqueue(name, n, type="t", tags=["x"])
    cursor = good(await api.get("/tasks", params={"queue": queue, "limit": 1}))["next_cursor"]
    filters: list[dict[str, Any]] = [{"queue": second}, {}, {"queue": queue, "state": "ready"}]
    for given in [*filters, {"queue": queue, "type": "t"}]:
        problem(await api.get("/tasks", params={**given, "cursor": cursor}), 422, "invalid", "/cursor")
    for path in ("/queues", "/handlers"):
        problem(await api.get(path, params={"cursor": cursor}), 422, "invalid", "/cursor")
    more = good(await api.get("/tasks", params={"queue": queue, "limit": 200, "cursor": cursor, "include": "payload"}))
    assert [item["payload"] for item in more["items"]] == [1, 0]


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "AAAA",
        "A" * 1001,
        "../../etc/passwd",
        "%00",
        "\u00fc",
        "' or 1=1 --",
        base64.urlsafe_b64encode(b"\xff" * 40).decode().rstrip("="),
    ],
)
async def test_a_cursor_that_is_none_of_ours_is_refused(api: Api, cursor: str) -> None:
    for path in ("/tasks", "/queues", "/handlers"):
        problem(await api.get(path, params={"cursor": cursor}), 422, "invalid", "/cursor")


async def test_a_forged_position_is_refused(api: Api) -> None:
    queue = await api.queue()
    for n in range(2):
        await api.enqueue(queue, n)
    cursor = good(await api.get("/tasks", params={"queue": queue, "limit": 1}))["next_cursor"]
    bound = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))[:8]
    for position in (b"'; drop table sluice.tasks; --", b"", b"1" * 36, b"\x00"):
        forged = base64.urlsafe_b64encode(bound + position).rstrip(b"=").decode()
        problem(await api.get("/tasks", params={"queue": queue, "cursor": forged}), 422, "invalid", "/cursor")


async def test_names_come_ascending_by_their_bytes(api: Api) -> None:
    stem = fresh("n")
    names = [f"{stem}{end}" for end in ("-", ".", "0", "1", "_", "a", "b.c", "b_c", "bc")]
    for name in reversed(names):
        good(await api.put(f"/handlers/{name}", json={"url": "https://example.com/"}), 201)
        good(await api.put(f"/queues/{name}", json={}), 201)
    for noun in ("handlers", "queues"):
        listed = [item["name"] for item in await api.pages(f"/{noun}", limit=7)]
        assert [name for name in listed if name.startswith(stem)] == names
        assert listed == sorted(listed)
        one = good(await api.get(f"/{noun}/{names[0]}"))
        assert one in await api.pages(f"/{noun}", limit=200)


async def test_payloads_are_shown_only_when_asked_for(api: Api) -> None:
    queue = await api.queue()
    task = good(await api.enqueue_bytes(queue, b'{"payload": {"a":  1.0}}'), 201)
    [item] = good(await api.get("/tasks", params={"queue": queue}))["items"]
    assert item == {name: value for name, value in task.items() if name != "payload"}
    reply = await api.get("/tasks", params={"queue": queue, "include": "payload"})
    assert b'"payload":{"a":  1.0}' in reply.content
    assert good(reply)["items"] == [task]
    problem(await api.get("/tasks", params={"include": "results"}), 422, "invalid", "/include")


async def test_a_page_of_large_tasks_ends_early_and_the_next_one_goes_on(api: Api) -> None:
    queue = await api.queue()
    ids = [(await api.enqueue(queue, "x" * 1_000_000))["id"] for _ in range(12)]
    page = good(await api.get("/tasks", params={"queue": queue, "include": "payload"}))
    assert 8 <= len(page["items"]) < 12 and page["next_cursor"]
    assert [task["id"] for task in await api.pages("/tasks", queue=queue, include="payload")] == ids[::-1]
    assert len(good(await api.get("/tasks", params={"queue": queue}))["items"]) == 12


async def test_a_page_of_large_schedules_ends_early_too(api: Api) -> None:
    queue, names = await api.queue(), sorted(fresh("s") for _ in range(10))
    for name in names:
        body = {"queue": queue, "cron": "@yearly", "payload": "x" * 1_000_000}
        good(await api.put(f"/schedules/{name}", json=body), 201)
    page = good(await api.get("/schedules", params={"limit": 200}))
    assert len(page["items"]) < len(await api.pages("/schedules", limit=200))
    found = [item["id"] for item in await api.pages("/schedules", limit=3)]
    assert [name for name in found if name in names] == names and len(set(found)) == len(found)
    for name in names:
        await api.delete(f"/schedules/{name}")


async def test_every_filter_narrows_live_and_ended_tasks(api: Api, handler: Handler, start_handler: Any) -> None:
    own_handler = await start_handler()
    named, own = await api.handler(handler.url), await api.handler(own_handler.url)
    queue = await api.queue(named, retry=AT_ONCE | {"max_attempts": 1})
    handler.script(lambda request: Reply(500 if request.json == "bad" else 200))
    good_one = await api.enqueue(queue, "good", type="mail", tags=["x", "y"], correlation_id="c1")
    bad_one = await api.enqueue(queue, "bad", type="mail", tags=["y"])
    owned = await api.enqueue(queue, "good", handler=own)
    for task, state in ((good_one, "succeeded"), (bad_one, "dead"), (owned, "succeeded")):
        await api.until(task["id"], state)
    good(await api.post(f"/queues/{queue}/pause"))
    ready = await api.enqueue(queue, type="sms", tags=["x"], correlation_id="c1")
    later = await api.enqueue(queue, delay_seconds=600, handler=own)
    gone = await api.enqueue(queue, type="sms")
    good(await api.cancel(gone["id"]))
    cases: list[tuple[dict[str, str], list[dict[str, Any]]]] = [
        ({}, [gone, later, ready, owned, bad_one, good_one]),
        ({"state": "succeeded"}, [owned, good_one]),
        ({"state": "dead"}, [bad_one]),
        ({"state": "cancelled"}, [gone]),
        ({"state": "ready"}, [ready]),
        ({"state": "scheduled"}, [later]),
        ({"state": "running"}, []),
        ({"reason": "attempts_exhausted"}, [bad_one]),
        ({"reason": "requested"}, [gone]),
        ({"reason": "requested", "state": "dead"}, []),
        ({"type": "mail"}, [bad_one, good_one]),
        ({"type": "sms"}, [gone, ready]),
        ({"tag": "x"}, [ready, good_one]),
        ({"tag": "y", "type": "mail"}, [bad_one, good_one]),
        ({"tag": "X"}, []),
        ({"handler": own}, [later, owned]),
        ({"handler": named}, [gone, ready, bad_one, good_one]),
        ({"handler": "nobody"}, []),
        ({"correlation_id": "c1"}, [ready, good_one]),
        ({"correlation_id": "c1", "state": "ready"}, [ready]),
    ]
    for given, wanted in cases:
        assert ids(await api.pages("/tasks", queue=queue, limit=2, **given)) == ids(wanted), given
    assert set(ids([good_one, ready])) <= set(ids(await api.pages("/tasks", correlation_id="c1", limit=200)))


async def test_ended_tasks_are_found_by_when_they_ended(api: Api) -> None:
    queue = await api.queue()
    await api.enqueue(queue)
    ended = []
    for n in range(3):
        ended.append(good(await api.cancel((await api.enqueue(queue, n))["id"])))
    first, second, third = [task["ended_at"] for task in ended]
    assert ids(await api.pages("/tasks", queue=queue, ended_from=second)) == ids(ended[:0:-1])
    assert ids(await api.pages("/tasks", queue=queue, ended_to=second)) == ids(ended[:1])
    assert ids(await api.pages("/tasks", queue=queue, ended_from=first, ended_to=third)) == ids(ended[1::-1])
    plus = second.replace("Z", "+00:00")
    assert ids(await api.pages("/tasks", queue=queue, ended_from=plus)) == ids(ended[:0:-1])


@pytest.mark.parametrize(
    ("query", "pointer"),
    [
        ("queue=No+Name", "/queue"),
        ("queue=", "/queue"),
        ("state=done", "/state"),
        ("state=", "/state"),
        ("reason=because", "/reason"),
        ("type=", "/type"),
        ("type=" + "x" * 256, "/type"),
        ("tag=" + "x" * 101, "/tag"),
        ("tag=a%00", "/tag"),
        ("type=%00", "/type"),
        ("correlation_id=%00", "/correlation_id"),
        ("handler=-a", "/handler"),
        ("ended_from=yesterday", "/ended_from"),
        ("ended_to=2026-01-01", "/ended_to"),
        ("ended_to=2026-01-01T00:00:00+00:00", "/ended_to"),
        ("ended_from=9999-99-99T00:00:00Z", "/ended_from"),
        ("schedule=-x", "/schedule"),
        ("batch=x", "/batch"),
        ("offset=1", "/offset"),
        ("state=ready&state=dead", "/state"),
        ("wait_seconds=1", "/wait_seconds"),
        ("a/b~=1", "/a~1b~0"),
    ],
)
async def test_a_filter_that_means_nothing_is_refused(api: Api, query: str, pointer: str) -> None:
    problem(await api.get(f"/tasks?{query}"), 422, "invalid", pointer)


@pytest.mark.parametrize("query", ["type=%FF", "tag=%ED%A0%80", "type=%", "type=%zz", "correlation_id='%20or%20''='"])
async def test_odd_bytes_in_a_filter_are_no_error_of_ours(api: Api, query: str) -> None:
    reply = await api.get(f"/tasks?{query}")
    assert reply.status_code in (200, 400, 422), reply.text


async def test_a_queue_nobody_has_lists_nothing(api: Api) -> None:
    assert good(await api.get("/tasks", params={"queue": fresh("q")})) == {"items": [], "next_cursor": None}


async def test_tasks_of_a_deleted_queue_stay_listed_under_its_name(api: Api) -> None:
    queue = await api.queue()
    task = await api.enqueue(queue)
    good(await api.cancel(task["id"]))
    assert (await api.delete(f"/queues/{queue}")).status_code == 204
    good(await api.put(f"/queues/{queue}", json={}), 201)
    second = await api.enqueue(queue)
    assert ids(await api.pages("/tasks", queue=queue)) == [second["id"], task["id"]]


async def test_attempts_come_newest_first_in_pages(api: Api, handler: Handler) -> None:
    handler.script(Reply(500))
    queue = await api.queue_to(handler.url, retry=AT_ONCE | {"max_attempts": 7})
    task = await api.enqueue(queue)
    await api.until(task["id"], "dead")
    for limit in (1, 3, 7, 200):
        found = await api.pages(f"/tasks/{task['id']}/attempts", limit=limit)
        assert [attempt["number"] for attempt in found] == [7, 6, 5, 4, 3, 2, 1]
    cursor = good(await api.get(f"/tasks/{task['id']}/attempts", params={"limit": 3}))["next_cursor"]
    second = await api.enqueue(queue)
    reply = await api.get(f"/tasks/{second['id']}/attempts", params={"cursor": cursor})
    problem(reply, 422, "invalid", "/cursor")


async def test_a_task_never_claimed_has_no_attempts(api: Api) -> None:
    task = await api.enqueue(await api.queue())
    assert good(await api.get(f"/tasks/{task['id']}/attempts")) == {"items": [], "next_cursor": None}
    good(await api.cancel(task["id"]))
    assert good(await api.get(f"/tasks/{task['id']}/attempts")) == {"items": [], "next_cursor": None}
