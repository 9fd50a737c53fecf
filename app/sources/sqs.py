"""The source `sqs`: a queue of Amazon SQS, or of a server that speaks its JSON protocol.

Messages are received in batches of ten by long polls, and hidden from others for `visibility_seconds`, again and again until their
tasks are committed. A batch may fail in parts. What the server itself failed to do is tried again here; an entry that it refuses
(the receipt handle has expired, or somebody else has deleted the message) is passed over, because such a message either comes
again, with the same key, or is gone. So neither makes a second task.
"""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from app.delivery.sqs.client import SqsClient, SqsFailure, check_sqs, read_answer
from app.delivery.webhook.egress import EgressPolicy
from app.delivery.webhook.transport import Transport
from app.domain.sources import SourceDefinition
from app.sources.kinds import MAX_COUNT, WAIT_SECONDS, Depth, Message, SourceError
from app.sources.sqs_messages import Received, message_of

BATCH = 10
"""The most that SQS does in one request."""
TRIES = 3
FIRST_PAUSE_SECONDS = 0.2
"""Before the second try of what the server failed to do; doubled before the third."""
CALL_SECONDS = 10.0
"""How long a request may take, beside the wait of a long poll."""
DEPTHS = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")

T = TypeVar("T")


class _Messages(msgspec.Struct, frozen=True, rename="pascal"):
    messages: list[Received] = []


class _Failed(msgspec.Struct, frozen=True, rename="pascal"):
    id: str
    sender_fault: bool = False
    code: str = ""
    message: str = ""


class _Batch(msgspec.Struct, frozen=True, rename="pascal"):
    failed: list[_Failed] = []


class _Attributes(msgspec.Struct, frozen=True, rename="pascal"):
    attributes: dict[str, str] = {}


class SqsSource:
    """One queue, read by one replica."""

    def __init__(self, client: SqsClient, visibility_seconds: int) -> None:
        self._client = client
        self._visibility_seconds = visibility_seconds
        self._arn: str | None = None
        self._head_sent_at: datetime | None = None
        """When the oldest message of the last batch was sent; None: the last poll found none."""
        self.extend_seconds: float | None = (
            visibility_seconds / 3
        )  # two requests may fail before the messages are seen again

    async def receive(self, most: int) -> list[Message]:
        arn = self._arn or await self._find_arn()
        given = {
            "MaxNumberOfMessages": min(most, BATCH),
            "WaitTimeSeconds": int(WAIT_SECONDS),
            "VisibilityTimeout": self._visibility_seconds,
            "MessageAttributeNames": ["All"],
            "AttributeNames": ["All"],  # older servers know nothing of its successor, MessageSystemAttributeNames
        }
        found = await self._call("ReceiveMessage", given, _Messages, WAIT_SECONDS + CALL_SECONDS)
        messages = [message_of(received, arn) for received in found.messages[:most]]
        self._head_sent_at = min((message.sent_at for message in messages if message.sent_at is not None), default=None)
        return messages

    async def extend(self, messages: Sequence[Message]) -> None:
        await self._each("ChangeMessageVisibilityBatch", messages, VisibilityTimeout=self._visibility_seconds)

    async def acknowledge(self, messages: Sequence[Message]) -> None:
        await self._each("DeleteMessageBatch", messages)

    async def give_back(self, messages: Sequence[Message]) -> None:
        await self._each("ChangeMessageVisibilityBatch", messages, VisibilityTimeout=0)

    def take_lost(self) -> int:
        return 0  # SQS does not say what its retention has ended

    async def measure(self) -> Depth:
        attributes = await self._attributes(*DEPTHS)
        try:
            lag = sum(int(attributes[name]) for name in DEPTHS)
        except (KeyError, ValueError):
            return Depth(None, None)
        if not 0 <= lag <= MAX_COUNT:
            return Depth(None, None)
        # The age of the oldest message is known to CloudWatch alone. Messages come in about the order in which they were sent.
        head = self._head_sent_at
        age = max(0.0, (datetime.now(UTC) - head).total_seconds()) if lag and head is not None else None
        return Depth(lag, age)

    async def check(self) -> None:
        await self._find_arn()

    async def aclose(self) -> None:
        """Its connections are those of the transport, which others use too."""

    async def _find_arn(self) -> str:
        arn = (await self._attributes("QueueArn")).get("QueueArn")
        if not arn:
            raise SourceError("the server does not say the ARN of the queue")
        self._arn = arn
        return arn

    async def _attributes(self, *names: str) -> dict[str, str]:
        found = await self._call("GetQueueAttributes", {"AttributeNames": list(names)}, _Attributes)
        return found.attributes

    async def _each(self, operation: str, messages: Sequence[Message], **fields: Any) -> None:
        """Do it to each message, in batches."""
        for start in range(0, len(messages), BATCH):
            entries = {
                str(number): {"Id": str(number), "ReceiptHandle": message.handle, **fields}
                for number, message in enumerate(messages[start : start + BATCH])
            }
            await self._batch(operation, entries)

    async def _batch(self, operation: str, entries: dict[str, dict[str, Any]]) -> None:
        pause = FIRST_PAUSE_SECONDS
        for left in reversed(range(TRIES)):
            answer = await self._call(operation, {"Entries": list(entries.values())}, _Batch)
            failed = [failure for failure in answer.failed if not failure.sender_fault and failure.id in entries]
            if not failed:
                return
            if not left:
                raise SourceError(
                    f"{operation} failed for {len(failed)} messages: {failed[0].code} {failed[0].message}".strip()
                )
            entries = {failure.id: entries[failure.id] for failure in failed}
            await asyncio.sleep(pause)
            pause *= 2

    async def _call(self, operation: str, given: dict[str, Any], kind: type[T], seconds: float = CALL_SECONDS) -> T:
        try:
            answer = await self._client.call(operation, given, timeout_seconds=seconds)
        except SqsFailure as failure:
            raise SourceError(str(failure), permanent=failure.permanent) from None
        try:
            return read_answer(answer, kind)
        except ValueError:
            raise SourceError(f"the server has answered {operation} with something that is not of SQS") from None


class SqsKind:
    """The kind `sqs`, on one replica. The transport stays its owner's."""

    def __init__(self, egress: EgressPolicy, transport: Transport) -> None:
        self._egress = egress
        self._transport = transport

    def check(self, definition: SourceDefinition) -> None:
        check_sqs(self._egress, definition.queue_url or "", definition.endpoint_url, definition.credentials)

    def open(self, definition: SourceDefinition, name: str, tenant: str) -> SqsSource:
        client = SqsClient(
            self._transport,
            definition.queue_url or "",
            definition.region or "",
            definition.endpoint_url,
            definition.credentials or None,
            tenant=tenant,
        )
        return SqsSource(client, definition.complete.visibility_seconds or 0)

    async def aclose(self) -> None:
        """It owns nothing."""
