"""PATCH of a task: a merge patch (RFC 7396) of its options, with the payload replaced as a whole.

Headers and the fields of retry merge one by one; null resets a value to its default. The payload is opaque: it is never merged
into, and null is a valid payload.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from app.domain.errors import FieldError, invalid, pointer
from app.domain.headers import check_headers
from app.domain.instants import format_instant
from app.domain.tasks import Enqueue, TaskBody, decode_task, validate_task

_FIELDS = ("type", "run_at", "delay_seconds", "expires_at", "priority", "retry", "timeout_seconds", "headers", "tags",
           "correlation_id", "handler")  # fmt: skip
_SET_ONCE = ("idempotency_key", "unique_key", "ttl_seconds")
_MERGED = ("headers", "retry")


@dataclass(frozen=True, slots=True)
class TaskPatch:
    options: dict[str, Any]
    """By field, as the store takes them; None resets to the default. Headers are the patch's own, nulls included."""
    asked: Enqueue
    """The given options, validated as an enqueue with them would be."""

    def headers_over(self, present: Mapping[str, str]) -> dict[str, str] | None:
        """Return `present` with the patch merged in. Raises Refusal (invalid) if there are too many headers then."""
        if self.options["headers"] is None:
            return None
        merged = {**present, **self.options["headers"]}
        kept = {name: value for name, value in merged.items() if value is not None}
        if errors := check_headers(kept):
            raise invalid(errors)
        return kept or None


def parse_patch(value: Mapping[str, Any]) -> TaskPatch:
    """Parse a patch from `value`, the I-JSON body; the payload is taken from its bytes elsewhere. Raises Refusal (invalid)."""
    errors = [
        FieldError(pointer(name), "can only be set when the task is enqueued" if name in _SET_ONCE else "unknown field")
        for name in value
        if name not in _FIELDS and name != "payload"
    ]
    if errors:
        raise invalid(errors)
    options = {name: given for name, given in value.items() if name != "payload"}
    if {"run_at", "delay_seconds"} <= options.keys():
        raise invalid([FieldError("/run_at", "cannot be combined with delay_seconds; send one of them")])
    given = {name: _without_nulls(name, option) for name, option in options.items() if option is not None}
    body = msgspec.json.encode({"payload": None, **given})
    asked = validate_task(decode_task(body, {"payload": None, **given}, TaskBody))
    for name in ("run_at", "expires_at"):
        if options.get(name) is not None:
            instant = getattr(asked, name)
            options[name] = format_instant(instant)
    return TaskPatch(options, asked)


def _without_nulls(name: str, option: Any) -> Any:
    if name in _MERGED and isinstance(option, dict):
        return {key: value for key, value in option.items() if value is not None}
    return option
