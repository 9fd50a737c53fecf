"""`unique_key`: at most one unfinished task of a queue has it."""

import asyncio

import asyncpg
import httpx2
import pytest

from app.store import enqueues
from tests.handlers import Handler, Reply
from tests.wire.api import Api, good, problem

pytestmark = pytest.mark.anyio


async def test_while_a_task_is_unfinished_its_unique_key_answers_with_it(
    api: Api, other: Api, handler: Handler
) -> None:
    go = asyncio.Event()
    handler.script(Reply(until=go))
    queue = await api.queue_to(handler.url)
    first = await api.enqueue(queue, 1, unique_key="u", delay_seconds=600)
    assert first["unique_key"] == "u"
    again = await other.post(f"/queues/{queue}/tasks", json={"payload": "something else", "unique_key": "u"})
    assert good(again) == first
    assert again.headers["location"].endswith(first["id"]) and "idempotent-replayed" not in again.headers
    assert again.headers["unique-held"] == "true"
    good(await api.retry(first["id"]))
    await handler.received()
    running = good(await api.post(f"/queues/{queue}/tasks", json={"payload": 2, "unique_key": "u"}))
    assert (running["id"], running["state"]) == (first["id"], "running")
    go.set()
    await api.until(first["id"], "succeeded")
    assert (await api.enqueue(queue, 3, unique_key="u"))["id"] != first["id"]


async def test_a_unique_key_belongs_to_its_queue(api: Api) -> None:
    tasks = [await api.enqueue(await api.queue(), unique_key="u") for _ in range(2)]
    assert tasks[0]["id"] != tasks[1]["id"]


@pytest.mark.parametrize("key", ["", "x" * 256, "a\x00", 5])
async def test_a_unique_key_is_a_text_of_a_certain_length(api: Api, key: object) -> None:
    reply = await api.post(f"/queues/{await api.queue()}/tasks", json={"payload": 1, "unique_key": key})
    problem(reply, 422, "invalid", "/unique_key")


async def test_racing_enqueues_of_one_unique_key_make_one_task(api: Api, other: Api) -> None:
    queue = await api.queue()
    for n in range(5):
        replies = await asyncio.gather(
            *(
                (api, other)[i % 2].post(f"/queues/{queue}/tasks", json={"payload": i, "unique_key": f"u{n}"})
                for i in range(20)
            )
        )
        assert sorted(reply.status_code for reply in replies) == [200] * 19 + [201]
        assert len({reply.json()["id"] for reply in replies}) == 1


@pytest.mark.ci
async def test_a_hot_unique_key_always_has_an_answer(api: Api, other: Api, handler: Handler) -> None:
    """Whom it is held for may have ended, and another may hold it, each time one looks."""
    queue = await api.queue_to(handler.url)

    async def poster(n: int) -> list[httpx2.Response]:
        body = {"payload": n, "unique_key": "hot"}
        return [await (api, other)[n % 2].post(f"/queues/{queue}/tasks", json=body) for _ in range(10)]

    replies = [reply for some in await asyncio.gather(*map(poster, range(24))) for reply in some]
    assert {reply.status_code for reply in replies} == {200, 201}, [r.text for r in replies if r.status_code > 201][:1]
    made = {reply.json()["id"] for reply in replies if reply.status_code == 201}
    for reply in replies:
        if reply.status_code == 200:
            assert reply.headers["unique-held"] == "true" and reply.json()["id"] in made


