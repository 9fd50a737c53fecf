"""Messages that somebody has made to break something."""

import asyncio
import json
import time
from typing import Any

import asyncpg
import pytest

from tests.compat.sqs import Sqs
from tests.compat.test_sqs_messages import queue, received
from tests.sluices import Replica
from tests.support import poll
from tests.wire.api import Api, fresh

pytestmark = pytest.mark.anyio


def text(value: str, data_type: str = "String") -> dict[str, str]:
    return {"DataType": data_type, "StringValue": value}


NUL = "\u0000"
HOSTILE: list[dict[str, Any]] = [
    {"MessageAttributes": {"a": text("x", f"String.{NUL}")}},
    {"MessageAttributes": {"a": text("x", "String.\ufffe")}},
    {"MessageAttributes": {f"a{NUL}": text("x")}},
    {"MessageAttributes": {"a": text(NUL)}},
    {"MessageAttributes": {"": text("x")}},
    {"MessageAttributes": {"a": {"DataType": "Binary", "BinaryValue": "not base64!"}}},
    {"MessageAttributes": {"a": {"DataType": "Binary", "BinaryValue": "\u00e9"}}},
    {"MessageAttributes": {"a": {"DataType": "String", "BinaryValue": "AAEC"}}},
    {"MessageAttributes": {"a": text("abc", "Number")}},
    {"MessageAttributes": {"a": text("1" * 10_000, "Number")}},
    {"MessageAttributes": {"a": {"DataType": "String", "StringListValues": ["x"]}}},
    {"MessageAttributes": {f"a{n}": text("x") for n in range(11)}},
    {"MessageSystemAttributes": {"AWSTraceHeader": text(NUL)}},
    {"MessageSystemAttributes": {"AWSTraceHeader": {"DataType": "Binary", "BinaryValue": "AAEC"}}},
    {"MessageSystemAttributes": {"AWSTraceHeader": text("x" * 2_000_000)}},
    {"MessageSystemAttributes": {"Other": text("x")}},
    {"MessageGroupId": NUL},
    {"MessageGroupId": ""},
    {"MessageBody": ""},
    {"MessageBody": NUL},
    {"MessageBody": "\uffff"},
    {"MessageBody": "x" * 1_048_577},
    {"MessageBody": "\u00e9" * 524_289},
]


@pytest.mark.parametrize("members", HOSTILE, ids=range(len(HOSTILE)))
async def test_a_hostile_message_is_refused_and_nothing_is_sent(sqs: Sqs, members: dict[str, Any]) -> None:
    url = await queue(sqs)
    body = json.dumps({"QueueUrl": url, "MessageBody": "m", **members}).encode()
    reply = await sqs.send("SendMessage", body)
    assert 400 <= reply.status_code < 500, f"{reply.status_code} {reply.text[:300]}"
    entry = {"Id": "a", "MessageBody": "m", **members}
    batch = await sqs.send("SendMessageBatch", json.dumps({"QueueUrl": url, "Entries": [entry]}).encode())
    assert batch.status_code < 500, batch.text[:300]
    assert batch.status_code >= 400 or batch.json()["Successful"] == []
    assert await received(sqs, url) == []


@pytest.mark.parametrize("name", ["q\u0000", "", "\u00e9", "a b", "q" * 200, "..", "q?x=1", "%00"])
async def test_a_url_of_no_queue_is_refused(sqs: Sqs, name: str) -> None:
    base = (await queue(sqs)).rpartition("/")[0]
    for operation, more in (
        ("SendMessage", {"MessageBody": "m"}),
        ("ReceiveMessage", {}),
        ("DeleteMessage", {"ReceiptHandle": "x"}),
        ("ChangeMessageVisibility", {"ReceiptHandle": "x", "VisibilityTimeout": 1}),
        ("SendMessageBatch", {"Entries": [{"Id": "a", "MessageBody": "m"}]}),
        ("PurgeQueue", {}),
        ("GetQueueAttributes", {}),
        ("TagQueue", {"Tags": {"a": "b"}}),
    ):
        reply = await sqs.send(operation, json.dumps({"QueueUrl": f"{base}/{name}", **more}).encode())
        assert reply.status_code in (400, 404), f"{operation} {reply.status_code} {reply.text}"


@pytest.mark.parametrize("handle", ["", "x", "\u00e9", "A" * 54, "A" * 56, "A" * 100_000, "=" * 56, NUL])
async def test_a_handle_that_nobody_was_given_is_refused(sqs: Sqs, handle: str) -> None:
    url = await queue(sqs)
    await sqs.refused("DeleteMessage", "ReceiptHandleIsInvalid", QueueUrl=url, ReceiptHandle=handle)
    await sqs.refused(
        "ChangeMessageVisibility", "ReceiptHandleIsInvalid", QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=0
    )


