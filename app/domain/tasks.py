"""Tasks: their states, and what an enqueue may contain.

Bytes are decoded to a `TaskBody`, and a `TaskBody` is validated to an `Enqueue`; bulk requests, batches and follow-ups share the
second step. The payload stays the bytes it came in throughout.
"""

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from app.domain.bodies import faults, field_errors, sound_part, with_more
from app.domain.callbacks import TaskCallbacks, callbacks_to_dict, check_callbacks
from app.domain.errors import FieldError, Refusal, invalid, pointer
from app.domain.handlers import TimeoutSeconds
from app.domain.headers import check_headers
from app.domain.ijson import parse_ijson
from app.domain.instants import Instant, format_instant, read_instant
from app.domain.jsonb import jsonb_text
from app.domain.limits import KeyText, LimitUse, Uses, check_uses, key_problem, uses_of
from app.domain.messages import Carried
from app.domain.names import Name
from app.domain.payloads import (
    REQUIRED,
    check_either_form,
    check_payload,
    content_type_problem,
    kept_content_type,
    read_payload,
)
from app.domain.retries import Retry, check_retry
from app.domain.targets import TargetBody, TaskTarget, read_target
from app.domain.texts import header_text_problem, text_problem

MAX_DELAY_SECONDS = 366 * 86_400
MAX_TTL_SECONDS = 3660 * 86_400
MIN_PRIORITY, MAX_PRIORITY = -100, 100
MAX_TAGS = 10
MAX_TAG = 100
MAX_LABEL = 255
"""Longest type, correlation id and key, in characters."""
Label = Annotated[str, Meta(min_length=1, max_length=MAX_LABEL)]
DelaySeconds = Annotated[float, Meta(ge=0, le=MAX_DELAY_SECONDS)]
Priority = Annotated[int, Meta(ge=MIN_PRIORITY, le=MAX_PRIORITY)]
OnDuplicate = Literal["keep", "replace", "postpone"]
Tags = Annotated[
    list[Annotated[str, Meta(min_length=1, max_length=MAX_TAG)]],
    Meta(max_length=MAX_TAGS, extra_json_schema={"uniqueItems": True}),
]


class State(StrEnum):
    SCHEDULED = "scheduled"
    READY = "ready"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    DEAD = "dead"
    CANCELLED = "cancelled"


UNFINISHED = frozenset({State.SCHEDULED, State.READY, State.RUNNING})


class Reason(StrEnum):
    ATTEMPTS_EXHAUSTED = "attempts_exhausted"
    FATAL_STATUS = "fatal_status"
    STOPPED_BY_HANDLER = "stopped_by_handler"
    STOPPED_BY_WORKER = "stopped_by_worker"
    EXPIRED = "expired"
    FOLLOWUP_TOO_LARGE = "followup_too_large"
    PUSHED_BACK_TOO_LONG = "pushed_back_too_long"
    INVALID_MESSAGE = "invalid_message"
    REQUESTED = "requested"
    PURGED = "purged"
    SUPERSEDED = "superseded"


class Outcome(StrEnum):
    SUCCEEDED = "succeeded"
    HELD = "held"
    FAILED = "failed"
    PUSHED_BACK = "pushed_back"
    TIMEOUT = "timeout"
    UNREACHABLE = "unreachable"
    TOO_LARGE = "too_large"
    EGRESS_DENIED = "egress_denied"
    LEASE_EXPIRED = "lease_expired"
    RELEASED = "released"
    CANCELLED = "cancelled"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class TaskFilters:
    """Filters of a list of tasks; None matches everything."""

    queue: str | None = None
    state: State | None = None
    reason: Reason | None = None
    type: str | None = None
    tag: str | None = None
    handler: str | None = None
    correlation_id: str | None = None
    schedule: str | None = None
    batch: str | None = None
    ended_from: datetime | None = None
    ended_to: datetime | None = None


