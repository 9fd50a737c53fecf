"""PATCH of a task: a merge patch (RFC 7396) of its options, with the payload replaced as a whole.

Headers and the fields of retry merge one by one; null resets a value to its default. The payload is opaque: it is never merged
into, and null is a valid payload. It may change its form, from JSON to bytes and back. A target is replaced as a whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from app.domain.bodies import read
from app.domain.errors import FieldError, Refusal, invalid, invalid_field
from app.domain.handlers import TimeoutSeconds
from app.domain.headers import check_headers
from app.domain.instants import Instant, format_instant
from app.domain.limits import KeyText, Uses
from app.domain.names import Name
from app.domain.payloads import check_either_form, content_type_problem, kept_content_type, raw_payload_of
from app.domain.targets import TargetBody
from app.domain.tasks import (
    DelaySeconds,
    Enqueue,
    Label,
    Priority,
    Tags,
    TaskBody,
    validate_task,
)

_SET_ONCE = ("idempotency_key", "unique_key", "on_duplicate", "debounce_max_seconds", "ttl_seconds", "callbacks")


class PatchBody(Struct, forbid_unknown_fields=True):
    """A merge patch: absent fields are kept, null resets to the default."""

    payload: Annotated[
        Any | UnsetType, Meta(description="Replaced as a whole, never merged; null is a valid payload.")
    ] = UNSET
    payload_base64: Annotated[
        str | UnsetType,
        Meta(description="Replaces the payload by bytes.", extra_json_schema={"contentEncoding": "base64"}),
    ] = UNSET
    content_type: Annotated[
        str | UnsetType | None, Meta(description="A payload that changes its form gets the default of the new one.")
    ] = UNSET
    type: Label | UnsetType | None = UNSET
    run_at: Annotated[
        Instant | UnsetType | None, Meta(description="null: now. Cannot be combined with `delay_seconds`.")
    ] = UNSET
    delay_seconds: Annotated[
        DelaySeconds | UnsetType | None, Meta(description="From now. Cannot be combined with `run_at`.")
    ] = UNSET
    expires_at: Instant | UnsetType | None = UNSET
    priority: Priority | UnsetType | None = UNSET
    retry: Annotated[
        dict[str, Any] | UnsetType | None, Meta(description="Merged field by field; a backoff is replaced as a whole.")
    ] = UNSET
    timeout_seconds: TimeoutSeconds | UnsetType | None = UNSET
    headers: Annotated[
        dict[str, str | None] | UnsetType | None, Meta(description="Merged by name; null removes a header.")
    ] = UNSET
    tags: Tags | UnsetType | None = UNSET
    correlation_id: Label | UnsetType | None = UNSET
    handler: Annotated[Name | UnsetType | None, Meta(description="null: the queue's.")] = UNSET
    target: Annotated[TargetBody | UnsetType | None, Meta(description="Replaced as a whole.")] = UNSET
    key: KeyText | UnsetType | None = UNSET
    limits: Annotated[Uses | UnsetType | None, Meta(description="Replaced as a whole.")] = UNSET


@dataclass(frozen=True, slots=True)
class TaskPatch:
    options: dict[str, Any]
    """By field, as the store takes them; None resets to the default. Headers are the patch's own, nulls included."""
    asked: Enqueue
    """The given options, validated as an enqueue with them would be."""
    new_payload: bool
    """The patch replaces the payload by that of `asked`."""

    def headers_over(self, present: Mapping[str, str]) -> dict[str, str] | None:
        """Return `present` with the patch merged in. Raises Refusal (invalid) if there are too many headers then."""
        if self.options["headers"] is None:
            return None
        merged = {**present, **self.options["headers"]}
        kept = {name: value for name, value in merged.items() if value is not None}
        if errors := check_headers(kept):
            raise invalid(errors)
        return kept or None

    def form_over(self, binary: bool) -> dict[str, Any]:
        """Return the options that say what the payload is, over a present payload that is `binary` or JSON; those that stay are
        left out. Raises Refusal (invalid) if its content type does not suit it."""
        becomes = self.asked.binary if self.new_payload else binary
        if "content_type" not in self.options:
            changed = {} if becomes == binary else {"content_type": kept_content_type(None, binary=becomes)}
        else:
            given = self.options["content_type"]
            if given is not None and (problem := content_type_problem(given, binary=becomes)):
                raise invalid_field("/content_type", problem)
            changed = {"content_type": kept_content_type(given, binary=becomes)}
        return changed if becomes == binary else {**changed, "binary": becomes or None}


def parse_patch(body: bytes, value: Mapping[str, Any], max_payload_bytes: int) -> TaskPatch:
    """Parse a patch from the I-JSON body and its value. Raises Refusal: invalid, too_large."""
    patch = _read(value)
    options = {name: given for name, given in value.items() if name not in ("payload", "payload_base64")}
    if {"run_at", "delay_seconds"} <= options.keys():
        raise invalid([FieldError("/run_at", "cannot be combined with delay_seconds; send one of them")])
    given = {name: _without_nulls(getattr(patch, name)) for name, option in options.items() if option is not None}
    given.pop("content_type", None)  # whether it suits depends on the payload, which may stay
    new_payload = bool({"payload", "payload_base64"} & value.keys())
    if "payload_base64" in value:
        given["payload_base64"] = patch.payload_base64
    if "payload" in value or not new_payload:
        given["payload"] = raw_payload_of(body) if new_payload else msgspec.Raw(b"null")
    task = TaskBody(**given)
    check_either_form(task.payload, task.payload_base64, max_payload_bytes)
    asked = validate_task(task)
    for name in ("run_at", "expires_at"):
        if options.get(name) is not None:
            options[name] = format_instant(getattr(asked, name))
    if options.get("target") is not None:
        options["target"] = asked.target
    if "limits" in options:
        options["limits"] = asked.limits or None
    return TaskPatch(options, asked, new_payload)


def _read(value: Mapping[str, Any]) -> PatchBody:
    try:
        return read(value, PatchBody)
    except Refusal as refusal:
        raise invalid(
            FieldError(error.pointer, "can only be set when the task is enqueued")
            if error.pointer.removeprefix("/") in _SET_ONCE
            else error
            for error in refusal.errors
        ) from None


def _without_nulls(option: Any) -> Any:
    if isinstance(option, dict):
        return {key: value for key, value in option.items() if value is not None}
    return option