async def test_a_handle_of_another_queue_is_refused(sqs: Sqs) -> None:
    one, other = await queue(sqs), await queue(sqs)
    await sqs.call("SendMessage", QueueUrl=one, MessageBody="m")
    (message,) = await received(sqs, one)
    given = {"ReceiptHandle": message["ReceiptHandle"]}
    await sqs.refused("DeleteMessage", "ReceiptHandleIsInvalid", QueueUrl=other, **given)
    await sqs.call("DeleteMessage", QueueUrl=one, **given)


@pytest.mark.parametrize("lapsed", [False, True])
async def test_the_same_handle_twice_in_a_batch_deletes_once(sqs: Sqs, api: Api, lapsed: bool) -> None:
    url = await queue(sqs)
    sent = await sqs.call("SendMessage", QueueUrl=url, MessageBody="m")
    (message,) = await received(sqs, url, VisibilityTimeout=0 if lapsed else 30)
    entries = [{"Id": str(n), "ReceiptHandle": message["ReceiptHandle"]} for n in range(3)]
    found = await sqs.call("DeleteMessageBatch", QueueUrl=url, Entries=entries)
    assert [one["Id"] for one in found["Successful"]] == ["0", "1", "2"] and found["Failed"] == []
    assert (await api.task(sent["MessageId"]))["state"] == "succeeded"
    hidden = [{**entry, "VisibilityTimeout": n} for n, entry in enumerate(entries)]
    changed = await sqs.call("ChangeMessageVisibilityBatch", QueueUrl=url, Entries=hidden)
    assert len(changed["Failed"]) == 3


async def test_of_many_who_delete_and_receive_a_lapsed_message_nobody_loses_it(sqs: Sqs, api: Api) -> None:
    url = await queue(sqs)
    sent = [await sqs.call("SendMessage", QueueUrl=url, MessageBody=str(n)) for n in range(5)]
    firsts = await received(sqs, url, MaxNumberOfMessages=10, VisibilityTimeout=0)
    assert len(firsts) == 5
    await asyncio.gather(
        *(sqs.call("DeleteMessage", QueueUrl=url, ReceiptHandle=one["ReceiptHandle"]) for one in firsts * 3),
        *(received(sqs, url, MaxNumberOfMessages=10, VisibilityTimeout=0) for _ in range(10)),
    )
    states = [(await api.task(one["MessageId"]))["state"] for one in sent]
    assert set(states) == {"succeeded"}


@pytest.mark.ci
async def test_a_transaction_that_holds_a_lapsed_message_is_not_waited_for(sqs: Sqs, wired: Replica) -> None:
    url = await queue(sqs)
    sent = await sqs.call("SendMessage", QueueUrl=url, MessageBody="m")
    (message,) = await received(sqs, url, VisibilityTimeout=0)
    given = {"QueueUrl": url, "ReceiptHandle": message["ReceiptHandle"]}
    await wired.sluice.core.reaping.reap(100)
    connection = await asyncpg.connect(wired.sluice.core.db.dsn)
    async with connection.transaction():
        await connection.execute("select from sluice.tasks where id = $1 for update", sent["MessageId"])
        began = time.monotonic()
        await sqs.refused("DeleteMessage", "ServiceUnavailable", **given)
        assert time.monotonic() - began < 3
    await connection.close()
    await sqs.call("DeleteMessage", **given)


async def test_a_dead_letter_queue_that_is_gone_costs_no_message_of_others(sqs: Sqs) -> None:
    base = fresh("q")
    dead = await queue(sqs, f"{base}-dead")
    arn = (await sqs.call("GetQueueAttributes", QueueUrl=dead, AttributeNames=["QueueArn"]))["Attributes"]["QueueArn"]
    url = await queue(sqs, base, RedrivePolicy=json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 1}))
    for body in ("one", "two"):
        await sqs.call("SendMessage", QueueUrl=url, MessageBody=body)
    await received(sqs, url, VisibilityTimeout=0, MaxNumberOfMessages=10)
    await sqs.call("DeleteQueue", QueueUrl=dead)
    assert await received(sqs, url, VisibilityTimeout=0, MaxNumberOfMessages=10) == []
    await sqs.call("SendMessage", QueueUrl=url, MessageBody="three")
    assert [one["Body"] for one in await received(sqs, url)] == ["three"]


@pytest.mark.ci
async def test_the_order_of_each_batch_is_kept_while_many_send_at_once(sqs: Sqs) -> None:
    url = await queue(sqs, fresh("q") + ".fifo", FifoQueue="true", ContentBasedDeduplication="true")

    async def send(group: str) -> None:
        entries = [{"Id": str(n), "MessageBody": f"{group} {n}", "MessageGroupId": group} for n in range(10)]
        found = await sqs.call("SendMessageBatch", QueueUrl=url, Entries=entries)
        numbers = {one["Id"]: int(one["SequenceNumber"]) for one in found["Successful"]}
        assert sorted(numbers, key=numbers.__getitem__) == [str(n) for n in range(10)]

    await asyncio.gather(*(send(f"g{n}") for n in range(60)))
    found: dict[str, list[int]] = {}
    while sum(map(len, found.values())) < 600:
        messages = await received(sqs, url, MaxNumberOfMessages=10, WaitTimeSeconds=5)
        assert messages
        for message in messages:
            group, number = message["Body"].split()
            found.setdefault(group, []).append(int(number))
        entries = [{"Id": str(n), "ReceiptHandle": one["ReceiptHandle"]} for n, one in enumerate(messages)]
        await sqs.call("DeleteMessageBatch", QueueUrl=url, Entries=entries)
    assert found == {f"g{n}": list(range(10)) for n in range(60)}


