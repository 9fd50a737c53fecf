"""`why`: one test for each code through the wire, and the action that it names removes the blocker."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.handlers import Handler, Reply
from tests.support import poll
from tests.wire.api import Api, good
from tests.wire.test_limits import Gate

pytestmark = pytest.mark.anyio

SLOW = {"limit": 1, "period_seconds": 600}
"""A rate that admits one task in the time of a test."""
BREAKER = {"window_seconds": 30, "min_calls": 1, "failure_percent": 1, "open_seconds": 300}


@pytest.fixture
async def gate(handler: Handler) -> AsyncIterator[Gate]:
    gate = Gate(handler)
    yield gate
    gate.open()


async def why(api: Api, task: dict[str, Any]) -> dict[str, Any]:
    return good(await api.get(f"/tasks/{task['id']}/why"))


async def blockers(api: Api, task: dict[str, Any], *codes: str) -> list[dict[str, Any]]:
    """Wait until exactly these hold, in this order, and return them."""

    async def so() -> dict[str, Any] | None:
        found = await why(api, task)
        return found if [blocker["code"] for blocker in found["blockers"]] == list(codes) else None

    try:
        found = await poll(so)
    except AssertionError:
        raise AssertionError(f"not {codes}, but {await why(api, task)}") from None
    assert (await api.task(task["id"]))["waiting_for"] == codes[0], "waiting_for is the first blocker"
    assert found["verdict"].startswith(found["blockers"][0]["detail"])
    assert all(
        blocker["detail"].endswith(".") and blocker["next"]["text"].endswith(".") for blocker in found["blockers"]
    )
    assert not any(value is None for blocker in found["blockers"] for value in blocker.values()), (
        "null fields are left out"
    )
    made: list[dict[str, Any]] = found["blockers"]
    return made


async def act(api: Api, blocker: dict[str, Any]) -> None:
    """Do what it says would remove it."""
    step = blocker["next"]
    body = {} if "body" not in step else {"json": step["body"]}
    reply = await api.client.request(step["method"], step["path"], **body)
    assert reply.status_code == 200, f"{step} {reply.text}"


async def test_a_scheduled_task_is_started_now(api: Api, handler: Handler) -> None:
    task = await api.enqueue(await api.queue_to(handler.url), delay_seconds=600)
    [blocker] = await blockers(api, task, "run_at")
    assert blocker["until"] == task["run_at"] and (await why(api, task))["starts_about"] == task["run_at"]
    await act(api, blocker)
    await handler.received(task=task["id"])


async def test_a_failed_task_says_with_which_error_and_until_when(api: Api, handler: Handler) -> None:
    handler.answer(Reply(500))
    task = await api.enqueue(await api.queue_to(handler.url, retry={"backoff": {"kind": "fixed", "seconds": 600}}))
    await api.until(task["id"], "scheduled")
    [blocker] = await blockers(api, task, "retry_backoff")
    assert "500" in blocker["detail"] and blocker["since"] < blocker["until"]
    await act(api, blocker)
    await handler.received(2, task=task["id"])


async def test_a_paused_queue_and_all_else_at_once(api: Api, handler: Handler) -> None:
    queue = await api.queue_to(handler.url)
    name = good(await api.get(f"/queues/{queue}"))["handler"]
    good(await api.post(f"/queues/{queue}/pause"))
    good(await api.post(f"/handlers/{name}/disable"))
    first, task = await api.enqueue(queue), await api.enqueue(queue)
    paused, disabled, behind = await blockers(api, task, "queue_paused", "handler_disabled", "behind")
    assert paused["since"] and disabled["since"] and "by request" in disabled["detail"]
    found = await why(api, task)
    assert (found["ahead"], found["verdict"]) == (1, f"Queue {queue} is paused. 2 more things stand in its way.")
    assert "starts_about" not in found
    await act(api, paused)
    await blockers(api, task, "handler_disabled", "behind")
    await act(api, behind)
    [disabled] = await blockers(api, task, "handler_disabled")
    await act(api, disabled)
    await handler.received(task=task["id"])
    await handler.received(task=first["id"])


async def test_a_parked_handler(api: Api, handler: Handler) -> None:
    handler.answer(Reply(503, {"retry-after": "600"}))
    name = await api.handler(handler.url, adaptive={}, max_concurrency=4, park_on_retry_after="handler")
    queue = await api.queue(name)
    await api.enqueue(queue)
    await handler.received()
    task = await api.enqueue(queue)
    [blocker] = await blockers(api, task, "handler_parked")
    assert blocker["until"]
    await act(api, blocker)
    await handler.received(task=task["id"])


async def test_an_open_breaker(api: Api, handler: Handler) -> None:
    handler.answer(Reply(500))
    name = await api.handler(handler.url, breaker=BREAKER)
    queue = await api.queue(name, retry={"backoff": {"kind": "fixed", "seconds": 600}})
    await api.enqueue(queue)

    async def opened() -> bool:
        return good(await api.get(f"/handlers/{name}/health"))["state"] == "open"

    await poll(opened)
    task = await api.enqueue(queue)
    [blocker] = await blockers(api, task, "breaker_open")
    assert blocker["since"] < blocker["until"]
    await act(api, blocker)
    await handler.received(task=task["id"])
