"""Handlers: where tasks are delivered, and how.

A handler of kind webhook is an HTTP endpoint. The other kinds are bridges to queues elsewhere. Each kind has fields of its own.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, structs

from app.domain.bodies import faults, with_more
from app.domain.breakers import Adaptive, Breaker, Guard, Park
from app.domain.bridges import (
    MAX_STREAM,
    Address,
    AwsCredentials,
    SqsAddress,
    StreamAddress,
    redis_errors,
    sqs_errors,
)
from app.domain.conditions import etag_of
from app.domain.errors import FieldError
from app.domain.headers import check_headers
from app.domain.limits import LimitUse, MaxConcurrency, NamedUses, Rate, check_uses, uses_of
from app.domain.texts import MAX_DESCRIPTION, Description, check_text
from app.domain.urls import MAX_URL, url_problem

MIN_TIMEOUT_SECONDS = 0.1
MAX_TIMEOUT_SECONDS = 43_200.0
MAX_FATAL_STATUSES = 100
MIN_GROUP_TASKS, MAX_GROUP_TASKS = 2, 1_000
MAX_GROUP_WAIT_SECONDS = 300.0

_SECRET = re.compile(r"whsec_[A-Za-z0-9+/]{32,88}={0,2}")
HIDDEN = "***"
"""Shown in place of a value that can be written but not read."""
SECRETS_LOST = (
    "what the handler keeps secret cannot be read: PUT the handler again, with its headers, credentials or URL"
)
"""Why nothing is sent to a handler whose encrypted parts cannot be decrypted."""
SECRET_RULE = "whsec_ and the base64 of 24 to 64 bytes"  # noqa: S105  # a rule, not a secret


TimeoutSeconds = Annotated[float, Meta(ge=MIN_TIMEOUT_SECONDS, le=MAX_TIMEOUT_SECONDS)]
FatalStatus = Annotated[int, Meta(ge=100, le=599)]
Kind = Literal["webhook", "sqs", "redis_stream"]
Targets = Literal["own", "path", "any"]
"""What a handler lets its tasks name: nothing, a path below its URL, or any URL."""


class Grouping(Struct, frozen=True, forbid_unknown_fields=True):
    """Several tasks of one queue in one request."""

    max_tasks: Annotated[
        int, Meta(ge=MIN_GROUP_TASKS, le=MAX_GROUP_TASKS, description="The most tasks that one request carries.")
    ]
    wait_seconds: Annotated[
        float,
        Meta(
            ge=0,
            le=MAX_GROUP_WAIT_SECONDS,
            description="How long a ready task may wait for others, while there are fewer than `max_tasks`.",
        ),
    ] = 0.0


MAX_STREAM_ENTRIES = 1_000_000_000
_OF_KIND: Final[Mapping[Kind, Mapping[str, Any]]] = {
    "webhook": {"url": UNSET, "headers": {}, "group": None, "targets": "own"},
    "sqs": {"queue_url": None, "region": None, "endpoint_url": None, "credentials": UNSET, "group_id_from": None},
    "redis_stream": {"url": UNSET, "stream": None, "maxlen": None},
}
"""The fields that not all kinds have, with what they are if absent."""
_OWNERS: Final = {
    name: tuple(kind for kind, fields in _OF_KIND.items() if name in fields)
    for fields in _OF_KIND.values()
    for name in fields
}
_REQUIRED: Final[Mapping[Kind, tuple[str, ...]]] = {
    "webhook": ("url",),
    "sqs": ("queue_url", "region"),
    "redis_stream": ("stream",),
}
"""Those that must be given. The URL of a redis_stream may be kept instead."""
_SEALED: Final[Mapping[Kind, str | None]] = {"webhook": None, "sqs": "credentials", "redis_stream": "url"}
"""The field that is sealed and never shown, beside the headers and the signing secret of a webhook."""


class HandlerDefinition(Struct, frozen=True, forbid_unknown_fields=True):
    url: Annotated[
        Annotated[str, Meta(max_length=MAX_URL)] | UnsetType,
        Meta(
            description="webhook: required; http or https, without user name, password or fragment. redis_stream: `redis://` or"
            " `rediss://`; write-only, and the one given before is kept if it is absent."
        ),
    ] = UNSET
    timeout_seconds: TimeoutSeconds = 30.0
    headers: Annotated[dict[str, str], Meta(description="Sent with every delivery. Write-only.")] = {}
    max_concurrency: MaxConcurrency | None = None
    fatal_statuses: Annotated[tuple[FatalStatus, ...], Meta(max_length=MAX_FATAL_STATUSES)] = ()
    description: Description | None = None
    group: Annotated[
        Grouping | None, Meta(description="Deliver ready tasks together; null: each in a request of its own.")
    ] = None
    targets: Annotated[
        Targets,
        Meta(
            description="What a task's `target` may name: nothing (`own`), a path below the URL (`path`), or any URL (`any`)."
        ),
    ] = "own"
    breaker: Annotated[Breaker | None, Meta(description="null: a failing service is called all the same.")] = None
    adaptive: Annotated[
        Adaptive | None, Meta(description="null: max_concurrency is the limit. Otherwise it is required, and the most.")
    ] = None
    park_on_retry_after: Annotated[
        Park,
        Meta(
            description="What waits when an answer has a `Retry-After`: the task, all of its key, or the whole handler."
        ),
    ] = "task"
    rate: Annotated[Rate | None, Meta(description="How many of its tasks start in a while.")] = None
    limits: tuple[LimitUse, ...] = ()
    """What all its tasks take."""
    kind: Annotated[Kind, Meta(description="How tasks are delivered; each kind has fields of its own.")] = "webhook"
    queue_url: Annotated[Annotated[str, Meta(max_length=MAX_URL)] | None, Meta(description="sqs: required.")] = None
    region: Annotated[str | None, Meta(description="sqs: required.")] = None
    endpoint_url: Annotated[
        Annotated[str, Meta(max_length=MAX_URL)] | None,
        Meta(description="sqs: another server than the one that `queue_url` names."),
    ] = None
    credentials: Annotated[
        AwsCredentials | UnsetType | None,
        Meta(
            description="sqs: write-only. Absent: those given before are kept; null: those that the replicas find in the usual"
            " AWS chain, for which the key needs scope operate."
        ),
    ] = UNSET
    group_id_from: Annotated[
        Literal["key"] | None, Meta(description="sqs: where a MessageGroupId comes from: the task's `key`.")
    ] = None
    stream: Annotated[
        Annotated[str, Meta(min_length=1, max_length=MAX_STREAM)] | None, Meta(description="redis_stream: required.")
    ] = None
    maxlen: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_STREAM_ENTRIES)] | None,
        Meta(description="redis_stream: about how many entries the stream keeps; null: all."),
    ] = None

    @property
    def address(self) -> Address | None:
        """Return where a bridge leads; None for a webhook. The definition is complete and valid."""
        if self.kind == "sqs":
            return SqsAddress(
                queue_url=self.queue_url or "",
                region=self.region or "",
                endpoint_url=self.endpoint_url,
                credentials=self.credentials or None,
                group_id_from=self.group_id_from,
            )
        if self.kind == "redis_stream":
            return StreamAddress(url=self.url or "", stream=self.stream or "", maxlen=self.maxlen)
        return None

    @property
    def secret_field(self) -> str | None:
        """Return the name of the field that is sealed and never shown; None for a webhook."""
        return _SEALED[self.kind]

    def with_kept(self, before: "HandlerDefinition | None") -> "HandlerDefinition":
        """Return it with the secret field of its predecessor, if it is of the same kind and this one has none."""
        name = self.secret_field
        if name is None or getattr(self, name) is not UNSET:
            return self
        kept = getattr(before, name) if before is not None and before.kind == self.kind else UNSET
        if kept is UNSET and self.kind == "sqs":
            kept = None
        return structs.replace(self, **{name: kept})

    def missing(self) -> list[FieldError]:
        """Return which secrets are missing, once those of its predecessor have been added."""
        lacks = self.kind == "redis_stream" and self.url is UNSET
        return [FieldError("/url", "is required with kind redis_stream")] if lacks else []

    @property
    def guard(self) -> Guard:
        return Guard(self.breaker, self.adaptive, self.max_concurrency)

    def check(self) -> list[FieldError]:
        """Return every violation. Whether the address may be called is up to the egress policy."""
        found = faults(self)
        if any(error.pointer == "/kind" for error in found):
            return found
        more = self._kind_errors()
        more += check_headers(self.headers)
        more += self._guard_errors()
        more += check_uses(self.limits, "/limits")
        if self.description is not None:
            more += check_text(self.description, "/description", MAX_DESCRIPTION, empty=True)
        return with_more(found, more)

    def _kind_errors(self) -> list[FieldError]:
        """Return what is wrong with the fields that not all kinds have."""
        errors = [
            FieldError("/" + name, f"is required with kind {self.kind}")
            for name in _REQUIRED[self.kind]
            if getattr(self, name) in (None, UNSET)
        ]
        for name, owners in _OWNERS.items():
            absent = _OF_KIND[owners[0]][name]
            if self.kind not in owners and getattr(self, name) not in (absent, None):
                errors.append(FieldError("/" + name, f"belongs to kind {' and '.join(owners)}"))
        if self.kind == "webhook" and self.url is not UNSET and (problem := url_problem(self.url)):
            errors.append(FieldError("/url", problem))
        if self.kind == "sqs" and self.queue_url is not None and self.region is not None:
            errors += sqs_errors(self.queue_url, self.region, self.endpoint_url, self.credentials or None)
        if self.kind == "redis_stream" and self.stream is not None:
            errors += redis_errors(None if self.url is UNSET else self.url, self.stream)
        return errors

    def _guard_errors(self) -> list[FieldError]:
        errors = []
        if self.breaker is not None and self.breaker.open_max_seconds < self.breaker.open_seconds:
            errors.append(FieldError("/breaker/open_max_seconds", "must not be less than open_seconds"))
        if self.adaptive is not None:
            if self.max_concurrency is None:
                errors.append(FieldError("/max_concurrency", "is required with adaptive, as the most it may allow"))
            elif self.adaptive.min > self.max_concurrency:
                errors.append(FieldError("/adaptive/min", "must not be more than max_concurrency"))
        return errors


class HandlerBody(HandlerDefinition, frozen=True, forbid_unknown_fields=True):
    """A handler definition as sent, with its secret, which reads never show."""

    limits: NamedUses = []  # type: ignore[assignment]  # the names that stand for objects here
    secret: Annotated[
        Annotated[str, Meta(max_length=100)] | None,
        Meta(description=f"The signing secret, {SECRET_RULE}; generated if absent."),
    ] = None

    @property
    def definition(self) -> HandlerDefinition:
        given = {name: getattr(self, name) for name in HandlerDefinition.__struct_fields__}
        return HandlerDefinition(**given | {"limits": uses_of(self.limits)})


@dataclass(frozen=True, slots=True)
class HandlerView:
    """A handler: its definition and its present state."""

    name: str
    definition: HandlerDefinition
    created_at: datetime
    updated_at: datetime
    enabled: bool = True
    disabled_at: datetime | None = None
    disabled_reason: str | None = None
    parked_until: datetime | None = None
    """A service asked not to be called before then; it may have passed."""
    secrets_lost: bool = False
    """Its secrets cannot be decrypted: nothing is sent until the handler is PUT again."""
    owner: str | None = None
    """The owner that the definitions document managing it names."""


def is_secret(text: str) -> bool:
    return _SECRET.fullmatch(text) is not None and (len(text) - len("whsec_")) % 4 == 0


def handler_etag(definition: HandlerDefinition, key: bytes = b"") -> str:
    return etag_of(handler_to_dict(definition) | handler_secrets(definition), key)


def handler_to_dict(definition: HandlerDefinition) -> dict[str, Any]:
    """Return the definition as JSON values: the fields of its kind, without those that are sealed and never shown."""
    document: dict[str, Any] = msgspec.to_builtins(definition)
    names = _names(definition.kind)
    return {name: value for name, value in document.items() if name in names}


def handler_secrets(definition: HandlerDefinition) -> dict[str, Any]:
    """Return the field that is sealed and never shown, as JSON values; nothing for a webhook, and where it is not known."""
    name = definition.secret_field
    value = UNSET if name is None else getattr(definition, name)
    return {} if value is UNSET else {str(name): msgspec.to_builtins(value)}


@cache
def _names(kind: Kind) -> frozenset[str]:
    """Return the names of the fields that a handler of this kind shows."""
    others = {name for fields in _OF_KIND.values() for name in fields} - _OF_KIND[kind].keys()
    return frozenset(HandlerDefinition.__struct_fields__) - others - {_SEALED[kind]}


def shown_fields(definition: HandlerDefinition) -> dict[str, Any]:
    """Return the definition field by field, without what its kind does not have, and without what is never shown."""
    names = _names(definition.kind)
    return {name: value if name in names else UNSET for name, value in structs.asdict(definition).items()}
