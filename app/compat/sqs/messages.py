"""Operations on messages."""

import base64
import binascii
import hashlib
import re
import struct
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from app.compat.sqs import attributes as attrs
from app.compat.sqs import model
from app.compat.sqs.calls import Call, Operation
from app.compat.sqs.errors import SqsError, error_of
from app.domain.errors import Refusal
from app.domain.messages import Attribute, md5_of, md5_of_attributes, sequence_number, size_of
from app.service import messages
from app.service.messages import MAX_HIDDEN_SECONDS, Outgoing, Received, Sent
from app.store.messages import Handle
from app.store.queues import QueueRow

MAX_ATTRIBUTES = 10
MAX_NUMBER = 200
"""Characters; SQS keeps 38 digits."""
MAX_TRACE_HEADER = 1_024
MAX_BATCH_BYTES = 1_048_576
INVALID_HANDLE = "The input receipt handle is invalid."
SYSTEM_ATTRIBUTES = {
    "ApproximateFirstReceiveTimestamp",
    "ApproximateReceiveCount",
    "AWSTraceHeader",
    "DeadLetterQueueSourceArn",
    "MessageDeduplicationId",
    "MessageGroupId",
    "SenderId",
    "SentTimestamp",
    "SequenceNumber",
}
_HANDLE = struct.Struct(">q16s16sQ")
"""The queue, the task, the token, and when it was received, in microseconds."""
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,256}")
_TYPE = re.compile(r"(String|Number|Binary)(\..{1,249})?")
_GROUP = re.compile(r"[A-Za-z0-9!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]{1,128}")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_NO_TEXT = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


async def send_message(call: Call, given: model.SendMessage) -> dict[str, Any]:
    name = call.queue_name(given.queue_url)
    row = await messages.queue_of(call.core, call.caller, name)
    outgoing = _outgoing(call, row, given, given.delay_seconds)
    (sent,) = await messages.send(call.core, call.caller, name, [outgoing], call.trace)
    if isinstance(sent, Refusal):
        raise sent
    return _sent(row, outgoing, sent)


async def send_message_batch(call: Call, given: model.SendMessageBatch) -> dict[str, Any]:
    name = call.queue_name(given.queue_url)
    model.check_entries(given.entries, "SendMessageBatch")
    row = await messages.queue_of(call.core, call.caller, name)
    size = sum(size_of(entry.message_body, _plain_attributes(entry.message_attributes)) for entry in given.entries)
    if size > MAX_BATCH_BYTES:
        raise SqsError(
            "BatchRequestTooLong",
            f"Batch requests cannot be longer than {MAX_BATCH_BYTES} bytes. You have sent {size} bytes.",
        )
    good: list[tuple[str, Outgoing]] = []
    failed: list[dict[str, Any]] = []
    for entry in given.entries:
        _fifo(row, entry, None)  # what a FIFO queue needs is missing: the whole request fails
    for entry in given.entries:
        try:
            good.append((entry.id, _outgoing(call, row, entry, entry.delay_seconds)))
        except SqsError as error:
            failed.append(_failed(entry.id, error))
    sent = await messages.send(call.core, call.caller, name, [outgoing for _, outgoing in good], call.trace)
    successful = []
    for (entry_id, outgoing), one in zip(good, sent, strict=True):
        if isinstance(one, Refusal):
            failed.append(_failed(entry_id, error_of(one)))
        else:
            successful.append({"Id": entry_id, **_sent(row, outgoing, one)})
    return {"Successful": successful, "Failed": failed}


def _failed(entry_id: str, error: SqsError) -> dict[str, Any]:
    return {"Id": entry_id, "SenderFault": error.sender_fault, "Code": error.kind.code, "Message": error.message}


def _sent(row: QueueRow, outgoing: Outgoing, sent: Sent) -> dict[str, Any]:
    found = {"MessageId": sent.task_id, "MD5OfMessageBody": md5_of(outgoing.body)}
    if outgoing.attributes:
        found["MD5OfMessageAttributes"] = md5_of_attributes(outgoing.attributes)
    if outgoing.trace_header is not None:
        header = Attribute("String", outgoing.trace_header)
        found["MD5OfMessageSystemAttributes"] = md5_of_attributes({"AWSTraceHeader": header})
    if row.fifo:
        found["SequenceNumber"] = sequence_number(sent.task_id)
    return found


