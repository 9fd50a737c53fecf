"""Tasks that leave to a queue of SQS, from the request to the message, against a server of SQS."""

import asyncio
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from tests.handlers import Handler, Reply
from tests.support import poll
from tests.wire.api import Api

if TYPE_CHECKING:
    from tests.sqs_server import SqsQueue, SqsServer

pytestmark = [pytest.mark.anyio, pytest.mark.ci]
AT_ONCE = {"max_attempts": 5, "backoff": {"kind": "fixed", "seconds": 0}}


async def leading_to(api: Api, sqs: "SqsServer", queue: "SqsQueue", **fields: Any) -> str:
    """A Sluice queue whose tasks become messages of the SQS queue."""
    name = f"h-{queue.url.rpartition('/')[2][:40]}"
    response = await api.client.put(f"/handlers/{name}", json={**sqs.address(queue), **fields})
    assert response.status_code in (200, 201), response.text
    return await api.queue(name, retry=AT_ONCE)


async def test_each_task_becomes_one_message_and_its_id_is_the_result(api: Api, sqs: "SqsServer") -> None:
    queue = sqs.queue()
    name = await leading_to(api, sqs, queue)
    tasks = await api.bulk(name, [{"payload": {"n": n}, "correlation_id": f"c-{n}"} for n in range(50)])
    ended = [await api.until(task, "succeeded") for task in tasks]
    results = [task["result"] for task in ended]
    assert Counter(results) == Counter(queue.left())
    sent = [asked.given for asked in sqs.asked]
    assert Counter(json.loads(one["MessageBody"])["n"] for one in sent) == Counter(range(50))
    correlated = {one["MessageAttributes"]["x-correlation-id"]["StringValue"] for one in sent}
    assert correlated == {f"c-{n}" for n in range(50)}


async def test_a_fifo_queue_gets_a_repeated_attempt_once(api: Api, sqs: "SqsServer") -> None:
    from tests.sqs_server import Fault

    queue = sqs.queue(fifo=True)
    name = await leading_to(api, sqs, queue, group_id_from="key")
    lost: list[str] = []

    def lose_the_first_answer(asked: Any) -> Fault | None:
        if asked.operation == "SendMessage" and not lost:
            lost.append(asked.given["MessageDeduplicationId"])
            return Fault.error(500, "InternalFailure")
        return None

    sqs.after = lose_the_first_answer
    task = (await api.enqueue(name, {"n": 1}, key="ada"))["id"]
    ended = await api.until(task, "succeeded")
    assert (ended["attempt"], lost) == (2, [task])
    assert len(queue.left()) == 1 and sqs.times("SendMessage") == 2
    assert queue._queue._messages[0].group_id == "ada"


async def test_credentials_that_stop_working_and_a_queue_that_is_gone_are_retried_with_the_reason(
    api: Api, sqs: "SqsServer"
) -> None:
    queue = sqs.queue()
    given = sqs.user("sqs:SendMessage")
    name = await leading_to(api, sqs, queue, credentials=given)
    with sqs.guarded():
        await api.until((await api.enqueue(name, 1))["id"], "succeeded")
        sqs.end_credentials(given["access_key_id"])
        failing = (await api.enqueue(name, 2))["id"]
        dead = await api.until(failing, "dead")
    assert dead["reason"] == "attempts_exhausted" and "UnrecognizedClientException" in dead["last_error"]
    assert given["secret_access_key"] not in json.dumps(await api.attempts(failing))
    queue.delete()
    gone = await api.until((await api.enqueue(name, 3))["id"], "dead")
    assert "QueueDoesNotExist" in gone["last_error"]


async def test_throttling_pushes_a_guarded_handler_back_without_spending_attempts(api: Api, sqs: "SqsServer") -> None:
    from tests.sqs_server import Fault

    queue = sqs.queue()
    name = await leading_to(api, sqs, queue, breaker={}, max_concurrency=1)
    refused: list[int] = []

    def throttle(asked: Any) -> Fault | None:
        if asked.operation == "SendMessage" and len(refused) < 8:
            refused.append(1)
            return Fault.error(400, "RequestThrottled")
        return None

    sqs.before = throttle
    ended = await api.until((await api.enqueue(name, 1))["id"], "succeeded")
    assert len(refused) == 8 and ended["attempt"] == 1


