"""Without authentication, only this machine may send requests, and no web page open on it.

A page of any site can send requests to 127.0.0.1, and by rebinding its name to that address it can read the answers. Origin or
Sec-Fetch-Site reveals the first, Host the second. A proxy on this machine forwards requests from elsewhere with a loopback Host;
the headers it adds reveal it.
"""

import ipaddress
import re
from collections.abc import Mapping
from functools import lru_cache

from app.domain.errors import Refusal
from app.edge.headers import text

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[^:/?#@\[\]\\\s]+)(?::\d{1,5})?", re.ASCII)


_PROXIED = frozenset((b"forwarded", b"via", b"x-real-ip", b"x-client-ip", b"true-client-ip", b"cf-connecting-ip"))
_PROXIED_PREFIX = b"x-forwarded-"
_OWN_PAGES = (b"same-origin", b"none")
"""Sec-Fetch-Site of Sluice's own pages, and of an address typed by the user."""


def require_loopback(headers: Mapping[bytes, bytes]) -> None:
    """Raises Refusal (host_refused). `headers` have names in lower case."""
    host, origin = text(headers.get(b"host")), text(headers.get(b"origin"))
    if host is None or not _is_loopback(host):
        raise Refusal("host_refused", _detail("Host", host))
    if origin is not None:
        scheme, separator, rest = origin.partition("://")
        if scheme.lower() not in ("http", "https") or not separator or not _is_loopback(rest):
            raise Refusal("host_refused", _detail("Origin", origin))
    if (site := headers.get(b"sec-fetch-site")) is not None and site not in _OWN_PAGES:
        raise Refusal(
            "host_refused",
            "authentication is off, so requests from other sites' pages are refused (see Sec-Fetch-Site)",
        )
    for name in headers:
        if name in _PROXIED or name.startswith(_PROXIED_PREFIX):
            shown = name[:100].decode("latin-1")
            raise Refusal(
                "host_refused",
                f"authentication is off, so only this machine may send requests, but {shown} shows that a proxy forwarded this "
                "one; turn authentication on (SLUICE_AUTH=on)",
            )


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
