"""Requests as they must be: JSON by content type, I-JSON by content, bounded, and without a name that means nothing.

FastAPI's own reading turns NaN into null and answers a lone surrogate with 500, so a body is read and judged here first
and handed on as a value.
"""

from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, ClassVar
from urllib.parse import parse_qsl

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from app.api.auth import caller_of
from app.api.config import EdgeConfig
from app.domain.errors import FieldError, Refusal, invalid, pointer
from app.domain.ijson import parse_ijson

MAX_QUERY_FIELDS = 50
NO_PARAMETERS: frozenset[str] = frozenset()


def require_json(content_type: str | None) -> None:
    media_type = (content_type or "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        found = f"not {media_type[:100]}" if media_type else "and none was given"
        raise Refusal(
            "unsupported_media_type",
            f"the content type must be application/json, {found}; with curl, --json '{{…}}' sets it",
        )


async def read_body(receive: Receive, content_length: str | None, max_bytes: int) -> bytes:
    """The whole body, or the refusal as soon as it is known to be too large."""
    if content_length is not None and content_length.isdigit() and int(content_length[:18]) > max_bytes:
        raise _too_large(max_bytes)
    message = await receive()
    body: bytes = message.get("body", b"")
    if message["type"] == "http.request" and not message.get("more_body", False):
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
        return body
    chunks, size = [body], len(body)
    while message.get("more_body", False):
        if size > max_bytes:
            raise _too_large(max_bytes)
        message = await receive()
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    if size > max_bytes:
        raise _too_large(max_bytes)
    return b"".join(chunks)


def _too_large(max_bytes: int) -> Refusal:
    return Refusal("too_large", f"the body is larger than {max_bytes} bytes")


def check_query(query_string: bytes, known: frozenset[str]) -> None:
    """Unknown and repeated parameters are refused: each is a wish that would not be met."""
    if not query_string:
        return
    try:
        names = [
            name
            for name, _ in parse_qsl(
                query_string.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS
            )
        ]
    except ValueError:
        raise Refusal("invalid", f"the query has more than {MAX_QUERY_FIELDS} parameters") from None
    errors = [FieldError(pointer(name), "unknown query parameter") for name in names if name not in known]
    errors += [FieldError(pointer(name), "is given twice") for name in sorted(set(names)) if names.count(name) > 1]
    if errors:
        raise invalid(errors)


class JudgedRequest(Request):
    """A request whose body has been read and judged."""

    def __init__(self, request: Request, body: bytes, value: Any) -> None:
        super().__init__(request.scope, request.receive)
        self._judged = body
        self._value = value

    async def body(self) -> bytes:
        return self._judged

    async def json(self) -> Any:
        return self._value


class StrictRoute(APIRoute):
    """A route that knows its caller before it reads a body."""

    authenticates: ClassVar[bool] = True
    max_body_bytes: ClassVar[int | None] = None
    """None: as much as a payload may need."""
    judges: ClassVar[bool] = True
    """False: the operation takes the body as bytes and judges it itself."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        known = frozenset(_query_names(self.dependant))
        field = self.body_field
        body_required = field is not None and field.field_info.is_required()

        async def strict(request: Request) -> Response:
            edge: EdgeConfig = request.app.state.edge
            if self.authenticates:
                request.state.caller = await caller_of(edge, request.headers.get("authorization"))
            check_query(request.scope["query_string"], known)
            if request.method not in ("POST", "PUT", "PATCH"):
                return await handle(request)
            limit = self.max_body_bytes or edge.max_body_bytes
            body = await read_body(request.receive, request.headers.get("content-length"), limit)
            if not body and not body_required:
                return await handle(JudgedRequest(request, b"", None))
            if not self.judges:
                require_json(request.headers.get("content-type"))
                return await handle(JudgedRequest(request, body, None))
            value = judge(body, request.headers)
            if field is None and value != {}:
                raise Refusal("invalid", "this route takes no body", [FieldError("", "expected no body")])
            return await handle(JudgedRequest(request, body, value))

        return strict


def _query_names(dependant: Dependant) -> Iterator[str]:
    yield from (field.alias for field in dependant.query_params)
    for part in dependant.dependencies:
        yield from _query_names(part)


def judge(body: bytes, headers: Mapping[str, str]) -> Any:
    require_json(headers.get("content-type"))
    return parse_ijson(body)


class OpenRoute(StrictRoute):
    """A route for anyone who can reach the service."""

    authenticates = False