def _outgoing(call: Call, row: QueueRow, given: model.SendMessage | model.SendEntry, delay: int | None) -> Outgoing:
    """Check a message by itself. Raises SqsError."""
    body = given.message_body
    if not body:
        raise SqsError("MissingParameter", "The request must contain the parameter MessageBody.")
    if _NO_TEXT.search(body):
        raise SqsError("InvalidMessageContents", "Invalid characters found in the message body.")
    attributes = _attributes(given.message_attributes)
    size, most = size_of(body, attributes), min(row.sqs.maximum_message_size, call.core.max_payload_bytes)
    if size > most:
        raise _invalid(f"One or more parameters are invalid. Reason: Message must be shorter than {most} bytes.")
    if delay is not None and not 0 <= delay <= 900:
        raise _invalid(
            f"Value {delay} for parameter DelaySeconds is invalid. Reason: DelaySeconds must be >= 0 and <= 900."
        )
    group, deduplication = _fifo(row, given, delay)
    seconds = row.sqs.delay_seconds if delay is None else delay
    return Outgoing(body, attributes, seconds, group, deduplication, _trace_header(given.message_system_attributes))


def _trace_header(given: model.MessageAttributes | None) -> str | None:
    """Raises SqsError."""
    if not given:
        return None
    for name in given:
        if name != "AWSTraceHeader":
            raise _invalid(f"Message system attribute name '{name[:100]}' is invalid.")
    value = given["AWSTraceHeader"]
    header = value.string_value
    if value.data_type != "String" or not header or len(header) > MAX_TRACE_HEADER or _NO_TEXT.search(header):
        raise _invalid(
            f"The message system attribute 'AWSTraceHeader' must be a text of 1 to {MAX_TRACE_HEADER} characters."
        )
    return header


def _fifo(
    row: QueueRow, given: model.SendMessage | model.SendEntry, delay: int | None
) -> tuple[str | None, str | None]:
    """Return the group and the deduplication id of a message. Raises SqsError."""
    group, deduplication = given.message_group_id, given.message_deduplication_id
    for name, value in (("MessageGroupId", group), ("MessageDeduplicationId", deduplication)):
        if value is not None and not _GROUP.fullmatch(value):
            raise _invalid(
                f"Value {value[:200]} for parameter {name} is invalid. Reason: {name} can only include alphanumeric and"
                " punctuation characters. 1 to 128 in length."
            )
    if not row.fifo:
        return group, deduplication
    if delay:
        raise _invalid(
            f"Value {delay} for parameter DelaySeconds is invalid. Reason: The request include parameter that is not valid for"
            " this queue type."
        )
    if group is None:
        raise SqsError("MissingParameter", "The request must contain the parameter MessageGroupId.")
    if deduplication is None:
        if not row.sqs.content_based_deduplication:
            raise _invalid(
                "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly"
            )
        deduplication = _sha256(given.message_body)
    return group, deduplication


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _invalid(message: str) -> SqsError:
    return SqsError("InvalidParameterValue", message)


def _plain_attributes(given: model.MessageAttributes | None) -> dict[str, Attribute]:
    """Return attributes without a check, to count their bytes."""
    found = {}
    for name, value in (given or {}).items():
        try:
            base64.b64decode(value.binary_value or "", validate=True)
        except (binascii.Error, ValueError):
            continue
        found[name] = Attribute(value.data_type, value.string_value, value.binary_value)
    return found


def _attributes(given: model.MessageAttributes | None) -> dict[str, Attribute]:
    """Raises SqsError."""
    if not given:
        return {}
    if len(given) > MAX_ATTRIBUTES:
        raise _invalid(f"Number of message attributes [{len(given)}] exceeds the allowed maximum [{MAX_ATTRIBUTES}].")
    return {name: _attribute(name, value) for name, value in given.items()}


def _attribute(name: str, value: model.AttributeValue) -> Attribute:
    lowered = name.lower()
    if (
        not _NAME.fullmatch(name)
        or lowered.startswith(("aws.", "amazon."))
        or "." in (name[0], name[-1])
        or ".." in name
    ):
        raise _invalid(
            f"The message attribute name '{name[:256]}' is invalid. Attribute name can contain A-Z, a-z, 0-9, underscore (_),"
            " hyphen (-), and period (.) characters."
        )
    if not value.data_type:
        raise _invalid(f"The message attribute '{name}' must contain non-empty message attribute value.")
    kind = None if _NO_TEXT.search(value.data_type) else _TYPE.fullmatch(value.data_type)
    if kind is None:
        raise _invalid(
            f"The message attribute '{name}' has an invalid message attribute type, the set of supported type prefixes is"
            " Binary, Number, and String."
        )
    given = value.binary_value if kind[1] == "Binary" else value.string_value
    if not given:
        raise _invalid(
            f"The message attribute '{name}' must contain non-empty message attribute value for message attribute type"
            f" '{value.data_type}'."
        )
    if kind[1] == "Binary":
        try:
            base64.b64decode(given, validate=True)
        except (binascii.Error, ValueError):
            raise SqsError("MalformedInput", f"The value of the message attribute '{name}' is not base64.") from None
        return Attribute(value.data_type, binary=given)
    if _NO_TEXT.search(given):
        raise _invalid(f"Invalid characters found in the message attribute '{name}'.")
    if kind[1] == "Number" and (len(given) > MAX_NUMBER or not _NUMBER.fullmatch(given)):
        raise _invalid(f"Can't cast the value of message (user) attribute '{name}' to a number.")
    return Attribute(value.data_type, given)


