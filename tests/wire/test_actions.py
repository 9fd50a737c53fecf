"""Actions: one verb on all tasks that match a filter, stored, throttled, and each task at most once."""

import asyncio
from typing import Any

import pytest

from tests.handlers import Handler
from tests.support import poll
from tests.wire.api import Api, fresh, good, problem
from tests.wire.test_sweeps import counts, fill, killed

pytestmark = [pytest.mark.anyio, pytest.mark.ci]


async def start(api: Api, kind: str, filters: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return good(await api.post("/actions", json={"kind": kind, "filter": filters, **fields}), 202)


async def ended(api: Api, action: dict[str, Any]) -> dict[str, Any]:
    async def over() -> dict[str, Any] | None:
        found: dict[str, Any] = good(await api.get(f"/actions/{action['id']}"))
        return found if found["state"] != "running" else None

    found = await poll(over)
    assert found is not None
    return found


def tally(action: dict[str, Any]) -> tuple[int, int, int, int]:
    return action["matched"], action["done"], action["refused"], action["failed"]


async def test_a_cancel_takes_what_matched_and_nothing_enqueued_later(api: Api) -> None:
    queue = await api.queue()
    ids = await fill(api, queue, 700, tags=["old"]) + await fill(api, queue, 3, delay_seconds=600, tags=["old"])
    other = await api.enqueue(queue, tags=["new"])
    action = await start(api, "cancel", {"queue": queue, "tag": "old"}, rate_per_second=1000, reason="a mistake")
    assert (action["matched"], action["reason"], action["filter"]) == (703, "a mistake", {"queue": queue, "tag": "old"})
    later = await api.enqueue(queue, tags=["old"])
    done = await ended(api, action)
    assert tally(done) == (703, 703, 0, 0) and done["state"] == "done" and done["ended_at"] and done["errors"] == []
    for task_id in (ids[0], ids[-1]):
        task = await api.task(task_id)
        assert (task["state"], task["reason"]) == ("cancelled", "requested")
    assert [(await api.task(task["id"]))["state"] for task in (other, later)] == ["ready", "ready"]


async def test_what_matched_when_it_began_is_acted_on_although_it_no_longer_matches(api: Api) -> None:
    queue = await api.queue()
    first, _, last = await fill(api, queue, 3, delay_seconds=600)
    action = await start(api, "cancel", {"queue": queue, "state": "scheduled"}, rate_per_second=2)
    assert action["state"] == "running" and (await api.task(first))["state"] == "cancelled"
    assert good(await api.post(f"/tasks/{last}/retry"))["state"] == "ready", "its turn comes a second later"
    assert tally(await ended(api, action)) == (3, 3, 0, 0)
    assert (await api.task(last))["state"] == "cancelled"


async def test_a_dry_run_counts_and_shows_and_changes_nothing(api: Api) -> None:
    queue = await api.queue()
    await fill(api, queue, 600, type="mail")
    body = {"kind": "purge", "filter": {"queue": queue, "type": "mail"}, "dry_run": True}
    found = good(await api.post("/actions", json=body))
    assert (found["matched"], found["complete"], len(found["sample"])) == (600, True, 10)
    assert {task["type"] for task in found["sample"]} == {"mail"} and "payload" not in found["sample"][0]
    assert (await counts(api, queue))["ready"] == 600
    assert good(await api.post("/actions", json={**body, "filter": {"queue": fresh("q")}}))["matched"] == 0


async def test_an_action_can_be_stopped_in_the_middle(api: Api) -> None:
    queue = await api.queue()
    await fill(api, queue, 50)
    action = await start(api, "purge", {"queue": queue}, rate_per_second=2)
    stopped = good(await api.post(f"/actions/{action['id']}/cancel"))
    assert stopped["state"] == "cancelled" and stopped["matched"] == 50 and stopped["done"] < 50
    assert good(await api.post(f"/actions/{action['id']}/cancel")) == stopped
    assert (await counts(api, queue))["cancelled"] == stopped["done"]
    listed = await api.pages("/actions", limit=1)
    assert stopped in listed


async def test_waiting_tasks_are_put_off_and_put_first(api: Api) -> None:
    queue = await api.queue()
    ids = await fill(api, queue, 3)
    at = "2027-01-05T08:00:00.000000Z"
    moved = await ended(api, await start(api, "reschedule", {"queue": queue}, run_at=at))
    assert tally(moved) == (3, 3, 0, 0) and moved["run_at"] == at
    found = [await api.task(task_id) for task_id in ids]
    assert {(task["state"], task["run_at"]) for task in found} == {("scheduled", at)}
    await ended(api, await start(api, "set_priority", {"queue": queue}, priority=7))
    await ended(
        api, await start(api, "reschedule", {"queue": queue, "state": "scheduled"}, run_at="0001-01-01T00:00:00Z")
    )
    found = [await api.task(task_id) for task_id in ids]
    assert {(task["state"], task["priority"]) for task in found} == {("ready", 7)}


async def test_a_retry_brings_back_and_says_what_it_cannot(api: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url)
    [held] = await killed(api, handler, queue, 1, unique_key="u")
    [free] = await killed(api, handler, queue, 1, unique_key="v")
    [twin] = await killed(api, handler, queue, 1, unique_key="v")
    good(await api.post(f"/queues/{queue}/pause"))
    await api.enqueue(queue, unique_key="u")
    delayed = await api.enqueue(queue, delay_seconds=600)
    done = await ended(api, await start(api, "retry", {"queue": queue}))
    assert tally(done) == (4, 2, 2, 0)
    assert {error["task"]: error["code"] for error in done["errors"]} == dict.fromkeys(
        (held, twin), "task_not_editable"
    )
    states = [(await api.task(task_id))["state"] for task_id in (held, free, twin, delayed["id"])]
    assert states == ["dead", "ready", "dead", "ready"]


async def test_racing_actions_move_each_task_once(api: Api, other: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url)
    await killed(api, handler, queue, 200)
    good(await api.post(f"/queues/{queue}/pause"))
    started = await asyncio.gather(*(start((api, other)[n % 2], "redrive", {"queue": queue}) for n in range(3)))
    done = [await ended(api, action) for action in started]
    assert sum(action["done"] for action in done) == 200
    assert all(action["done"] + action["refused"] == action["matched"] for action in done)


async def test_a_repeat_under_an_idempotency_key_gets_the_action_that_the_first_has_started(api: Api) -> None:
    queue, key = await api.queue(), fresh("k")
    await fill(api, queue, 2)
    body = {"kind": "set_priority", "filter": {"queue": queue}, "priority": 3, "reason": "soon"}
    first = await api.post("/actions", json=body, headers={"idempotency-key": key})
    await ended(api, good(first, 202))
    again = await api.post("/actions", json=body, headers={"idempotency-key": f'"{key}"'})
    assert (good(again, 202)["id"], again.json()["state"]) == (first.json()["id"], "done")
    assert "idempotent-replayed" not in first.headers and again.headers["idempotent-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    for other in ({"priority": 4}, {"filter": {"queue": queue, "tag": "a"}}, {"reason": None}, {"rate_per_second": 5}):
        refused = await api.post("/actions", json={**body, **other}, headers={"idempotency-key": key})
        problem(refused, 422, "idempotency_mismatch")
    preview = await api.post("/actions", json={**body, "dry_run": True}, headers={"idempotency-key": key})
    assert good(preview)["matched"] == 2
    for bad, code in (('"open', "malformed"), ("", "invalid"), ("x" * 300, "invalid")):
        refused = await api.post("/actions", json=body, headers={"idempotency-key": bad})
        problem(refused, 400 if code == "malformed" else 422, code)


async def test_a_started_action_leaves_a_row_with_its_id_and_a_refused_one_has_none(api: Api) -> None:
    request = fresh("r")
    headers = {"x-request-id": request}
    body = {"kind": "cancel", "filter": {"tag": "nosuch", "error": "no card"}, "reason": "why not"}
    made = good(await api.post("/actions", json=body, headers=headers), 202)
    assert (await api.post("/actions", json={"kind": "cancel"}, headers=headers)).status_code == 422
    refusal, done = [row for row in good(await api.get("/audit"))["items"] if row["request_id"] == request]
    assert (done["verb"], done["noun"], done["name"], done["outcome"]) == ("start", "action", made["id"], "done")
    assert done["after"] == {"kind": "cancel", "filter": {"tag": "nosuch", "error": "***"}, "reason": "why not"}
    assert (refusal["verb"], refusal["noun"], refusal["name"], refusal["code"]) == ("start", "action", None, "invalid")


async def test_errors_are_grouped_and_one_kind_of_them_is_redriven(api: Api, handler: Handler) -> None:
    queue = await api.queue()
    for n in range(4):
        await api.enqueue(queue, n)
    leased = good(await api.post(f"/queues/{queue}/leases", json={"max_tasks": 4}))["tasks"]
    errors = ["no order 17", "no order 4711", "the disk is full", "no order 99"]
    for n, (task, error) in enumerate(zip(leased, errors, strict=True)):
        body = {"error": error, "retryable": n == 3, "retry_after_seconds": 600 if n == 3 else None}
        headers = {"sluice-lease-token": task["lease_token"]}
        good(
            await api.post(
                f"/tasks/{task['id']}/fail", json={k: v for k, v in body.items() if v is not None}, headers=headers
            )
        )
    found = good(await api.get(f"/queues/{queue}/errors"))
    assert found["complete"] is True and found["next_cursor"] is None
    assert [(group["signature"], group["count"], group["dead"]) for group in found["items"]] == [
        ("no order #", 3, 2),
        ("the disk is full", 1, 1),
    ]
    first = found["items"][0]
    assert first["example"]["task"] in {task["id"] for task in leased} and first["first_seen"] <= first["last_seen"]
    action = await start(api, "redrive", {"queue": queue, "error": first["signature"]})
    assert tally(await ended(api, action)) == (2, 2, 0, 0)
    assert [(await api.task(task["id"]))["state"] for task in leased] == ["ready", "ready", "dead", "scheduled"]
    problem(await api.get(f"/queues/{fresh('q')}/errors"), 404, "queue_not_found")


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"filter": {"queue": "q"}}, "/kind"),
        ({"kind": "delete", "filter": {"queue": "q"}}, "/kind"),
        ({"kind": "cancel"}, "/filter"),
        ({"kind": "cancel", "filter": {}}, "/filter"),
        ({"kind": "cancel", "filter": {"queue": None}}, "/filter"),
        ({"kind": "cancel", "filter": {"colour": "red"}}, "/filter/colour"),
        ({"kind": "cancel", "filter": {"queue": "No Name"}}, "/filter/queue"),
        ({"kind": "cancel", "filter": {"batch": "1"}}, "/filter/batch"),
        ({"kind": "cancel", "filter": {"ended_to": "now"}}, "/filter/ended_to"),
        ({"kind": "cancel", "filter": {"type": "a\x00"}}, "/filter/type"),
        ({"kind": "cancel", "filter": {"state": "dead"}}, "/filter/state"),
        ({"kind": "redrive", "filter": {"state": "ready"}}, "/filter/state"),
        ({"kind": "reschedule", "filter": {"queue": "q"}}, "/run_at"),
        ({"kind": "set_priority", "filter": {"queue": "q"}}, "/priority"),
        ({"kind": "set_priority", "filter": {"queue": "q"}, "priority": 101}, "/priority"),
        ({"kind": "cancel", "filter": {"queue": "q"}, "priority": 1}, "/priority"),
        ({"kind": "cancel", "filter": {"queue": "q"}, "rate_per_second": 0}, "/rate_per_second"),
        ({"kind": "cancel", "filter": {"queue": "q"}, "rate_per_second": 1e-15}, "/rate_per_second"),
        ({"kind": "cancel", "filter": {"queue": "q"}, "reason": "a\x00"}, "/reason"),
    ],
)
async def test_a_request_that_is_not_clear_starts_nothing(api: Api, body: dict[str, Any], pointer: str) -> None:
    problem(await api.post("/actions", json=body), 422, "invalid", pointer)


async def test_an_action_that_is_not_there_is_not_found(api: Api) -> None:
    for action_id in ("1", "00000000-0000-7000-8000-000000000000"):
        problem(await api.get(f"/actions/{action_id}"), 404, "action_not_found")
        problem(await api.post(f"/actions/{action_id}/cancel"), 404, "action_not_found")


async def test_a_word_of_the_wrong_type_is_refused_by_name(api: Api) -> None:
    wrong: list[Any] = [{}, [1], 1]
    for given in wrong:
        refused = problem(
            await api.post("/actions", json={"kind": "purge", "filter": {"reason": given}}), 422, "invalid"
        )
        assert refused["errors"][0]["pointer"] == "/filter/reason"