class TaskBody(msgspec.Struct, forbid_unknown_fields=True):
    """A task as sent: types and limits are checked, other rules are not yet."""

    payload: Annotated[
        msgspec.Raw | UnsetType,
        Meta(
            description="Any JSON, including null. It reaches the handler byte for byte. Required without `payload_base64`."
        ),
    ] = UNSET
    payload_base64: Annotated[
        str | None,
        Meta(
            description="Instead of `payload`: any bytes, as base64.", extra_json_schema={"contentEncoding": "base64"}
        ),
    ] = None
    content_type: Annotated[
        str | None,
        Meta(
            description="What the payload is delivered as. Beside `payload`, it is JSON and the default `application/json`; beside"
            " `payload_base64`, the default is `application/octet-stream`."
        ),
    ] = None
    type: Label | None = None
    delay_seconds: Annotated[DelaySeconds | None, Meta(description="Cannot be combined with `run_at`.")] = None
    run_at: Annotated[
        Instant | None, Meta(description="Cannot be combined with `delay_seconds`; a time in the past means now.")
    ] = None
    ttl_seconds: Annotated[
        Annotated[float, Meta(gt=0, le=MAX_TTL_SECONDS)] | None,
        Meta(description="Cannot be combined with `expires_at`."),
    ] = None
    expires_at: Annotated[
        Instant | None,
        Meta(
            description="Cannot be combined with `ttl_seconds`. Limits when an attempt may start, not how long it runs."
        ),
    ] = None
    priority: Annotated[Priority, Meta(description="Higher priorities always start first.")] = 0
    idempotency_key: Annotated[Label | None, Meta(description="Can also be sent in the header `Idempotency-Key`.")] = (
        None
    )
    unique_key: Annotated[Label | None, Meta(description="At most one unfinished task per queue can have it.")] = None
    on_duplicate: Annotated[
        OnDuplicate | None,
        Meta(
            description="What happens if a waiting task has the `unique_key`. `keep`: nothing. `replace`: it takes this payload"
            " and these options. `postpone`: its `run_at` moves too, never to an earlier time. A running task is kept."
        ),
    ] = "keep"
    debounce_max_seconds: Annotated[
        DelaySeconds | None,
        Meta(description="Only with `postpone`: how long after its creation a task can be postponed to at most."),
    ] = None
    retry: Annotated[Retry | None, Meta(description="Partial; merged over the queue's.")] = None
    timeout_seconds: Annotated[TimeoutSeconds | None, Meta(description="null: the queue's, else the handler's.")] = None
    correlation_id: Label | None = None
    headers: Annotated[dict[str, str] | None, Meta(description="Sent with every delivery of this task.")] = None
    tags: Tags | None = None
    handler: Annotated[Name | None, Meta(description="Overrides the queue's handler, on a queue that has one.")] = None
    target: Annotated[
        TargetBody | None, Meta(description="Where and how to deliver it, as far as the handler's `targets` allows.")
    ] = None
    key: Annotated[KeyText | None, Meta(description="Whose task it is: the keys of a queue share it fairly.")] = None
    limits: Annotated[
        Uses | None, Meta(description="Named limits that it takes, beside those of its queue and handler.")
    ] = None
    callbacks: Annotated[
        TaskCallbacks | None,
        Meta(description="Replace the queue's, state by state; null for a state: none is enqueued."),
    ] = None


