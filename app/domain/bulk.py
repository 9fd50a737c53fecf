"""Requests with many tasks: splitting them into spans, and validating each.

The outer object is validated without its tasks, and each task by itself. So a task that is not I-JSON does not affect the
others, and 32 MiB are never parsed in one go.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from app.domain.errors import FieldError, Refusal, invalid, invalid_field, pointer
from app.domain.ijson import parse_ijson
from app.domain.tasks import Body, Enqueue, TaskBody, check_payload, decode_task, field_errors, validate_task

MAX_BULK_TASKS = 10_000
MAX_BULK_BYTES = 33_554_432
MANY_COMMAS = 100_000


class _BulkBody(msgspec.Struct, forbid_unknown_fields=True):
    tasks: msgspec.Raw
    atomic: bool = False


class _Counted(msgspec.Struct, gc=False):
    """Any object."""

    left: ClassVar[int] = 0

    def __post_init__(self) -> None:
        _Counted.left -= 1
        if _Counted.left < 0:
            raise ValueError("there are more")


_COUNTED = msgspec.json.Decoder(list[_Counted])
_BULK_BODY = msgspec.json.Decoder(_BulkBody)
_SPANS = msgspec.json.Decoder(list[msgspec.Raw])


def split_bulk(body: bytes) -> tuple[list[msgspec.Raw], bool]:
    """Return the spans of the tasks, not validated yet, and `atomic`. Raises Refusal: malformed, invalid."""
    try:
        bulk = _BULK_BODY.decode(body)
        spans = task_spans(bulk.tasks, MAX_BULK_TASKS)
    except msgspec.ValidationError as error:
        raise invalid(outer_errors(str(error))) from None
    except (msgspec.DecodeError, RecursionError):
        parse_ijson(body)  # its refusal says where and why
        raise Refusal("malformed", "the body is not JSON, or is nested too deeply") from None
    judge_outside(body, bytes(bulk.tasks))
    if not spans:
        raise invalid_field("/tasks", f"expected 1 to {MAX_BULK_TASKS} tasks")
    return spans, bulk.atomic


def task_spans(tasks: msgspec.Raw, most: int) -> list[msgspec.Raw] | None:
    """Return the spans of the tasks, or None if there are more than `most`.

    Even a short span takes 70 bytes, so a text that may hold very many is counted first. Items that are not objects are refused
    there, because they cannot be counted. Raises Refusal (invalid), msgspec.DecodeError.
    """
    if bytes(tasks).count(b",") > MANY_COMMAS:
        _Counted.left = most
        try:
            _COUNTED.decode(tasks)
        except msgspec.ValidationError as error:
            if _Counted.left < 0:
                return None
            [found] = field_errors(str(error))
            raise invalid_field("/tasks" + found.pointer, found.detail) from None
    spans = _SPANS.decode(tasks)
    return spans if len(spans) <= most else None


def outer_errors(message: str) -> list[FieldError]:
    if message.startswith("Expected `array`") and " - at" not in message:
        return [FieldError("/tasks", "expected an array")]
    return field_errors(message)


def judge_outside(body: bytes, tasks: bytes) -> Any:
    """Return the body's value, with 0 in place of its tasks.

    Refuses what the decoder accepts: duplicate members and text that is not UTF-8.
    """
    at = body.index(tasks)
    return parse_ijson(body[:at] + b"0" + body[at + len(tasks) :])


def parse_item(span: msgspec.Raw, index: int, max_payload_bytes: int) -> Enqueue:
    """Parse one task of a bulk request. Raises Refusal (too_large, invalid) with pointers into the request."""
    where = pointer("tasks", index)
    task, fields = decode_item(span, where, max_payload_bytes, TaskBody)
    return Enqueue(bytes(task.payload)) if fields == 1 else validate_task(task, where)


def decode_item(span: msgspec.Raw, where: str, max_payload_bytes: int, kind: type[Body]) -> tuple[Body, int]:
    """Return one task of a list, its types and payload checked, and its number of fields. Raises the same as parse_item."""
    try:
        value = parse_ijson(bytes(span))
        task = decode_task(span, value, kind)
        check_payload(task.payload, max_payload_bytes)
    except Refusal as refusal:
        raise _placed(refusal, where) from None
    return task, len(value)


def _placed(refusal: Refusal, where: str) -> Refusal:
    """Turn a refusal into one of this item: what alone would be a malformed request is an invalid item here."""
    code = "invalid" if refusal.code == "malformed" else refusal.code
    errors = [FieldError(where + error.pointer, error.detail) for error in refusal.errors]
    return Refusal(code, refusal.detail, errors or [FieldError(where, refusal.detail)])


def sunk(refusals: Sequence[tuple[int, Refusal]]) -> Refusal:
    """Return the refusal of a whole atomic request because of these items."""
    errors = [
        error
        for index, refusal in refusals
        for error in (refusal.errors or [FieldError(pointer("tasks", index), f"{refusal.code}: {refusal.detail}")])
    ]
    return invalid(errors[:MAX_ERRORS])


MAX_ERRORS = 100
"""How many pointers the refusal of an atomic request lists at most."""
