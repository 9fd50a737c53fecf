"""The source sqs against a server of SQS: what it takes, keeps hidden, acknowledges and gives back, and how it fails."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from app.delivery.webhook.egress import EgressPolicy
from app.delivery.webhook.transport import Transport
from app.domain.sources import SourceDefinition
from app.sources.kinds import Depth, Message, SourceError
from app.sources.sqs import SqsKind, SqsSource
from tests.sqs_server import Asked, Fault, SqsQueue, SqsServer, failed_entries

pytestmark = [pytest.mark.ci, pytest.mark.anyio]

Open = Callable[..., SqsSource]


@pytest.fixture
async def open_source(sqs: SqsServer) -> AsyncIterator[Open]:
    """Opens sources of a queue as a replica does, with further fields of the definition."""
    egress = EgressPolicy(["127.0.0.0/8"])
    transport = Transport(egress)

    def opened(queue: SqsQueue, *, visibility_seconds: int = 60, **fields: Any) -> SqsSource:
        given = {"queue": "q", "visibility_seconds": visibility_seconds, **sqs.address(queue), **fields}
        definition = msgspec.convert(given, SourceDefinition)
        return SqsKind(egress, transport).open(definition, "replica", "default")

    yield opened
    await transport.aclose()


async def taken(source: SqsSource, count: int) -> list[Message]:
    """Receive until there are so many."""
    found: list[Message] = []
    while len(found) < count:
        found += await source.receive(count - len(found))
    return found


def only(operation: str, fault: Fault) -> Callable[[Asked], Fault | None]:
    return lambda asked: fault if asked.operation == operation else None


async def test_a_message_comes_with_all_that_it_has(sqs: SqsServer, open_source: Open) -> None:
    queue = sqs.queue()
    attributes: dict[str, dict[str, Any]] = {
        "Tenant": {"DataType": "String", "StringValue": "ada"},
        "Seal": {"DataType": "Binary", "BinaryValue": b"\x00\x01"},
        "correlation_id": {"DataType": "String", "StringValue": "c1"},
    }
    sent = queue.send(
        '{"n": 1}', attributes, trace="Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"
    )
    (message,) = await open_source(queue).receive(10)
    assert message.key == f"sqs:{queue.arn}:{sent}"
    assert message.body == b'{"n": 1}'
    assert (message.headers["Tenant"], message.correlation_id) == ("ada", "c1")
    assert message.traceparent == "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-01"
    assert message.sent_at is not None and message.group is None


async def test_a_message_is_received_again_until_it_is_acknowledged(sqs: SqsServer, open_source: Open) -> None:
    queue = sqs.queue()
    queue.send("1")
    source = open_source(queue)
    first = await source.receive(10)
    queue.show_again()
    again = await source.receive(10)
    assert [message.key for message in first] == [message.key for message in again]
    await source.acknowledge(first)  # the handle of the first time is still good
    assert queue.left() == []
    await source.acknowledge(again)  # somebody else was first


async def test_twenty_five_messages_are_acknowledged_in_batches_of_ten(sqs: SqsServer, open_source: Open) -> None:
    queue = sqs.queue()
    for n in range(25):
        queue.send(str(n))
    source = open_source(queue)
    messages = await taken(source, 25)
    assert sqs.times("ReceiveMessage") == 3 and queue.hidden() == 25
    await source.extend(messages)
    assert sqs.times("ChangeMessageVisibilityBatch") == 3
    await source.acknowledge(messages)
    assert sqs.times("DeleteMessageBatch") == 3 and queue.left() == []


async def test_messages_given_back_are_seen_at_once(sqs: SqsServer, open_source: Open) -> None:
    queue = sqs.queue()
    queue.send("1")
    source = open_source(queue)
    await source.give_back(await source.receive(10))
    assert queue.hidden() == 0
    assert len(await source.receive(10)) == 1


async def test_messages_are_hidden_for_as_long_as_the_definition_says(sqs: SqsServer, open_source: Open) -> None:
    queue = sqs.queue(VisibilityTimeout="1")
    queue.send("1")
    source = open_source(queue, visibility_seconds=90)
    await source.extend(await source.receive(10))
    received, extended = (asked.given for asked in sqs.asked if "Visibility" in json.dumps(asked.given))
    assert received["VisibilityTimeout"] == 90 and received["WaitTimeSeconds"] == 20
    assert extended["Entries"][0]["VisibilityTimeout"] == 90
    assert source.extend_seconds is not None and source.extend_seconds <= 30


async def test_a_group_keeps_its_order_and_waits_for_its_first(sqs: SqsServer, open_source: Open) -> None:
    queue = sqs.queue(fifo=True)
    for n in range(6):
        queue.send(str(n), group="ab"[n % 2])
    source = open_source(queue)
    messages = await source.receive(10)
    assert [message.body for message in messages if message.group == "a"] == [b"0", b"2", b"4"]
    assert [message.body for message in messages if message.group == "b"] == [b"1", b"3", b"5"]


async def test_what_the_server_failed_to_delete_is_deleted_at_the_next_try(sqs: SqsServer, open_source: Open) -> None:
    queue = sqs.queue()
    for n in range(10):
        queue.send(str(n))
    source = open_source(queue)
    messages = await taken(source, 10)

    def fails_once(asked: Asked) -> Fault | None:
        if asked.operation != "DeleteMessageBatch" or sqs.times("DeleteMessageBatch") > 1:
            return None
        return failed_entries(asked.given["Entries"][:3], "InternalError", sender_fault=False)

    sqs.before = fails_once
    await source.acknowledge(messages)
    first, second = (asked.given["Entries"] for asked in sqs.asked if asked.operation == "DeleteMessageBatch")
    assert [entry["Id"] for entry in second] == [entry["Id"] for entry in first[:3]]


async def test_what_the_server_never_deletes_is_a_failure(sqs: SqsServer, open_source: Open) -> None:
    queue = sqs.queue()
    queue.send("1")
    source = open_source(queue)
    messages = await source.receive(10)
    sqs.before = lambda asked: (
        failed_entries(asked.given["Entries"], "InternalError", sender_fault=False)
        if asked.operation == "DeleteMessageBatch"
        else None
    )
    with pytest.raises(SourceError, match="DeleteMessageBatch failed for 1 messages: InternalError"):
        await source.acknowledge(messages)
    sqs.as_ever()
    await source.acknowledge(messages)
    assert queue.left() == []


async def test_an_entry_the_server_will_not_take_is_passed_over(sqs: SqsServer, open_source: Open) -> None:
    queue = sqs.queue()
    queue.send("1")
    source = open_source(queue)
    messages = await source.receive(10)
    sqs.before = lambda asked: (
        failed_entries(asked.given["Entries"], "ReceiptHandleIsInvalid", sender_fault=True)
        if "Entries" in asked.given
        else None
    )
    await source.extend(messages)
    await source.acknowledge(messages)
    await source.give_back(messages)
    assert sqs.times("ChangeMessageVisibilityBatch") == 2 and sqs.times("DeleteMessageBatch") == 1


async def test_the_depth_counts_what_waits_and_what_is_being_received(sqs: SqsServer, open_source: Open) -> None:
    queue = sqs.queue()
    source = open_source(queue)
    assert await source.measure() == Depth(0, None)
    for n in range(3):
        queue.send(str(n))
    messages = await source.receive(1)
    lag, age = await source.measure()
    assert lag == 3 and age is not None and 0 <= age < 60
    await source.acknowledge([*messages, *await source.receive(10)])
    assert await source.measure() == Depth(0, None)


async def test_a_check_takes_nothing(sqs: SqsServer, open_source: Open) -> None:
    queue = sqs.queue()
    queue.send("1")
    await open_source(queue).check()
    assert (queue.hidden(), sqs.times("ReceiveMessage")) == (0, 0)


@pytest.mark.parametrize(
    ("status", "code", "permanent"),
    [
        (403, "AccessDeniedException", True),
        (403, "UnrecognizedClientException", True),
        (403, "InvalidSignatureException", True),
        (400, "QueueDoesNotExist", True),
        (400, "AWS.SimpleQueueService.NonExistentQueue", True),
        (400, "KmsAccessDenied", True),
        (403, "RequestThrottled", False),
        (400, "ThrottlingException", False),
        (403, "OverLimit", False),
        (500, "InternalFailure", False),
        (503, "ServiceUnavailable", False),
    ],
)
async def test_a_refusal_says_whether_a_person_is_needed(
    sqs: SqsServer, open_source: Open, status: int, code: str, permanent: bool
) -> None:
    queue = sqs.queue()
    source = open_source(queue)
    await source.check()
    sqs.before = only("ReceiveMessage", Fault.error(status, code, "no, not this"))
    with pytest.raises(SourceError, match=code.rpartition(".")[2]) as failed:
        await source.receive(10)
    assert "no, not this" in str(failed.value)
    assert failed.value.permanent is permanent


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"Messages": 7}',
        b'{"Messages": [{"MessageId": "m"}]}',
        b'{"Messages": [null]}',
        b"\xff\xfe",
        b"{" * 5000,
        b'{"more": ' + b"[" * 100_000,
    ],
)
async def test_an_answer_that_is_not_of_sqs_is_a_failure(sqs: SqsServer, open_source: Open, body: bytes) -> None:
    source = open_source(sqs.queue())
    await source.check()
    sqs.before = only("ReceiveMessage", Fault(200, body))
    with pytest.raises(SourceError):
        await source.receive(10)


@pytest.mark.parametrize("count", ["-5", "9" * 30, "9" * 5_000, "many", ""])
async def test_a_depth_that_cannot_be_is_none(sqs: SqsServer, open_source: Open, count: str) -> None:
    source = open_source(sqs.queue())
    answer = {"Attributes": {"ApproximateNumberOfMessages": count, "ApproximateNumberOfMessagesNotVisible": "0"}}
    sqs.before = only("GetQueueAttributes", Fault(200, json.dumps(answer).encode()))
    assert await source.measure() == Depth(None, None)


async def test_a_server_that_sends_more_than_it_was_asked_for_is_not_believed(
    sqs: SqsServer, open_source: Open
) -> None:
    source = open_source(sqs.queue())
    await source.check()
    ahead = {"SentTimestamp": "9" * 13}
    sent = [
        {"MessageId": f"m{n}", "ReceiptHandle": "h", "Body": "1", "Attributes": ahead, "MD5OfBody": ""}
        for n in range(50)
    ]
    sqs.before = only("ReceiveMessage", Fault(200, json.dumps({"Messages": sent}).encode()))
    assert len(await source.receive(3)) == 3


async def test_a_code_that_no_text_can_hold_is_a_failure_with_what_is_left_of_it(
    sqs: SqsServer, open_source: Open
) -> None:
    source = open_source(sqs.queue())
    await source.check()
    sqs.before = only("ReceiveMessage", Fault.error(400, "No\x00t", "no\x00 such"))
    with pytest.raises(SourceError) as failed:
        await source.receive(10)
    assert "\x00" not in str(failed.value) and "Not" in str(failed.value)


async def test_a_server_that_is_not_there_is_a_failure_without_its_credentials(
    sqs: SqsServer, open_source: Open
) -> None:
    queue = sqs.queue()
    source = open_source(queue, endpoint_url="http://127.0.0.1:9", queue_url="http://127.0.0.1:9/1/q")
    with pytest.raises(SourceError) as failed:
        await source.receive(10)
    assert not failed.value.permanent and "not-checked" not in str(failed.value)


async def test_rights_that_are_missing_are_named(sqs: SqsServer, open_source: Open) -> None:
    queue = sqs.queue()
    queue.send("1")
    given = sqs.user("sqs:GetQueueAttributes", "sqs:ReceiveMessage")
    with sqs.guarded():
        source = open_source(queue, credentials=given)
        messages = await source.receive(10)
        with pytest.raises(SourceError, match="sqs:DeleteMessage") as failed:
            await source.acknowledge(messages)
        assert failed.value.permanent
        sqs.end_credentials(given["access_key_id"])
        with pytest.raises(SourceError, match="security token") as failed:
            await source.receive(10)
        assert failed.value.permanent and given["secret_access_key"] not in str(failed.value)
    assert len(queue.left()) == 1
