"""The text that Postgres writes of a jsonb value: what a digest is made of on both sides of a connection."""

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Any


def jsonb_text(value: Any) -> str:
    """Return the text of a JSON value, with numbers in their shortest form: the keys of an object by length, then by bytes."""
    if isinstance(value, Mapping):
        members = sorted(((name.encode(), name, member) for name, member in value.items()), key=_place)
        return "{" + ", ".join(f"{_text(name)}: {jsonb_text(member)}" for _, name, member in members) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(jsonb_text, value)) + "]"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else format(Decimal(repr(value)), "f")
    return _text(value)


def _place(member: tuple[bytes, str, Any]) -> tuple[int, bytes]:
    return len(member[0]), member[0]


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