async def receive_message(call: Call, given: model.ReceiveMessage) -> dict[str, Any]:
    system = {*(given.attribute_names or ()), *(given.message_system_attribute_names or ())}
    attrs.asked_for(sorted(system - SYSTEM_ATTRIBUTES))  # old SDKs take the names of a queue's attributes here
    found = await messages.receive(
        call.core,
        call.caller,
        call.queue_name(given.queue_url),
        most=given.max_number_of_messages or 1,
        wait_seconds=given.wait_time_seconds,
        visibility_seconds=given.visibility_timeout,
        gone=call.gone,
    )
    if not found:
        return {}
    first: dict[str, float] = {}
    if not system.isdisjoint(("All", "ApproximateFirstReceiveTimestamp")):
        first = await messages.first_receives(call.core, call.caller, found)
    return {"Messages": [_shown(call, one, system, first, given.message_attribute_names or ()) for one in found]}


def _shown(
    call: Call, received: Received, system: set[str], first: Mapping[str, float], wanted: Sequence[str]
) -> dict[str, Any]:
    task, carried = received.task, received.carried
    origin = None if carried is None else carried.origin
    shown: dict[str, Any] = {
        "MessageId": task.task_id if origin is None else origin.id,
        "ReceiptHandle": _written_handle(received.handle),
        "MD5OfBody": md5_of(received.body),
        "Body": received.body,
    }
    if system and (named := _system_attributes(call, received, system, first)):
        shown["Attributes"] = named
    chosen = {name: value for name, value in received.attributes.items() if _is_wanted(name, wanted)}
    if chosen:
        shown["MessageAttributes"] = {name: _shown_attribute(value) for name, value in chosen.items()}
        shown["MD5OfMessageAttributes"] = md5_of_attributes(chosen)
    return shown


def _system_attributes(call: Call, received: Received, system: set[str], first: Mapping[str, float]) -> dict[str, str]:
    task, carried = received.task, received.carried
    origin = None if carried is None else carried.origin
    created = int(task.created_at.timestamp() * 1000)
    found = {
        "SenderId": call.account if carried is None or carried.sender is None else carried.sender,
        "SentTimestamp": str(created if origin is None else origin.sent_ms),
        "ApproximateReceiveCount": str(task.attempt + (0 if origin is None else origin.received)),
    }
    if task.task_id in first:
        found["ApproximateFirstReceiveTimestamp"] = str(int(first[task.task_id] * 1000))
    if task.options.key is not None:
        found |= {"MessageGroupId": task.options.key}
    if carried is not None and carried.deduplication_id is not None:
        found |= {"MessageDeduplicationId": carried.deduplication_id, "SequenceNumber": sequence_number(task.task_id)}
    if carried is not None and carried.trace_header is not None:
        found |= {"AWSTraceHeader": carried.trace_header}
    if origin is not None:
        found |= {"DeadLetterQueueSourceArn": call.arn(origin.queue)}
    return found if "All" in system else {name: value for name, value in found.items() if name in system}


def _is_wanted(name: str, wanted: Sequence[str]) -> bool:
    return any(
        one in ("All", ".*", name) or (one.endswith(".*") and name.startswith(one.removesuffix(".*"))) for one in wanted
    )


def _shown_attribute(value: Attribute) -> dict[str, str]:
    if value.binary is not None:
        return {"DataType": value.data_type, "BinaryValue": value.binary}
    return {"DataType": value.data_type, "StringValue": value.text or ""}


async def delete_message(call: Call, given: model.DeleteMessage) -> None:
    row = await messages.queue_of(call.core, call.caller, call.queue_name(given.queue_url))
    await messages.delete(call.core, call.caller, row, [_read_handle(row, given.receipt_handle)])


async def delete_message_batch(call: Call, given: model.DeleteMessageBatch) -> dict[str, Any]:
    name = call.queue_name(given.queue_url)
    model.check_entries(given.entries, "DeleteMessageBatch")
    row = await messages.queue_of(call.core, call.caller, name)
    good, failed = _handles(row, given.entries)
    await messages.delete(call.core, call.caller, row, list(good.values()))
    return {"Successful": [{"Id": entry_id} for entry_id in good], "Failed": failed}


