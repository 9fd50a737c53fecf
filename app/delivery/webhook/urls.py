"""Strict parsing of handlers' URLs.

The egress policy and the transport use the same `ParsedUrl`, so there are no two parsers to disagree about where a URL leads.
Whatever browsers and libraries parse differently (user info, backslashes, escapes in the host, several colons) is refused. Old
spellings of IPv4 addresses (one number, hex, octal, fewer parts), which resolvers accept, are normalised before any check.
"""

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from urllib.parse import quote

import idna

from app.domain.urls import MAX_URL

_SPLIT = re.compile(r"(https?)://([^/?]*)(.*)", re.IGNORECASE | re.ASCII)
_AUTHORITY = re.compile(r"(?:\[([^\[\]]*)\]|([^\[\]:]+))(?::([0-9]{1,5}))?", re.ASCII)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PATH_SAFE = "/?%:@!$&'()*+,;=-._~[]|^`{}\"<>"


class UrlError(ValueError):
    """Raised for a URL that cannot be called; the message says why."""


@dataclass(frozen=True, slots=True)
class ParsedUrl:
    scheme: str
    host: str
    """Lower-case ASCII: a name without its trailing dot, or an address in its usual form, without brackets."""
    port: int
    target: str
    """Path and query, as in the request line."""
    address: IPv4Address | IPv6Address | None
    """Set if the host is a literal address."""
    authority: str
    """The `host` header: brackets where needed, and the port unless it is the scheme's default."""


@lru_cache(maxsize=4096)
def check_url(url: str) -> ParsedUrl:
    """Parse the URL of a handler. Raises UrlError. Cached, because every delivery needs it."""
    return parse_url(url)


def parse_url(url: str) -> ParsedUrl:
    """Parse a URL that may never come again. Raises UrlError."""
    if len(url) > MAX_URL:
        raise UrlError(f"is longer than {MAX_URL} characters")
    if any(char <= " " or char == "\\" or "\x7f" <= char <= "\xa0" or "\ud800" <= char <= "\udfff" for char in url):
        raise UrlError("must not contain spaces, control characters or backslashes")
    if "#" in url:
        raise UrlError("must not contain a fragment")
    split = _SPLIT.fullmatch(url)
    if split is None:
        raise UrlError("must begin with http:// or https://")
    scheme, authority, rest = split[1].lower(), split[2], split[3]
    if "@" in authority:
        raise UrlError("must not contain a user name or password")
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        raise UrlError("has no host and port of the form name:port, 192.0.2.1:port or [2001:db8::1]:port")
    default_port = 443 if scheme == "https" else 80
    port = int(parts[3]) if parts[3] else default_port
    if not 1 <= port <= 65535:
        raise UrlError("has a port outside 1 to 65535")
    address: IPv4Address | IPv6Address | None
    if parts[1] is not None:
        address = _ipv6(parts[1])
    else:
        name = check_host(parts[2])
        address = _ipv4_or_none(name)
    host = name if address is None else str(address)
    target = quote(rest, safe=_PATH_SAFE) if not rest.isascii() else rest
    target = target if target.startswith("/") else "/" + target
    shown = f"[{host}]" if ":" in host else host
    return ParsedUrl(scheme, host, port, target, address, shown if port == default_port else f"{shown}:{port}")


def check_host(text: str) -> str:
    """Return a host name as it is compared and resolved: ASCII (IDNA), lower case, without its trailing dot. Raises UrlError."""
    host = text
    if not text.isascii():
        try:
            host = idna.encode(text, uts46=True, std3_rules=False, transitional=False).decode("ascii")
        except (idna.IDNAError, UnicodeError) as error:
            raise UrlError(f"has a host that is not a valid international name ({error})") from None
    host = host.lower().removesuffix(".")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in host.split(".")):
        raise UrlError("has a host that is not a valid name")
    return host


def _ipv6(text: str) -> IPv6Address:
    try:
        if "%" in text:
            raise UrlError("must not contain an IPv6 zone")
        return IPv6Address(text)
    except AddressValueError:
        raise UrlError("has a host in brackets that is not an IPv6 address") from None


def _ipv4_or_none(host: str) -> IPv4Address | None:
    """Return the address if the last label is a number, as inet_aton and the URL standard do; None for a name."""
    labels = host.split(".")
    if not _NUMBER.fullmatch(labels[-1]):
        return None
    numbers = [_number(label) for label in labels]
    value = 0
    if len(numbers) <= 4 and all(number is not None for number in numbers):
        *front, last = [number for number in numbers if number is not None]
        if all(number <= 255 for number in front) and last < 256 ** (4 - len(front)):
            for place, number in enumerate(front):
                value += number << (8 * (3 - place))
            return IPv4Address(value + last)
    raise UrlError("has a host that ends in a number but is not an IPv4 address")


def _number(label: str) -> int | None:
    if not _NUMBER.fullmatch(label):
        return None
    try:
        if label.startswith("0x"):
            return int(label[2:] or "0", 16)
        return int(label, 8 if label.startswith("0") and len(label) > 1 else 10)
    except ValueError:
        return None
