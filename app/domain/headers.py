"""Headers that callers add to deliveries: allowed names, values and sizes.

Servers of the CGI family (WSGI, PHP, Rack) pass `webhook-signature` and `webhook_signature` to the program under one name. So
names that differ only in case, or in characters other than letters and digits, count as the same name here.
"""

import re
import string
from collections.abc import Mapping

from app.domain.errors import FieldError, pointer

MAX_HEADERS = 50
MAX_HEADER_NAME = 100
MAX_HEADER_VALUE = 4096
MAX_HEADER_BYTES = 16_384

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?")

_RESERVED_PREFIXES = ("content-", "webhook-", "sluice-", "proxy-")
# The contract's own, then framing and hop-by-hop headers (a second one would allow request smuggling), then what Sluice sends.
_RESERVED = frozenset(
    {"host", "connection", "transfer-encoding", "traceparent", "tracestate", "baggage"}
    | {"keep-alive", "te", "trailer", "upgrade", "expect", "http2-settings"}
    | {"accept-encoding", "idempotency-key", "x-correlation-id"}
)


_FOLD = str.maketrans(
    string.ascii_uppercase + string.punctuation, string.ascii_lowercase + "-" * len(string.punctuation)
)


def is_token(text: str) -> bool:
    """Return whether the text is a token, as names of headers are (RFC 9110, section 5.6.2)."""
    return _TOKEN.fullmatch(text) is not None


def folded(name: str) -> str:
    """Return the form that all spellings share which a handler may confuse."""
    return name.translate(_FOLD)


def reserved_header(name: str) -> bool:
    fold = folded(name)
    return fold in _RESERVED or fold.startswith(_RESERVED_PREFIXES)


def check_headers(headers: Mapping[str, str], where: str = "/headers") -> list[FieldError]:
    errors: list[FieldError] = []
    if len(headers) > MAX_HEADERS:
        errors.append(FieldError(where, f"has {len(headers)} headers, at most {MAX_HEADERS} are allowed"))
    total = sum(len(name) + len(value) for name, value in headers.items())
    if total > MAX_HEADER_BYTES:
        errors.append(FieldError(where, f"is {total} characters long, at most {MAX_HEADER_BYTES} are allowed"))
    if errors:
        return errors
    seen: set[str] = set()
    for name, value in headers.items():
        problem = _problem(name, value)
        if problem is None and folded(name) in seen:
            problem = "is given twice: a handler may ignore case and punctuation in header names; keep one"
        seen.add(folded(name))
        if problem is not None:
            errors.append(FieldError(where + pointer(name), problem))
    return errors


def _problem(name: str, value: str) -> str | None:
    if len(name) > MAX_HEADER_NAME or not is_token(name):
        return f"is not a header name (an HTTP token of 1-{MAX_HEADER_NAME} characters)"
    if reserved_header(name):
        return "is reserved: Sluice sets it itself; choose another name"
    if len(value) > MAX_HEADER_VALUE:
        return f"is longer than {MAX_HEADER_VALUE} characters"
    if value and _VALUE.fullmatch(value) is None:
        return "must be printable ASCII without leading or trailing spaces"
    return None