async def test_an_enqueue_that_loses_every_race_for_its_unique_key_is_told_to_come_again(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = await api.queue()
    beaten = asyncpg.UniqueViolationError("duplicate key")
    beaten.constraint_name = "tasks_unique_key"

    async def lose(*_: object) -> None:
        raise beaten

    monkeypatch.setattr(enqueues, "_enqueue", lose)
    problem(await api.post(f"/queues/{queue}/tasks", json={"payload": 1, "unique_key": "u"}), 503, "unavailable")


async def test_racing_bulk_requests_over_the_same_unique_keys_make_each_once(api: Api, other: Api) -> None:
    queue = await api.queue()
    tasks = [{"payload": n, "unique_key": str(n)} for n in range(40)]
    for atomic in (False, True):
        replies = await asyncio.gather(
            *(
                (api, other)[n % 2].post(
                    f"/queues/{queue}/tasks/bulk", json={"tasks": tasks[:: 1 if n % 3 else -1], "atomic": atomic}
                )
                for n in range(6)
            )
        )
        results = [result for reply in replies for result in good(reply)["results"]]
        assert sum(result["status"] == 201 for result in results) == (0 if atomic else 40)
        assert len({result["id"] for result in results}) == 40


async def test_a_full_queue_still_answers_with_the_task_that_is_there(api: Api) -> None:
    queue = await api.queue(max_depth=1)
    first = await api.enqueue(queue, 1, unique_key="u")
    again = await api.post(f"/queues/{queue}/tasks", json={"payload": 1, "unique_key": "u"})
    assert good(again)["id"] == first["id"]
    problem(await api.post(f"/queues/{queue}/tasks", json={"payload": 1, "unique_key": "v"}), 429, "queue_full")
    bulk = [{"payload": n, "unique_key": key} for n, key in enumerate("uvv")]
    results = good(await api.post(f"/queues/{queue}/tasks/bulk", json={"tasks": bulk}))["results"]
    assert [result["status"] for result in results] == [200, 429, 429]


async def test_a_task_that_was_not_made_keeps_no_idempotency_key(api: Api) -> None:
    queue = await api.queue()
    first = await api.enqueue(queue, 1, unique_key="u")
    both = {"payload": 2, "unique_key": "u", "idempotency_key": "k"}
    assert good(await api.post(f"/queues/{queue}/tasks", json=both))["id"] == first["id"]
    results = good(await api.post(f"/queues/{queue}/tasks/bulk", json={"tasks": [both, both]}))["results"]
    assert results == [{"status": 200, "id": first["id"], "unique_held": True}] * 2
    await api.enqueue(queue, 3, idempotency_key="k")
    good(await api.cancel(first["id"]))
    mismatch = await api.post(f"/queues/{queue}/tasks", json=both)
    problem(mismatch, 422, "idempotency_mismatch")
    fresh = await api.post(f"/queues/{queue}/tasks", json=both | {"idempotency_key": "k2"})
    assert good(fresh, 201)["unique_key"] == "u"
    replay = await api.post(f"/queues/{queue}/tasks", json=both | {"idempotency_key": "k2"})
    assert good(replay)["id"] == fresh.json()["id"] and replay.headers["idempotent-replayed"] == "true"
    assert not {"unique-held"} & (set(replay.headers) | set(fresh.headers))


async def test_within_a_request_the_first_has_the_unique_key(api: Api) -> None:
    queue = await api.queue()
    bulk = [{"payload": n, "unique_key": key, "idempotency_key": str(n)} for n, key in enumerate("abab")]
    results = good(await api.post(f"/queues/{queue}/tasks/bulk", json={"tasks": bulk}))["results"]
    assert [result["status"] for result in results] == [201, 201, 200, 200]
    assert [result["id"] for result in results[2:]] == [result["id"] for result in results[:2]]


async def test_a_task_whose_unique_key_another_has_does_not_come_back(api: Api) -> None:
    queue = await api.queue()
    first = await api.enqueue(queue, 1, unique_key="u")
    good(await api.cancel(first["id"]))
    second = await api.enqueue(queue, 2, unique_key="u")
    problem(await api.retry(first["id"]), 409, "task_not_editable")
    assert (await api.task(first["id"]))["state"] == "cancelled"
    good(await api.cancel(second["id"]))
    assert good(await api.retry(first["id"]))["state"] == "ready"
    problem(await api.retry(second["id"]), 409, "task_not_editable")
    racing = await asyncio.gather(*(api.retry(first["id"]) for _ in range(5)))
    assert all(good(reply)["id"] == first["id"] for reply in racing)
