"""Strict requests: JSON by content type, I-JSON by content, bounded, and without unknown names.

FastAPI's own parsing turns NaN into null and answers a lone surrogate with 500, so a body is read and validated here first and
passed on as a value.
"""

from collections.abc import Callable, Coroutine, Iterator, Mapping
from typing import Any, ClassVar, Protocol
from urllib.parse import parse_qsl

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from app.domain.callers import Caller
from app.domain.errors import FieldError, Refusal, invalid, pointer
from app.domain.ijson import parse_ijson
from app.edge.auth import caller_of, scope_of, with_origin
from app.edge.body import read_body, require_json, require_size
from app.edge.config import EdgeConfig
from app.edge.declared import body_of
from app.edge.errors import validation_refusal
from app.runtime.core import Core

MAX_QUERY_FIELDS = 50
NO_PARAMETERS: frozenset[str] = frozenset()


def check_query(query_string: bytes, known: frozenset[str]) -> None:
    """Refuse unknown and repeated parameters: ignoring them would hide a mistake."""
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
        raise Refusal("invalid", f"the query has more than {MAX_QUERY_FIELDS} parameters; remove some") from None
    errors = [FieldError(pointer(name), "unknown query parameter") for name in names if name not in known]
    errors += [
        FieldError(pointer(name), "is given twice; send it once")
        for name in sorted(set(names))
        if names.count(name) > 1
    ]
    if errors:
        raise invalid(errors)


class ValidatedRequest(Request):
    """A request whose body has been read and validated."""

    def __init__(self, request: Request, body: bytes, value: Any) -> None:
        super().__init__(request.scope, request.receive)
        self._bytes = body
        self._value = value

    async def body(self) -> bytes:
        return self._bytes

    async def json(self) -> Any:
        return self._value


Handle = Callable[[Request], Coroutine[Any, Any, Response]]


class AuditedVerb(Protocol):
    """A verb of the service that leaves a row in the audit."""

    async def refused(self, core: Core, caller: Caller, name: str | None, refusal: Refusal) -> None:
        """Record a call that was refused, unless the verb has recorded it already."""


class StrictRoute(APIRoute):
    """A route that refuses what it can by a request's head, before reading the body."""

    max_body_bytes: ClassVar[int | None] = None
    """None: as much as the largest payload needs."""
    validates: ClassVar[bool] = True
    """False: the operation takes the body as bytes and validates it itself."""

    def get_route_handler(self) -> Handle:
        handle = self.serving(super().get_route_handler())
        known = frozenset(_query_names(self.dependant))
        declared = body_of(self.dependant)
        body_required = self.validates and declared is not None and declared.required

        async def strict(request: Request) -> Response:
            await self.enter(request)
            check_query(request.scope["query_string"], known)
            if request.method not in ("POST", "PUT", "PATCH"):
                return await handle(request)
            edge: EdgeConfig = request.app.state.edge
            limit = self.max_body_bytes or edge.max_body_bytes
            if announces_body(request.headers):
                require_size(request.headers.get("content-length"), limit)
                require_json(request.headers.get("content-type"))
            body = await self.read(request, limit)
            if not body and not body_required:
                return await handle(ValidatedRequest(request, b"", None))
            require_json(request.headers.get("content-type"))
            if not self.validates:
                return await handle(ValidatedRequest(request, body, None))
            value = parse_ijson(body)
            if declared is None and value != {}:
                raise Refusal("invalid", "this route takes no body", [FieldError("", "expected no body")])
            return await handle(ValidatedRequest(request, body, value))

        return self._recording(strict)

    def _recording(self, strict: Handle) -> Handle:
        """Return the handler that also records what it refuses, for an operation that leaves rows in the audit."""

        async def recording(request: Request) -> Response:
            try:
                return await strict(request)
            except (Refusal, RequestValidationError) as error:
                audited, caller = self._audited(request), getattr(request.state, "caller", None)
                if audited is not None and caller is not None:
                    refusal = error if isinstance(error, Refusal) else validation_refusal(error.errors())
                    name = "/".join(map(str, request.path_params.values())) or None
                    await audited.refused(request.app.state.core, caller, name, refusal)
                raise

        return recording

    def _audited(self, request: Request) -> AuditedVerb | None:
        audited: Mapping[str, AuditedVerb] = request.app.state.audited
        return audited.get(self.operation_id or "")

    async def enter(self, request: Request) -> None:
        """Authorize the caller, by the head alone. Raises Refusal."""
        edge: EdgeConfig = request.app.state.edge
        caller = await caller_of(edge, request.scope, request.headers.get("authorization"))
        if self._audited(request) is not None:
            caller = with_origin(caller, request.scope)
        request.state.caller = caller
        caller.require(scope_of(self.dependant))

    async def read(self, request: Request, max_bytes: int) -> bytes:
        return await read_body(request.scope, request.receive, max_bytes)

    def serving(self, handle: Handle) -> Handle:
        """Return the handler for a request whose body has arrived."""
        return handle


def announces_body(headers: Mapping[str, str]) -> bool:
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _query_names(dependant: Dependant) -> Iterator[str]:
    yield from (field.alias for field in dependant.query_params)
    for part in dependant.dependencies:
        yield from _query_names(part)


class OpenRoute(StrictRoute):
    """A route that needs no key."""

    async def enter(self, request: Request) -> None:
        return
