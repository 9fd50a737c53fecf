"""Partial retry policies from callers, merged over the queue's."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, get_args

from msgspec import Meta

from app.domain.backoff import Backoff, Jitter, Kind, RetryPolicy
from app.domain.errors import FieldError, pointer

DEFAULT_RETRY = RetryPolicy()
MAX_ATTEMPTS = 1000
MAX_BACKOFF_SECONDS = 30 * 86_400
MAX_FACTOR = 100
MAX_BACKOFF_STEPS = 100

_RETRY_FIELDS = ("max_attempts", "retry_after_max_seconds", "backoff")
_EXPONENTIAL_FIELDS = ("min_seconds", "max_seconds", "factor", "jitter")

_SECONDS = {"type": "number", "minimum": 0, "maximum": MAX_BACKOFF_SECONDS}
# Without `kind`, the fields determine it.
_BACKOFFS: list[dict[str, Any]] = [
    {
        "title": "Exponential backoff",
        "properties": {
            "kind": {"const": "exponential"},
            "min_seconds": _SECONDS | {"default": 1},
            "max_seconds": _SECONDS | {"default": 3600},
            "factor": {"type": "number", "minimum": 1, "maximum": MAX_FACTOR, "default": 2},
            "jitter": {"enum": list(get_args(Jitter)), "default": "equal"},
        },
    },
    {
        "title": "Fixed backoff",
        "properties": {"kind": {"const": "fixed"}, "seconds": _SECONDS},
        "required": ["seconds"],
    },
    {
        "title": "Backoff by a list",
        "properties": {
            "kind": {"const": "list"},
            "seconds": {"type": "array", "items": _SECONDS, "minItems": 1, "maxItems": MAX_BACKOFF_STEPS},
        },
        "required": ["seconds"],
    },
]
_RETRY: dict[str, Any] = {
    "additionalProperties": False,
    "properties": {
        "max_attempts": {"type": "integer", "minimum": 1, "maximum": MAX_ATTEMPTS, "default": 25},
        "retry_after_max_seconds": _SECONDS | {"default": 3600},
        "backoff": {"oneOf": [{"type": "object", "additionalProperties": False} | kind for kind in _BACKOFFS]},
    },
}
Retry = Annotated[
    dict[str, Any],
    Meta(
        description="Partial: absent fields keep their defaults (in a task: the queue's values).",
        extra_json_schema=_RETRY,
    ),
]
"""A retry policy as sent. check_retry validates it by the kind of its backoff, which types cannot express."""
CompleteRetry = Annotated[dict[str, Any], Meta(description="Complete.", extra_json_schema=_RETRY)]
"""A retry policy as shown."""


def check_retry(partial: object, where: str = "/retry") -> list[FieldError]:
    """Return every violation in a partial policy. Absent fields keep the value they are merged over."""
    if not isinstance(partial, Mapping):
        return [FieldError(where, "expected an object")]
    errors = [
        FieldError(where + pointer(name), "unknown field; a retry policy has " + ", ".join(_RETRY_FIELDS))
        for name in partial
        if name not in _RETRY_FIELDS
    ]
    if "max_attempts" in partial:
        attempts = partial["max_attempts"]
        if type(attempts) is not int or not 1 <= attempts <= MAX_ATTEMPTS:
            errors.append(FieldError(where + "/max_attempts", f"expected an integer from 1 to {MAX_ATTEMPTS}"))
    if "retry_after_max_seconds" in partial:
        _check_seconds(partial["retry_after_max_seconds"], where + "/retry_after_max_seconds", errors)
    if "backoff" in partial:
        errors += _check_backoff(partial["backoff"], where + "/backoff")
    return errors


def _check_seconds(value: object, where: str, errors: list[FieldError]) -> bool:
    if not _is_number(value, 0, MAX_BACKOFF_SECONDS):
        errors.append(FieldError(where, f"expected a number of seconds from 0 to {MAX_BACKOFF_SECONDS}"))
        return False
    return True


def _is_number(value: object, low: float, high: float) -> bool:
    return type(value) in (int, float) and low <= value <= high  # type: ignore[operator]  # NaN fails the comparison


def _check_backoff(backoff: object, where: str) -> list[FieldError]:
    if not isinstance(backoff, Mapping):
        return [FieldError(where, "expected an object")]
    kind = _kind_of(backoff)
    if kind not in get_args(Kind):
        return [FieldError(where + "/kind", "expected one of exponential, fixed, list")]
    allowed = ("kind", *_EXPONENTIAL_FIELDS) if kind == "exponential" else ("kind", "seconds")
    errors = [
        FieldError(where + pointer(name), f"unknown field; a backoff of kind {kind} has " + ", ".join(allowed))
        for name in backoff
        if name not in allowed
    ]
    if kind == "exponential":
        errors += _check_exponential(backoff, where)
    elif kind == "fixed":
        _check_seconds(backoff.get("seconds"), where + "/seconds", errors)
    else:
        steps = backoff.get("seconds")
        if not isinstance(steps, list | tuple) or not 1 <= len(steps) <= MAX_BACKOFF_STEPS:
            errors.append(FieldError(where + "/seconds", f"expected a list of 1 to {MAX_BACKOFF_STEPS} numbers"))
        else:
            for index, step in enumerate(steps):
                _check_seconds(step, where + pointer("seconds", index), errors)
    return errors


def _check_exponential(backoff: Mapping[str, Any], where: str) -> list[FieldError]:
    errors: list[FieldError] = []
    sound = [
        _check_seconds(backoff[name], f"{where}/{name}", errors)
        for name in ("min_seconds", "max_seconds")
        if name in backoff
    ]
    if len(sound) == 2 and all(sound) and backoff["min_seconds"] > backoff["max_seconds"]:
        errors.append(FieldError(where + "/min_seconds", "must not exceed max_seconds"))
    if "factor" in backoff and not _is_number(backoff["factor"], 1, MAX_FACTOR):
        errors.append(FieldError(where + "/factor", f"expected a number from 1 to {MAX_FACTOR}"))
    if "jitter" in backoff and backoff["jitter"] not in get_args(Jitter):
        errors.append(FieldError(where + "/jitter", "expected one of full, equal, none"))
    return errors


def _kind_of(backoff: Mapping[str, Any]) -> object:
    """Return the kind, inferred from the fields if it is not given."""
    if "kind" in backoff:
        return backoff["kind"]
    if "seconds" not in backoff:
        return "exponential"
    return "list" if isinstance(backoff["seconds"], list | tuple) else "fixed"


def effective_retry(policy: RetryPolicy, partial: Mapping[str, Any] | None) -> RetryPolicy:
    """Merge `partial`, which has passed check_retry, over `policy`. A backoff of a different kind replaces the whole backoff."""
    if not partial:
        return policy
    given: dict[str, Any] = dict(partial)
    if "backoff" in given:
        given["backoff"] = _merged_backoff(policy.backoff, given["backoff"])
    if "retry_after_max_seconds" in given:
        given["retry_after_max_seconds"] = float(given["retry_after_max_seconds"])
    return replace(policy, **given)


def _merged_backoff(backoff: Backoff, partial: Mapping[str, Any]) -> Backoff:
    kind: Any = _kind_of(partial)
    seconds = partial.get("seconds", ())
    if kind == "fixed":
        return Backoff(kind="fixed", seconds=float(seconds))
    if kind == "list":
        return Backoff(kind="list", seconds=tuple(float(step) for step in seconds))
    over = backoff if backoff.kind == "exponential" else Backoff()
    given: dict[str, Any] = {name: float(partial[name]) for name in _EXPONENTIAL_FIELDS[:3] if name in partial}
    return replace(over, **given, jitter=partial.get("jitter", over.jitter))


def retry_to_dict(policy: RetryPolicy) -> dict[str, Any]:
    """Return the complete policy as JSON values; check_retry accepts it and merging it restores the policy."""
    backoff = policy.backoff
    shown: dict[str, Any] = {"kind": backoff.kind}
    if backoff.kind == "exponential":
        shown |= {name: getattr(backoff, name) for name in _EXPONENTIAL_FIELDS}
    else:
        shown["seconds"] = list(backoff.seconds) if isinstance(backoff.seconds, tuple) else backoff.seconds
    return {
        "max_attempts": policy.max_attempts,
        "retry_after_max_seconds": policy.retry_after_max_seconds,
        "backoff": shown,
    }
