"""Idempotency keys: one task a key, whatever races, and the same answer afterwards."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from tests.handlers import Handler, Reply
from tests.support import poll
from tests.wire.api import Api, good, problem

pytestmark = pytest.mark.anyio


def replayed(reply: httpx2.Response) -> dict[str, Any]:
    task = good(reply, 200)
    assert reply.headers["idempotent-replayed"] == "true"
    assert reply.headers["location"].endswith(f"/tasks/{task['id']}")
    return task


async def post(api: Api, queue: str, key: str | None = "k", header: str | None = None, **task: Any) -> httpx2.Response:
    body = {"payload": 1, **task} | ({} if key is None else {"idempotency_key": key})
    return await api.post(f"/queues/{queue}/tasks", json=body, headers={} if header is None else {KEY: header})


KEY = "Idempotency-Key"


async def test_a_key_used_again_answers_200_with_the_first_task(api: Api, other: Api) -> None:
    queue = await api.queue()
    first = good(await post(api, queue), 201)
    assert first["idempotency_key"] == "k"
    for side in (api, other):
        assert replayed(await post(side, queue)) == first
    assert len(await api.pages("/tasks", queue=queue)) == 1


@pytest.mark.parametrize("header", ["k 1", '"k 1"'])
async def test_field_and_header_name_the_same_key(api: Api, header: str) -> None:
    queue = await api.queue()
    first = await post(api, queue, "k 1")
    assert replayed(await post(api, queue, None, header)) == first.json()
    assert replayed(await post(api, queue, "k 1", header)) == first.json()
    problem(await post(api, queue, "k 2", header), 400, "malformed")


async def test_quotes_and_backslashes_are_escaped_in_a_quoted_key(api: Api) -> None:
    queue = await api.queue()
    first = good(await post(api, queue, 'a"b\\c'), 201)
    assert replayed(await post(api, queue, None, '"a\\"b\\\\c"')) == first
    for header in ('"k\\ 1"', '"open', '"a"b', '"a\\"', '"a" "b"'):
        problem(await post(api, queue, None, header), 400, "malformed")


@pytest.mark.parametrize("header", ["", '""', "x" * 256, '"' + "x" * 256 + '"'])
async def test_a_key_without_text_or_too_long_is_refused(api: Api, header: str) -> None:
    queue = await api.queue()
    problem(await post(api, queue, None, header), 422, "invalid", "/idempotency_key")


async def test_a_key_may_be_any_text_of_255_characters(api: Api) -> None:
    queue = await api.queue()
    longest = "\u00fc" * 255
    first = good(await post(api, queue, longest), 201)
    reply = await api.post(
        f"/queues/{queue}/tasks", json={"payload": 1}, headers=[(KEY.encode(), b'"' + longest.encode() + b'"')]
    )
    assert replayed(reply) == first
    latin = await api.post(f"/queues/{queue}/tasks", json={"payload": 1}, headers=[(KEY.encode(), b"\xfc")])
    problem(latin, 400, "malformed")
    twice = [(KEY.encode(), b"a"), (KEY.encode(), b"a")]
    problem(await api.post(f"/queues/{queue}/tasks", json={"payload": 1}, headers=twice), 400, "malformed")


@pytest.mark.parametrize(
    "changed",
    [
        {"payload": 2},
        {"type": "t"},
        {"delay_seconds": 5},
        {"run_at": "2026-01-01T00:00:00Z"},
        {"ttl_seconds": 600},
        {"priority": 1},
        {"retry": {"max_attempts": 2}},
        {"timeout_seconds": 1},
        {"correlation_id": "c"},
        {"headers": {"x": "1"}},
        {"tags": ["a"]},
    ],
)
async def test_another_payload_or_option_under_a_key_is_refused(api: Api, changed: dict[str, Any]) -> None:
    queue = await api.queue()
    first = good(await post(api, queue), 201)
    problem(await post(api, queue, **changed), 422, "idempotency_mismatch")
    assert replayed(await post(api, queue)) == first


async def test_the_payload_is_compared_by_its_bytes_and_options_by_their_meaning(api: Api) -> None:
    queue = await api.queue()
    body = b'{"payload": {"a": 1}, "priority": 5, "tags": ["x"], "idempotency_key": "k"}'
    first = good(await api.enqueue_bytes(queue, body), 201)
    same = b'{"idempotency_key":"k","tags":["\\u0078"],"type":null,"priority":5,"payload":  {"a": 1}}'
    assert replayed(await api.enqueue_bytes(queue, same)) == first
    other_bytes = body.replace(b'{"a": 1}', b'{"a":1}')
    problem(await api.enqueue_bytes(queue, other_bytes), 422, "idempotency_mismatch")


async def test_defaults_written_out_are_the_same_request(api: Api) -> None:
    queue = await api.queue()
    first = good(await post(api, queue), 201)
    given: dict[str, Any] = {"priority": 0, "delay_seconds": 0, "tags": [], "headers": {}, "retry": None}
    assert replayed(await post(api, queue, **given)) == first


async def test_of_racing_duplicates_over_two_replicas_one_creates_and_all_get_its_task(api: Api, other: Api) -> None:
    queue = await api.queue()
    for key in ("a", "b", "c"):
        replies = await asyncio.gather(*(post((api, other)[n % 2], queue, key) for n in range(40)))
        assert sorted(reply.status_code for reply in replies) == [200] * 39 + [201]
        assert len({reply.json()["id"] for reply in replies}) == 1
        assert all(reply.headers.get("idempotent-replayed") == "true" for reply in replies if reply.status_code == 200)
    assert len(await api.pages("/tasks", queue=queue)) == 3


async def test_of_racing_payloads_under_one_key_one_wins_and_the_others_are_refused(api: Api, other: Api) -> None:
    queue = await api.queue()
    replies = await asyncio.gather(*(post((api, other)[n % 2], queue, payload=n % 4) for n in range(40)))
    [won] = [reply.json() for reply in replies if reply.status_code == 201]
    for n, reply in enumerate(replies):
        if n % 4 != won["payload"]:
            problem(reply, 422, "idempotency_mismatch")
        elif reply.status_code != 201:
            assert replayed(reply)["id"] == won["id"]
    assert len(await api.pages("/tasks", queue=queue)) == 1


async def test_many_keys_at_once_in_any_order_do_not_deadlock(api: Api, other: Api) -> None:
    queue = await api.queue()
    keys = [f"k{n}" for n in range(30)]
    orders = [keys, keys[::-1], keys[15:] + keys[:15]] * 2
    replies = await asyncio.gather(
        *(post((api, other)[n % 2], queue, key) for n, order in enumerate(orders) for key in order)
    )
    assert {reply.status_code for reply in replies} == {200, 201}
    assert len({reply.json()["id"] for reply in replies}) == 30


async def test_a_replay_shows_what_has_become_of_the_task(api: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url, retry={"max_attempts": 1})
    handler.answer(Reply(200, body=b"done"), Reply(500))
    for key, state in (("a", "succeeded"), ("b", "dead")):
        task = good(await post(api, queue, key), 201)
        ended = await api.until(task["id"], state)
        assert replayed(await post(api, queue, key)) == ended
    good(await api.post(f"/queues/{queue}/pause"))
    cancelled = good(await api.cancel(good(await post(api, queue, "c"), 201)["id"]))
    assert replayed(await post(api, queue, "c")) == cancelled
    assert len(handler.requests) == 2


async def test_a_running_task_is_replayed_and_not_run_again(api: Api, handler: Handler) -> None:
    go = asyncio.Event()
    handler.script(Reply(until=go))
    queue = await api.queue_to(handler.url)
    task = good(await post(api, queue), 201)
    await handler.received()
    assert replayed(await post(api, queue))["state"] == "running"
    go.set()
    await api.until(task["id"], "succeeded")
    assert len(handler.requests) == 1


async def test_a_full_queue_still_answers_replays(api: Api, other: Api) -> None:
    queue = await api.queue(max_depth=1)
    first = good(await post(api, queue), 201)
    problem(await post(api, queue, "l"), 429, "queue_full")
    problem(await post(api, queue, None), 429, "queue_full")
    assert replayed(await post(other, queue)) == first
    problem(await post(api, queue, payload=2), 422, "idempotency_mismatch")
    good(await api.cancel(first["id"]))
    assert replayed(await post(api, queue))["state"] == "cancelled"
    good(await post(api, queue, "l"), 201)


async def test_a_refused_enqueue_does_not_use_up_its_key(api: Api) -> None:
    queue = await api.queue(max_depth=1)
    first = await api.enqueue(queue)
    replies = await asyncio.gather(*(post(api, queue, payload=n % 2) for n in range(8)))
    for reply in replies:
        problem(reply, 429, "queue_full")
    problem(await post(api, queue, priority=1000), 422, "invalid")
    good(await api.cancel(first["id"]))
    good(await post(api, queue, payload={"another": "one"}), 201)


async def test_a_key_whose_time_is_over_names_a_new_task(api: Api, other: Api) -> None:
    queue = await api.queue(idempotency_seconds=0.3)
    first = good(await post(api, queue, payload=1), 201)

    async def taken() -> httpx2.Response | None:
        reply = await post(other, queue, payload=2)
        return reply if reply.status_code == 201 else None

    reply = await poll(taken)
    assert reply is not None
    second = reply.json()
    assert second["id"] != first["id"]
    gap = datetime.fromisoformat(second["created_at"]) - datetime.fromisoformat(first["created_at"])
    assert gap >= timedelta(seconds=0.3)
    assert (await api.task(first["id"]))["state"] == "ready"


async def test_a_queue_may_keep_no_keys_at_all(api: Api) -> None:
    queue = await api.queue(idempotency_seconds=0)
    ids = {good(await post(api, queue), 201)["id"] for _ in range(3)}
    assert len(ids) == 3


async def test_a_key_outlives_a_shorter_retention(api: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url, retention={"succeeded_days": 0})
    task = good(await post(api, queue), 201)
    await api.until(task["id"], "succeeded")
    assert replayed(await post(api, queue))["id"] == task["id"]


async def test_keys_belong_to_their_queue(api: Api) -> None:
    queues = [await api.queue(), await api.queue()]
    ids = {good(await post(api, queue), 201)["id"] for queue in queues}
    assert len(ids) == 2


async def test_a_replay_is_answered_after_its_instants_have_passed(api: Api) -> None:
    queue = await api.queue()
    soon = (datetime.now(UTC) + timedelta(seconds=0.5)).isoformat()
    first = good(await post(api, queue, expires_at=soon), 201)
    ended = await api.until(first["id"], "dead", reason="expired")
    assert replayed(await post(api, queue, expires_at=soon)) == ended


async def test_a_replay_is_answered_while_the_queue_s_definition_changes(api: Api, other: Api) -> None:
    queue = await api.queue()
    first = good(await post(api, queue), 201)
    good(await other.put(f"/queues/{queue}", json={"idempotency_seconds": 5, "max_depth": 1}))
    assert replayed(await post(api, queue))["id"] == first["id"]


async def test_a_cancelled_and_retried_task_keeps_its_key(api: Api) -> None:
    queue = await api.queue()
    first = good(await post(api, queue), 201)
    good(await api.cancel(first["id"]))
    good(await api.retry(first["id"]))
    assert replayed(await post(api, queue))["state"] == "ready"
