"""What the operations of SQS take: names, types and required members as AWS's service model has them, ranges as its API reference.

Tests compare all of it with botocore's service model. What a member means is checked where it is used, and so is all that an entry
of a batch contains, because a bad entry fails alone.
"""

import re
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct, field

from app.compat.sqs.errors import SqsError

MAX_ENTRIES = 10
MAX_ENTRY_ID = 80
_ENTRY_ID = re.compile(rf"[A-Za-z0-9_-]{{1,{MAX_ENTRY_ID}}}")

Delay = Annotated[int, Meta(ge=0, le=900)]
Visibility = Annotated[int, Meta(ge=0, le=43_200)]
Wait = Annotated[int, Meta(ge=0, le=20)]
Messages = Annotated[int, Meta(ge=1, le=10)]
Results = Annotated[int, Meta(ge=1, le=1_000)]
MoveTasks = Annotated[int, Meta(ge=1, le=10)]
PerSecond = Annotated[int, Meta(ge=1, le=500)]
_RANGES = {
    "DelaySeconds": "DelaySeconds must be >= 0 and <= 900.",
    "VisibilityTimeout": "Must be between 0 and 43200, if provided.",
    "WaitTimeSeconds": "Must be >= 0 and <= 20, if provided.",
    "MaxNumberOfMessages": "Must be between 1 and 10, if provided.",
    "MaxResults": "Must be an integer within the documented range.",
    "MaxNumberOfMessagesPerSecond": "Must be between 1 and 500, if provided.",
}


class _Input(Struct, kw_only=True, rename="pascal"):
    """Unknown members are ignored, as AWS does: newer SDKs may send some. A member that is null counts as absent."""


class AttributeValue(_Input):
    """The value of a message attribute or of a message system attribute."""

    data_type: str
    string_value: str | None = None
    binary_value: str | None = None
    """As sent: base64."""
    string_list_values: list[str] | None = None
    binary_list_values: list[str] | None = None


Attributes = dict[str, str]
MessageAttributes = dict[str, AttributeValue]


class OfQueue(_Input):
    queue_url: str


class AddPermission(OfQueue):
    label: str
    aws_account_ids: list[str] = field(name="AWSAccountIds")
    actions: list[str]


class CancelMessageMoveTask(_Input):
    task_handle: str


class ChangeMessageVisibility(OfQueue):
    receipt_handle: str
    visibility_timeout: Visibility


class VisibilityEntry(_Input):
    id: str
    receipt_handle: str
    visibility_timeout: int | None = None


class ChangeMessageVisibilityBatch(OfQueue):
    entries: list[VisibilityEntry]


class CreateQueue(_Input):
    queue_name: str
    attributes: Attributes | None = None
    tags: dict[str, str] | None = field(default=None, name="tags")


class DeleteMessage(OfQueue):
    receipt_handle: str


class DeleteEntry(_Input):
    id: str
    receipt_handle: str


class DeleteMessageBatch(OfQueue):
    entries: list[DeleteEntry]


class DeleteQueue(OfQueue):
    pass


class GetQueueAttributes(OfQueue):
    attribute_names: list[str] | None = None


class GetQueueUrl(_Input):
    queue_name: str
    queue_owner_aws_account_id: str | None = field(default=None, name="QueueOwnerAWSAccountId")


class ListDeadLetterSourceQueues(OfQueue):
    next_token: str | None = None
    max_results: Results | None = None


class ListMessageMoveTasks(_Input):
    source_arn: str
    max_results: MoveTasks | None = None


class ListQueueTags(OfQueue):
    pass


class ListQueues(_Input):
    queue_name_prefix: str | None = None
    next_token: str | None = None
    max_results: Results | None = None


class PurgeQueue(OfQueue):
    pass


class ReceiveMessage(OfQueue):
    attribute_names: list[str] | None = None
    message_system_attribute_names: list[str] | None = None
    message_attribute_names: list[str] | None = None
    max_number_of_messages: Messages | None = None
    visibility_timeout: Visibility | None = None
    wait_time_seconds: Wait | None = None
    receive_request_attempt_id: str | None = None


class RemovePermission(OfQueue):
    label: str


