"""Attributes of queues between the wire, where they are strings, and app.domain.sqs.

Refusals have the words of SQS where these are known. Three things are taken that SQS refuses, because programs that are tested
against other servers send them: a MessageRetentionPeriod of less than a minute, FifoQueue other than true for a standard queue, and
blanks around a name.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from msgspec import UNSET, UnsetType, structs

from app.compat.sqs.calls import Call
from app.compat.sqs.errors import SqsError
from app.domain.errors import Refusal
from app.domain.ijson import parse_ijson
from app.domain.queues import QueueDefinition
from app.domain.sqs import FIFO, QueueAttributes, Redrive, redrive_of
from app.domain.texts import text_problem

MAX_RECEIVES: Final = 1_000
MAX_POLICY: Final = 8_192
MAX_KEY_ID: Final = 2_048
INTEGERS: Final = {
    "DelaySeconds": (0, 900),
    "KmsDataKeyReusePeriodSeconds": (60, 86_400),
    "MaximumMessageSize": (1_024, 1_048_576),
    "MessageRetentionPeriod": (1, 1_209_600),
    "ReceiveMessageWaitTimeSeconds": (0, 20),
    "VisibilityTimeout": (0, 43_200),
}
"""The smallest and the largest value."""
WORDS: Final = {
    "DeduplicationScope": ("queue", "messageGroup"),
    "FifoThroughputLimit": ("perQueue", "perMessageGroupId"),
}
FLAGS: Final = ("ContentBasedDeduplication", "SqsManagedSseEnabled")
DOCUMENTS: Final = ("Policy", "RedriveAllowPolicy")
OF_FIFO: Final = ("ContentBasedDeduplication", "DeduplicationScope", "FifoThroughputLimit")
OF_KMS: Final = ("KmsDataKeyReusePeriodSeconds", "KmsMasterKeyId")
COUNTS: Final = {
    "ApproximateNumberOfMessages": "ready",
    "ApproximateNumberOfMessagesDelayed": "scheduled",
    "ApproximateNumberOfMessagesNotVisible": "running",
}
"""Names and the states of tasks that they count."""
_KEPT: Final = (*INTEGERS, *WORDS, *FLAGS, *DOCUMENTS, "KmsMasterKeyId")
_SETTABLE: Final = frozenset({*_KEPT, "FifoQueue", "RedrivePolicy"})
NAMES: Final = frozenset({*_SETTABLE, *COUNTS, "CreatedTimestamp", "LastModifiedTimestamp", "QueueArn"})
"""Those that GetQueueAttributes takes, beside All."""
_INTEGER = re.compile(r"-?[0-9]{1,10}")


def _field(name: str) -> str:
    """Return the field of QueueAttributes for an attribute."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


FIELDS: Final = {name: _field(name) for name in _KEPT}


@dataclass(frozen=True, slots=True)
class Given:
    """Attributes as read."""

    fields: dict[str, Any]
    """Of QueueAttributes."""
    redrive: Redrive | UnsetType | None = UNSET
    """None: there is to be none."""
    fifo: bool | None = None
    """None: not said."""


def unknown_attribute(name: str) -> SqsError:
    return SqsError("InvalidAttributeName", f"Unknown Attribute {name[:100]}.")


def _bad(name: str, why: str = "") -> SqsError:
    reason = f" Reason: {why}" if why else ""
    return SqsError("InvalidAttributeValue", f"Invalid value for the parameter {name}.{reason}")


def read_attributes(call: Call, attributes: Mapping[str, str]) -> Given:
    """Read what CreateQueue or SetQueueAttributes sends. Blanks around a name do not count.

    Raises SqsError: InvalidAttributeName, InvalidAttributeValue, InvalidParameterValue.
    """
    fields: dict[str, Any] = {}
    redrive: Redrive | UnsetType | None = UNSET
    fifo = None
    for sent, value in attributes.items():
        name = sent.strip()
        if name == "RedrivePolicy":
            redrive = _read_redrive(call, value)
        elif name == "FifoQueue":
            fifo = value == "true"
        elif name in FIELDS:
            fields[FIELDS[name]] = _read_value(name, value)
        else:
            raise unknown_attribute(sent)
    return Given(fields, redrive, fifo)


def _read_value(name: str, value: str) -> Any:
    if name in INTEGERS:
        least, most = INTEGERS[name]
        if not _INTEGER.fullmatch(value) or not least <= int(value) <= most:
            raise _bad(name)
        return int(value)
    if name in WORDS:
        if value not in WORDS[name]:
            raise _bad(name)
        return value
    if name in FLAGS:
        if value.lower() not in ("true", "false"):
            raise _bad(name)
        return value.lower() == "true"
    if value == "":
        return None
    if name in DOCUMENTS:
        if text_problem(value, MAX_POLICY) is not None or not isinstance(decoded(value), dict):
            raise _bad(name)
    elif text_problem(value, MAX_KEY_ID) is not None:
        raise _bad(name)
    return value


def decoded(text: str) -> Any:
    """Return the value of a JSON text; None if it is none, or is nested too deep."""
    try:
        return parse_ijson(text.encode())
    except Refusal:
        return None


