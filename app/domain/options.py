"""What a task only carries: no index and no decision of the database rests on it.

It is one document in the database, written when the task is enqueued and changed by merging a patch into it, and one value in
Python, from the enqueue to the delivery. What SQL decides by has a column of its own.
"""

from datetime import datetime
from typing import Any

import msgspec


class Options(msgspec.Struct, frozen=True, omit_defaults=True):
    """Fields left out have their default. A release passes over fields that only a newer one knows."""

    type: str | None = None
    headers: dict[str, str] = {}
    tags: tuple[str, ...] = ()
    correlation_id: str | None = None
    retry: dict[str, Any] | None = None
    timeout_seconds: float | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    cursor: str | None = None
    """Where a continuation resumes."""
    schedule: str | None = None
    """The name of the schedule that fired the task."""
    scheduled_for: datetime | None = None
    """The nominal time it fired for."""
    schedule_timezone: str | None = None
    """The IANA zone of the definition that fired."""


OPTIONS = tuple(field.name for field in msgspec.structs.fields(Options))
_NONE = Options()
_DECODER = msgspec.json.Decoder(Options)


def options_of(given: object) -> Options:
    """Return the options among the attributes of an object."""
    return msgspec.convert(given, Options, from_attributes=True)


def encode_options(options: Options) -> str | None:
    """Return a document; None where no field is set."""
    document = msgspec.json.encode(options)
    return None if document == b"{}" else document.decode()


def decode_options(document: str | None) -> Options:
    """Return the options of a document."""
    return _NONE if document is None else _DECODER.decode(document)
