"""Operations on queues."""

import re
from collections.abc import Callable
from typing import Any, Final

from msgspec import UNSET, structs

from app.compat.sqs import attributes as attrs
from app.compat.sqs import model, moves, policies
from app.compat.sqs.calls import Call, Operation
from app.compat.sqs.errors import SqsError, queue_does_not_exist
from app.domain.errors import Refusal
from app.domain.names import is_name
from app.domain.sqs import QueueAttributes, Redrive, new_definition, with_redrive
from app.domain.texts import text_problem
from app.edge.pages import binding, next_cursor, position_of
from app.service import sqs
from app.service.sqs import SqsQueue

MAX_PAGE: Final = 1_000
MAX_TAGS: Final = 50
MAX_TAG_KEY: Final = 128
MAX_TAG_VALUE: Final = 256


async def create_queue(call: Call, given: model.CreateQueue) -> dict[str, Any]:
    """An existing queue is answered with its URL, unless an attribute that is given has another value there."""
    name, sent = given.queue_name, attrs.read_attributes(call, given.attributes or {})
    fifo = bool(sent.fifo)
    attrs.check_name(name, fifo=fifo)
    redrive = None if sent.redrive is UNSET else sent.redrive
    await _check_redrive(call, name, redrive, fifo=fifo)
    wanted = attrs.applied(QueueAttributes(tags=_checked_tags(name, given.tags or {})), sent, fifo=fifo)
    definition = new_definition(name, redrive)
    existing = await sqs.create(call.core, call.caller, name, definition, wanted)
    if existing is not None:
        now = attrs.shown(call, name, existing.definition, existing.attributes, fifo=existing.fifo)
        differing = attrs.differing(now, attrs.shown(call, name, definition, wanted, fifo=fifo), sent)
        if differing is not None:
            raise SqsError(
                "QueueNameExists",
                f"A queue already exists with the same name and a different value for attribute {differing}",
            )
    return {"QueueUrl": call.queue_url(name)}


async def _check_redrive(call: Call, name: str, redrive: Redrive | None, *, fifo: bool) -> None:
    """Check the dead-letter queue of a queue. Raises SqsError (InvalidParameterValue)."""
    if redrive is None:
        return

    def bad(why: str) -> SqsError:
        shown = attrs.redrive_text(call, redrive)
        return SqsError("InvalidParameterValue", f"Value {shown} for parameter RedrivePolicy is invalid. Reason: {why}")

    if redrive.target == name:
        raise bad("Dead letter target must be another queue.")
    try:
        target = await sqs.find(call.core, call.caller, redrive.target)
    except Refusal as refusal:
        if refusal.code != "queue_not_found":
            raise
        raise bad("Dead letter target does not exist.") from None
    if target.fifo != fifo:
        raise bad("Dead-letter queue must be same type of queue as the source.")


async def delete_queue(call: Call, given: model.DeleteQueue) -> None:
    await sqs.delete(call.core, call.caller, call.queue_name(given.queue_url))


async def purge_queue(call: Call, given: model.PurgeQueue) -> None:
    name = call.queue_name(given.queue_url)
    if not await sqs.empty(call.core, call.caller, name):
        raise SqsError("PurgeQueueInProgress", f"Only one PurgeQueue operation on {name} is allowed every 60 seconds.")


async def get_queue_url(call: Call, given: model.GetQueueUrl) -> dict[str, Any]:
    if given.queue_owner_aws_account_id not in (None, call.account):
        raise queue_does_not_exist()
    await sqs.find(call.core, call.caller, given.queue_name)
    return {"QueueUrl": call.queue_url(given.queue_name)}


async def list_queues(call: Call, given: model.ListQueues) -> dict[str, Any]:
    prefix = given.queue_name_prefix or ""
    if prefix and not is_name(prefix):
        return {}
    bound_to = binding("sqs queues", prefix)
    after = _after(given.next_token, bound_to)
    names, more = await sqs.list_names(call.core, call.caller, prefix, after, given.max_results or MAX_PAGE)
    return _page(call, "QueueUrls", names, bound_to if more and given.max_results else None)


