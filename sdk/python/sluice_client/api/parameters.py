"""What a method was given, as the wire has it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote
from uuid import UUID

from sluice_client.messages import plain


class Unset:
    """The type of UNSET."""

    def __repr__(self) -> str:
        return "UNSET"

    def __bool__(self) -> bool:
        return False


UNSET: Any = Unset()
"""A field that is left out of a request, which for many fields means something else than None."""


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what is UNSET."""
    return {name: value for name, value in values.items() if value is not UNSET}


def segment(value: str | UUID | datetime) -> str:
    """Return a name or an id as one segment of a path. Raises ValueError for an empty one, which would name something else."""
    text = value if isinstance(value, str) else str(plain(value))
    if not text:
        raise ValueError("a name or an id must not be empty")
    if text in (".", ".."):  # a path would be shortened by them
        return text.replace(".", "%2E")
    return quote(text, safe="")
