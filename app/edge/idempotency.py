"""The `Idempotency-Key` header."""

import re
from collections.abc import Mapping

from app.domain.errors import Refusal, invalid_field
from app.domain.tasks import label_problem

_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')


def key_of(header: bytes) -> str:
    """Return the key in the header: quoted, as in the draft standard, or bare. Raises Refusal: malformed, invalid."""
    try:
        key = header.decode().strip()
    except UnicodeDecodeError:
        raise Refusal("malformed", "Idempotency-Key is not valid UTF-8") from None
    if key.startswith('"'):
        quoted = _QUOTED.fullmatch(key)
        if quoted is None:
            raise Refusal("malformed", "Idempotency-Key starts with a quote but is not a single quoted string")
        key = re.sub(r"\\(.)", r"\1", quoted[1])
    if (found := label_problem(key)) is not None:
        raise invalid_field("/idempotency_key", found)
    return key


def require_no_key(headers: Mapping[bytes, bytes]) -> None:
    """Refuse a key for a request that stores many tasks, rather than ignore it. Raises Refusal (malformed)."""
    if b"idempotency-key" in headers:
        raise Refusal(
            "malformed", "Idempotency-Key is for a request with one task; give each task here its own idempotency_key"
        )
