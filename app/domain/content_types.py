"""Content types of payloads."""

import re

JSON = "application/json"
ANY_BYTES = "application/octet-stream"
"""Of bytes whose type is not given, as with Cloud Tasks."""
MAX_CONTENT_TYPE = 255

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
