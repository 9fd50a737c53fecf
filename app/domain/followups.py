"""Follow-up work: the tasks an answer names, validated like bulk requests.

The outer object is validated without its tasks and each task by itself, so payloads stay the bytes they came in, and each
fault has its pointer into the document.
"""

import base64
import binascii
from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from app.domain.answers import MAX_FOLLOWUP_BYTES
from app.domain.bodies import ANY_JSON
from app.domain.bulk import decode_item, split
from app.domain.errors import FieldError, Refusal, invalid, invalid_field, pointer
from app.domain.ijson import MAX_DEPTH, nests_deeper
from app.domain.names import Name
from app.domain.payloads import check_payload
from app.domain.tasks import Enqueue, Label, TaskBody, label_problem, validate_task
from app.domain.texts import header_text_problem

MAX_FOLLOWUP_TASKS = 10_000
MAX_CURSOR = 1024
"""Longest `next`, in characters."""


@dataclass(frozen=True, slots=True)
class OnComplete:
    """The task to enqueue when all tasks of the batch have ended."""

    queue: str
    payload: bytes
    type: str | None = None


@dataclass(frozen=True, slots=True)
class FollowUp:
    """A task named by an answer; it always has an idempotency key."""

    queue: str
    task: Enqueue


@dataclass(frozen=True, slots=True)
class FollowupPage:
    """A document of follow-up work, its tasks not validated yet; absent members are None."""

    result: bytes | None = None
    """The bytes of its JSON, or the decoded base64."""
    result_format: Literal["json", "base64"] = "json"
    result_truncated: bool = False
    """The sender truncated the result."""
    spans: list[msgspec.Raw] = field(default_factory=list)
    next: str | None = None
    on_complete: OnComplete | None = None


class OnCompleteBody(Struct, forbid_unknown_fields=True):
    queue: Name
    payload: Annotated[msgspec.Raw, Meta(description=ANY_JSON)]
    type: Label | UnsetType | None = UNSET


class FollowUpBody(TaskBody, kw_only=True, forbid_unknown_fields=True):
    queue: Name
    idempotency_key: Annotated[
        Label, Meta(description="Unique per root task and queue; the first task with a key wins.")
    ]


class PageBody(Struct, forbid_unknown_fields=True):
    """Validated like the answer of a handler, with payloads kept as bytes."""

    result: Annotated[msgspec.Raw | UnsetType, Meta(description=ANY_JSON)] = UNSET
    result_encoding: Annotated[
        Literal["base64"] | None,
        Meta(description="`base64`: the result is binary data in base64, and is shown as such."),
    ] = None
    result_truncated: Annotated[bool, Meta(description="The result was truncated; shown with the task.")] = False
    tasks: Annotated[
        list[FollowUpBody], Meta(max_length=MAX_FOLLOWUP_TASKS, description="Enqueued together with the completion.")
    ] = []
    next: Annotated[
        Annotated[str, Meta(min_length=1, max_length=MAX_CURSOR)] | None,
        Meta(description="Also enqueue this task again with this cursor, as a continuation."),
    ] = None
    on_complete: Annotated[
        OnCompleteBody | None, Meta(description="Enqueued when all tasks of the batch have ended.")
    ] = None


def split_page(body: bytes, max_payload_bytes: int) -> FollowupPage:
    """Parse the document, with its tasks as spans. Raises Refusal: malformed, invalid, too_large (bytes or tasks)."""
    if len(body) > MAX_FOLLOWUP_BYTES:
        raise Refusal(
            "too_large", f"the follow-up work has {len(body)} bytes, at most {MAX_FOLLOWUP_BYTES} are allowed"
        )
    page, spans, outside = split(body, PageBody, MAX_FOLLOWUP_TASKS)
    if spans is None:
        raise Refusal("too_large", f"the follow-up work has more than {MAX_FOLLOWUP_TASKS} tasks")
    if not isinstance(page.result, UnsetType) and nests_deeper(bytes(page.result)):
        raise Refusal("malformed", f"the result is nested deeper than {MAX_DEPTH} levels")
    return FollowupPage(
        result=_result(page, outside),
        result_format=page.result_encoding or "json",
        result_truncated=page.result_truncated,
        spans=spans,
        next=_cursor(page.next),
        on_complete=None if page.on_complete is None else validate_on_complete(page.on_complete, max_payload_bytes),
    )


def _result(page: PageBody, outside: dict[str, object]) -> bytes | None:
    """Return the bytes of the result. Raises Refusal (invalid)."""
    if page.result_encoding is not None:
        text = outside.get("result")
        try:
            if isinstance(text, str):
                return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            pass
        raise invalid_field("/result", "expected base64 text, because result_encoding is base64")
    if isinstance(page.result, UnsetType):
        if page.result_truncated:
            raise invalid_field("/result_truncated", "applies only when there is a result")
        return None
    return bytes(page.result)


def _cursor(text: str | None) -> str | None:
    problem = None if text is None else header_text_problem(text, MAX_CURSOR)
    if problem is not None:
        raise invalid_field("/next", problem)
    return text


def validate_on_complete(body: OnCompleteBody, max_payload_bytes: int) -> OnComplete:
    """Validate the on_complete of a body. Raises Refusal (invalid)."""
    try:
        check_payload(body.payload, max_payload_bytes)
    except Refusal as refusal:
        raise invalid_field("/on_complete/payload", refusal.detail) from None
    kind = body.type or None
    problem = None if kind is None else label_problem(kind)
    if problem is not None:
        raise invalid_field("/on_complete/type", problem)
    return OnComplete(body.queue, bytes(body.payload), kind)


def parse_followup(span: msgspec.Raw, index: int, max_payload_bytes: int) -> FollowUp:
    """Parse one task of a document. Raises Refusal (invalid) with pointers into the document."""
    where = pointer("tasks", index)
    try:
        body = decode_item(span, where, max_payload_bytes, FollowUpBody)
    except Refusal as refusal:
        if refusal.code != "too_large":
            raise
        faults = [error for error in refusal.errors if error.pointer != where]
        raise invalid(faults or [FieldError(where + "/payload", refusal.detail)]) from None
    return FollowUp(body.queue, validate_task(body, where))