async def list_dead_letter_source_queues(call: Call, given: model.ListDeadLetterSourceQueues) -> dict[str, Any]:
    name = call.queue_name(given.queue_url)
    bound_to = binding("sqs sources", name)
    after = _after(given.next_token, bound_to)
    names, more = await sqs.list_sources(call.core, call.caller, name, after, given.max_results or MAX_PAGE)
    # the member is lower case in the service model, and required
    return {"queueUrls": []} | _page(call, "queueUrls", names, bound_to if more and given.max_results else None)


def _after(token: str | None, bound_to: bytes) -> str | None:
    try:
        return position_of(token, bound_to, is_name)
    except Refusal:
        raise SqsError("InvalidParameterValue", "Invalid or expired next token.") from None


def _page(call: Call, member: str, names: list[str], bound_to: bytes | None) -> dict[str, Any]:
    """Return a page as SQS shows it: an empty list is left out, and `bound_to` is None where no page follows."""
    page: dict[str, Any] = {member: [call.queue_url(name) for name in names]} if names else {}
    if bound_to is not None:
        page["NextToken"] = next_cursor(bound_to, names[-1])
    return page


async def get_queue_attributes(call: Call, given: model.GetQueueAttributes) -> dict[str, Any]:
    asked = attrs.asked_for(given.attribute_names or ())
    queue = await sqs.find(call.core, call.caller, call.queue_name(given.queue_url))
    view = queue.row.view
    found = attrs.shown(call, view.name, queue.definition, queue.attributes, fifo=queue.fifo)
    found["CreatedTimestamp"] = str(int(view.created_at.timestamp()))
    found["LastModifiedTimestamp"] = str(int(view.updated_at.timestamp()))
    if not asked.isdisjoint(attrs.COUNTS):
        counts = await sqs.count(call.core, call.caller, queue)
        found |= {name: str(counts[state]) for name, state in attrs.COUNTS.items()}
    shown = {name: value for name, value in found.items() if name in asked}
    return {"Attributes": shown} if shown else {}


async def set_queue_attributes(call: Call, given: model.SetQueueAttributes) -> None:
    name, sent = call.queue_name(given.queue_url), attrs.read_attributes(call, given.attributes)
    if not given.attributes:
        raise SqsError("MissingParameter", "The request must contain the parameter Attributes.")
    before = await sqs.find(call.core, call.caller, name)
    if sent.fifo is not None and sent.fifo != before.fifo:
        raise SqsError(
            "InvalidAttributeValue",
            "Invalid value for the parameter FifoQueue. Reason: Modifying queue type is not supported.",
        )
    if sent.redrive is not UNSET:
        await _check_redrive(call, name, sent.redrive, fifo=before.fifo)

    def changed(queue: SqsQueue) -> Any:
        definition = queue.definition if sent.redrive is UNSET else with_redrive(queue.definition, sent.redrive)
        return definition, attrs.applied(queue.attributes, sent, fifo=queue.fifo)

    await sqs.change(call.core, call.caller, name, changed)


async def _change(call: Call, url: str, changed: Callable[[QueueAttributes], QueueAttributes]) -> None:
    """Change what the queue with this URL has beside its definition."""
    await sqs.change(
        call.core, call.caller, call.queue_name(url), lambda queue: (queue.definition, changed(queue.attributes))
    )


async def tag_queue(call: Call, given: model.TagQueue) -> None:
    name = call.queue_name(given.queue_url)
    await sqs.find(call.core, call.caller, name)
    if not given.tags:
        raise SqsError("MissingParameter", "The request must contain the parameter Tags.")
    await _change(
        call,
        given.queue_url,
        lambda known: structs.replace(known, tags=_checked_tags(name, known.tags | _checked_tags(name, given.tags))),
    )


