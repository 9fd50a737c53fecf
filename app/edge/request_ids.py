"""Request ids: every response has one in `x-request-id`, the caller's own if it is sane; the log and the audit have it, too."""

import re
import secrets
from collections.abc import Iterator
from itertools import count

from starlette.types import Scope

HEADER = b"x-request-id"
_SANE = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")


def is_sane(given: bytes) -> bool:
    """Return whether a caller's id may stand in headers, logs and the audit as it is."""
    return _SANE.fullmatch(given) is not None


def made_ids() -> Iterator[bytes]:
    """Yield ids that no other process makes. Counted, because random ones cost more than all else that a response's id costs."""
    process = secrets.token_hex(6).encode()
    return (b"%b-%x" % (process, number) for number in count(1))


def request_id_of(scope: Scope) -> str | None:
    """Return the id of a request; None if another server than ours has read it."""
    found: bytes | None = scope.get("request_id")
    return None if found is None else found.decode()
