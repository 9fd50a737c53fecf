"""Messages as Amazon SQS has them: what one carries beside its body, and what SDKs check of it."""

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct


class Attribute(Struct, frozen=True, omit_defaults=True, rename={"data_type": "t", "text": "s", "binary": "b"}):
    """The value of a message attribute: a text or number, or bytes in base64."""

    data_type: str
    """String, Number or Binary, and after a dot what the sender likes."""
    text: str | None = None
    binary: str | None = None


class Origin(Struct, frozen=True):
    """Where a message was before it came to a dead-letter queue: the same message, with its id and counts."""

    id: str
    sent_ms: int
    """Milliseconds since 1970."""
    received: int
    """How many times it was received there."""
    queue: str
    """The queue it came from."""


class Carried(Struct, frozen=True, omit_defaults=True):
    """What a message carries beside its body. It is in the options of its task."""

    attributes: dict[str, Attribute] = {}
    trace_header: str | None = None
    """`AWSTraceHeader`."""
    deduplication_id: str | None = None
    sender: str | None = None
    origin: Origin | None = None
    sealed: str | None = None
    """The attributes of a message of a queue that encrypts, encrypted, in base64."""
    sealed_for: str | None = None
    """The id of the task that they were encrypted for."""


NOTHING = Carried()
_ATTRIBUTES = msgspec.json.Decoder(dict[str, Attribute])


def encode_attributes(attributes: Mapping[str, Attribute]) -> bytes:
    return msgspec.json.encode(attributes)


def decode_attributes(document: bytes) -> dict[str, Attribute]:
    return _ATTRIBUTES.decode(document)


def md5_of(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def md5_of_attributes(attributes: Mapping[str, Attribute]) -> str:
    """Return what SDKs compare, as "Calculating the MD5 message digest for message attributes" in the SQS guide says: of each
    attribute, in the order of names, name, type and value, each after its length, and one byte for whether it is text."""
    digest = hashlib.md5(usedforsecurity=False)
    for name in sorted(attributes):
        value = attributes[name]
        content = base64.b64decode(value.binary) if value.binary is not None else (value.text or "").encode()
        for part in (name.encode(), value.data_type.encode()):
            digest.update(len(part).to_bytes(4, "big") + part)
        digest.update(b"\x02" if value.binary is not None else b"\x01")
        digest.update(len(content).to_bytes(4, "big") + content)
    return digest.hexdigest()


def size_of(body: str, attributes: Mapping[str, Attribute]) -> int:
    """Return how many bytes a message counts: its body, and names, types and values of its attributes."""
    size = len(body.encode())
    for name, value in attributes.items():
        content = len(base64.b64decode(value.binary)) if value.binary is not None else len((value.text or "").encode())
        size += len(name.encode()) + len(value.data_type.encode()) + content
    return size


def body_of(payload: bytes, *, binary: bool) -> str:
    """Return the body of a message: the payload, if it is a JSON string; of any other payload its JSON text, or its base64."""
    if binary:
        return base64.b64encode(payload).decode()
    if payload[:1] == b'"':
        text: Any = msgspec.json.decode(payload)
        return str(text)
    return payload.decode()


def sequence_number(task_id: str) -> str:
    """Return 20 digits that grow with the ids of tasks, which grow in time."""
    return f"{int(task_id.replace('-', ''), 16) >> 62:020d}"