class Enqueue(msgspec.Struct, frozen=True):
    """A valid task to enqueue. Absent options are None; `headers` and `tags` are empty instead."""

    payload: bytes
    type: str | None = None
    delay_seconds: float | None = None
    run_at: datetime | None = None
    ttl_seconds: float | None = None
    expires_at: datetime | None = None
    priority: int = 0
    idempotency_key: str | None = None
    unique_key: str | None = None
    on_duplicate: str | None = None
    """replace or postpone; None keeps the task that has the unique key."""
    debounce_max_seconds: float | None = None
    retry: dict[str, Any] | None = None
    timeout_seconds: float | None = None
    correlation_id: str | None = None
    headers: dict[str, str] = {}
    tags: tuple[str, ...] = ()
    handler: str | None = None
    target: TaskTarget | None = None
    content_type: str | None = None
    """None: application/json."""
    binary: bool = False
    """The payload came as base64."""
    key: str | None = None
    limits: tuple[LimitUse, ...] = ()
    callbacks: dict[str, Any] | None = None
    message: Carried | None = None
    """Only of what an SQS client sends."""

    def with_key(self, key: str) -> "Enqueue":
        return msgspec.structs.replace(self, idempotency_key=key)

    def fingerprint(self, key: bytes) -> bytes:
        """Return 32 bytes that are equal exactly for equal payload bytes and options, the idempotency key aside. Only who has the
        key, of up to 64 bytes, can make them."""
        digest = hashlib.blake2b(self.payload, digest_size=32, key=key)
        digest.update(b"\x00")  # the JSON after it contains no NUL, so the two parts stay distinct
        digest.update(_OPTIONS.encode(self._said()))
        return digest.digest()

    def plain_fingerprint(self) -> bytes:
        """Return the same without a key, for payloads that are stored as they are: what sluice.enqueue computes (read_task_v1)."""
        options = self._said()
        said = jsonb_text(msgspec.to_builtins(options)) if options else "{}"
        return hashlib.sha256(b"%b\x00%b" % (self.payload, said.encode())).digest()

    def _said(self) -> dict[str, Any]:
        """Return the options that are not the default, without the idempotency key."""
        options = msgspec.structs.asdict(self)
        del options["payload"], options["idempotency_key"]
        return {name: value for name, value in options.items() if value}

    def run_at_from(self, now: datetime) -> datetime:
        """Return the first instant at which the task may start; one in the past is now."""
        if self.delay_seconds:
            return now + timedelta(seconds=self.delay_seconds)
        return now if self.run_at is None else max(self.run_at, now)

    def expires_at_from(self, now: datetime) -> datetime | None:
        return self.expires_at if self.ttl_seconds is None else now + timedelta(seconds=self.ttl_seconds)


_OPTIONS = msgspec.json.Encoder(order="sorted")
_STAND_INS = {"queue": "q", "idempotency_key": "k", "unique_key": "u", "on_duplicate": "postpone", "payload_base64": ""}
"""For fields with a fault, while the rules of the others are checked."""


def parse_enqueue(body: bytes, *, max_payload_bytes: int) -> Enqueue:
    """Parse the body of `POST /queues/{name}/tasks`. Rules that need the present instant are left to check_instants."""
    value = parse_ijson(body)
    return enqueue_of(decode_task(body, value, TaskBody), len(value), max_payload_bytes)


def enqueue_of(task: TaskBody, fields: int, max_payload_bytes: int) -> Enqueue:
    """Validate a task with so many fields: most have nothing but a payload. Raises Refusal: invalid, too_large, malformed."""
    if fields == 1 and isinstance(task.payload, msgspec.Raw):
        return Enqueue(check_payload(task.payload, max_payload_bytes))
    check_either_form(task.payload, task.payload_base64, max_payload_bytes)
    return validate_task(task)


Body = TypeVar("Body", bound=TaskBody)


def decode_task(body: bytes | msgspec.Raw, value: Any, kind: type[Body]) -> Body:
    """Decode a task. `value` is the result of parse_ijson on the same bytes, used to report every violation, not only the first."""
    try:
        task: Body = _decoder(kind).decode(body)
    except msgspec.ValidationError as error:
        found = faults(value, kind)
        if isinstance(value, dict) and not {"payload", "payload_base64"} & value.keys():
            found.insert(0, FieldError("/payload", REQUIRED))
        raise invalid(_with_rules(found, value, kind) or field_errors(str(error))) from None
    return task


def _with_rules(found: list[FieldError], value: Any, kind: type[Body]) -> list[FieldError]:
    """Add the rules that the fields without a fault break."""
    has_payload = isinstance(value, dict) and "payload" in value
    plain = {"payload": msgspec.Raw(b"null")} if has_payload else {}
    sound = sound_part(value, found, kind, plain, _STAND_INS)
    try:
        if sound is not None:
            validate_task(sound)
    except Refusal as refusal:
        return with_more(found, refusal.errors)
    return found


@cache
def _decoder(kind: type[Body]) -> "msgspec.json.Decoder[Body]":
    return msgspec.json.Decoder(kind)


