"""Map error codes to HTTP, here and nowhere else: one table, and problem details (RFC 9457) for every refusal."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from app.domain.errors import FieldError, Refusal, invalid, pointer
from app.edge.codes import CODES
from app.edge.replies import FieldProblem, Problem, json_reply

STATUS = {name: code.status for name, code in CODES.items()}
TITLES = {name: code.title for name, code in CODES.items()}

MEDIA_TYPE = "application/problem+json"
INTERNAL = Refusal("internal", "an internal error occurred; the service's log has the details")
NO_ROUTE = Refusal("not_found", "there is no such route; /docs lists them")


def problem_of(refusal: Refusal) -> Problem:
    return Problem(
        type=f"urn:sluice:problem:{refusal.code}",
        title=TITLES[refusal.code],
        status=STATUS[refusal.code],
        code=refusal.code,
        detail=refusal.detail,
        errors=[FieldProblem(error.pointer, error.detail) for error in refusal.errors],
    )


def problem_headers(refusal: Refusal) -> dict[str, str]:
    status = STATUS[refusal.code]
    if status in (429, 503):
        return {"retry-after": str(max(1, math.ceil(refusal.retry_after_seconds or 1)))}
    if status == 401:
        return {"www-authenticate": 'Bearer realm="sluice"'}
    return {}


def problem(refusal: Refusal, headers: dict[str, str] | None = None) -> Response:
    return json_reply(
        msgspec.json.encode(problem_of(refusal)),
        STATUS[refusal.code],
        {**problem_headers(refusal), **(headers or {})},
        MEDIA_TYPE,
    )


def validation_refusal(errors: Sequence[Any]) -> Refusal:
    """Turn FastAPI's validation errors into a refusal. Pointers leave out the part of the request (query, path, header)."""
    return invalid(FieldError(pointer(*error["loc"][1:]), _detail(error)) for error in errors)


def _detail(error: Any) -> str:
    if error["type"] == "missing":
        return "is required"
    message: str = error["msg"]
    return message[:1].lower() + message[1:]


def install(app: FastAPI, allowed_methods: "AllowedMethods") -> None:
    """Make the application answer every failure with a problem document."""

    async def refused(_request: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return problem(error)

    async def invalid_request(_request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return problem(validation_refusal(error.errors()))

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 405:
            allow = ", ".join(allowed_methods.of(request.url.path))
            refusal = Refusal("method_not_allowed", f"{request.method} is not allowed here, only {allow}")
            return problem(refusal, {"allow": allow})
        if error.status_code == 404:
            return problem(NO_ROUTE)
        return problem(Refusal("malformed", str(error.detail)))

    async def internal(_request: Request, _error: Exception) -> Response:
        return problem(INTERNAL)

    app.add_exception_handler(Refusal, refused)
    app.add_exception_handler(RequestValidationError, invalid_request)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(Exception, internal)


class AllowedMethods:
    """The methods of a path over all its routes; the framework reports only those of the first route."""

    def __init__(self, routes: Iterable[Any]) -> None:
        self._routes = [(route.path_regex, frozenset(route.methods or ())) for route in routes]

    def of(self, path: str) -> list[str]:
        found: set[str] = set()
        for regex, methods in self._routes:
            if regex.match(path):
                found |= methods
        if "GET" in found:
            found.add("HEAD")
        return sorted(found)
