"""What a token is answered where the contract is silent: decision record 0012."""

import asyncio
from typing import Any

import httpx2
import pytest

from tests.handlers import Handler, Reply
from tests.wire.api import AT_ONCE, Api, good, problem

pytestmark = pytest.mark.anyio


async def take(api: Api, queue: str) -> dict[str, Any]:
    (task,) = good(await api.post(f"/queues/{queue}/leases", json={"lease_seconds": 60}))["tasks"]
    found: dict[str, Any] = task
    return found


async def say(api: Api, task_id: str, token: str, verb: str, body: dict[str, Any]) -> httpx2.Response:
    return await api.post(f"/tasks/{task_id}/{verb}", headers={"sluice-lease-token": token}, json=body)


async def test_the_first_settling_word_stands_against_another(api: Api) -> None:
    queue = await api.queue()
    task = await api.enqueue(queue)
    token = (await take(api, queue))["lease_token"]
    done = good(await say(api, task["id"], token, "complete", {"result": 1}))
    assert good(await say(api, task["id"], token, "fail", {"error": "late"})) == done
    assert good(await say(api, task["id"], token, "release", {})) == done
    problem(await say(api, task["id"], token, "renew", {"seconds": 60}), 409, "lease_lost")


async def test_a_handler_may_settle_while_its_call_is_open(api: Api, handler: Handler) -> None:
    answer_now = asyncio.Event()
    handler.script(Reply(500, until=answer_now))
    task = await api.enqueue(await api.queue_to(handler.url))
    (call,) = await handler.received()
    token = call.headers["sluice-lease-token"]
    done = good(await say(api, task["id"], token, "complete", {"result": "early"}))
    answer_now.set()
    await handler.idle()
    assert (done["state"], done["result"]) == ("succeeded", "early")
    assert await api.task(task["id"]) == done
    (attempt,) = await api.attempts(task["id"])
    assert attempt["outcome"] == "succeeded"


async def test_progress_stays_for_the_next_attempt(api: Api) -> None:
    queue = await api.queue(retry=AT_ONCE)
    task = await api.enqueue(queue)
    token = (await take(api, queue))["lease_token"]
    good(await say(api, task["id"], token, "renew", {"seconds": 60, "progress": {"row": 17}}))
    good(await say(api, task["id"], token, "renew", {"seconds": 60}))
    good(await say(api, task["id"], token, "fail", {"error": "again"}))
    assert (await take(api, queue))["progress"] == {"row": 17}