def validate_task(task: TaskBody, where: str = "") -> Enqueue:
    """Validate a task. `where` is its pointer in the request, for tasks in lists. Raises Refusal (invalid)."""
    errors = _text_errors(task, where)
    if task.delay_seconds is not None and task.run_at is not None:
        errors.append(FieldError(where + "/run_at", "cannot be combined with delay_seconds; send one of them"))
    if task.ttl_seconds is not None and task.expires_at is not None:
        errors.append(FieldError(where + "/expires_at", "cannot be combined with ttl_seconds; send one of them"))
    if task.on_duplicate not in (None, "keep") and task.unique_key is None:
        errors.append(FieldError(where + "/on_duplicate", "is about tasks with the same unique_key; send one"))
    if task.debounce_max_seconds is not None and task.on_duplicate != "postpone":
        errors.append(FieldError(where + "/debounce_max_seconds", "applies only with on_duplicate postpone"))
    run_at = read_instant(task.run_at, where + "/run_at", errors)
    expires_at = read_instant(task.expires_at, where + "/expires_at", errors)
    if task.retry is not None:
        errors += check_retry(task.retry, where + "/retry")
    if task.headers:
        errors += check_headers(task.headers, where + "/headers")
    if task.tags:
        errors += _tag_errors(task.tags, where + "/tags")
    target = None if task.target is None else read_target(task.target, where + "/target", errors)
    payload = read_payload(task.payload, task.payload_base64, where, errors)
    binary = isinstance(task.payload, UnsetType)
    loose = binary or task.payload_base64 is not None  # with both forms, the second is the fault
    if task.content_type is not None and (problem := content_type_problem(task.content_type, binary=loose)):
        errors.append(FieldError(where + "/content_type", problem))
    if task.limits:
        errors += check_uses(task.limits, where + "/limits")
    if task.callbacks is not None:
        errors += check_callbacks(task.callbacks, where + "/callbacks")
    if errors:
        raise invalid(errors)
    return Enqueue(
        payload=payload,
        type=task.type,
        delay_seconds=task.delay_seconds,
        run_at=run_at,
        ttl_seconds=task.ttl_seconds,
        expires_at=expires_at,
        priority=task.priority,
        idempotency_key=task.idempotency_key,
        unique_key=task.unique_key,
        on_duplicate=None if task.on_duplicate == "keep" else task.on_duplicate,
        debounce_max_seconds=task.debounce_max_seconds,
        retry=task.retry,
        timeout_seconds=task.timeout_seconds,
        correlation_id=task.correlation_id,
        headers=task.headers or {},
        tags=tuple(task.tags or ()),
        handler=task.handler,
        target=target,
        content_type=kept_content_type(task.content_type, binary=binary),
        binary=binary,
        key=task.key,
        limits=uses_of(task.limits or ()),
        callbacks=None if task.callbacks is None else callbacks_to_dict(task.callbacks) or None,
    )


def _text_errors(task: TaskBody, where: str) -> list[FieldError]:
    texts = {
        "type": task.type,
        "idempotency_key": task.idempotency_key,
        "unique_key": task.unique_key,
        "correlation_id": task.correlation_id,
    }
    errors = [
        FieldError(f"{where}/{name}", problem)
        for name, text in texts.items()
        if text is not None and (problem := label_problem(text, header=name != "unique_key"))
    ]
    if task.key is not None and (problem := key_problem(task.key)):
        errors.append(FieldError(where + "/key", problem))
    return errors


def label_problem(text: str, *, header: bool = True) -> str | None:
    """Return what is wrong with a label. Labels travel in headers, where control characters could start a header of their own."""
    return header_text_problem(text, MAX_LABEL) if header else text_problem(text, MAX_LABEL)


def _tag_errors(tags: list[str], where: str) -> list[FieldError]:
    errors = [
        FieldError(where + pointer(index), problem)
        for index, tag in enumerate(tags)
        if (problem := text_problem(tag, MAX_TAG))
    ]
    if len(set(tags)) < len(tags):
        errors.append(FieldError(where, "contains the same tag twice"))
    return errors


def check_instants(enqueue: Enqueue, now: datetime, where: str = "") -> None:
    """Check the rules that need the present instant. A replay of an idempotent enqueue is answered before they apply."""
    errors: list[FieldError] = []
    if enqueue.run_at is not None and enqueue.run_at > now + timedelta(seconds=MAX_DELAY_SECONDS):
        errors.append(FieldError(where + "/run_at", f"is more than {MAX_DELAY_SECONDS // 86_400} days in the future"))
    if enqueue.expires_at is not None and enqueue.expires_at <= now:
        passed = format_instant(now)
        errors.append(FieldError(where + "/expires_at", f"has passed (it is {passed}): the task could never start"))
    if errors:
        raise invalid(errors)
