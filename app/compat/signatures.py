"""Whether a request is signed by an access key of this service: Signature Version 4 in the Authorization header.

The head is checked first (`read_signature`), so that a request with an unknown key or an old signature costs no body. The signature
covers the body, so it is verified last (`verify`). Refused are signatures that leave out the body, and those in the query string.
"""

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.domain.callers import Caller
from app.domain.errors import Refusal
from app.domain.sigv4 import (
    TIME_FORMAT,
    Authorization,
    canonical_request,
    parse_authorization,
    payload_hash,
    signature_of,
    signing_key,
    string_to_sign,
)
from app.runtime.core import Core
from app.runtime.known_keys import Signer
from app.service import authentication

MAX_SKEW_SECONDS = 900
MAX_HEADER = 2_000
_TIME = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_HASHED = b"x-amz-content-sha256"
_INVALID_KEY = "The security token included in the request is invalid"


class NotSigned(Exception):
    """Raised for a request without a valid signature. `code` is the error of AWS, as the query protocol names it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True)
class Signed:
    """The head of a request that claims to be signed, by a key that exists, a moment ago, for this service."""

    authorization: Authorization
    amz_date: str
    headers: Mapping[bytes, bytes]
    signer: Signer

    def verify(self, scope: Mapping[str, Any], body: bytes) -> Caller:
        """Return whose request it is. Raises NotSigned."""
        hashed = payload_hash(body)
        read = self.authorization
        canonical = canonical_request(
            scope["method"],
            (scope.get("raw_path") or scope["path"].encode()).decode("latin-1"),
            scope["query_string"].decode("latin-1"),
            {name: self.headers[name.encode("latin-1")].decode("latin-1") for name in read.signed_headers},
            read.signed_headers,
            hashed,
        )
        to_sign = string_to_sign(self.amz_date, read.scope, canonical)
        given = read.signature.encode()
        for secret in self.signer.secrets:
            key = signing_key(secret, read.date, read.region, read.service)
            if hmac.compare_digest(signature_of(key, to_sign).encode(), given):
                return self.signer.caller
        raise _mismatch(
            "The request signature we calculated does not match the signature you provided. Check your secret access key and"
            " signing method, and that no proxy changes the Host header."
        )


async def read_signature(core: Core, service: str, scope: Mapping[str, Any], headers: Mapping[bytes, bytes]) -> Signed:
    """Check the head of a request. Raises NotSigned, Refusal (unavailable)."""
    if b"X-Amz-Signature" in scope["query_string"]:
        raise NotSigned(
            "IncompleteSignature",
            "Signatures in the query string are not supported: sign with the Authorization header.",
        )
    header = headers.get(b"authorization")
    if header is None:
        raise NotSigned("MissingAuthenticationToken", "Request is missing Authentication Token")
    try:
        if len(header) > MAX_HEADER:
            raise ValueError("the Authorization header is too long")
        read = parse_authorization(header.decode("ascii"))
    except ValueError as error:
        raise NotSigned("IncompleteSignature", f"The request has no valid signature: {error}.") from None
    _check_headers(read, headers)
    amz_date = headers[b"x-amz-date"].decode("latin-1")
    _check_time(core, read, amz_date)
    if read.service != service:
        raise _mismatch(f"Credential should be scoped to correct service: '{service}'.")
    if b"x-amz-security-token" in headers:
        raise NotSigned("InvalidClientTokenId", f"{_INVALID_KEY}: access keys of this service have no session token.")
    try:
        signer = await authentication.signer(core, read.access_key_id)
    except Refusal as refusal:
        if refusal.code != "unauthenticated":
            raise
        raise NotSigned("InvalidClientTokenId", f"{_INVALID_KEY}: {refusal.detail}.") from None
    return Signed(read, amz_date, headers, signer)


def _check_headers(read: Authorization, headers: Mapping[bytes, bytes]) -> None:
    """Check that what decides about the request is signed: the host, and all that AWS's own headers say."""
    signed = {name.encode("latin-1") for name in read.signed_headers}
    if tuple(sorted(set(read.signed_headers))) != read.signed_headers:
        raise NotSigned("IncompleteSignature", "SignedHeaders must be sorted, and name each header once.")
    if missing := sorted(signed - headers.keys()):
        raise _mismatch(f"The signed header {missing[0].decode('latin-1')[:100]} is not in the request.")
    wanted = {b"host", b"x-amz-date"} | {name for name in headers if name.startswith(b"x-amz-")}
    if unsigned := sorted(wanted - signed):
        raise _mismatch(f"The header {unsigned[0].decode('latin-1')[:100]} must be in the request and signed.")
    hashed = headers.get(_HASHED, b"")
    if hashed.startswith((b"STREAMING-", b"UNSIGNED-")):
        raise NotSigned(
            "IncompleteSignature", f"{hashed.decode('latin-1')[:100]} is not supported: sign the whole body."
        )


def _check_time(core: Core, read: Authorization, amz_date: str) -> None:
    try:
        at = datetime.fromisoformat(amz_date) if _TIME.fullmatch(amz_date) else None
    except ValueError:
        at = None
    if at is None:
        raise NotSigned("IncompleteSignature", "X-Amz-Date must be like 20260131T235959Z.")
    if amz_date[:8] != read.date:
        raise _mismatch("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP.")
    now = core.clock.now()
    if abs((now - at).total_seconds()) > MAX_SKEW_SECONDS:
        what = "Signature expired" if at < now else "Signature not yet current"
        than = "earlier" if at < now else "later"
        raise _mismatch(f"{what}: {amz_date} is {than} than allowed, {now.strftime(TIME_FORMAT)} -/+ 15 min.")


def _mismatch(message: str) -> NotSigned:
    return NotSigned("SignatureDoesNotMatch", message)
