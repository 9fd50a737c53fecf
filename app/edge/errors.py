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
from app.edge.replies import json_reply

STATUS: dict[str, int] = {
    "malformed": 400,
    "unauthenticated": 401,
    "forbidden": 403,
    "host_refused": 403,
    "not_found": 404,
    "handler_not_found": 404,
    "queue_not_found": 404,
    "task_not_found": 404,
    "batch_not_found": 404,
    "schedule_not_found": 404,
    "tenant_not_found": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "lease_lost": 409,
    "task_cancelled": 409,
    "task_ended": 409,
    "task_not_editable": 409,
    "queue_is_push": 409,
    "queue_in_use": 409,
    "handler_in_use": 409,
    "batch_sealed": 409,
    "etag_mismatch": 412,
    "too_large": 413,
    "unsupported_media_type": 415,
    "invalid": 422,
    "idempotency_mismatch": 422,
    "egress_denied": 422,
    "payload_schema_mismatch": 422,
    "queue_full": 429,
    "rate_limited": 429,
    "headers_too_large": 431,
    "internal": 500,
    "not_implemented": 501,
    "unavailable": 503,
}

TITLES: dict[str, str] = {
    "malformed": "The request cannot be parsed",
    "unauthenticated": "A valid API key is required",
    "forbidden": "The key's scope is insufficient",
    "host_refused": "Without authentication, only requests from this machine are served",
    "not_found": "Route not found",
    "handler_not_found": "Handler not found",
    "queue_not_found": "Queue not found",
    "task_not_found": "Task not found",
    "batch_not_found": "Batch not found",
    "schedule_not_found": "Schedule not found",
    "tenant_not_found": "Tenant not found",
    "method_not_allowed": "Method not allowed",
    "request_timeout": "The request did not arrive in time",
    "lease_lost": "The lease has been lost",
    "task_cancelled": "The task has been cancelled",
    "task_ended": "The task has already ended",
    "task_not_editable": "The task's state does not allow this",
    "queue_is_push": "The queue delivers to a handler",
    "queue_in_use": "The queue is in use",
    "handler_in_use": "The handler is in use",
    "batch_sealed": "The batch is sealed",
    "etag_mismatch": "The precondition failed",
    "too_large": "The request is too large",
    "unsupported_media_type": "The content type must be application/json",
    "invalid": "The request is invalid",
    "idempotency_mismatch": "The idempotency key was used for a different request",
    "egress_denied": "The address is not allowed",
    "payload_schema_mismatch": "The payload does not match the queue's schema",
    "queue_full": "The queue is full",
    "rate_limited": "Too many requests",
    "headers_too_large": "The headers are too large",
    "internal": "Internal error",
    "not_implemented": "The request uses a feature that is not implemented",
    "unavailable": "Temporarily unavailable",
}

REMEDIES: dict[str, str] = {
    "malformed": "Send well-formed JSON (I-JSON, UTF-8) and headers; `detail` says where parsing stopped",
    "unauthenticated": "Send `Authorization: Bearer slk_…` with a key that has not been revoked",
    "forbidden": "Use a key with the scope that `detail` names",
    "host_refused": "Call the service from its own machine, or turn authentication on",
    "not_found": "Check the path; `/docs` lists every route",
    "handler_not_found": "Check the name, or create it with `PUT /handlers/{name}`",
    "queue_not_found": "Check the name, or create it with `PUT /queues/{name}`",
    "task_not_found": "Check the id; a task past its retention is gone",
    "batch_not_found": "Check the id; a batch past its retention is gone",
    "schedule_not_found": "Check the name, or create it with `PUT /schedules/{name}`",
    "tenant_not_found": "Check the name, or create a key for the tenant",
    "method_not_allowed": "Use a method from the `Allow` header",
    "request_timeout": "Send the whole request without pauses",
    "lease_lost": "Stop working on the task; it may already be running elsewhere",
    "task_cancelled": "Stop working on the task",
    "task_ended": "Read the task; enqueue a new one to run the work again",
    "task_not_editable": "Wait for the state to change, or cancel the task first",
    "queue_is_push": "Pull from a queue without a handler",
    "queue_in_use": "Purge the queue, or delete what enqueues there, then try again",
    "handler_in_use": "Change or delete what uses the handler, then try again",
    "batch_sealed": "Create a new batch",
    "etag_mismatch": "Fetch the current version and apply the change to it",
    "too_large": "Send less per request; `detail` names the limit",
    "unsupported_media_type": "Send `Content-Type: application/json`",
    "invalid": "Fix every field that `errors` names",
    "idempotency_mismatch": "Use a new key, or repeat the first request unchanged",
    "egress_denied": "Use a public address, or ask the operator to allow this one",
    "payload_schema_mismatch": "Fix the payload where `errors` points",
    "queue_full": "Wait `Retry-After` seconds and try again",
    "rate_limited": "Wait `Retry-After` seconds and try again",
    "headers_too_large": "Send fewer or shorter headers",
    "internal": "Try again with the same idempotency key; the service's log has the cause",
    "not_implemented": "Leave out what `detail` names",
    "unavailable": "Wait `Retry-After` seconds and try again, with the same idempotency key",
}
"""What a caller does about each code, for the reference page."""

MEDIA_TYPE = "application/problem+json"
INTERNAL = Refusal("internal", "an internal error occurred; the service's log has the details")
NO_ROUTE = Refusal("not_found", "there is no such route; /docs lists them")


def problem_dict(refusal: Refusal) -> dict[str, Any]:
    return {
        "type": f"urn:sluice:problem:{refusal.code}",
        "title": TITLES[refusal.code],
        "status": STATUS[refusal.code],
        "code": refusal.code,
        "detail": refusal.detail,
        "errors": [{"pointer": error.pointer, "detail": error.detail} for error in refusal.errors],
    }


def problem_headers(refusal: Refusal) -> dict[str, str]:
    status = STATUS[refusal.code]
    if status in (429, 503):
        return {"retry-after": str(max(1, math.ceil(refusal.retry_after_seconds or 1)))}
    if status == 401:
        return {"www-authenticate": 'Bearer realm="sluice"'}
    return {}


def problem(refusal: Refusal, headers: dict[str, str] | None = None) -> Response:
    return json_reply(
        msgspec.json.encode(problem_dict(refusal)),
        STATUS[refusal.code],
        {**problem_headers(refusal), **(headers or {})},
        MEDIA_TYPE,
    )


def validation_refusal(errors: Sequence[Any]) -> Refusal:
    """Turn FastAPI's validation errors into a refusal. Pointers leave out the part of the request (body, query, path)."""
    return invalid(FieldError(pointer(*error["loc"][1:]), _detail(error)) for error in errors)


_DETAILS = {
    "extra_forbidden": "unknown field",
    "missing": "is required",
    # the framework's own messages mention classes and types of this program
    "model_type": "expected an object",
    "model_attributes_type": "expected an object",
    "dict_type": "expected an object",
    "list_type": "expected an array",
}


def _detail(error: Any) -> str:
    if error["type"] in _DETAILS:
        return _DETAILS[error["type"]]
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
