"""What goes into a request and comes out of a response. Shared by both transports; nothing here waits."""

import ipaddress
import json
import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx2

from sluice_client.errors import NotSluice, error_class
from sluice_client.retrying import retry_after_seconds
from sluice_client.version import VERSION

CONNECT_SECONDS = 5.0
MEDIA_TYPES = ("application/json", "text/plain", "text/event-stream")
"""Of responses of Sluice. What a proxy says under 200 is none, and a lease is not settled by it."""


def base_url(url: str) -> str:
    """Check an address, and return it without a slash at its end. Raises ValueError without repeating what may be a secret."""
    try:
        parts, _ = urlsplit(url), httpx2.URL(url)
    except (ValueError, httpx2.InvalidURL):
        raise ValueError("the URL cannot be parsed") from None
    if " " in url or not url.isprintable():
        raise ValueError("the URL holds a space or a line break")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("the URL must begin with http:// or https:// and name a host")
    if "@" in parts.netloc:
        raise ValueError("the URL must not hold a user name or password: pass the API key as key, or in SLUICE_KEY")
    if parts.query or parts.fragment:
        raise ValueError("the URL must not have a query or a fragment")
    return url.rstrip("/")


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def client_headers(key: str | None) -> dict[str, str]:
    """Return the headers of every request. Raises ValueError, without the key, for a key that no header can hold."""
    headers = {"user-agent": f"sluice-client/{VERSION} Python/{platform.python_version()}", "accept": "*/*"}
    if key:
        if not all("!" <= letter <= "~" for letter in key):
            raise ValueError("the API key holds a space, a line break or a letter that is not ASCII")
        headers["authorization"] = f"Bearer {key}"
    return headers


def patience(seconds: float) -> httpx2.Timeout:
    """Wait for so many seconds for each thing there is to wait for, and less for the connection."""
    seconds = max(seconds, 0.001)
    return httpx2.Timeout(seconds, connect=min(seconds, CONNECT_SECONDS))


def encode(body: Any) -> bytes:
    """Return JSON in UTF-8. Raises ValueError or TypeError for what JSON cannot hold, and for a time without a zone."""
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=plain).encode()


def plain(value: Any) -> Any:
    """Return what a date-time or an id is on the wire; everything else is itself. The `default` of `json.dumps`."""
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError(f"the time {value.isoformat()} has no time zone")
        return value.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"JSON cannot hold a {type(value).__name__}")


def given(values: Mapping[str, Any] | None) -> dict[str, Any]:
    """Leave out what is None; a date-time or an id becomes text."""
    if values is None:
        return {}
    return {
        name: value if isinstance(value, (str, int, float)) else plain(value)
        for name, value in values.items()
        if value is not None
    }


def refuse_failure(response: httpx2.Response, url: str) -> None:
    """Raise what a response that is no success means. Its body has been read."""
    media_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if response.is_success and (media_type in MEDIA_TYPES or response.status_code == 204):
        return
    retry_after = retry_after_seconds(response.headers.get("retry-after"), datetime.now(timezone.utc))
    problem = _problem(response) if media_type == "application/problem+json" else None
    if problem is None:
        text = f"{url} responded {response.status_code} {response.reason_phrase}".rstrip() + ", and not as Sluice does"
        raise NotSluice(text, response.status_code, retry_after)
    code, errors, request_id = problem["code"], problem.get("errors", ()), response.headers.get("x-request-id")
    error = error_class(response.status_code, code)
    raise error(response.status_code, code, problem["detail"], errors, request_id, retry_after, problem)


def _problem(response: httpx2.Response) -> dict[str, Any] | None:
    try:
        problem = json.loads(response.content)
    except ValueError:
        return None
    texts = (problem.get("code"), problem.get("detail")) if isinstance(problem, dict) else (None,)
    return problem if all(isinstance(text, str) for text in texts) else None