async def change_message_visibility(call: Call, given: model.ChangeMessageVisibility) -> None:
    row = await messages.queue_of(call.core, call.caller, call.queue_name(given.queue_url))
    handle = _read_handle(row, given.receipt_handle)
    _check_total(call, handle, given.visibility_timeout)
    (acted,) = await messages.hide(call.core, row, [handle], [given.visibility_timeout])
    if not acted:
        raise _not_available(given.receipt_handle)


async def change_message_visibility_batch(call: Call, given: model.ChangeMessageVisibilityBatch) -> dict[str, Any]:
    name = call.queue_name(given.queue_url)
    model.check_entries(given.entries, "ChangeMessageVisibilityBatch")
    row = await messages.queue_of(call.core, call.caller, name)
    good, failed = _handles(row, given.entries)
    seconds: dict[str, int] = {}
    for entry in given.entries:
        timeout = row.sqs.visibility_timeout if entry.visibility_timeout is None else entry.visibility_timeout
        if entry.id not in good:
            continue
        try:
            if not 0 <= timeout <= MAX_HIDDEN_SECONDS:
                raise _invalid(
                    f"Value {timeout} for parameter VisibilityTimeout is invalid. Reason: Must be between 0 and 43200."
                )
            _check_total(call, good[entry.id], timeout)
        except SqsError as error:
            del good[entry.id]
            failed.append(_failed(entry.id, error))
        else:
            seconds[entry.id] = timeout
    acted = await messages.hide(call.core, row, list(good.values()), list(seconds.values())) if good else []
    receipts = {entry.id: entry.receipt_handle for entry in given.entries}
    successful = []
    for entry_id, ok in zip(seconds, acted, strict=True):
        if ok:
            successful.append({"Id": entry_id})
        else:
            failed.append(_failed(entry_id, _not_available(receipts[entry_id])))
    return {"Successful": successful, "Failed": failed}


def _handles(
    row: QueueRow, entries: Sequence[model.DeleteEntry] | Sequence[model.VisibilityEntry]
) -> tuple[dict[str, Handle], list[dict[str, Any]]]:
    good, failed = {}, []
    for entry in entries:
        try:
            good[entry.id] = _read_handle(row, entry.receipt_handle)
        except SqsError as error:
            # in other words than for a single one, as SQS has it
            why = f'The input receipt handle "{entry.receipt_handle[:200]}" is not a valid receipt handle.'
            failed.append(_failed(entry.id, SqsError(error.code, why)))
    return good, failed


def _not_available(receipt: str) -> SqsError:
    return _invalid(
        f"Value {receipt[:200]} for parameter ReceiptHandle is invalid. Reason: Message does not exist or is not available for"
        " visibility timeout change."
    )


def _written_handle(handle: Handle) -> str:
    task, token = uuid.UUID(handle.task_id).bytes, uuid.UUID(handle.token).bytes
    packed = _HANDLE.pack(handle.queue_id, task, token, int(handle.received_at * 1e6))
    return base64.urlsafe_b64encode(packed).decode()


def _read_handle(row: QueueRow, text: str) -> Handle:
    """Raises SqsError (ReceiptHandleIsInvalid)."""
    try:
        packed = base64.b64decode(text.encode("ascii"), b"-_", validate=True)
        queue_id, task_id, token, received_at = _HANDLE.unpack(packed)
    except (UnicodeEncodeError, binascii.Error, ValueError, struct.error):
        queue_id = None
    if queue_id != row.id:
        raise SqsError("ReceiptHandleIsInvalid", INVALID_HANDLE)
    return Handle(row.id, str(uuid.UUID(bytes=task_id)), str(uuid.UUID(bytes=token)), received_at / 1e6)


def _check_total(call: Call, handle: Handle, seconds: int) -> None:
    """Raises SqsError (InvalidParameterValue) if the message would be hidden for more than twelve hours after it was received."""
    if seconds + int(call.core.clock.seconds() - handle.received_at) > MAX_HIDDEN_SECONDS:
        raise _invalid(
            f"Value {seconds} for parameter VisibilityTimeout is invalid. Reason: Total VisibilityTimeout for the message is"
            " beyond the limit [43200 seconds]."
        )


OPERATIONS: dict[str, Operation] = {
    "ChangeMessageVisibility": Operation(model.ChangeMessageVisibility, "use", change_message_visibility),
    "ChangeMessageVisibilityBatch": Operation(
        model.ChangeMessageVisibilityBatch, "use", change_message_visibility_batch
    ),
    "DeleteMessage": Operation(model.DeleteMessage, "use", delete_message),
    "DeleteMessageBatch": Operation(model.DeleteMessageBatch, "use", delete_message_batch),
    "ReceiveMessage": Operation(model.ReceiveMessage, "use", receive_message),
    "SendMessage": Operation(model.SendMessage, "use", send_message),
    "SendMessageBatch": Operation(model.SendMessageBatch, "use", send_message_batch),
}
"""By name."""
