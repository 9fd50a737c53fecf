"""Signature Version 4 of AWS: signing a request, and what whoever verifies one compares.

Written from "Signature Version 4 request signing" in AWS's documentation, and tested with the test vectors that AWS publishes.
The canonical path is that of every service except S3: normalized and encoded twice.
"""

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from urllib.parse import quote, unquote, urlsplit

ALGORITHM = "AWS4-HMAC-SHA256"
TIME_FORMAT = "%Y%m%dT%H%M%SZ"
_TERMINATOR = "aws4_request"
_PARAMETERS = ("Credential", "SignedHeaders", "Signature")
_SPACES = re.compile(r" +")


@dataclass(frozen=True, slots=True)
class Authorization:
    """What an Authorization header says."""

    access_key_id: str
    date: str
    """As in 20260131."""
    region: str
    service: str
    signed_headers: tuple[str, ...]
    """In lower case."""
    signature: str = field(repr=False)

    @property
    def scope(self) -> str:
        return scope_of(self.date, self.region, self.service)


def parse_authorization(header: str) -> Authorization:
    """Read an Authorization header. Raises ValueError, which says what is wrong with it."""
    algorithm, _, rest = header.strip().partition(" ")
    if algorithm != ALGORITHM:
        raise ValueError(f"the algorithm must be {ALGORITHM}")
    given = {}
    for part in rest.split(","):
        name, _, value = part.strip().partition("=")
        given[name] = value
    if missing := [name for name in _PARAMETERS if not given.get(name)]:
        raise ValueError(f"the Authorization header lacks {', '.join(missing)}")
    parts = given["Credential"].split("/")
    if len(parts) != 5 or not all(parts) or parts[4] != _TERMINATOR:
        raise ValueError("the credential must be <access key id>/<date>/<region>/<service>/aws4_request")
    signed = tuple(name.lower() for name in given["SignedHeaders"].split(";"))
    return Authorization(parts[0], parts[1], parts[2], parts[3], signed, given["Signature"])


def scope_of(date: str, region: str, service: str) -> str:
    return f"{date}/{region}/{service}/{_TERMINATOR}"


def payload_hash(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def canonical_request(
    method: str, path: str, query: str, headers: Mapping[str, str], signed_headers: Iterable[str], hashed: str
) -> str:
    """Return the canonical request.

    `path` and `query` are as they stand in the request line; `headers` have names in lower case, and contain `signed_headers`,
    which are sorted; `hashed` is the payload's hash. Raises KeyError if a signed header is missing.
    """
    names = list(signed_headers)
    lines = "".join(f"{name}:{_SPACES.sub(' ', headers[name].strip())}\n" for name in names)
    return f"{method}\n{_canonical_path(path)}\n{_canonical_query(query)}\n{lines}\n{';'.join(names)}\n{hashed}"


def _canonical_path(path: str) -> str:
    if path in ("", "/"):
        return "/"
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del kept[-1:]
        elif part not in ("", "."):
            kept.append(part)
    end = "/" if kept and path.endswith(("/", "/.", "/..")) else ""
    return quote("/" + "/".join(kept) + end, safe="/-_.~")


def _canonical_query(query: str) -> str:
    if not query:
        return ""
    pairs = (part.partition("=") for part in query.split("&") if part)
    encoded = ((_encoded(name), _encoded(value)) for name, _, value in pairs)
    return "&".join(f"{name}={value}" for name, value in sorted(encoded))


def _encoded(text: str) -> str:
    return quote(unquote(text), safe="-_.~")


def string_to_sign(amz_date: str, scope: str, canonical: str) -> str:
    """Return what is signed. `amz_date` is the value of X-Amz-Date."""
    return f"{ALGORITHM}\n{amz_date}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"


@lru_cache(maxsize=256)
def signing_key(secret_access_key: str, date: str, region: str, service: str) -> bytes:
    """Return the key that signs the requests of a day. Cached, because four of the five digests of a signature are for it."""
    key = f"AWS4{secret_access_key}".encode()
    for part in (date, region, service, _TERMINATOR):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def signature_of(key: bytes, to_sign: str) -> str:
    """Return the signature, with a signing key."""
    return hmac.digest(key, to_sign.encode(), "sha256").hex()


def sign(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    access_key_id: str,
    secret_access_key: str,
    session_token: str | None,
    region: str,
    service: str,
    now: datetime,
) -> dict[str, str]:
    """Return the headers that sign a request: those given, and host, x-amz-date, x-amz-security-token and authorization, all with
    names in lower case. `now` is in UTC."""
    parts, amz_date = urlsplit(url), now.strftime(TIME_FORMAT)
    signed = {name.lower(): value for name, value in headers.items()} | {"host": parts.netloc, "x-amz-date": amz_date}
    if session_token is not None:
        signed["x-amz-security-token"] = session_token
    names = sorted(signed)
    scope = scope_of(amz_date[:8], region, service)
    canonical = canonical_request(method, parts.path, parts.query, signed, names, payload_hash(body))
    key = signing_key(secret_access_key, amz_date[:8], region, service)
    signature = signature_of(key, string_to_sign(amz_date, scope, canonical))
    credential = f"Credential={access_key_id}/{scope}"
    return signed | {
        "authorization": f"{ALGORITHM} {credential}, SignedHeaders={';'.join(names)}, Signature={signature}"
    }
