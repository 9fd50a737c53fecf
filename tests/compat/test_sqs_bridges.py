"""Sluice's own bridges to SQS against Sluice's own SQS wire."""

import json

import pytest

from tests.compat.sqs import Sqs
from tests.compat.test_sqs_queues import attributes, create, fresh
from tests.support import poll
from tests.wire.api import Api, good

pytestmark = [pytest.mark.anyio, pytest.mark.ci]

CREDENTIALS = {"access_key_id": "a", "secret_access_key": "b"}


async def test_a_source_takes_each_message_of_the_wire_once(sqs: Sqs, api: Api) -> None:
    url, target, source = await create(sqs), await api.queue(), fresh()
    for start in range(0, 25, 5):
        entries = [{"Id": str(n), "MessageBody": json.dumps({"n": n})} for n in range(start, start + 5)]
        assert len((await sqs.call("SendMessageBatch", QueueUrl=url, Entries=entries))["Successful"]) == 5
    given = {"kind": "sqs", "queue": target, "queue_url": url, "region": "us-east-1", "credentials": CREDENTIALS}
    good(await api.put(f"/sources/{source}", json=given), 201)

    async def all_came() -> bool:
        return int(good(await api.get(f"/sources/{source}"))["enqueued"]) == 25

    try:
        await poll(all_came)
        tasks = good(await api.get("/tasks", params={"queue": target, "include": "payload", "limit": 100}))["items"]
        assert sorted(task["payload"]["n"] for task in tasks) == list(range(25))

        async def all_deleted() -> bool:
            left = await attributes(sqs, url)
            return {left["ApproximateNumberOfMessages"], left["ApproximateNumberOfMessagesNotVisible"]} == {"0"}

        await poll(all_deleted)
    finally:
        assert (await api.delete(f"/sources/{source}")).status_code == 204


async def test_a_handler_delivers_to_a_queue_of_the_wire(sqs: Sqs, api: Api) -> None:
    name = fresh(".fifo")
    url = await create(sqs, name, FifoQueue="true")
    handler = fresh()
    given = {"kind": "sqs", "queue_url": url, "region": "us-east-1", "credentials": CREDENTIALS, "group_id_from": "key"}
    good(await api.put(f"/handlers/{handler}", json=given), 201)
    task = await api.enqueue(await api.queue(handler), {"n": 1}, key="g", type="order")
    ended = good(await api.get(f"/tasks/{task['id']}", params={"wait_seconds": 20}))
    assert ended["state"] == "succeeded", ended
    (message,) = (
        await sqs.call(
            "ReceiveMessage", QueueUrl=url, MessageAttributeNames=["All"], AttributeNames=["All"], WaitTimeSeconds=5
        )
    )["Messages"]
    assert json.loads(message["Body"]) == {"n": 1}
    assert message["MessageAttributes"]["sluice-task-id"]["StringValue"] == task["id"]
    assert message["Attributes"]["MessageGroupId"] == "g"
    assert message["Attributes"]["MessageDeduplicationId"] == task["id"]
    assert ended["result"] == message["MessageId"]