async def test_a_test_call_shows_the_message_and_what_came_of_it(api: Api, sqs: "SqsServer") -> None:
    queue = sqs.queue()
    name = f"h-{queue.url.rpartition('/')[2][:40]}"
    await leading_to(api, sqs, queue)
    tried = (await api.client.post(f"/handlers/{name}/test", json={"payload": {"hello": 1}})).json()
    assert tried["outcome"] == "succeeded" and tried["received"]["body"] == queue.left()[0]
    assert json.loads(json.loads(tried["sent"]["body"])["MessageBody"]) == {"hello": 1}
    assert "Signature" not in json.dumps(tried) and "not-checked" not in json.dumps(tried)


async def test_a_handler_never_shows_its_credentials(api: Api, sqs: "SqsServer") -> None:
    queue = sqs.queue()
    await leading_to(api, sqs, queue)
    name = f"h-{queue.url.rpartition('/')[2][:40]}"
    shown = (await api.client.get(f"/handlers/{name}")).json()
    assert shown["kind"] == "sqs" and shown["queue_url"] == queue.url
    assert not {"credentials", "url", "headers", "stream"} & shown.keys()
    listed = await api.pages("/handlers")
    audit = (await api.client.get("/audit", params={"noun": "handler"})).text
    assert "not-checked" not in json.dumps(listed) + audit
    page = await api.client.get(f"/ui/handlers/{name}")
    assert page.status_code == 200 and queue.url in page.text and "not-checked" not in page.text


async def test_a_document_keeps_credentials_that_it_leaves_out(api: Api, sqs: "SqsServer") -> None:
    queue = sqs.queue()
    given = {name: value for name, value in sqs.address(queue).items() if name != "credentials"}
    name = f"h-{queue.url.rpartition('/')[2][:40]}"
    await leading_to(api, sqs, queue)
    plan = (await api.client.post("/definitions/plan", json={"handlers": {name: given}})).json()
    assert [change["action"] for change in plan["changes"]] == ["unchanged"], plan
    other = {**given, "credentials": {"access_key_id": "AKIAOTHER", "secret_access_key": "hush"}}
    plan = (await api.client.post("/definitions/plan", json={"handlers": {name: other}})).json()
    (change,) = plan["changes"]
    assert change["changes"] == [{"field": "credentials", "from": "***", "to": "***"}]
    assert (await api.client.post("/definitions/apply", json={"handlers": {name: other}})).status_code == 200
    queue_name = await api.queue(name)
    await api.until((await api.enqueue(queue_name, 1))["id"], "succeeded")
    assert sqs.asked[-1].access_key_id == "AKIAOTHER"
    await poll(lambda: len(queue.left()) == 1)


async def test_tasks_that_wait_follow_their_handler_to_another_kind(
    api: Api, sqs: "SqsServer", handler: Handler
) -> None:
    """One is on its way when the kind changes, and ends as a webhook's; what waits behind it leaves to SQS, but for a target."""
    queue, gate = sqs.queue(), asyncio.Event()
    handler.script(Reply(200, body=b"by webhook", until=gate))
    hook = await api.handler(handler.url, max_concurrency=1, targets="path")
    name = await api.queue(hook, retry={**AT_ONCE, "max_attempts": 1})
    first = (await api.enqueue(name, 1))["id"]
    await poll(lambda: handler.requests)
    second = (await api.enqueue(name, 2))["id"]
    aimed = (await api.enqueue(name, 3, target={"path": "/refunds"}))["id"]
    assert (await api.client.put(f"/handlers/{hook}", json=sqs.address(queue))).status_code == 200
    gate.set()
    assert (await api.until(first, "succeeded"))["result"] == "by webhook"
    assert (await api.until(second, "succeeded"))["result"] == queue.left()[0]
    assert "nothing was sent" in (await api.until(aimed, "dead"))["last_error"]
    assert (len(handler.requests), len(queue.left())) == (1, 1)
