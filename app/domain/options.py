"""What a task only carries: no index and no decision of the database rests on it.

It is one document in the database, written when the task is enqueued and changed by merging a patch into it, and one value in
Python, from the enqueue to the delivery. What SQL decides by has a column of its own.
"""

from collections.abc import Callable
from datetime import datetime
from functools import cache
from operator import attrgetter
from typing import Any

import msgspec

from app.domain.limits import LimitUse
from app.domain.messages import Carried
from app.domain.targets import TaskTarget


class PushedBack(msgspec.Struct, frozen=True):
    """A task's last push-backs in a row."""

    since: datetime
    times: int
    attempt: int
    """They were all of this attempt, which none of them has spent. The next one has another number if something else came since."""


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
    target: TaskTarget | None = None
    content_type: str | None = None
    """None: application/json."""
    binary: bool = False
    """The payload came as base64 and is shown so; otherwise it is JSON."""
    callbacks: dict[str, Any] | None = None
    """By state; null means none, although the queue has one."""
    callback_depth: int = 0
    """How many callbacks follow from one another up to this task, which is the last; 0: it is none."""
    cursor: str | None = None
    """Where a continuation resumes."""
    schedule: str | None = None
    """The name of the schedule that fired the task."""
    scheduled_for: datetime | None = None
    """The nominal time it fired for."""
    schedule_timezone: str | None = None
    """The IANA zone of the definition that fired."""
    key: str | None = None
    """Whose task it is: the keys of a queue share it fairly, and keyed limits hold for each by itself."""
    limits: tuple[LimitUse, ...] = ()
    """The limits that the task takes beside those of its queue and its handler."""
    pushed_back: PushedBack | None = None
    sealed: bool = False
    """Its payload, result and excerpts are encrypted."""
    sealed_for: str | None = None
    """What the payload was encrypted for; None: for this task."""
    message: Carried | None = None
    """Of a task that an SQS client has sent."""


OPTIONS = tuple(field.name for field in msgspec.structs.fields(Options))
NO_OPTIONS = Options()
_DECODER = msgspec.json.Decoder(Options)


def options_of(given: msgspec.Struct) -> Options:
    """Return the options among the fields of a struct that has them under the same names and types."""
    names, values, absent = _shared(type(given))
    found = values(given)
    # most tasks carry nothing, and this is done for each one
    return NO_OPTIONS if found == absent else Options(**dict(zip(names, found, strict=True)))


@cache
def _shared(kind: type[msgspec.Struct]) -> tuple[tuple[str, ...], Callable[[object], tuple[Any, ...]], tuple[Any, ...]]:
    """Return the names of the options that a kind of struct has, what reads them, and their defaults."""
    names = tuple(name for name in OPTIONS if name in kind.__struct_fields__)
    return names, attrgetter(*names), attrgetter(*names)(NO_OPTIONS)


def encode_options(options: Options) -> str | None:
    """Return a document; None where no field is set."""
    if options is NO_OPTIONS:
        return None
    document = msgspec.json.encode(options)
    return None if document == b"{}" else document.decode()


def decode_options(document: str | None) -> Options:
    """Return the options of a document."""
    return NO_OPTIONS if document is None else _DECODER.decode(document)
