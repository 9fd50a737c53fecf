"""The SQS wire: AWS JSON 1.0 over HTTP, as a plain ASGI application.

A request is refused by its head if possible. Its body is read before its signature is verified, because the signature covers it,
and counts as an unknown caller's until then.
"""

from collections.abc import Callable
from time import perf_counter
from typing import Any, NamedTuple

import msgspec
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from app.compat import query
from app.compat.signatures import NotSigned, read_signature
from app.compat.sqs import messages, queues
from app.compat.sqs.calls import DEFAULT_REGION, Call, Operation, account_of
from app.compat.sqs.errors import SqsError, error_of, refusal_of
from app.compat.sqs.model import INPUTS, read_input
from app.domain.callers import Caller
from app.domain.errors import Refusal
from app.domain.names import is_name
from app.domain.sigv4 import parse_authorization
from app.edge.auth import with_origin
from app.edge.body import closing_unless_read, hold_of, read_body, require_size
from app.edge.config import OTHER, EdgeConfig
from app.edge.errors import INTERNAL
from app.edge.headers import read_headers, text, trace_of
from app.edge.hosts import require_loopback
from app.runtime.core import Core
from app.telemetry.events import REQUEST_FAILED, emit
from app.telemetry.logs import get_logger, name_request

log = get_logger(__name__)

OPERATIONS: dict[str, Operation] = {**queues.OPERATIONS, **messages.OPERATIONS}
TARGET = "AmazonSQS."
MEDIA_TYPE = b"application/x-amz-json-1.0"
HINT = "This endpoint speaks AWS JSON 1.0: POST, with the operation in X-Amz-Target, such as AmazonSQS.SendMessage."
MAX_BODY_BYTES = 6 * 1_048_576 + 262_144
"""Room for the longest message, or for a batch of them: JSON escapes make text up to six times as long."""


class Answer(NamedTuple):
    status: int
    body: bytes
    media_type: bytes = MEDIA_TYPE
    headers: tuple[tuple[bytes, bytes], ...] = ()


def failure(error: SqsError, form: bool, request_id: str) -> Answer:
    """Return the answer to a request that is refused; `form`: it was of the query protocol."""
    kind = error.kind
    if form:
        document = query.error_document(kind.code, error.message, kind.status, request_id)
        return Answer(kind.status, document, query.MEDIA_TYPE)
    body = msgspec.json.encode({"__type": kind.type, "message": error.message})
    blame = "Sender" if kind.status < 500 else "Receiver"
    return Answer(kind.status, body, headers=((b"x-amzn-query-error", f"{kind.code};{blame}".encode()),))


