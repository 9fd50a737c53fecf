"""Sources: queues elsewhere from which tasks come in."""

import base64
import binascii
import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, structs

from app.domain.bodies import faults, with_more
from app.domain.bridges import AwsCredentials, redis_errors, sqs_errors
from app.domain.conditions import etag_of
from app.domain.errors import FieldError, Refusal, pointer
from app.domain.headers import MAX_HEADER_BYTES, MAX_HEADERS, check_headers, folded
from app.domain.ijson import MAX_DEPTH, nests_deeper, parse_ijson
from app.domain.names import Name
from app.domain.payloads import ANY_BYTES
from app.domain.tasks import Label, Priority, Tags, TaskBody, validate_task
from app.domain.texts import MAX_DESCRIPTION, Description, check_text

Kind = Literal["sqs", "redis_stream"]
KEY_SECONDS = 14 * 86_400
"""How long the idempotency key of a message is kept: as long as SQS keeps a message at most."""
MAX_SOURCES = 100
"""Per tenant: every replica holds a connection for each."""
MAX_OUTSTANDING = 10_000
MAX_TEXT = 512
MAX_DEAD_BYTES = 16 * 1024**2
"""A body up to this size becomes a dead task if it cannot be a live one; a larger one stays with the source."""
MAX_ERROR = 1_000
"""Characters of an error that are kept."""
MIN_VISIBILITY_SECONDS, MAX_VISIBILITY_SECONDS = 10, 43_200
ADDRESSED = ("credentials", "url")
"""The fields that are sealed and never shown."""
_OF_KIND: dict[Kind, dict[str, Any]] = {
    "sqs": {
        "queue_url": None,
        "region": None,
        "endpoint_url": None,
        "credentials": UNSET,
        "visibility_seconds": 60,
    },
    "redis_stream": {
        "url": UNSET,
        "stream": None,
        "group": None,
        "start": "0",
        "field": "body",
        "claim_idle_seconds": 60,
    },
}
"""The fields of each kind with their defaults."""
_REQUIRED: dict[Kind, tuple[str, ...]] = {"sqs": ("queue_url", "region"), "redis_stream": ("stream", "group")}

Text = Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)]


