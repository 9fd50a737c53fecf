"""Handlers: where tasks are delivered."""

import re
from dataclasses import asdict, dataclass, field
from datetime import datetime
from urllib.parse import urlsplit

from app.domain.conditions import etag_of
from app.domain.errors import FieldError, pointer
from app.domain.headers import check_headers
from app.domain.texts import check_text

MIN_TIMEOUT_SECONDS = 0.1
MAX_TIMEOUT_SECONDS = 43_200.0
MAX_CONCURRENCY = 100_000
MAX_URL = 2048
MAX_DESCRIPTION = 1000
MAX_FATAL_STATUSES = 100

_URL_TEXT = re.compile(r"[\x21-\x7e]+")
_SECRET = re.compile(r"whsec_[A-Za-z0-9+/]{32,88}={0,2}")
HIDDEN = "***"
"""What is shown in the place of a value that can be written and not read."""
SECRETS_LOST = "the handler's headers and signing secret cannot be read: PUT the handler again, with its headers"
"""Why nothing is sent to a handler whose encrypted parts cannot be decrypted."""
SECRET_RULE = "whsec_ and the base64 of 24 to 64 bytes"  # noqa: S105  # a rule, not a secret


@dataclass(frozen=True, slots=True)
class HandlerDefinition:
    url: str
    timeout_seconds: float = 30.0
    headers: dict[str, str] = field(default_factory=dict)
    max_concurrency: int | None = None
    fatal_statuses: tuple[int, ...] = ()
    description: str | None = None

    def check(self) -> list[FieldError]:
        """Return every violation. Whether the address may be called is up to the egress policy."""
        errors = [FieldError("/url", problem)] if (problem := url_problem(self.url)) else []
        errors += check_timeout(self.timeout_seconds)
        errors += check_headers(self.headers)
        errors += check_max_concurrency(self.max_concurrency)
        if len(self.fatal_statuses) > MAX_FATAL_STATUSES:
            errors.append(FieldError("/fatal_statuses", f"has more than {MAX_FATAL_STATUSES} statuses"))
        errors += [
            FieldError(pointer("fatal_statuses", index), "expected a status from 100 to 599")
            for index, status in enumerate(self.fatal_statuses)
            if not 100 <= status <= 599
        ]
        if self.description is not None:
            errors += check_text(self.description, "/description", MAX_DESCRIPTION, empty=True)
        return errors


@dataclass(frozen=True, slots=True)
class HandlerView:
    """A handler: its definition and its present state."""

    name: str
    definition: HandlerDefinition
    created_at: datetime
    updated_at: datetime
    enabled: bool = True
    disabled_at: datetime | None = None
    disabled_reason: str | None = None
    secrets_lost: bool = False
    """Its headers and signing secret cannot be decrypted: nothing is sent until the handler is PUT again."""
    owner: str | None = None
    """The owner that the definitions document managing it names."""


def url_problem(url: str) -> str | None:
    if len(url) > MAX_URL:
        return f"is longer than {MAX_URL} characters"
    if _URL_TEXT.fullmatch(url) is None or "\\" in url:
        return "must be printable ASCII without spaces or backslashes; percent-encode everything else"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme not in ("http", "https"):
        return "must begin with http:// or https://"
    if not parts.hostname or port == 0:
        return "has no valid host"
    if "@" in parts.netloc:
        return "must not contain a user name or password; put an authorization header in headers instead"
    if "#" in url:
        return "must not contain a fragment"
    return None


def check_timeout(seconds: float, where: str = "/timeout_seconds") -> list[FieldError]:
    if MIN_TIMEOUT_SECONDS <= seconds <= MAX_TIMEOUT_SECONDS:
        return []
    return [FieldError(where, f"expected seconds from {MIN_TIMEOUT_SECONDS} to {MAX_TIMEOUT_SECONDS:.0f}")]


def check_max_concurrency(limit: int | None, where: str = "/max_concurrency") -> list[FieldError]:
    """Check a concurrency limit. 0 is not allowed: to stop a queue, pause it; to stop a handler, disable it."""
    if limit is None or 1 <= limit <= MAX_CONCURRENCY:
        return []
    return [FieldError(where, f"expected 1 to {MAX_CONCURRENCY}, or null for no limit (to stop a queue, pause it)")]


def is_secret(text: str) -> bool:
    return _SECRET.fullmatch(text) is not None and (len(text) - len("whsec_")) % 4 == 0


def handler_etag(definition: HandlerDefinition) -> str:
    return etag_of(asdict(definition))