class SqsWire:
    """The ASGI application."""

    def __init__(self, core: Core, edge: EdgeConfig) -> None:
        self._core = core
        self._edge = edge
        self._meters: dict[tuple[str, str, int], Callable[[float], None]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"this wire serves HTTP, not {scope['type']}")
        began = perf_counter()
        hold = hold_of(scope)
        if hold is not None and hold.expects:
            receive, send = closing_unless_read(receive, send)
        route, status = OTHER, 0
        try:
            target = dict(scope["headers"]).get(b"x-amz-target", b"").decode("latin-1")
            if target.removeprefix(TARGET) in INPUTS:
                route = target
            answer = await self._answer(target, route, scope, receive)
            status = answer.status
            await _send(answer, scope, send)
        except ClientDisconnect:
            return
        finally:
            if hold is not None:
                hold.release()
            if status:
                self._count(scope["method"], route, status, perf_counter() - began)

    def _count(self, method: str, route: str, status: int, seconds: float) -> None:
        if self._edge.request_meter is None:
            return
        served = (method if method == "POST" else OTHER), route, status
        count = self._meters.get(served)
        if count is None:
            count = self._meters[served] = self._edge.request_meter(*served)
        count(seconds)

    async def _answer(self, target: str, route: str, scope: Scope, receive: Receive) -> Answer:
        form, request_id = False, scope.get("request_id", b"").decode()
        try:
            headers = read_headers(scope["headers"])
            if self._edge.anonymous is not None:
                require_loopback(headers)
            form = _is_form(scope, headers)
            if form:
                return await self._query(headers, scope, receive, request_id)
            return await self._json(target, headers, scope, receive)
        except (SqsError, NotSigned, Refusal) as error:
            return failure(error_of(error), form, request_id)
        except ClientDisconnect:
            raise
        except Exception:
            name_request(scope.get("request_id", b""))
            emit(log, REQUEST_FAILED, method=scope["method"], route=route, code="internal", exc_info=True)
            return failure(error_of(INTERNAL), form, request_id)

    async def _json(self, target: str, headers: dict[bytes, bytes], scope: Scope, receive: Receive) -> Answer:
        if scope["method"] != "POST" or not target:
            raise SqsError("InvalidAction", HINT)
        operation = OPERATIONS.get(target.removeprefix(TARGET))
        if operation is None or not target.startswith(TARGET):
            raise SqsError("InvalidAction", f"The operation {target[:100]} is unknown, or not served here.")
        caller, region, body = await self._authenticated("sqs", headers, scope, receive, MAX_BODY_BYTES)
        if operation.audited is not None:
            caller = with_origin(caller, scope)
        call = Call(self._core, caller, region, _base_url(scope, headers), _gone(receive), trace_of(headers))
        output = await self._run(operation, call, body)
        return Answer(200, b"" if output is None else msgspec.json.encode(output))

    async def _run(self, operation: Operation, call: Call, body: bytes) -> dict[str, Any] | None:
        given: Any = None
        try:
            given = read_input(body, operation.input)
            call.caller.require(operation.scope)
            return await operation.run(call, given)
        except (SqsError, Refusal) as error:
            if operation.audited is not None:
                await operation.audited.refused(self._core, call.caller, _name_in(given), refusal_of(error))
            raise

    async def _query(self, headers: dict[bytes, bytes], scope: Scope, receive: Receive, request_id: str) -> Answer:
        if scope["method"] == "GET":
            raise SqsError("InvalidAction", query.TOO_OLD)
        service = "sts" if _credential(headers)[1] == "sts" else "sqs"
        caller, _, body = await self._authenticated(service, headers, scope, receive, query.MAX_BODY_BYTES)
        if query.action_in(body) != "GetCallerIdentity":
            raise SqsError("InvalidAction", query.TOO_OLD)
        return Answer(200, query.caller_identity(caller, account_of(caller.tenant_id), request_id), query.MEDIA_TYPE)

    async def _authenticated(
        self, service: str, headers: dict[bytes, bytes], scope: Scope, receive: Receive, max_bytes: int
    ) -> tuple[Caller, str, bytes]:
        """Return the caller, the region of its credential, and the body. Raises NotSigned, Refusal."""
        require_size(text(headers.get(b"content-length")), max_bytes)
        if self._edge.anonymous is None:
            signed = await read_signature(self._core, service, scope, headers)
            body = await read_body(scope, receive, max_bytes)
            caller = signed.verify(scope, body)
            _enter(scope, caller)
            return caller, signed.authorization.region, body
        caller = await self._edge.anonymous()
        _enter(scope, caller)
        return caller, _credential(headers)[0] or DEFAULT_REGION, await read_body(scope, receive, max_bytes)


def _is_form(scope: Scope, headers: dict[bytes, bytes]) -> bool:
    """Return whether a request is of the query protocol."""
    if scope["method"] == "GET":
        return b"Action=" in scope["query_string"]
    return headers.get(b"content-type", b"").startswith(query.FORM)


def _credential(headers: dict[bytes, bytes]) -> tuple[str, str]:
    """Return the region and the service that a credential claims; empty without one."""
    try:
        read = parse_authorization(headers.get(b"authorization", b"").decode("ascii"))
    except ValueError:
        return "", ""
    return read.region, read.service


def _name_in(given: Any) -> str | None:
    """Return the name of the queue that a request is about; None if it does not say."""
    named: str = getattr(given, "queue_name", "") or getattr(given, "queue_url", "")
    name = named.rpartition("/")[2]
    return name if is_name(name) else None


def _enter(scope: Scope, caller: Caller) -> None:
    """From now on, the caller's share pays for the request. Raises Refusal (unavailable)."""
    hold = hold_of(scope)
    if hold is not None:
        hold.enter(caller.tenant_id)


def _base_url(scope: Scope, headers: dict[bytes, bytes]) -> str:
    """Return the base of queue URLs: only the caller sees it, so what it or its proxy says of itself may be believed."""
    scheme = "https" if headers.get(b"x-forwarded-proto") == b"https" else scope["scheme"]
    return f"{scheme}://{headers.get(b'host', b'localhost').decode('latin-1')}"


def _gone(receive: Receive) -> Any:
    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    return gone


async def _send(answer: Answer, scope: Scope, send: Send) -> None:
    request_id: bytes = scope.get("request_id", b"")
    start: Message = {
        "type": "http.response.start",
        "status": answer.status,
        "headers": [
            (b"content-type", answer.media_type),
            (b"content-length", b"%d" % len(answer.body)),
            (b"x-amzn-requestid", request_id),
            *answer.headers,
        ],
    }
    await send(start)
    await send({"type": "http.response.body", "body": answer.body})
