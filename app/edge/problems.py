"""Problems in the OpenAPI document: the codes a route can answer with, by status."""

from typing import Any

from app.edge.declared import Shown, ref_of
from app.edge.errors import MEDIA_TYPE, STATUS, TITLES
from app.edge.replies import Problem

ALWAYS = ("malformed", "host_refused", "request_timeout", "invalid", "headers_too_large")
WITH_KEY = ("unauthenticated", "forbidden")
ALWAYS_LAST = ("internal", "unavailable")
BODY = ("too_large", "unsupported_media_type", "not_implemented")
PROBLEM_REF = ref_of(Problem)

Responses = dict[int | str, dict[str, Any]]


def problems(
    *codes: str, shows: Any = None, body: bool = False, key: bool = True, also: Responses | None = None
) -> Responses:
    """Return the responses of a route.

    `shows`: the struct of its only successful response, a 200. `also`: successful responses, if there is more to say.
    `body`: the route reads one. `key`: it requires one.
    """
    good = also or ({} if shows is None else {200: Shown(shows)})
    by_status: dict[int, list[str]] = {}
    for code in (*(WITH_KEY if key else ()), *ALWAYS, *(BODY if body else ()), *codes, *ALWAYS_LAST):
        by_status.setdefault(STATUS[code], []).append(code)
    return good | {status: _response(status, found) for status, found in sorted(by_status.items())}


def _response(status: int, codes: list[str]) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": " · ".join(f"`{code}`: {TITLES[code][0].lower()}{TITLES[code][1:]}" for code in codes),
        "content": {MEDIA_TYPE: {"schema": PROBLEM_REF}},
    }
    if status in (429, 503):
        response["headers"] = {"Retry-After": header("Seconds to wait before trying again.", "integer")}
    if status == 401:
        response["headers"] = {"WWW-Authenticate": header("`Bearer`.")}
    return response


def header(description: str, kind: str = "string") -> dict[str, Any]:
    return {"description": description, "schema": {"type": kind}}


ETAG = {"headers": {"ETag": header("A strong ETag over the definition.")}}
EMPTY = {"description": "Done; no content."}
