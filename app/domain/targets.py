"""Targets: what a task says itself of where and how it is delivered.

Its handler decides what a task may name: nothing, a path below the handler's URL, or any URL. That is judged when the task is
saved, and again at each attempt, because the handler may have changed since.
"""

import re
from typing import Annotated, Literal
from urllib.parse import unquote

from msgspec import UNSET, Meta, Struct, UnsetType

from app.domain.errors import FieldError, invalid_field
from app.domain.handlers import Targets
from app.domain.headers import check_headers
from app.domain.urls import MAX_URL, url_problem

Method = Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
WITHOUT_BODY = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})
"""Methods that send no body unless the task has a payload other than null."""

_TEXT = re.compile(r"[\x21-\x7e]+")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_NO_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HIDDEN = re.compile(r"%(?:2f|5c|25[0-9a-f]{2}|[01][0-9a-f]|7f)", re.IGNORECASE)


class TargetBody(Struct, frozen=True, forbid_unknown_fields=True):
    """Where and how one task is delivered, as far as its handler's `targets` allows."""

    path: Annotated[
        Annotated[str, Meta(min_length=1, max_length=MAX_URL)] | None,
        Meta(description="Appended to the handler's URL; it may have a query. Cannot be combined with `url`."),
    ] = None
    url: Annotated[
        Annotated[str, Meta(max_length=MAX_URL)] | None,
        Meta(description="An absolute URL. Needs a handler with `targets` = `any`."),
    ] = None
    method: Annotated[
        Method, Meta(description="GET, HEAD, DELETE and OPTIONS send no body unless the payload is not null.")
    ] = "POST"
    headers: Annotated[
        dict[str, str] | None,
        Meta(description="Sent beside the task's `headers`, and instead of those of the same name."),
    ] = None


class TaskTarget(Struct, frozen=True):
    """Where and how the task is delivered, as far as it says so itself."""

    path: str | UnsetType = UNSET
    url: str | UnsetType = UNSET
    method: Method = "POST"
    headers: dict[str, str] | UnsetType = UNSET


def read_target(body: TargetBody, where: str, errors: list[FieldError]) -> TaskTarget:
    """Return the target at the pointer `where`, and add the rules that it breaks to `errors`."""
    if body.path is not None and (problem := path_problem(body.path)):
        errors.append(FieldError(where + "/path", problem))
    if body.url is not None and body.path is not None:
        errors.append(FieldError(where + "/url", "cannot be combined with path; send one of them"))
    elif body.url is not None and (problem := url_problem(body.url)):
        errors.append(FieldError(where + "/url", problem))
    if body.headers:
        errors += check_headers(body.headers, where + "/headers")
    return TaskTarget(
        path=UNSET if body.path is None else body.path,
        url=UNSET if body.url is None else body.url,
        method=body.method,
        headers=body.headers or UNSET,
    )


def path_problem(path: str) -> str | None:
    """Return why a path may not be appended to a URL: whatever a server might read as a way out of it is refused."""
    if _TEXT.fullmatch(path) is None or "\\" in path:
        return "must be printable ASCII without spaces or backslashes; percent-encode everything else"
    if "#" in path:
        return "must not contain a fragment"
    if path.startswith("//") or _SCHEME.match(path):
        return "must not contain a scheme or a host; it begins with / or ?"
    steps, _, _ = path.partition("?")
    if _NO_ESCAPE.search(path):
        return "has a % that two hexadecimal digits do not follow; percent-encode it as %25"
    if _HIDDEN.search(steps):
        return "must not contain an encoded slash, backslash or control character, not even encoded twice"
    if any(unquote(step).partition(";")[0] == ".." for step in steps.split("/")):
        return "must not contain .."
    return None


def address_of(target: TaskTarget, handler_url: str, allowed: Targets, where: str) -> str:
    """Return the URL of a task with this target, which has the pointer `where`, under its handler's URL and `targets`.

    Raises Refusal (invalid).
    """
    if allowed == "own":
        raise invalid_field(where, "is not allowed by the task's handler, whose `targets` is own; make it path or any")
    if not isinstance(target.url, UnsetType):
        if allowed != "any":
            raise invalid_field(
                where + "/url", "is not allowed by the task's handler, whose `targets` is path, not any"
            )
        return target.url
    if isinstance(target.path, UnsetType):
        return handler_url
    address = _below(handler_url, target.path)
    if len(address) > MAX_URL:
        raise invalid_field(where + "/path", f"and the handler's URL together are longer than {MAX_URL} characters")
    return address


def _below(url: str, path: str) -> str:
    """Append a path, with exactly one slash between, and its query after the URL's own."""
    start, _, query = url.partition("?")
    steps, _, more = path.partition("?")
    if steps:
        start = f"{start.removesuffix('/')}/{steps.removeprefix('/')}"
    queries = "&".join(part for part in (query, more) if part)
    return f"{start}?{queries}" if queries else start
