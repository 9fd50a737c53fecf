"""Payloads: JSON that stays the bytes it came in, or any bytes, sent as base64; and what they are delivered as."""

import binascii
import re

import msgspec
from msgspec import UNSET, UnsetType

from app.domain.errors import FieldError, Refusal
from app.domain.ijson import MAX_DEPTH, nests_deeper

JSON = "application/json"
ANY_BYTES = "application/octet-stream"
"""Of bytes whose type is not given, as with Cloud Tasks."""
MAX_CONTENT_TYPE = 255
REQUIRED = "is required (null is a valid payload)"

_NAME = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED = r'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e]|\\[\t\x20-\x7e])*"'
_MEDIA_TYPE = re.compile(rf"({_NAME}/{_NAME})(?:[ \t]*;[ \t]*{_NAME}=(?:{_NAME}|{_QUOTED}))*")


def content_type_problem(text: str, *, binary: bool) -> str | None:
    """Return what is wrong with the content type of a payload: one that is JSON must be called so."""
    found = _MEDIA_TYPE.fullmatch(text) if len(text) <= MAX_CONTENT_TYPE else None
    if found is None:
        return f"is not a media type such as {JSON}, of at most {MAX_CONTENT_TYPE} characters"
    named = found[1].lower()
    if not binary and named != JSON and not named.endswith("+json"):
        return f"must be {JSON} or end in +json beside payload; send other bodies as payload_base64"
    return None


def kept_content_type(given: str | None, *, binary: bool) -> str | None:
    """Return the content type as a task keeps it: None for the default of JSON, never for binary payloads."""
    if binary:
        return given or ANY_BYTES
    return None if given == JSON else given


class _OnlyPayload(msgspec.Struct):
    payload: msgspec.Raw | UnsetType = UNSET


_ONLY_PAYLOAD = msgspec.json.Decoder(_OnlyPayload)


def payload_of(body: bytes, *, max_bytes: int) -> bytes | None:
    """Return the bytes of `payload` in a body that is already validated; None if it has none."""
    payload = raw_payload_of(body)
    return None if isinstance(payload, UnsetType) else check_payload(payload, max_bytes)


def raw_payload_of(body: bytes) -> msgspec.Raw | UnsetType:
    """Return `payload` as it stands in a body that is already validated."""
    return _ONLY_PAYLOAD.decode(body).payload


def check_either_form(payload: msgspec.Raw | UnsetType, payload_base64: str | None, max_bytes: int) -> None:
    """Check the size and depth of a payload in either form, as far as there is one. Raises Refusal: too_large, malformed."""
    if not isinstance(payload, UnsetType):
        check_payload(payload, max_bytes)
    elif payload_base64 is not None:
        size = len(payload_base64) // 4 * 3 - payload_base64[-2:].count("=")
        if size > max_bytes:
            detail = f"the payload has {size} bytes, at most {max_bytes} are allowed"
            raise Refusal("too_large", detail, [FieldError("/payload_base64", detail)])


def check_payload(payload: msgspec.Raw, max_bytes: int) -> bytes:
    """Return the bytes of the payload of a body that parse_ijson accepted. Raises Refusal: too_large, malformed."""
    text = bytes(payload)
    if len(text) > max_bytes:
        raise Refusal("too_large", f"the payload has {len(text)} bytes, at most {max_bytes} are allowed")
    if nests_deeper(text):
        raise Refusal("malformed", f"the payload is nested deeper than {MAX_DEPTH} levels")
    return text


def read_payload(
    payload: msgspec.Raw | UnsetType, payload_base64: str | None, where: str, errors: list[FieldError]
) -> bytes:
    """Return the bytes of a payload that must have one of the two forms, and add what is wrong with it to `errors`. `where` is its
    owner's pointer."""
    if not isinstance(payload, UnsetType):
        if payload_base64 is not None:
            errors.append(FieldError(where + "/payload_base64", "cannot be combined with payload; send one of them"))
        return bytes(payload)
    if payload_base64 is None:
        errors.append(FieldError(where + "/payload", REQUIRED))
        return b""
    try:
        return binascii.a2b_base64(payload_base64, strict_mode=True)
    except ValueError:
        errors.append(FieldError(where + "/payload_base64", "is not base64 (RFC 4648, with its padding)"))
        return b""
