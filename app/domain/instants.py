"""Instants on the wire: RFC 3339 in UTC."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

from msgspec import Meta

from app.domain.errors import FieldError

Instant = Annotated[str, Meta(extra_json_schema={"format": "date-time", "examples": ["2026-11-21T22:44:00.123456Z"]})]
"""An instant in a body: text as read by parse_instant and written by format_instant."""

NO_INSTANT = "expected an RFC 3339 instant with an offset"
FIRST = datetime.min.replace(tzinfo=UTC) + timedelta(microseconds=1)
LAST = datetime.max.replace(tzinfo=UTC) - timedelta(microseconds=1)
"""What is stored; the driver takes the microseconds beyond them for infinity, and returns that without a zone."""

_RFC3339 = re.compile(
    r"(\d{4}-\d{2}-\d{2})[Tt]([01]\d|2[0-3]):([0-5]\d):([0-5]\d)(?:\.(\d{1,30}))?([Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)


def format_instant(instant: datetime) -> str:
    """Return the instant as `2026-11-21T22:44:00.123456Z`. Raises ValueError if it has no time zone."""
    if instant.tzinfo is not UTC:
        if instant.utcoffset() is None:
            raise ValueError("an instant without a zone")
        instant = instant.astimezone(UTC)
    return instant.isoformat(timespec="microseconds")[:-6] + "Z"


def instant_text(instant: datetime | None) -> str | None:
    return None if instant is None else format_instant(instant)


def parse_instant(text: str) -> datetime | None:
    """Parse strict RFC 3339 with an offset, as UTC, from FIRST to LAST; digits below a microsecond are dropped. None for anything
    else."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        return None
    date, hour, minute, second, fraction, offset = match.groups()
    micros = (fraction or "0")[:6].ljust(6, "0")
    offset = "+00:00" if offset in "Zz" else offset
    try:
        instant = datetime.fromisoformat(f"{date}T{hour}:{minute}:{second}.{micros}{offset}").astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return min(max(instant, FIRST), LAST)


def read_instant(text: str | None, where: str, errors: list[FieldError]) -> datetime | None:
    """Parse an instant of a body. An invalid instant is added to `errors`, with `where` as its pointer."""
    instant = None if text is None else parse_instant(text)
    if text is not None and instant is None:
        errors.append(FieldError(where, NO_INSTANT))
    return instant
