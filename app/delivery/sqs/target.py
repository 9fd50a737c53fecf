"""Delivery to a queue of SQS: each task becomes one message, sent by one signed request.

The payload is the body of the message. What a webhook has as headers, a message has as attributes, of which SQS takes ten at most;
so the task's own headers are one of them, as a JSON object. The message of a FIFO queue is deduplicated by the task's id: if an
answer is lost, the next attempt within five minutes adds none.
"""

import asyncio
import base64
import hashlib
import re
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any, cast

import msgspec

from app.delivery.carried import carried_by
from app.delivery.kinds import Call, Sending
from app.delivery.sqs.client import SqsClient, SqsFailure, check_sqs, failure_of, read_answer
from app.delivery.sqs.credentials import CredentialsError
from app.delivery.webhook.connection import Reply
from app.delivery.webhook.egress import EgressPolicy
from app.delivery.webhook.errors import DeliveryError
from app.delivery.webhook.requests import headers_of
from app.delivery.webhook.transport import Request, Starting, Transport
from app.domain.answers import MAX_RESULT_BYTES, Answer, NoAnswer
from app.domain.bridges import AwsCredentials, SqsAddress
from app.domain.handlers import HIDDEN, HandlerDefinition

OPERATION = "SendMessage"
MAX_MESSAGE_BYTES = 1_048_576
"""The most that SQS takes: the body, and the names, types and values of the attributes."""
EMPTY, TOO_LARGE = 400, 413
"""Shown as the status of a message that is not even sent, because SQS would never take it."""

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_GROUP = re.compile(r"[\x21-\x7e]{1,128}")
_UNFIT = re.compile(r"must be shorter than|shorter than \d+ bytes", re.IGNORECASE)
_NOT_SHOWN = ("authorization", "x-amz-security-token", "x-amz-date")


