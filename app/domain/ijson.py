"""Validate JSON from outside: I-JSON (RFC 7493), bounded in depth.

jiter refuses what other parsers accept: invalid UTF-8 anywhere, lone surrogates, NaN and Infinity, duplicate keys (escaped
spellings included), trailing text, integers of more than 4,300 digits. pydantic_core accepts duplicate keys; msgspec.Raw
checks neither UTF-8 nor keys. jiter's own depth limit is 201, so our limit is checked here.
"""

from itertools import accumulate
from typing import Any

import jiter

from app.domain.errors import Refusal

MAX_DEPTH = 128
_STEPS = bytes.maketrans(b"[]{}", b"\x01\xff\x01\xff")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def parse_ijson(body: bytes) -> Any:
    """Return the value. Raises Refusal (malformed)."""
    try:
        # Only keys are worth caching: strings in payloads rarely repeat.
        return jiter.from_json(body, allow_inf_nan=False, catch_duplicate_keys=True, cache_mode="keys")
    except ValueError as error:
        raise Refusal("malformed", _why(body, str(error))) from None


def _why(body: bytes, error: str) -> str:
    if not body:
        return "the body is empty; send JSON"
    try:
        body.decode()
    except UnicodeDecodeError as found:
        return f"the body is not UTF-8 at byte {found.start}"
    if "recursion limit" in error:
        return f"the JSON is nested deeper than {MAX_DEPTH} levels"
    return f"the body is not I-JSON: {error}"


def nests_deeper(text: bytes, limit: int = MAX_DEPTH) -> bool:
    """Do what is_deeper does on a text that parse_ijson accepted; ten times faster than walking the value."""
    if len(text) <= 2 * limit or text.count(b"[") + text.count(b"{") <= limit:
        return False
    bare = text.replace(rb"\\", b"").replace(rb"\"", b"")
    outside = b"".join(bare.split(b'"')[::2])  # the parts outside strings
    steps = memoryview(outside.translate(_STEPS, _NO_BRACKETS)).cast("b")
    return max(accumulate(steps)) > limit


def is_deeper(value: object, limit: int = MAX_DEPTH) -> bool:
    """Return whether containers are nested more than `limit` deep; a scalar has depth 0."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(limit):
        if not level:
            return False
        level = [child for container in level for child in _children(container) if isinstance(child, dict | list)]
    return bool(level)


def _children(container: Any) -> Any:
    return container.values() if isinstance(container, dict) else container
