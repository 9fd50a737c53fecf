"""Queues as Amazon SQS has them: their attributes, and how these stand beside a queue's definition.

What a definition can say is said there and read from there, so the two cannot differ: a RedrivePolicy is `callbacks.dead` with
the body `payload`, and its maxReceiveCount is `retry.max_attempts`; a FIFO queue has a name that ends in .fifo, and `key` with
`ordered`. The rest is `QueueAttributes`, which a queue keeps beside its definition, whoever changes that.
"""

from dataclasses import replace
from typing import Final, Literal

import msgspec
from msgspec import Struct, structs

from app.domain.callbacks import Callback
from app.domain.limits import QueueKey
from app.domain.queues import QueueDefinition
from app.domain.retries import MAX_ATTEMPTS

FIFO: Final = ".fifo"
DEDUPLICATION_SECONDS: Final = 300.0
NO_LIMIT: Final = 2**31 - 1
"""The max_attempts of a queue whose messages are received any number of times; its definition says MAX_ATTEMPTS."""
MAX_MESSAGE_BYTES: Final = 1_048_576
MAX_RETENTION_SECONDS: Final = 1_209_600


class QueueAttributes(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What SQS knows of a queue and its definition does not say. Names and defaults are those of SQS; times are in seconds, sizes
    in bytes. A release passes over fields that only a newer one knows."""

    delay_seconds: int = 0
    maximum_message_size: int = MAX_MESSAGE_BYTES
    message_retention_period: int = 345_600
    receive_message_wait_time_seconds: int = 0
    visibility_timeout: int = 30
    content_based_deduplication: bool = False
    deduplication_scope: Literal["queue", "messageGroup"] = "queue"
    fifo_throughput_limit: Literal["perQueue", "perMessageGroupId"] = "perQueue"
    policy: str | None = None
    """Its JSON text. Kept and shown, not enforced, like all that follow."""
    redrive_allow_policy: str | None = None
    """Its JSON text."""
    kms_master_key_id: str | None = None
    kms_data_key_reuse_period_seconds: int = 300
    sqs_managed_sse_enabled: bool = True
    tags: dict[str, str] = {}


ELSEWHERE: Final = QueueAttributes(message_retention_period=MAX_RETENTION_SECONDS)
"""Those of a queue that was not made by CreateQueue, and has been given none since. Its tasks do not expire by themselves, nor
do messages sent there; the longest retention is what SQS can say of that."""


class Redrive(Struct, frozen=True):
    """A RedrivePolicy: a message that was received `max_receive_count` times without being deleted goes to the queue `target`."""

    target: str
    max_receive_count: int


def is_fifo(name: str, key: QueueKey | None) -> bool:
    """Return whether a queue of this name and `key` is a FIFO queue to SQS."""
    return name.endswith(FIFO) and key is not None and key.ordered


def redrive_of(definition: QueueDefinition) -> Redrive | None:
    """Return what SQS shows as the RedrivePolicy."""
    dead = definition.callbacks.dead
    if dead is None or dead.body != "payload":
        return None
    return Redrive(dead.queue, definition.retry.max_attempts)


def with_redrive(definition: QueueDefinition, redrive: Redrive | None) -> QueueDefinition:
    """Return the definition with another RedrivePolicy; None: without one, so that messages are received any number of times."""
    if redrive is None:
        dead = definition.callbacks.dead if redrive_of(definition) is None else None
        most = MAX_ATTEMPTS
    else:
        dead, most = Callback(redrive.target, "payload"), redrive.max_receive_count
    callbacks = structs.replace(definition.callbacks, dead=dead)
    return structs.replace(definition, callbacks=callbacks, retry=replace(definition.retry, max_attempts=most))


def new_definition(name: str, redrive: Redrive | None) -> QueueDefinition:
    """Return the definition of a queue that CreateQueue makes: one for pull workers."""
    fifo = name.endswith(FIFO)
    definition = QueueDefinition(
        key=QueueKey(ordered=True, required=True) if fifo else None,
        idempotency_seconds=DEDUPLICATION_SECONDS if fifo else QueueDefinition().idempotency_seconds,
    )
    return with_redrive(definition, redrive)


def attempts_allowed(definition: QueueDefinition, attributes: QueueAttributes | None) -> int:
    """Return after how many attempts a task of the queue is dead.

    On a queue with SQS attributes and without a dead-letter queue, the most that a definition can say means any number: SQS gives a
    message to whoever asks until it is deleted or expires.
    """
    most = definition.retry.max_attempts
    unlimited = attributes is not None and most == MAX_ATTEMPTS and definition.callbacks.dead is None
    return NO_LIMIT if unlimited else most


_DECODER = msgspec.json.Decoder(QueueAttributes)


def encode_attributes(attributes: QueueAttributes) -> str:
    return msgspec.json.encode(attributes).decode()


def decode_attributes(document: str | None) -> QueueAttributes | None:
    return None if document is None else _DECODER.decode(document)
