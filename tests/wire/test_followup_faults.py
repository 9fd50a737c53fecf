"""Follow-up work that cannot be enqueued: nothing of it is, and the task fails, waits or is dead as the contract has it."""

import json
from typing import Any

import pytest

from tests.handlers import Handler, Reply
from tests.support import poll
from tests.wire.api import Api, good, problem
from tests.wire.test_leases import say, take, take_one

pytestmark = pytest.mark.anyio

HEADERS = {"content-type": "application/vnd.sluice.tasks+json"}
TWICE = {"max_attempts": 2, "backoff": {"kind": "fixed", "seconds": 0}}


def unit(queue: str, key: str, **fields: Any) -> dict[str, Any]:
    return {"queue": queue, "idempotency_key": key, "payload": key, **fields}


def answers(body: Any) -> Reply:
    return Reply(200, HEADERS, body if isinstance(body, bytes) else json.dumps(body).encode())


async def outcomes(api: Api, task: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [(a["outcome"], a["counted"], a["status"]) for a in await api.attempts(task["id"])]


async def test_a_document_that_is_not_valid_fails_its_attempt_and_says_where(api: Api, handler: Handler) -> None:
    units = await api.queue()
    lister = await api.queue_to(handler.url, retry=TWICE)
    wrong = [unit(units, "1"), unit("nowhere", "2"), {"queue": units, "payload": 3}, unit(units, "4", priority=101)]
    handler.script(answers({"result": 1, "tasks": wrong, "next": "2"}))
    task = await api.enqueue(lister)
    dead = await api.until(task["id"], "dead", reason="attempts_exhausted")
    for place in ("/tasks/1/queue", "/tasks/2/idempotency_key", "/tasks/3/priority"):
        assert place in dead["last_error"]
    assert (dead["result"], dead["batch"]) == (None, None)
    assert await outcomes(api, task) == 2 * [("failed", True, 200)]
    assert await take(api, units) == []
    assert len(await api.pages("/tasks", queue=lister)) == 1


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"taks": []}', b'{"result": 1, "result": 1}'])
async def test_a_body_that_is_no_document_fails_its_attempt(api: Api, handler: Handler, body: bytes) -> None:
    handler.answer(answers(body), answers({"result": "at last"}))
    task = await api.enqueue(await api.queue_to(handler.url, retry=TWICE))
    assert (await api.until(task["id"], "succeeded"))["result"] == "at last"
    assert await outcomes(api, task) == [("succeeded", True, 200), ("failed", True, 200)]


@pytest.mark.parametrize("what", ["bytes", "tasks", "depth"])
async def test_a_page_that_could_never_fit_is_dead_at_once(api: Api, handler: Handler, what: str) -> None:
    units = await api.queue(max_depth=2)
    body: Any = {
        "bytes": b'{"result": "' + b"x" * 5 * 1_048_576 + b'"}',
        "tasks": {"tasks": [1] * 10_001},
        "depth": {"tasks": [unit(units, str(n)) for n in range(3)]},
    }[what]
    handler.script(answers(body))
    task = await api.enqueue(await api.queue_to(handler.url))
    dead = await api.until(task["id"], "dead", reason="followup_too_large")
    assert (dead["attempt"], dead["result"]) == (1, None)
    assert await take(api, units) == []


async def test_a_full_queue_sends_its_task_back_to_wait_and_no_attempt_is_lost(api: Api, handler: Handler) -> None:
    units = await api.queue(max_depth=2)
    await api.enqueue(units, "in the way")
    lister = await api.queue_to(handler.url, retry=TWICE)
    handler.script(answers({"tasks": [unit(units, "1"), unit(units, "2")]}))
    task = await api.enqueue(lister)

    async def pushed_back_often() -> bool:
        return (await outcomes(api, task)).count(("failed", False, 200)) > 3

    await poll(pushed_back_often)
    waiting = await api.task(task["id"])
    assert waiting["attempt"] <= 1 and "max_depth" in waiting["last_error"]
    (blocker,) = await take(api, units, max_tasks=9)
    good(await say(api, blocker, "complete"))
    assert (await api.until(task["id"], "succeeded"))["attempt"] == 1
    assert [taken["payload"] for taken in await take(api, units, max_tasks=9)] == ["1", "2"]


async def test_a_key_is_enqueued_once_over_all_pages_and_again_under_another_root(api: Api, handler: Handler) -> None:
    units = await api.queue()
    lister = await api.queue_to(handler.url)
    handler.answer(
        Reply(
            raw=b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.sluice.tasks+json\r\ncontent-length: 900\r\n\r\n{}"
        ),
        answers({"tasks": [unit(units, "1"), unit(units, "2")], "next": "b"}),
        answers({"tasks": [unit(units, "2", priority=5), unit(units, "3"), unit(units, "3")]}),
    )
    root = await api.enqueue(lister, retry=TWICE)

    async def all_there() -> bool:
        return len(await api.pages("/tasks", batch=root["id"])) >= 5

    await poll(all_there)
    assert [task["payload"] for task in await take(api, units, max_tasks=9)] == ["1", "2", "3"]
    handler.answer(answers({"tasks": [unit(units, "1")]}))
    await api.until((await api.enqueue(lister))["id"], "succeeded")
    assert [task["payload"] for task in await take(api, units, max_tasks=9)] == ["1"]


async def test_a_worker_that_is_refused_keeps_its_lease(api: Api) -> None:
    units, queue = await api.queue(max_depth=2), await api.queue()
    await api.enqueue(queue)
    await api.enqueue(units, "in the way")
    leased = await take_one(api, queue)
    two = {"tasks": [unit(units, "1"), unit(units, "2")]}
    refused = await say(api, leased, "complete", two)
    problem(refused, 429, "queue_full")
    assert "retry-after" in refused.headers
    three = {"tasks": [*two["tasks"], unit(units, "3")]}
    problem(await say(api, leased, "complete", three), 413, "too_large")
    problem(await say(api, leased, "complete", {"on_complete": {"queue": "nowhere", "payload": 1}}), 422, "invalid")
    (blocker,) = await take(api, units, max_tasks=9)
    assert blocker["payload"] == "in the way"
    good(await say(api, leased, "complete", two))
    good(await say(api, leased, "complete", two))
    assert len(await take(api, units, max_tasks=9)) == 2


async def test_a_result_that_is_too_long_is_cut_to_text(api: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url)
    for padding in ("", "x", "xx"):
        document = json.dumps({"result": padding + "€" * 30_000}, ensure_ascii=False)
        handler.answer(answers(document.encode()))
        done = await api.until((await api.enqueue(queue))["id"], "succeeded")
        assert done["result_truncated"] and "result_encoding" not in done
        assert done["result"].startswith(f'"{padding}€')
        assert 65_530 <= len(done["result"].encode()) <= 65_536
