"""Payload schemas: JSON Schema 2020-12, from tenants who may be hostile.

Nothing is ever fetched, patterns run on a linear-time engine, and `format` is an annotation, as in the standard.
bounds estimates how much work a schema may cause; whatever is not known to be cheap runs in a process that can be killed,
because the library holds the GIL while it compiles and while it checks.
"""

import json
import math
import re
from itertools import islice
from typing import Any

import jiter
import jsonschema_rs
import msgspec

from app.domain.errors import FieldError, Refusal, pointer
from app.domain.ijson import is_deeper
from app.domain.schemas.bounds import UNBOUNDED, Bounds, find_bounds

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MAX_SCHEMA_BYTES = 65_536
MAX_SCHEMA_DEPTH = 64
SHORT_CHARS = 1_000
SHORT_MARKS = 60
MAX_ERRORS = 20
MAX_DETAIL = 300
MAX_POINTER = 1_000
"""Longest pointer of a violation: its names come from the payload."""
ALL_ERRORS_UNITS = 20_000
"""Up to this much work, every violation is reported; above it only the first. Reporting one costs a thousand checks."""
_FIELD = "/payload_schema"
_MAY_BE_HUGE = re.compile(rb"[eE]\+?\d\d\d|\d{300}")
_PATTERNS = jsonschema_rs.RegexOptions(size_limit=2_097_152, dfa_size_limit=1_048_576)

Schema = dict[str, Any] | bool
Validator = jsonschema_rs.Draft202012Validator
Checked = tuple[Validator, Bounds]


def schema_text(schema: Any) -> str | None:
    """Return the schema as stored: as text, because as Python values 1, 1.0 and True are equal. None stays None."""
    return None if schema is None else json.dumps(schema, ensure_ascii=False, separators=(",", ":"))


def schema_value(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def example_of(text: str) -> bytes | None:
    """Return the bytes of the first of a stored schema's `examples`; None without any."""
    try:
        return bytes(_EXAMPLES.decode(text).examples[0])
    except (msgspec.DecodeError, IndexError):
        return None


class _WithExamples(msgspec.Struct):
    examples: list[msgspec.Raw] = []


_EXAMPLES = msgspec.json.Decoder(_WithExamples)


def is_short(text: str) -> bool:
    """Return whether reading a schema takes only a fraction of a millisecond, whatever it contains."""
    return len(text) <= SHORT_CHARS and sum(text.count(mark) for mark in ",{[") <= SHORT_MARKS


def check_size(text: str) -> list[FieldError]:
    """Return what is wrong with a schema's type or size."""
    if not text.startswith("{") and text not in ("true", "false"):
        return [FieldError(_FIELD, "expected a JSON Schema: an object, true or false; or null for none")]
    size = len(text.encode())
    if size > MAX_SCHEMA_BYTES:
        return [FieldError(_FIELD, f"has {size} bytes, at most {MAX_SCHEMA_BYTES} are allowed")]
    return []


def examine(text: str) -> tuple[list[FieldError], Bounds]:
    """Examine a schema of acceptable size without compiling it. Takes about 10 ms for 1,000 subschemas."""
    schema = schema_value(text)
    if is_deeper(schema, MAX_SCHEMA_DEPTH):
        return [FieldError(_FIELD, f"is nested deeper than {MAX_SCHEMA_DEPTH} levels")], UNBOUNDED
    if _has_infinity(schema):
        return [FieldError(_FIELD, "contains a number too large for a double")], UNBOUNDED
    bounds = find_bounds(schema)
    dialects = [
        FieldError(f"{_FIELD}{at}/$schema", f"only {DIALECT} is supported")
        for at, dialect in bounds.dialects
        if not isinstance(dialect, str) or dialect.rstrip("#") != DIALECT
    ]
    return dialects or [FieldError(_FIELD + at, problem) for at, problem in bounds.problems], bounds


def compile_schema(schema: Schema) -> Validator:
    """Compile a schema. Raises ValueError or its subclass jsonschema_rs.ValidationError if it is invalid."""
    return jsonschema_rs.Draft202012Validator(
        schema, retriever=_refuse, pattern_options=_PATTERNS, validate_formats=False, mask="the value"
    )


def _refuse(uri: str) -> Any:
    raise ValueError(f"{uri} is not part of the schema; external references are never fetched")


def try_compile(schema: Schema) -> Validator | list[FieldError]:
    """Return the validator, or the compiler's errors. May take long, use much memory or crash the process."""
    try:
        return compile_schema(schema)
    except jsonschema_rs.ValidationError as error:
        return [FieldError(_FIELD + _pointer(error), _detail(error))]
    except (ValueError, jsonschema_rs.ReferencingError) as error:
        return [FieldError(_FIELD, str(error)[:MAX_DETAIL])]


def payload_value(payload: bytes) -> Any:
    return jiter.from_json(payload, allow_inf_nan=False)


def may_hold_huge(payload: bytes) -> bool:
    """Return whether a number in the payload may be out of range, or so long that arithmetic with it is slow."""
    return _MAY_BE_HUGE.search(payload) is not None


def violations(validator: Validator, bounds: Bounds, payload: bytes) -> list[FieldError]:
    """Return what is wrong with a payload, with pointers into it, at most MAX_ERRORS."""
    value = payload_value(payload)
    if may_hold_huge(payload) and _has_infinity(value):
        return [FieldError("", "contains a number too large for a double, which no schema can check")]
    if validator.is_valid(value):
        return []
    return name_violations(validator, value, all_of_them=bounds.units(payload) <= ALL_ERRORS_UNITS)


def name_violations(validator: Validator, value: Any, *, all_of_them: bool) -> list[FieldError]:
    """Return the violations of an invalid value: at most MAX_ERRORS, or only the first."""
    if all_of_them:
        return [
            FieldError(_pointer(error), _detail(error)) for error in islice(validator.iter_errors(value), MAX_ERRORS)
        ]
    try:
        validator.validate(value)
    except jsonschema_rs.ValidationError as error:
        return [FieldError(_pointer(error), _detail(error))]
    return []


def _pointer(error: jsonschema_rs.ValidationError) -> str:
    """Return the pointer of the innermost location that is short enough."""
    path = list(error.instance_path)
    while len(found := pointer(*path)) > MAX_POINTER:
        path.pop()
    return found


def _detail(error: jsonschema_rs.ValidationError) -> str:
    text = error.message
    return text if len(text) <= MAX_DETAIL else text[:MAX_DETAIL] + "…"


def mismatch(errors: list[FieldError], where: str) -> Refusal:
    """Return the refusal for a payload; `where` is the task's pointer in the request."""
    placed = [FieldError(f"{where}/payload{error.pointer}", error.detail) for error in errors]
    more = f" (and {len(placed) - 1} more)" if len(placed) > 1 else ""
    return Refusal("payload_schema_mismatch", f"{placed[0].pointer}: {placed[0].detail}{more}", placed)


def _has_infinity(value: Any) -> bool:
    """Return whether a value contains a number such as 1e400, which JSON can express but Python cannot write back."""
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return any(_has_infinity(member) for member in value.values())
    return isinstance(value, list) and any(_has_infinity(member) for member in value)