class SourceDefinition(Struct, frozen=True, forbid_unknown_fields=True):
    kind: Kind
    queue: Annotated[Name, Meta(description="Where its messages become tasks.")]
    type: Annotated[Label | None, Meta(description="Of its tasks.")] = None
    headers: Annotated[
        dict[str, str],
        Meta(description="Of its tasks, beside those of the message, which go before headers of the same name."),
    ] = {}
    tags: Tags = []
    priority: Priority = 0
    body: Annotated[
        Literal["json", "text", "base64"],
        Meta(
            description="How a message's body becomes the payload: it is JSON; any text, as a JSON string; or bytes in base64."
        ),
    ] = "json"
    on_invalid: Annotated[
        Literal["wrap", "dead"],
        Meta(
            description="What becomes of a body that is not what `body` says: a payload"
            ' `{"invalid": "<why>", "body": "<the text>"}` (`body_base64` if it is not text), or a dead task with its bytes.'
        ),
    ] = "wrap"
    max_outstanding: Annotated[
        int,
        Meta(
            ge=1, le=MAX_OUTSTANDING, description="While so many of its tasks have not ended, no messages are received."
        ),
    ] = 100
    key_from: Annotated[
        Annotated[str, Meta(min_length=1, max_length=MAX_TEXT)] | None,
        Meta(
            description="Where a task's `key` comes from: a JSON Pointer into the payload (`/customer/id`), or a header of the"
            " message. Without it: the MessageGroupId of SQS."
        ),
    ] = None
    description: Description | None = None
    queue_url: Annotated[str | None, Meta(description="sqs: required.")] = None
    region: Annotated[str | None, Meta(description="sqs: required.")] = None
    endpoint_url: Annotated[
        str | None, Meta(description="sqs: another server than the one that `queue_url` names.")
    ] = None
    credentials: Annotated[
        AwsCredentials | UnsetType | None,
        Meta(
            description="sqs: write-only. Absent: those given before are kept; null: those that the replicas find in the usual"
            " AWS chain."
        ),
    ] = UNSET
    visibility_seconds: Annotated[
        Annotated[int, Meta(ge=MIN_VISIBILITY_SECONDS, le=MAX_VISIBILITY_SECONDS)] | None,
        Meta(
            description="sqs: how long a message is hidden from others, and again while it is being enqueued. Default: 60."
        ),
    ] = None
    url: Annotated[
        str | UnsetType,
        Meta(description="redis_stream: `redis://` or `rediss://`. Write-only; absent: the one given before is kept."),
    ] = UNSET
    stream: Annotated[Text | None, Meta(description="redis_stream: required.")] = None
    group: Annotated[
        Text | None, Meta(description="redis_stream: required. The consumer group, made at first use.")
    ] = None
    start: Annotated[
        Literal["0", "$"] | None,
        Meta(
            description="redis_stream: where a new group begins: at the first entry (`0`, the default) or the next (`$`)."
        ),
    ] = None
    field: Annotated[
        Text | None, Meta(description="redis_stream: the field of an entry that is the body. Default: `body`.")
    ] = None
    claim_idle_seconds: Annotated[
        Annotated[int, Meta(ge=1, le=86_400)] | None,
        Meta(
            description="redis_stream: entries that a consumer has held for so long are taken over from it. Default: 60."
        ),
    ] = None

    @property
    def complete(self) -> "SourceDefinition":
        """Return it with the defaults of its kind."""
        given = {
            name: default
            for name, default in _OF_KIND[self.kind].items()
            if getattr(self, name) is None and default is not UNSET
        }
        return structs.replace(self, **given) if given else self

    def with_kept(self, secrets: "SourceSecrets") -> "SourceDefinition":
        """Return it with the secrets of its predecessor where it has none of its own."""
        given: dict[str, Any] = {}
        if self.kind == "sqs" and self.credentials is UNSET:
            given["credentials"] = secrets.credentials
        if self.kind == "redis_stream" and self.url is UNSET and secrets.url is not None:
            given["url"] = secrets.url
        return structs.replace(self, **given) if given else self

    @property
    def secrets(self) -> "SourceSecrets":
        return SourceSecrets(self.credentials or None, self.url or None)

    def check(self) -> list[FieldError]:
        """Return every violation, but for secrets that a predecessor may have (`missing`). Whether its address may be called is up
        to the kind."""
        found = faults(self)
        return found if any(error.pointer == "/kind" for error in found) else with_more(found, self._rule_errors())

    def _rule_errors(self) -> list[FieldError]:
        own = _OF_KIND[self.kind]
        errors = [FieldError(pointer(name), f"is required with kind {self.kind}") for name in self._absent()]
        for kind, names in _OF_KIND.items():
            errors += [
                FieldError(pointer(name), f"belongs to kind {kind}")
                for name in names
                if name not in own and getattr(self, name) not in (None, UNSET)
            ]
        if self.kind == "sqs" and self.queue_url is not None and self.region is not None:
            errors += sqs_errors(self.queue_url, self.region, self.endpoint_url, self.credentials or None)
        if self.kind == "redis_stream" and self.stream is not None:
            errors += redis_errors(None if self.url is UNSET else self.url, self.stream)
            errors += [] if self.group is None else check_text(self.group, "/group", MAX_TEXT)
            errors += [] if self.field is None else check_text(self.field, "/field", MAX_TEXT)
        if self.description is not None:
            errors += check_text(self.description, "/description", MAX_DESCRIPTION, empty=True)
        errors += self._task_errors()
        if self.key_from is not None and self.key_from.startswith("/") and self.body != "json":
            errors.append(FieldError("/key_from", "points into the payload, which is JSON only with body json"))
        return errors

    def _absent(self) -> list[str]:
        return [name for name in _REQUIRED[self.kind] if getattr(self, name) is None]

    def missing(self) -> list[FieldError]:
        """Return which secrets are missing, once those of its predecessor have been added."""
        if self.kind == "redis_stream" and self.url is UNSET:
            return [FieldError("/url", "is required with kind redis_stream")]
        return []

    def _task_errors(self) -> list[FieldError]:
        """Return what is wrong with what all its tasks have."""
        task = TaskBody(msgspec.Raw(b"null"), type=self.type, headers=self.headers, tags=list(self.tags))
        try:
            validate_task(task)
        except Refusal as refusal:
            return list(refusal.errors)
        return []


class SourceSecrets(Struct, frozen=True, omit_defaults=True):
    """What is sealed of a definition."""

    credentials: AwsCredentials | None = None
    url: str | None = None

    def __repr__(self) -> str:
        return "SourceSecrets(***)"


NO_SECRETS = SourceSecrets()


class Counts(NamedTuple):
    """Messages of a source, over all replicas, since it was created."""

    received: int = 0
    enqueued: int = 0
    duplicates: int = 0
    """Received again after they had been enqueued."""
    invalid: int = 0
    """Wrapped, or dead, or too large even for that."""
    lost: int = 0
    """The source says that they are gone."""

    def plus(self, more: "Counts") -> "Counts":
        return Counts(*(have + add for have, add in zip(self, more, strict=True)))