@pytest.mark.ci
async def test_many_receivers_get_each_message_once(sqs: Sqs) -> None:
    url = await queue(sqs)
    for first in range(0, 200, 10):
        entries = [{"Id": str(n), "MessageBody": str(n)} for n in range(first, first + 10)]
        await sqs.call("SendMessageBatch", QueueUrl=url, Entries=entries)
    bodies: list[str] = []

    async def work() -> None:
        while messages := await received(sqs, url, MaxNumberOfMessages=10, WaitTimeSeconds=1):
            bodies.extend(one["Body"] for one in messages)
            entries = [{"Id": str(n), "ReceiptHandle": one["ReceiptHandle"]} for n, one in enumerate(messages)]
            assert (await sqs.call("DeleteMessageBatch", QueueUrl=url, Entries=entries))["Failed"] == []

    await asyncio.gather(*(work() for _ in range(20)))
    assert sorted(bodies, key=int) == [str(n) for n in range(200)]


async def test_a_message_stays_one_whatever_the_api_does_with_its_task(sqs: Sqs, api: Api) -> None:
    url = await queue(sqs)
    attributes = {"a": text("b")}
    sent = await sqs.call("SendMessage", QueueUrl=url, MessageBody="m", MessageAttributes=attributes, DelaySeconds=900)
    path = f"/tasks/{sent['MessageId']}"
    assert (await api.client.patch(path, json={"payload": {"n": 1}, "delay_seconds": 0})).status_code == 200
    (message,) = await received(sqs, url, MessageAttributeNames=["All"])
    assert (json.loads(message["Body"]), message["MessageAttributes"]) == ({"n": 1}, attributes)
    assert (await api.cancel(sent["MessageId"])).status_code == 200
    await sqs.call("DeleteMessage", QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    assert (await api.task(sent["MessageId"]))["state"] == "cancelled"
    assert (await api.retry(sent["MessageId"])).status_code == 200
    (again,) = await received(sqs, url, MessageAttributeNames=["All"])
    assert again["MessageAttributes"] == attributes
    forged = await api.post(f"/queues/{url.rpartition('/')[2]}/tasks", json={"payload": 1, "message": {"origin": {}}})
    assert forged.status_code == 422


async def test_a_full_queue_throttles_and_a_push_queue_cannot_be_received_from(sqs: Sqs, api: Api) -> None:
    name = await api.queue(max_depth=1)
    url = (await sqs.call("GetQueueUrl", QueueName=name))["QueueUrl"]
    await sqs.call("SendMessage", QueueUrl=url, MessageBody="m")
    await sqs.refused("SendMessage", "RequestThrottled", QueueUrl=url, MessageBody="m")
    entries = [{"Id": "a", "MessageBody": "m"}]
    (failed,) = (await sqs.call("SendMessageBatch", QueueUrl=url, Entries=entries))["Failed"]
    assert (failed["Code"], failed["SenderFault"]) == ("RequestThrottled", False)
    pushed = await api.queue_to("http://127.0.0.1:9/")
    other = (await sqs.call("GetQueueUrl", QueueName=pushed))["QueueUrl"]
    await sqs.refused("ReceiveMessage", "UnsupportedOperation", QueueUrl=other)
    await api.delete(f"/queues/{name}")
    await sqs.refused("ReceiveMessage", "QueueDoesNotExist", QueueUrl=f"{url}x")


@pytest.mark.ci
async def test_a_receiver_that_leaves_gets_nothing(sqs: Sqs, wired: Replica) -> None:
    url, core = await queue(sqs), wired.sluice.core
    name = url.rpartition("/")[2]
    queue_id = await core.db.fetchval("select id from sluice.queues where name = $1", name)
    polls = core.long_polls._queues  # others may wait at other queues
    for _ in range(5):
        waiting = asyncio.create_task(received(sqs, url, WaitTimeSeconds=20))
        await poll(lambda: queue_id in polls)
        waiting.cancel()
        await asyncio.wait([waiting])
        await poll(lambda: queue_id not in polls)
    await sqs.call("SendMessage", QueueUrl=url, MessageBody="m")
    (message,) = await received(sqs, url, WaitTimeSeconds=5, AttributeNames=["ApproximateReceiveCount"])
    assert message["Attributes"] == {"ApproximateReceiveCount": "1"}