async def untag_queue(call: Call, given: model.UntagQueue) -> None:
    await sqs.find(call.core, call.caller, call.queue_name(given.queue_url))
    if not given.tag_keys or not all(1 <= len(key) <= MAX_TAG_KEY for key in given.tag_keys):
        raise SqsError("InvalidParameterValue", f"Tag keys must be between 1 and {MAX_TAG_KEY} characters in length.")
    gone = frozenset(given.tag_keys)
    await _change(
        call,
        given.queue_url,
        lambda known: structs.replace(known, tags={key: text for key, text in known.tags.items() if key not in gone}),
    )


async def list_queue_tags(call: Call, given: model.ListQueueTags) -> dict[str, Any]:
    queue = await sqs.find(call.core, call.caller, call.queue_name(given.queue_url))
    return {"Tags": queue.attributes.tags} if queue.attributes.tags else {}


_TAG = re.compile(r"[\w\s.:/=+@-]*")


def _checked_tags(name: str, tags: dict[str, str]) -> dict[str, str]:
    """Return the tags. Raises SqsError (InvalidParameterValue) if they are not valid, or too many."""
    if len(tags) > MAX_TAGS:
        raise SqsError("InvalidParameterValue", f"Too many tags added for queue {name}.")
    for key, value in tags.items():
        if text_problem(key, MAX_TAG_KEY) is not None:
            raise SqsError(
                "InvalidParameterValue", f"Tag keys must be between 1 and {MAX_TAG_KEY} characters in length."
            )
        if text_problem(value, MAX_TAG_VALUE, empty=True) is not None:
            raise SqsError(
                "InvalidParameterValue", f"Tag values must be between 0 and {MAX_TAG_VALUE} characters in length."
            )
        if not _TAG.fullmatch(key) or not _TAG.fullmatch(value):
            raise SqsError("InvalidParameterValue", "Tags consist of letters, digits, spaces and _ . : / = + - @")
    return tags


async def add_permission(call: Call, given: model.AddPermission) -> None:
    policies.check_permission(given.label, given.aws_account_ids, given.actions)
    arn = call.arn(call.queue_name(given.queue_url))

    def changed(known: QueueAttributes) -> QueueAttributes:
        policy = policies.with_permission(known.policy, arn, given.label, given.aws_account_ids, given.actions)
        return structs.replace(known, policy=policy)

    await _change(call, given.queue_url, changed)


async def remove_permission(call: Call, given: model.RemovePermission) -> None:
    arn = call.arn(call.queue_name(given.queue_url))

    def changed(known: QueueAttributes) -> QueueAttributes:
        return structs.replace(known, policy=policies.without_permission(known.policy, arn, given.label))

    await _change(call, given.queue_url, changed)


OPERATIONS: dict[str, Operation] = moves.OPERATIONS | {
    "AddPermission": Operation(model.AddPermission, "manage", add_permission, sqs.change),
    "CreateQueue": Operation(model.CreateQueue, "manage", create_queue, sqs.create),
    "DeleteQueue": Operation(model.DeleteQueue, "manage", delete_queue, sqs.delete),
    "GetQueueAttributes": Operation(model.GetQueueAttributes, "read", get_queue_attributes),
    "GetQueueUrl": Operation(model.GetQueueUrl, "read", get_queue_url),
    "ListDeadLetterSourceQueues": Operation(model.ListDeadLetterSourceQueues, "read", list_dead_letter_source_queues),
    "ListQueueTags": Operation(model.ListQueueTags, "read", list_queue_tags),
    "ListQueues": Operation(model.ListQueues, "read", list_queues),
    "PurgeQueue": Operation(model.PurgeQueue, "manage", purge_queue, sqs.empty),
    "RemovePermission": Operation(model.RemovePermission, "manage", remove_permission, sqs.change),
    "SetQueueAttributes": Operation(model.SetQueueAttributes, "manage", set_queue_attributes, sqs.change),
    "TagQueue": Operation(model.TagQueue, "manage", tag_queue, sqs.change),
    "UntagQueue": Operation(model.UntagQueue, "manage", untag_queue, sqs.change),
}
"""By name."""