def _read_redrive(call: Call, value: str) -> Redrive | None:
    """Read a RedrivePolicy; whether there is such a queue is checked where it is stored."""

    def bad(why: str) -> SqsError:
        return SqsError(
            "InvalidParameterValue", f"Value {value[:1000]} for parameter RedrivePolicy is invalid. Reason: {why}"
        )

    if value == "":
        return None
    policy = decoded(value)
    if not isinstance(policy, dict):
        raise bad("Redrive policy is not a valid JSON map.")
    if not policy:
        return None
    for name in ("deadLetterTargetArn", "maxReceiveCount"):
        if name not in policy:
            raise bad(f"Redrive policy does not contain mandatory attribute: {name}.")
    if len(policy) > 2:
        raise bad("Only following attributes are supported: [deadLetterTargetArn, maxReceiveCount].")
    arn, count = policy["deadLetterTargetArn"], policy["maxReceiveCount"]
    target = call.name_in_arn(arn) if isinstance(arn, str) else None
    if target is None:
        raise bad("Invalid value for deadLetterTargetArn.")
    if isinstance(count, str) and _INTEGER.fullmatch(count):
        count = int(count)
    if type(count) is not int or not 1 <= count <= MAX_RECEIVES:
        raise bad(
            f"Invalid value for maxReceiveCount: {str(count)[:100]}, valid values are from 1 to {MAX_RECEIVES} both inclusive."
        )
    return Redrive(target, count)


def applied(attributes: QueueAttributes, given: Given, *, fifo: bool) -> QueueAttributes:
    """Return attributes with those given in their place. Raises SqsError if they do not go together."""
    for name in OF_FIFO:
        if FIELDS[name] in given.fields and not fifo and given.fields[FIELDS[name]] != _default(name):
            raise unknown_attribute(name)
    changed = structs.replace(attributes, **given.fields)
    if changed.fifo_throughput_limit == "perMessageGroupId" and changed.deduplication_scope != "messageGroup":
        raise _bad("FifoThroughputLimit", "perMessageGroupId needs DeduplicationScope messageGroup.")
    if "kms_master_key_id" in given.fields and "sqs_managed_sse_enabled" not in given.fields:
        # one kind of encryption excludes the other
        changed = structs.replace(changed, sqs_managed_sse_enabled=changed.kms_master_key_id is None)
    return changed


def _default(name: str) -> Any:
    return getattr(QueueAttributes(), FIELDS[name])


def asked_for(names: Sequence[str]) -> frozenset[str]:
    """Return the attributes that these names mean; All means all. Raises SqsError (InvalidAttributeName)."""
    for name in names:
        if name != "All" and name not in NAMES:
            raise unknown_attribute(name)
    return NAMES if "All" in names else frozenset(names)


def shown(
    call: Call, name: str, definition: QueueDefinition, attributes: QueueAttributes, *, fifo: bool
) -> dict[str, str]:
    """Return the attributes that a queue has by its definition and beside it, as strings; what does not apply is left out."""
    found: dict[str, Any] = {attribute: getattr(attributes, field) for attribute, field in FIELDS.items()}
    for attribute in OF_FIFO if not fifo else ():
        del found[attribute]
    if attributes.kms_master_key_id is None:
        del found["KmsDataKeyReusePeriodSeconds"]
    if fifo:
        found["FifoQueue"] = True
    if (redrive := redrive_of(definition)) is not None:
        found["RedrivePolicy"] = redrive_text(call, redrive)
    found["QueueArn"] = call.arn(name)
    return {attribute: _text(value) for attribute, value in found.items() if value is not None}


def redrive_text(call: Call, redrive: Redrive) -> str:
    return json.dumps({"deadLetterTargetArn": call.arn(redrive.target), "maxReceiveCount": redrive.max_receive_count})


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def differing(shown_now: Mapping[str, str], wanted: Mapping[str, str], given: Given) -> str | None:
    """Return the first attribute given to CreateQueue that an existing queue has with another value; None if there is none."""
    names = [name for name, field in FIELDS.items() if field in given.fields]
    if given.redrive is not UNSET:
        names.append("RedrivePolicy")
    return next((name for name in names if shown_now.get(name) != wanted.get(name)), None)


def check_name(name: str, *, fifo: bool) -> None:
    """Check the name and the kind of a new queue. Raises SqsError (InvalidParameterValue)."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,80}|[A-Za-z0-9_-]{1,75}\.fifo", name):
        raise SqsError(
            "InvalidParameterValue",
            "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length",
        )
    if not re.match(r"[A-Za-z0-9]", name):
        raise SqsError("InvalidParameterValue", "Names of queues begin with a letter or a digit here.")
    if fifo and not name.endswith(FIFO):
        raise SqsError("InvalidParameterValue", "The name of a FIFO queue can only end with the .fifo suffix.")
    if name.endswith(FIFO) and not fifo:
        raise SqsError(
            "InvalidParameterValue", "Only a FIFO queue has a name that ends in .fifo: set FifoQueue to true."
        )
