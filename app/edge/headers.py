"""Request headers, read once.

A single-valued header must occur once: of two, proxies and servers may pick different ones.
"""

from collections.abc import Iterable

from app.domain.errors import Refusal

_ONCE = (b"host", b"origin", b"authorization", b"content-type", b"content-length", b"idempotency-key", b"traceparent")


def read_headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    given = list(headers)
    read = dict(given)
    if len(read) < len(given):
        names = [name for name, _ in given]
        for name in _ONCE:
            if names.count(name) > 1:
                raise Refusal("malformed", f"the header {name.decode()} is given twice; send it once")
    return read


def text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def trace_of(headers: dict[bytes, bytes]) -> tuple[str, str | None] | None:
    """Return the trace headers unchanged. Invalid ones are ignored later, never refused (W3C Trace Context)."""
    traceparent = headers.get(b"traceparent")
    return None if traceparent is None else (traceparent.decode("latin-1"), text(headers.get(b"tracestate")))
