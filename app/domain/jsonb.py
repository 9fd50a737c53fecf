"""The text that Postgres writes of a jsonb value: what a digest is made of on both sides of a connection."""

import json
from collections.abc import Mapping
from decimal import Decimal
from json.encoder import encode_basestring
from typing import Any


def jsonb_text(value: Any) -> str:
    """Return the text of a JSON value, with numbers in their shortest form: the keys of an object by length, then by bytes."""
    if isinstance(value, str):
        return encode_basestring(value)
    if isinstance(value, Mapping):
        members = value if len(value) < 2 else sorted(value, key=_place)
        return "{" + ", ".join([f"{encode_basestring(name)}: {jsonb_text(value[name])}" for name in members]) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join([jsonb_text(item) for item in value]) + "]"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else format(Decimal(repr(value)), "f")
    return json.dumps(value)


def _place(name: str) -> tuple[int, bytes]:
    text = name.encode()
    return len(text), text
