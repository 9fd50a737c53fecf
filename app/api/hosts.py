"""Without authentication only this machine may ask, and no web page it happens to show.

A page of any site can send requests to 127.0.0.1, and by rebinding its name to that address it can read the answers.
Both betray themselves: the first by Origin, the second by Host.
"""

import ipaddress
import re
from functools import lru_cache

from app.domain.errors import Refusal

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^:/?#@\[\]\\\s]+)(?::\d{1,5})?", re.ASCII)


def require_loopback(host: str | None, origin: str | None) -> None:
    if host is None or not _is_loopback(host):
        raise Refusal("host_refused", _detail("Host", host))
    if origin is not None:
        scheme, separator, rest = origin.partition("://")
        if scheme.lower() not in ("http", "https") or not separator or not _is_loopback(rest):
            raise Refusal("host_refused", _detail("Origin", origin))


def _detail(header: str, value: str | None) -> str:
    found = f"is {value[:200]!r}" if value else "is missing"
    return f"authentication is off, so {header} must be localhost, 127.0.0.0/8 or [::1]; it {found}"


@lru_cache(maxsize=256)
def _is_loopback(authority: str) -> bool:
    match = _HOST.fullmatch(authority)
    if match is None:
        return False
    name = match["name"].lower()
    if name in ("localhost", "[::1]"):
        return True
    try:
        return ipaddress.IPv4Address(name).is_loopback
    except ValueError:
        return False