NO_COUNTS = Counts()


@dataclass(frozen=True, slots=True)
class SourceState:
    """How a source fares, over all replicas."""

    counts: Counts = NO_COUNTS
    in_flight: int = 0
    """Received and not yet acknowledged."""
    outstanding: int = 0
    """Its tasks that have not ended."""
    last_received_at: datetime | None = None
    lag: int | None = None
    oldest_age_seconds: float | None = None
    measured_at: datetime | None = None
    last_error: str | None = None
    last_error_at: datetime | None = None
    failing_since: datetime | None = None
    """None: it works on at least one replica."""
    replicas: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SourceView:
    name: str
    definition: SourceDefinition
    """Complete, with its secrets."""
    created_at: datetime
    updated_at: datetime
    paused: bool = False
    paused_at: datetime | None = None
    secrets_lost: bool = False
    """They cannot be decrypted: nothing is received until the source is PUT again with them."""
    owner: str | None = None
    state: SourceState = field(default_factory=SourceState)


def source_to_dict(definition: SourceDefinition) -> dict[str, Any]:
    """Return the definition as JSON values: the fields of its kind, without secrets."""
    document: dict[str, Any] = msgspec.to_builtins(definition)
    others = {name for kind, names in _OF_KIND.items() if kind != definition.kind for name in names}
    return {name: value for name, value in document.items() if name not in others and name not in ADDRESSED}


def source_etag(definition: SourceDefinition, key: bytes = b"") -> str:
    secrets = msgspec.to_builtins(definition.secrets)
    return etag_of({**source_to_dict(definition.complete), **secrets}, key)


# what becomes of a message


class Unfit(Exception):
    """Raised for a body that is not what its source's `body` says, in words for people."""


class Payload(NamedTuple):
    content: bytes
    binary: bool = False
    """Bytes that are not JSON."""
    value: Any = None
    """What was parsed, of JSON."""

    @property
    def content_type(self) -> str | None:
        return ANY_BYTES if self.binary else None


def read_body(body: bytes, how: Literal["json", "text", "base64"]) -> Payload:
    """Return a body as a payload. Raises Unfit."""
    if how == "json":
        return _json_of(body)
    if how == "text":
        text = text_of(body)
        if text is None:
            raise Unfit("the body is not UTF-8 text")
        return Payload(msgspec.json.encode(text))
    try:
        return Payload(binascii.a2b_base64(body.strip(), strict_mode=True), binary=True)
    except ValueError:
        raise Unfit("the body is not base64 (RFC 4648, with its padding)") from None


def _json_of(body: bytes) -> Payload:
    content = body.strip(b" \t\r\n")
    try:
        value = parse_ijson(content)
    except Refusal as refusal:
        raise Unfit(refusal.detail) from None
    if nests_deeper(content):
        raise Unfit(f"the JSON is nested deeper than {MAX_DEPTH} levels")
    return Payload(content, value=value)


def wrapped(body: bytes, why: str) -> Payload:
    """Return a payload around a body that is not what it should be."""
    text = text_of(body)
    inner = {"body_base64": base64.b64encode(body).decode()} if text is None else {"body": text}
    value = {"invalid": why, **inner}
    return Payload(msgspec.json.encode(value), value=value)


def text_of(body: bytes) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def key_at(key_from: str, value: Any, headers: dict[str, str]) -> str | None:
    """Return the text, number or boolean that `key_from` names; None if there is none."""
    if not key_from.startswith("/"):
        return {folded(name): text for name, text in headers.items()}.get(folded(key_from))
    for step in key_from[1:].split("/"):
        step = step.replace("~1", "/").replace("~0", "~")
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isascii() and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    if isinstance(value, str):
        return value
    return json.dumps(value) if isinstance(value, bool | int | float) else None


def storable(error: str) -> str:
    """Return the words of an error, which may be those of a server or a message, as the database can hold them."""
    return error.replace("\x00", "")[:MAX_ERROR]


def carried_headers(message: dict[str, str], own: dict[str, str]) -> dict[str, str]:
    """Return the headers of a task: its source's, then those of the message that a task can carry, as many as fit."""
    given = dict(own)
    seen = {folded(name) for name in own}
    size = sum(len(name) + len(value) for name, value in own.items())
    for name, value in message.items():
        size_then = size + len(name) + len(value)
        if len(given) == MAX_HEADERS or size_then > MAX_HEADER_BYTES or folded(name) in seen:
            continue
        if not check_headers({name: value}):
            given[name], size = value, size_then
            seen.add(folded(name))
    return given