class _Message(_Input):
    message_body: str
    message_attributes: MessageAttributes | None = None
    message_system_attributes: MessageAttributes | None = None
    message_deduplication_id: str | None = None
    message_group_id: str | None = None


class SendMessage(_Message, kw_only=True):
    queue_url: str
    delay_seconds: Delay | None = None


class SendEntry(_Message, kw_only=True):
    id: str
    delay_seconds: int | None = None


class SendMessageBatch(OfQueue):
    entries: list[SendEntry]


class SetQueueAttributes(OfQueue):
    attributes: Attributes


class StartMessageMoveTask(_Input):
    source_arn: str
    destination_arn: str | None = None
    max_number_of_messages_per_second: PerSecond | None = None


class TagQueue(OfQueue):
    tags: dict[str, str]


class UntagQueue(OfQueue):
    tag_keys: list[str]


INPUTS: dict[str, type[Struct]] = {
    kind.__name__: kind
    for kind in (
        AddPermission,
        CancelMessageMoveTask,
        ChangeMessageVisibility,
        ChangeMessageVisibilityBatch,
        CreateQueue,
        DeleteMessage,
        DeleteMessageBatch,
        DeleteQueue,
        GetQueueAttributes,
        GetQueueUrl,
        ListDeadLetterSourceQueues,
        ListMessageMoveTasks,
        ListQueueTags,
        ListQueues,
        PurgeQueue,
        ReceiveMessage,
        RemovePermission,
        SendMessage,
        SendMessageBatch,
        SetQueueAttributes,
        StartMessageMoveTask,
        TagQueue,
        UntagQueue,
    )
}
"""The input of each operation, by its name."""

Given = TypeVar("Given", bound=Struct)
_MISSING = re.compile(r"missing required field `(\w+)`")
_OUT_OF_RANGE = re.compile(r"Expected `int` [<>]= .* - at `\$\.(\w+)`")


def read_input(body: bytes, kind: type[Given]) -> Given:
    """Read the body of a request. Raises SqsError: MalformedInput, MissingParameter, InvalidParameterValue."""
    try:
        try:
            return msgspec.json.decode(body, type=kind)
        except msgspec.ValidationError as error:
            # found before the rest was read, which need not be JSON
            raise _fault(str(error), msgspec.json.decode(body), kind) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise SqsError("MalformedInput", "The body is not valid JSON.") from None


def _fault(message: str, given: Any, kind: type[Struct]) -> SqsError:
    if isinstance(given, dict) and None in given.values():  # null counts as absent
        try:
            msgspec.convert({name: value for name, value in given.items() if value is not None}, kind)
        except msgspec.ValidationError as error:
            message = str(error)
    if missing := _MISSING.search(message):
        return SqsError("MissingParameter", f"The request must contain the parameter {missing[1]}.")
    if (beyond := _OUT_OF_RANGE.fullmatch(message)) and beyond[1] in _RANGES:
        name = beyond[1]
        return SqsError(
            "InvalidParameterValue", f"Value {given[name]} for parameter {name} is invalid. Reason: {_RANGES[name]}"
        )
    return SqsError("MalformedInput", message)


def check_entries(entries: Sequence[Any], operation: str) -> None:
    """Check the number of a batch's entries and their ids. Raises SqsError: EmptyBatchRequest, TooManyEntriesInBatchRequest,
    InvalidBatchEntryId, BatchEntryIdsNotDistinct."""
    if not entries:
        raise SqsError("EmptyBatchRequest", f"There should be at least one {operation}RequestEntry in the request.")
    if len(entries) > MAX_ENTRIES:
        raise SqsError(
            "TooManyEntriesInBatchRequest",
            f"Maximum number of entries per request are {MAX_ENTRIES}. You have sent {len(entries)}.",
        )
    seen: set[str] = set()
    for entry in entries:
        if not _ENTRY_ID.fullmatch(entry.id):
            raise SqsError(
                "InvalidBatchEntryId",
                "A batch entry id can only contain alphanumeric characters, hyphens and underscores. "
                f"It can be at most {MAX_ENTRY_ID} letters long.",
            )
        if entry.id in seen:
            raise SqsError("BatchEntryIdsNotDistinct", f"Id {entry.id} repeated.")
        seen.add(entry.id)
