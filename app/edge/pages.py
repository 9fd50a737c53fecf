"""Keyset pagination: a cursor is the position after the last item, opaque and bound to its list and filters."""

import base64
import binascii
import hashlib
from collections.abc import Callable
from typing import Annotated, Generic, TypeVar

from fastapi import Query
from msgspec import Meta, Struct, UnsetType

from app.domain.errors import Refusal, invalid_field

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
MAX_CURSOR = 1000
_BINDING_BYTES = 8

Item = TypeVar("Item")
Owner = Annotated[str | UnsetType, Meta(description="Owner named by the definitions document that manages it, if any.")]


class Page(Struct, Generic[Item]):
    items: list[Item]
    next_cursor: Annotated[str | None, Meta(description="The `cursor` of the next page; null on the last page.")]


Limit = Annotated[int, Query(ge=1, le=MAX_LIMIT, description="Maximum number of items per page.")]
Cursor = Annotated[
    str | None,
    Query(
        pattern=r"^[A-Za-z0-9_-]+$",
        max_length=MAX_CURSOR,
        description="The `next_cursor` of the previous page, with the same filters.",
    ),
]


def binding(*filters: object) -> bytes:
    """Return what a cursor is bound to: the list and its filters, in a fixed order."""
    return hashlib.sha256(repr(filters).encode()).digest()[:_BINDING_BYTES]


def next_cursor(bound_to: bytes, position: str) -> str:
    return base64.urlsafe_b64encode(bound_to + position.encode()).rstrip(b"=").decode()


def position_of(cursor: str | None, bound_to: bytes, is_position: Callable[[str], object]) -> str | None:
    """Return the position in a cursor. `is_position` accepts the positions of this list. Raises Refusal (invalid)."""
    if cursor is None:
        return None
    try:
        raw = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        position = raw[_BINDING_BYTES:].decode("ascii")
    except (binascii.Error, ValueError):
        raise _refused("is not a valid cursor; omit it to start from the first page") from None
    if raw[:_BINDING_BYTES] != bound_to:
        raise _refused("belongs to a different list or different filters; omit it to start from the first page")
    if not is_position(position):
        raise _refused("is not a valid cursor; omit it to start from the first page")
    return position


def _refused(detail: str) -> Refusal:
    return invalid_field("/cursor", detail)
