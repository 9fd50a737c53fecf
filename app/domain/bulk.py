"""Requests with many tasks: splitting them into spans, and validating each.

The outer object is validated without its tasks, and each task by itself. So a task that is not I-JSON does not affect the
others, and 32 MiB are never parsed in one go.
"""

from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, structs

from app.domain.bodies import faults, field_errors
from app.domain.errors import FieldError, Refusal, invalid, invalid_field, pointer
from app.domain.ijson import parse_ijson
from app.domain.payloads import check_either_form
from app.domain.tasks import Body, Enqueue, TaskBody, decode_task, enqueue_of, validate_task

MAX_BULK_TASKS = 10_000
MAX_BULK_BYTES = 33_554_432
MANY_COMMAS = 100_000
TOGETHER = 100
"""How many tasks are parsed together."""
MAX_TOGETHER_BYTES = 262_144


class BulkBody(Struct, forbid_unknown_fields=True):
    tasks: Annotated[list[TaskBody], Meta(min_length=1, max_length=MAX_BULK_TASKS)]
    atomic: Annotated[
        bool, Meta(description="All or nothing: if any task is refused, the answer is 422 and nothing is stored.")
    ] = False


class _Counted(msgspec.Struct, gc=False):
    """Accepts any object, and counts it."""

    left: ClassVar[int] = 0

    def __post_init__(self) -> None:
        _Counted.left -= 1
        if _Counted.left < 0:
            raise ValueError("there are more")


_COUNTED = msgspec.json.Decoder(list[_Counted])
_TASKS = msgspec.json.Decoder(list[TaskBody])
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_SPANS = msgspec.json.Decoder(list[msgspec.Raw])


def split_bulk(body: bytes) -> tuple[list[msgspec.Raw], bool]:
    """Return the spans of the tasks, not validated yet, and `atomic`. Raises Refusal: malformed, invalid."""
    bulk, spans, _ = split(body, BulkBody, MAX_BULK_TASKS)
    return some(spans), bulk.atomic


def some(spans: list[msgspec.Raw] | None) -> list[msgspec.Raw]:
    """Refuse no tasks and too many. Raises Refusal (invalid)."""
    if not spans:
        raise invalid_field("/tasks", f"expected 1 to {MAX_BULK_TASKS} tasks")
    return spans


def split(body: bytes, kind: type[Struct], most: int) -> tuple[Any, list[msgspec.Raw] | None, dict[str, Any]]:
    """Split a body into what it declares around its tasks and the spans of these, None if there are more than `most`.

    Also returns the value of the body without its tasks. Raises Refusal: malformed, invalid.
    """
    try:
        found = _around(kind).decode(body)
        spans = [] if isinstance(found.tasks, msgspec.UnsetType) else task_spans(found.tasks, most)
    except msgspec.ValidationError as error:
        raise invalid(_outer_faults(body, kind) or field_errors(str(error))) from None
    except (msgspec.DecodeError, RecursionError):
        raise _no_json(body) from None
    return found, spans, _validate_around(body, found.tasks)


@cache
def _around(kind: type[Struct]) -> "msgspec.json.Decoder[Any]":
    """Decodes what a struct declares, but leaves `tasks` the bytes of their array."""
    fields: list[Any] = []
    for field in structs.fields(kind):
        spans = msgspec.Raw if field.required else msgspec.Raw | UnsetType
        declared = spans if field.name == "tasks" else field.type
        default = UNSET if field.name == "tasks" else field.default
        fields.append((field.name, declared, msgspec.field() if field.required else msgspec.field(default=default)))
    return msgspec.json.Decoder(msgspec.defstruct(kind.__name__, fields, forbid_unknown_fields=True))


def _no_json(body: bytes) -> Refusal:
    parse_ijson(body)  # its refusal says where and why
    return Refusal("malformed", "the body is not JSON, or is nested too deeply")


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


def _outer_faults(body: bytes, kind: type[Struct]) -> list[FieldError]:
    """Return every violation outside the tasks."""
    try:
        members = _MEMBERS.decode(body)
    except msgspec.ValidationError:
        return [FieldError("", "expected an object")]
    except msgspec.DecodeError:
        raise _no_json(body) from None
    listed = bytes(members.get("tasks", b"")).startswith(b"[")
    value = {name: [] if listed and name == "tasks" else parse_ijson(bytes(span)) for name, span in members.items()}
    return [error for error in faults(value, kind) if not listed or error.pointer != "/tasks"]


def _validate_around(body: bytes, tasks: msgspec.Raw | UnsetType) -> dict[str, Any]:
    """Return the value of the body, with 0 in place of its tasks.

    Refuses what the decoder accepts: duplicate members and text that is not UTF-8. If the bytes of the tasks appear twice, it is
    unclear which to leave out, and everything is read.
    """
    span = b"" if isinstance(tasks, UnsetType) else bytes(tasks)
    at = body.find(span)
    alone = bool(span) and body.find(span, at + 1) < 0
    value: dict[str, Any] = parse_ijson(body[:at] + b"0" + body[at + len(span) :] if alone else body)
    return value


def parse_together(spans: Sequence[msgspec.Raw], max_payload_bytes: int) -> list[Enqueue] | None:
    """Parse some tasks of a bulk request in one go, at a third of the cost of parse_item for each.

    None if they are too large to block others for so long, or if any of them is refused: parse_item then says which, and why.
    """
    if sum(len(memoryview(span)) for span in spans) > MAX_TOGETHER_BYTES:
        return None
    text = b"[" + b",".join(spans) + b"]"
    try:
        values = parse_ijson(text)
        return [
            enqueue_of(task, len(value), max_payload_bytes)
            for value, task in zip(values, _TASKS.decode(text), strict=True)
        ]
    except (Refusal, ValueError):
        return None


def parse_item(span: msgspec.Raw, index: int, max_payload_bytes: int) -> Enqueue:
    """Parse one task of a bulk request. Raises Refusal (too_large, invalid) with pointers into the request."""
    where = pointer("tasks", index)
    return validate_task(decode_item(span, where, max_payload_bytes, TaskBody), where)


def decode_item(span: msgspec.Raw, where: str, max_payload_bytes: int, kind: type[Body]) -> Body:
    """Return one task of a list, its types and the size of its payload checked. Raises the same as parse_item."""
    try:
        value = parse_ijson(bytes(span))
        task = decode_task(span, value, kind)
        check_either_form(task.payload, task.payload_base64, max_payload_bytes)
    except Refusal as refusal:
        raise _placed(refusal, where) from None
    return task


def _placed(refusal: Refusal, where: str) -> Refusal:
    """Turn a refusal into one of this item: what alone would be a malformed request is an invalid item here."""
    code = "invalid" if refusal.code == "malformed" else refusal.code
    errors = [FieldError(where + error.pointer, error.detail) for error in refusal.errors]
    return Refusal(code, refusal.detail, errors or [FieldError(where, refusal.detail)])


def atomic_refusal(refusals: Sequence[tuple[int, Refusal]]) -> Refusal:
    """Return the refusal of a whole atomic request because of these items."""
    errors = [
        error
        for index, refusal in refusals
        for error in (refusal.errors or [FieldError(pointer("tasks", index), f"{refusal.code}: {refusal.detail}")])
    ]
    return invalid(errors[:MAX_ERRORS])


MAX_ERRORS = 100
"""How many pointers the refusal of an atomic request lists at most."""
