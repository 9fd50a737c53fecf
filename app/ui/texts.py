"""JSON from tasks as text, as its bytes stand."""

from typing import Any

import msgspec


def text_of(value: Any) -> str | None:
    """Return JSON as its bytes stand, never parsed and written again: 20 digits stay 20 digits."""
    if value is None or value is msgspec.UNSET:
        return None
    if isinstance(value, msgspec.Raw):
        return bytes(value).decode("utf-8", "replace")
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
