"""Messages over the SQS wire: sent, received, hidden, deleted."""

import asyncio
import base64
import json
from typing import Any

import pytest

from app.domain.sqs import NO_LIMIT
from app.runtime.enqueueing import Admitted
from app.store.enqueues import Entry
from app.store.failures import Unavailable
from tests.compat.sqs import Sqs
from tests.sluices import Replica
from tests.wire.api import Api, fresh, good

pytestmark = pytest.mark.anyio


async def queue(sqs: Sqs, name: str = "", **attributes: str) -> str:
    found = await sqs.call("CreateQueue", QueueName=name or fresh("q"), Attributes=attributes)
    url: str = found["QueueUrl"]
    return url


async def received(sqs: Sqs, url: str, **members: Any) -> list[dict[str, Any]]:
    found = await sqs.call("ReceiveMessage", QueueUrl=url, **members)
    messages: list[dict[str, Any]] = found.get("Messages", [])
    return messages


async def test_a_message_is_sent_received_and_deleted(sqs: Sqs, api: Api) -> None:
    url = await queue(sqs)
    attributes = {
        "city": {"DataType": "String", "StringValue": "Z\u00fcrich"},
        "raw": {"DataType": "Binary.gif", "BinaryValue": "AAEC"},
    }
    sent = await sqs.call("SendMessage", QueueUrl=url, MessageBody='{"to": "\u00e4da"}', MessageAttributes=attributes)
    (message,) = await received(
        sqs, url, MessageAttributeNames=["All"], MessageSystemAttributeNames=["All"], MaxNumberOfMessages=10
    )
    assert (message["MessageId"], message["Body"]) == (sent["MessageId"], '{"to": "\u00e4da"}')
    assert message["MD5OfBody"] == sent["MD5OfMessageBody"]
    assert message["MD5OfMessageAttributes"] == sent["MD5OfMessageAttributes"]
    assert message["MessageAttributes"] == attributes
    assert message["Attributes"]["ApproximateReceiveCount"] == "1"
    task = await api.task(sent["MessageId"])
    assert (task["payload"], task["state"]) == ('{"to": "\u00e4da"}', "running")
    assert await received(sqs, url) == []
    await sqs.call("DeleteMessage", QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    assert (await api.task(sent["MessageId"]))["state"] == "succeeded"
    await sqs.call("DeleteMessage", QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


async def test_a_batch_fails_entry_by_entry(sqs: Sqs) -> None:
    url = await queue(sqs)
    entries = [
        {"Id": "a", "MessageBody": "one"},
        {"Id": "b", "MessageBody": "\u0000"},
        {"Id": "c", "MessageBody": "three", "DelaySeconds": 901},
    ]
    found = await sqs.call("SendMessageBatch", QueueUrl=url, Entries=entries)
    assert [one["Id"] for one in found["Successful"]] == ["a"]
    assert [(one["Id"], one["Code"], one["SenderFault"]) for one in found["Failed"]] == [
        ("b", "InvalidMessageContents", True),
        ("c", "InvalidParameterValue", True),
    ]
    (message,) = await received(sqs, url)
    handles = [{"Id": "x", "ReceiptHandle": message["ReceiptHandle"]}, {"Id": "y", "ReceiptHandle": "nonsense"}]
    deleted = await sqs.call("DeleteMessageBatch", QueueUrl=url, Entries=handles)
    assert [one["Id"] for one in deleted["Successful"]] == ["x"]
    assert [(one["Id"], one["Code"]) for one in deleted["Failed"]] == [("y", "ReceiptHandleIsInvalid")]


async def test_an_expired_handle_deletes_while_nobody_else_has_the_message(sqs: Sqs, api: Api) -> None:
    url = await queue(sqs)
    sent = await sqs.call("SendMessage", QueueUrl=url, MessageBody="m")
    (first,) = await received(sqs, url, VisibilityTimeout=0)
    (second,) = await received(sqs, url, VisibilityTimeout=30)
    assert second["MessageId"] == sent["MessageId"]
    await sqs.call("DeleteMessage", QueueUrl=url, ReceiptHandle=first["ReceiptHandle"])
    assert (await api.task(sent["MessageId"]))["state"] == "running"
    await sqs.call("ChangeMessageVisibility", QueueUrl=url, ReceiptHandle=second["ReceiptHandle"], VisibilityTimeout=0)
    await sqs.call("DeleteMessage", QueueUrl=url, ReceiptHandle=first["ReceiptHandle"])
    assert (await api.task(sent["MessageId"]))["state"] == "succeeded"
    await sqs.call("DeleteMessage", QueueUrl=url, ReceiptHandle=second["ReceiptHandle"])
    assert await received(sqs, url) == []


async def test_an_earlier_handle_makes_the_lease_of_somebody_else_longer_at_most(sqs: Sqs, api: Api) -> None:
    url = await queue(sqs)
    sent = await sqs.call("SendMessage", QueueUrl=url, MessageBody="m")
    (first,) = await received(sqs, url, VisibilityTimeout=0)
    await received(sqs, url, VisibilityTimeout=30)
    given = {"QueueUrl": url, "ReceiptHandle": first["ReceiptHandle"]}
    await sqs.call("ChangeMessageVisibility", VisibilityTimeout=0, **given)
    assert (await api.task(sent["MessageId"]))["state"] == "running" and await received(sqs, url) == []


async def test_a_message_is_hidden_again_and_shown_again(sqs: Sqs) -> None:
    url = await queue(sqs)
    await sqs.call("SendMessage", QueueUrl=url, MessageBody="m")
    (first,) = await received(sqs, url, VisibilityTimeout=30)
    given = {"QueueUrl": url, "ReceiptHandle": first["ReceiptHandle"]}
    await sqs.call("ChangeMessageVisibility", VisibilityTimeout=0, **given)
    (second,) = await received(sqs, url, VisibilityTimeout=0, AttributeNames=["ApproximateReceiveCount"])
    assert second["Attributes"] == {"ApproximateReceiveCount": "2"}
    again = {"QueueUrl": url, "ReceiptHandle": second["ReceiptHandle"]}
    await sqs.call("ChangeMessageVisibility", VisibilityTimeout=60, **again)
    assert await received(sqs, url) == []
    await sqs.call("ChangeMessageVisibility", VisibilityTimeout=0, **again)
    (third,) = await received(sqs, url)
    assert third["MessageId"] == first["MessageId"]
    await sqs.call("DeleteMessage", QueueUrl=url, ReceiptHandle=third["ReceiptHandle"])
    await sqs.refused("ChangeMessageVisibility", "InvalidParameterValue", VisibilityTimeout=5, **given)


async def test_a_message_is_hidden_for_twelve_hours_at_most(sqs: Sqs) -> None:
    url = await queue(sqs)
    await sqs.call("SendMessage", QueueUrl=url, MessageBody="m")
    (message,) = await received(sqs, url)
    packed = base64.urlsafe_b64decode(message["ReceiptHandle"])
    earlier = int.from_bytes(packed[-8:], "big") - 3_600_000_000
    handle = base64.urlsafe_b64encode(packed[:-8] + earlier.to_bytes(8, "big")).decode()
    given = {"QueueUrl": url, "ReceiptHandle": handle}
    await sqs.call("ChangeMessageVisibility", VisibilityTimeout=39_600, **given)
    refused = await sqs.refused("ChangeMessageVisibility", "InvalidParameterValue", VisibilityTimeout=39_602, **given)
    assert "43200" in refused


async def test_a_receive_shows_when_a_message_was_received_first(sqs: Sqs) -> None:
    url = await queue(sqs)
    await sqs.call("SendMessage", QueueUrl=url, MessageBody="m")
    name = "ApproximateFirstReceiveTimestamp"
    shown = []
    for _ in range(3):
        (message,) = await received(sqs, url, VisibilityTimeout=0, AttributeNames=[name])
        shown.append(int(message["Attributes"][name]))
    assert max(shown) - min(shown) < 20 and shown[1] == shown[2]
    refused = await sqs.refused("ReceiveMessage", "InvalidAttributeName", QueueUrl=url, AttributeNames=["Nonsense"])
    assert "Nonsense" in refused


async def test_who_only_receives_learns_what_has_changed_elsewhere(sqs: Sqs, wired: Replica) -> None:
    url = await queue(sqs)
    await sqs.call("SendMessage", QueueUrl=url, MessageBody="m")
    await wired.sluice.core.db.fetch(  # as another replica does
        "update sluice.queues set version = version + 1, sqs = sqs || '{\"visibility_timeout\": 0}' where name = $1",
        url.rsplit("/", 1)[1],
    )
    (message,) = await received(sqs, url)
    await sqs.call("ChangeMessageVisibility", QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0)
    for _ in range(3):
        assert len(await received(sqs, url)) == 1


async def test_a_receive_waits_for_a_message(sqs: Sqs) -> None:
    url = await queue(sqs)
    waiting = asyncio.create_task(received(sqs, url, WaitTimeSeconds=20))
    await sqs.call("SendMessage", QueueUrl=url, MessageBody="late")
    assert [one["Body"] for one in await waiting] == ["late"]


async def test_the_order_of_a_group_is_kept_and_duplicates_are_dropped(sqs: Sqs) -> None:
    url = await queue(sqs, fresh("q") + ".fifo", FifoQueue="true")
    for body, deduplication in (("one", "1"), ("other", "1"), ("two", "2")):
        await sqs.call(
            "SendMessage", QueueUrl=url, MessageBody=body, MessageGroupId="g", MessageDeduplicationId=deduplication
        )
    bodies = []
    for _ in range(2):
        (message,) = await received(sqs, url, WaitTimeSeconds=5, MessageSystemAttributeNames=["MessageGroupId"])
        assert message["Attributes"] == {"MessageGroupId": "g"}
        bodies.append(message["Body"])
        assert await received(sqs, url) == []
        await sqs.call("DeleteMessage", QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    assert bodies == ["one", "two"] and await received(sqs, url) == []


@pytest.mark.parametrize("reaped", [False, True])
async def test_a_message_hidden_by_a_handle_that_has_expired_keeps_its_group_waiting(
    sqs: Sqs, wired: Replica, reaped: bool
) -> None:
    url = await queue(sqs, fresh("q") + ".fifo", FifoQueue="true", ContentBasedDeduplication="true")
    for body in ("one", "two"):
        await sqs.call("SendMessage", QueueUrl=url, MessageBody=body, MessageGroupId="g")
    (message,) = await received(sqs, url, VisibilityTimeout=0, WaitTimeSeconds=5)
    if reaped:
        await wired.sluice.core.reaping.reap(100)
    given = {"QueueUrl": url, "ReceiptHandle": message["ReceiptHandle"]}
    await sqs.call("ChangeMessageVisibility", VisibilityTimeout=60, **given)
    assert await received(sqs, url, MaxNumberOfMessages=10) == []
    await sqs.call("ChangeMessageVisibility", VisibilityTimeout=0, **given)
    found = await received(sqs, url, MaxNumberOfMessages=10, WaitTimeSeconds=5)
    assert [one["Body"] for one in found] == ["one"]


async def test_a_queue_made_elsewhere_is_received_from_as_well(sqs: Sqs, api: Api) -> None:
    name = await api.queue()
    await api.enqueue(name, {"n": 1})
    url = (await sqs.call("GetQueueUrl", QueueName=name))["QueueUrl"]
    (message,) = await received(sqs, url)
    assert json.loads(message["Body"]) == {"n": 1}


async def test_a_batch_for_a_fifo_queue_is_refused_whole_if_a_group_is_missing(sqs: Sqs) -> None:
    url = await queue(sqs, fresh("q") + ".fifo", FifoQueue="true")
    good_one = {"Id": "a", "MessageBody": "m", "MessageGroupId": "g", "MessageDeduplicationId": "1"}
    for bad, error in (
        ({"MessageDeduplicationId": "2"}, "MissingParameter"),
        ({"MessageGroupId": "g"}, "InvalidParameterValue"),
    ):
        entries = [good_one, {"Id": "b", "MessageBody": "m", **bad}]
        await sqs.refused("SendMessageBatch", error, QueueUrl=url, Entries=entries)
    assert await received(sqs, url) == []


async def test_a_deduplication_id_counts_within_its_group_where_the_queue_says_so(sqs: Sqs) -> None:
    scope = {"DeduplicationScope": "messageGroup", "FifoThroughputLimit": "perMessageGroupId"}
    url = await queue(sqs, fresh("q") + ".fifo", FifoQueue="true", **scope)
    ids = set()
    for group in ("g", "h", "g"):
        given = {"MessageGroupId": group, "MessageDeduplicationId": "1" * 128}
        sent = await sqs.call("SendMessage", QueueUrl=url, MessageBody=group, **given)
        ids.add(sent["MessageId"])
    assert len(ids) == 2
    found = await received(
        sqs, url, MaxNumberOfMessages=10, WaitTimeSeconds=5, AttributeNames=["MessageDeduplicationId"]
    )
    assert [one["Body"] for one in found] == ["g", "h"]
    assert {one["Attributes"]["MessageDeduplicationId"] for one in found} == {"1" * 128}


async def test_a_message_that_must_be_sent_again_is_not_overtaken_by_its_group(
    sqs: Sqs, wired: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await queue(sqs, fresh("q") + ".fifo", FifoQueue="true", ContentBasedDeduplication="true")
    writer = wired.sluice.core.enqueueing
    submit = writer.submit

    async def away(entry: Entry) -> Admitted:
        if entry.payload == b'"a1"':
            raise Unavailable("no answer")
        return await submit(entry)

    monkeypatch.setattr(writer, "submit", away)
    entries = [{"Id": body, "MessageBody": body, "MessageGroupId": body[0]} for body in ("a0", "a1", "a2", "b0")]
    found = await sqs.call("SendMessageBatch", QueueUrl=url, Entries=entries)
    assert {one["Id"] for one in found["Successful"]} == {"a0", "b0"}
    assert [(one["Id"], one["Code"], one["SenderFault"]) for one in found["Failed"]] == [
        ("a1", "ServiceUnavailable", False),
        ("a2", "ServiceUnavailable", False),
    ]


# dead letters


def redrive(name: str, count: int) -> str:
    return json.dumps({"deadLetterTargetArn": f"arn:aws:sqs:us-east-1:123456789012:{name}", "maxReceiveCount": count})


async def dead_letters(sqs: Sqs, count: int = 1, suffix: str = "", **attributes: str) -> tuple[str, str]:
    """Return the URLs of a queue and of its dead-letter queue, to which a message goes after so many receives."""
    fifo = {"FifoQueue": "true"} if suffix else {}
    name = fresh("q") + suffix
    target = await queue(sqs, name, **fifo)
    source = await queue(sqs, fresh("q") + suffix, RedrivePolicy=redrive(name, count), **fifo, **attributes)
    return source, target


async def test_a_message_received_too_often_is_the_same_message_in_the_dead_letter_queue(sqs: Sqs) -> None:
    source, target = await dead_letters(sqs, count=2)
    attributes = {"city": {"DataType": "String", "StringValue": "Basel"}}
    header = {"AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1-5759e988-bd862e3fe1be46a994272793"}}
    sent = await sqs.call(
        "SendMessage",
        QueueUrl=source,
        MessageBody="m",
        MessageAttributes=attributes,
        MessageSystemAttributes=header,
        MessageGroupId="g",
    )
    for _ in range(2):
        (message,) = await received(sqs, source, VisibilityTimeout=0, AttributeNames=["All"])
    assert await received(sqs, source) == []
    (dead,) = await received(sqs, target, AttributeNames=["All"], MessageAttributeNames=["All"])
    assert (dead["MessageId"], dead["Body"], dead["MessageAttributes"]) == (sent["MessageId"], "m", attributes)
    was, shown = message["Attributes"], dead["Attributes"]
    assert (was["ApproximateReceiveCount"], shown["ApproximateReceiveCount"]) == ("2", "3")
    for name in ("SentTimestamp", "AWSTraceHeader", "MessageGroupId"):
        assert shown[name] == was[name]
    assert shown["DeadLetterQueueSourceArn"].endswith(":" + source.rsplit("/", 1)[1])


async def test_the_group_of_a_message_goes_along_to_a_fifo_dead_letter_queue(sqs: Sqs) -> None:
    source, target = await dead_letters(sqs, suffix=".fifo", ContentBasedDeduplication="true")
    for body in ("one", "two"):
        await sqs.call("SendMessage", QueueUrl=source, MessageBody=body, MessageGroupId="g")
    for body in ("one", "two"):
        (message,) = await received(sqs, source, VisibilityTimeout=0, WaitTimeSeconds=5)
        assert message["Body"] == body
    assert await received(sqs, source) == []
    for body in ("one", "two"):
        (dead,) = await received(sqs, target, WaitTimeSeconds=5, AttributeNames=["MessageGroupId"])
        assert (dead["Body"], dead["Attributes"]) == (body, {"MessageGroupId": "g"})
        await sqs.call("DeleteMessage", QueueUrl=target, ReceiptHandle=dead["ReceiptHandle"])


async def test_a_message_that_has_expired_is_no_dead_letter(sqs: Sqs, api: Api) -> None:
    source, target = await dead_letters(sqs)
    sent = await api.enqueue(source.rsplit("/", 1)[1], "m", ttl_seconds=0.05)
    task = good(await api.get(f"/tasks/{sent['id']}", params={"wait_seconds": 20}))
    assert (task["state"], task["reason"]) == ("dead", "expired")
    assert await received(sqs, target) == []


async def test_a_dead_letter_is_received_however_old_the_task_was_that_could_not_expire(
    sqs: Sqs, api: Api, wired: Replica
) -> None:
    target = await queue(sqs)
    dead = {"queue": target.rsplit("/", 1)[1], "body": "payload"}
    name = await api.queue(callbacks={"dead": dead}, retry={"max_attempts": 1})
    sent = await api.enqueue(name, "m")
    await wired.sluice.core.db.fetch(
        "update sluice.tasks set created_at = created_at - interval '5 days' where id = $1", sent["id"]
    )
    url = (await sqs.call("GetQueueUrl", QueueName=name))["QueueUrl"]
    await received(sqs, url, VisibilityTimeout=0)
    assert await received(sqs, url) == []
    (message,) = await received(sqs, target)
    assert message["MessageId"] == sent["id"]


async def test_a_message_moved_back_is_a_new_message_with_its_attributes(sqs: Sqs) -> None:
    source, target = await dead_letters(sqs)
    attributes = {"city": {"DataType": "String", "StringValue": "Basel"}}
    sent = await sqs.call("SendMessage", QueueUrl=source, MessageBody="m", MessageAttributes=attributes)
    await received(sqs, source, VisibilityTimeout=0)
    assert await received(sqs, source) == []
    arn = (await sqs.call("GetQueueAttributes", QueueUrl=target, AttributeNames=["QueueArn"]))["Attributes"]["QueueArn"]
    await sqs.call("StartMessageMoveTask", SourceArn=arn)
    (message,) = await received(sqs, source, AttributeNames=["All"], MessageAttributeNames=["All"])
    assert message["MessageId"] != sent["MessageId"] and message["MessageAttributes"] == attributes
    assert message["Attributes"]["ApproximateReceiveCount"] == "1"
    assert "DeadLetterQueueSourceArn" not in message["Attributes"]


async def test_attributes_are_encrypted_where_the_queue_encrypts_and_read_after_every_move(
    sqs: Sqs, api: Api, wired: Replica
) -> None:
    source, target = await dead_letters(sqs)
    name = source.rsplit("/", 1)[1]
    dead = {"queue": target.rsplit("/", 1)[1], "body": "payload"}
    given = {"encrypt": True, "callbacks": {"dead": dead}, "retry": {"max_attempts": 1}}
    good(await api.put(f"/queues/{name}", json=given))
    attributes = {"city": {"DataType": "String", "StringValue": "Basel-secret"}}
    await sqs.call("SendMessage", QueueUrl=source, MessageBody="m", MessageAttributes=attributes)
    stored = await wired.sluice.core.db.fetch("select options::text from sluice.tasks where options ? 'message'")
    assert not any("Basel-secret" in row[0] for row in stored)
    for url in (source, target):
        (message,) = await received(sqs, url, VisibilityTimeout=0, MessageAttributeNames=["All"])
        await sqs.call(
            "ChangeMessageVisibility", QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=0
        )
        assert (message["Body"], message["MessageAttributes"]) == ("m", attributes)
    arn = (await sqs.call("GetQueueAttributes", QueueUrl=target, AttributeNames=["QueueArn"]))["Attributes"]["QueueArn"]
    await sqs.call("StartMessageMoveTask", SourceArn=arn)
    (message,) = await received(sqs, source, MessageAttributeNames=["All"])
    assert (message["Body"], message["MessageAttributes"]) == ("m", attributes)


async def test_messages_of_a_batch_are_received_in_its_order(sqs: Sqs) -> None:
    url = await queue(sqs, fresh("q") + ".fifo", FifoQueue="true")
    entries = [
        {"Id": str(n), "MessageBody": str(n), "MessageGroupId": f"g{n % 5}", "MessageDeduplicationId": str(n)}
        for n in range(10)
    ]
    await sqs.call("SendMessageBatch", QueueUrl=url, Entries=entries)
    bodies: list[str] = []
    while len(bodies) < 10:
        messages = await received(sqs, url, MaxNumberOfMessages=10, WaitTimeSeconds=5)
        assert messages
        bodies += [message["Body"] for message in messages]
        for message in messages:
            await sqs.call("DeleteMessage", QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    assert sorted(bodies) == [str(n) for n in range(10)]
    for group in range(5):
        assert [body for body in bodies if int(body) % 5 == group] == [str(group), str(group + 5)]


async def test_pages_show_no_limit_of_receives_where_there_is_none(sqs: Sqs, api: Api) -> None:
    name = fresh("q")
    url = await queue(sqs, name)
    task = (await sqs.call("SendMessage", QueueUrl=url, MessageBody="hello"))["MessageId"]
    for page in (f"/ui/tasks/{task}", f"/ui/tasks/{task}/edit", f"/ui/tasks?queue={name}"):
        shown = await api.get(page, follow_redirects=True)
        assert shown.status_code == 200 and task in shown.text
        assert str(NO_LIMIT) not in shown.text