class SqsQueues:
    """The delivery kind `sqs`. The transport is closed by who made it."""

    def __init__(self, egress: EgressPolicy, transport: Transport) -> None:
        self._egress = egress
        self._transport = transport

    def check(self, definition: HandlerDefinition) -> None:
        check_sqs(self._egress, definition.queue_url or "", definition.endpoint_url, definition.credentials)

    def send(self, call: Call, now: datetime, ended: Callable[[Answer | NoAnswer | Exception], None]) -> Sending:
        address, client = _address(call), self._client(call)
        message = message_of(call, address)
        if (answer := _never_taken(message)) is not None:
            return asyncio.get_running_loop().call_soon(ended, answer)
        credentials = client.credentials.known()
        if credentials is None:
            return Starting(partial(self._start, client, message, call, now, ended), ended)
        try:
            request = _request(client, message, credentials, call, now)
        except DeliveryError as error:
            return asyncio.get_running_loop().call_soon(ended, NoAnswer(error.outcome, error.detail))
        return self._transport.send(request, lambda reply: ended(answer_of(reply)))

    async def _start(
        self,
        client: SqsClient,
        message: dict[str, Any],
        call: Call,
        now: datetime,
        ended: Callable[[Answer | NoAnswer | Exception], None],
    ) -> Sending:
        """Send a message when the credentials of the replica are known. Raises DeliveryError."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + call.timeout_seconds
        try:
            async with asyncio.timeout_at(deadline):
                credentials = await client.credentials.get()
        except CredentialsError as error:
            raise DeliveryError("failed", str(error)) from None
        except TimeoutError:
            raise DeliveryError("timeout", "the usual AWS chain of credentials did not answer in time") from None
        request = _request(client, message, credentials, call, now)
        request = request._replace(timeout_seconds=deadline - loop.time())  # one deadline for both
        return self._transport.send(request, lambda reply: ended(answer_of(reply)))

    def preview(self, call: Call, now: datetime) -> dict[str, Any]:
        client = self._client(call)
        request = _request(client, message_of(call, _address(call)), AwsCredentials(HIDDEN, HIDDEN), call, now)
        headers = {name: value for name, value in headers_of(request.head).items() if name not in _NOT_SHOWN}
        return {"url": client.endpoint, "headers": headers, "body": request.body.decode()}

    async def aclose(self) -> None:
        """Nothing is kept."""

    def _client(self, call: Call) -> SqsClient:
        to = _address(call)
        return SqsClient(self._transport, to.queue_url, to.region, to.endpoint_url, to.credentials, tenant=call.tenant)


def message_of(call: Call, address: SqsAddress) -> dict[str, Any]:
    """Return what SendMessage is given for a task, but for the queue."""
    if call.options.binary:
        body = base64.b64encode(call.payload).decode()
    else:
        # valid in JSON as they stand, but not in a message; in JSON they are only found in strings
        body = _FORBIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", call.payload.decode("utf-8", "replace"))
    carried = carried_by(call) | ({"sluice-encoding": "base64"} if call.options.binary else {})
    message: dict[str, Any] = {
        "MessageBody": body,
        "MessageAttributes": {
            name: {"DataType": "String", "StringValue": _FORBIDDEN.sub("\ufffd", value)}
            for name, value in carried.items()
        },
    }
    group = _group_of(call, address)
    if group is not None:
        message["MessageGroupId"] = group
    if address.fifo:
        message["MessageDeduplicationId"] = call.task_id
    return message


def _group_of(call: Call, address: SqsAddress) -> str | None:
    """Return the MessageGroupId; None for a queue that needs none.

    Tasks without a key are a group each, if groups come from keys; otherwise a FIFO queue keeps the order of all messages.
    """
    if address.group_id_from is None:
        return call.queue if address.fifo else None
    key = call.options.key
    if key is None:
        return call.task_id if address.fifo else None
    return key if _GROUP.fullmatch(key) else hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def _never_taken(message: dict[str, Any]) -> Answer | None:
    """Return what is wrong with a message that need not be sent, because SQS takes none like it."""
    if not message["MessageBody"]:
        return _unsent(EMPTY, "the payload is empty, and SQS takes no empty message")
    size = len(message["MessageBody"].encode())
    for name, attribute in message["MessageAttributes"].items():
        size += len(name) + len(attribute["DataType"]) + len(attribute["StringValue"].encode())
    if size <= MAX_MESSAGE_BYTES:
        return None
    return _unsent(
        TOO_LARGE, f"the message has {size:,} bytes with its attributes, and SQS takes {MAX_MESSAGE_BYTES:,}"
    )


def _unsent(status: int, problem: str) -> Answer:
    return Answer(status, {}, b"", error=f"{problem}: nothing was sent", fatal=True, unsent=True)


def _request(
    client: SqsClient, message: dict[str, Any], credentials: AwsCredentials, call: Call, now: datetime
) -> Request:
    return client.request(OPERATION, message, credentials, now, call.timeout_seconds, max_reply_bytes=MAX_RESULT_BYTES)


def answer_of(reply: Reply | Exception) -> Answer | NoAnswer | Exception:
    """Return what SQS's answer means in the terms of domain/outcomes.py."""
    if isinstance(reply, Exception | NoAnswer):
        return reply
    if reply.status == 200:
        return _sent(reply)
    failure = failure_of(OPERATION, reply)
    if not failure.code and reply.status < 400:
        return NoAnswer("failed", str(failure))
    headers = {name: value for name, value in reply.headers.items() if name == "retry-after"}
    status = 429 if failure.throttled else 400 if reply.status == 410 else reply.status
    return Answer(status, headers, reply.body, reply.truncated, error=_words(failure), fatal=_is_unfit(failure))


class _Sent(msgspec.Struct, rename={"message_id": "MessageId"}):
    message_id: str


def _sent(reply: Answer) -> Answer | NoAnswer:
    try:
        message_id = read_answer(reply.body, _Sent).message_id
    except ValueError:
        return NoAnswer("failed", f"the server answered {OPERATION} with something that is not of SQS")
    return Answer(200, {}, message_id.encode("utf-8", "replace"))


def _is_unfit(failure: SqsFailure) -> bool:
    """Return whether the message can never be sent: it is longer than the queue takes, or has characters that SQS does not."""
    return failure.code == "InvalidMessageContents" or bool(_UNFIT.search(str(failure)))


def _words(failure: SqsFailure) -> str:
    if failure.code in ("AccessDenied", "AccessDeniedException"):
        return f"{failure}; the credentials need sqs:SendMessage on the queue"
    return str(failure)


def _address(call: Call) -> SqsAddress:
    return cast(SqsAddress, call.address)
