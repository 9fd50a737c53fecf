"""The SQS wire: AWS JSON 1.0 over HTTP, as a plain ASGI application.

A request is refused by its head if possible. Its body is read before its signature is verified, because the signature covers it,
and counts as an unknown caller's until then.
"""

from time import perf_counter
from typing import Any, NamedTuple

import msgspec
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from app.compat.sqs import messages, queues
from app.compat.sqs.calls import DEFAULT_REGION, Call, Operation
from app.compat.sqs.errors import SqsError, error_of
from app.compat.sqs.model import INPUTS, read_input
from app.domain.callers import Caller
from app.domain.errors import Refusal
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
TARGET = b"AmazonSQS."
MEDIA_TYPE = b"application/x-amz-json-1.0"
MAX_BODY_BYTES = 6 * 1_048_576 + 262_144
"""Room for the longest message, or for a batch of them: JSON escapes make text up to six times as long."""


class Answer(NamedTuple):
    status: int
    body: bytes
    media_type: bytes = MEDIA_TYPE
    headers: tuple[tuple[bytes, bytes], ...] = ()


def failure(error: SqsError) -> Answer:
    kind = error.kind
    body = msgspec.json.encode({"__type": kind.type, "message": error.message})
    blame = "Sender" if kind.status < 500 else "Receiver"
    return Answer(kind.status, body, headers=((b"x-amzn-query-error", f"{kind.code};{blame}".encode()),))


class SqsWire:
    """The ASGI application."""

    def __init__(self, core: Core, edge: EdgeConfig) -> None:
        self._core = core
        self._edge = edge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"this wire serves HTTP, not {scope['type']}")
        began = perf_counter()
        status, route = 0, OTHER
        hold = hold_of(scope)
        if hold is not None and hold.expects:
            receive, send = closing_unless_read(receive, send)
        try:
            headers = read_headers(scope["headers"])
            operation = headers.get(b"x-amz-target", b"").removeprefix(TARGET).decode("latin-1")
            route = f"AmazonSQS.{operation}" if operation in INPUTS else OTHER
            answer = await self._answer(operation, headers, scope, receive)
            status = answer.status
            await _send(answer, scope, send)
        except ClientDisconnect:
            return
        finally:
            if hold is not None:
                hold.release()
            if status and self._edge.request_meter is not None:
                method = "POST" if scope["method"] == "POST" else OTHER
                self._edge.request_meter(method, route, status)(perf_counter() - began)

    async def _answer(self, operation: str, headers: dict[bytes, bytes], scope: Scope, receive: Receive) -> Answer:
        try:
            if self._edge.anonymous is not None:
                require_loopback(headers)
            return await self._call(operation, headers, scope, receive)
        except SqsError as error:
            return failure(error)
        except Refusal as refusal:
            return failure(error_of(refusal))
        except ClientDisconnect:
            raise
        except Exception:
            name_request(scope.get("request_id", b""))
            emit(log, REQUEST_FAILED, method=scope["method"], route=operation, code="internal", exc_info=True)
            return failure(error_of(INTERNAL))

    async def _call(self, name: str, headers: dict[bytes, bytes], scope: Scope, receive: Receive) -> Answer:
        if scope["method"] != "POST" or b"x-amz-target" not in headers:
            raise SqsError(
                "InvalidAction",
                "This endpoint speaks AWS JSON 1.0: POST, with the operation in X-Amz-Target, such as AmazonSQS.SendMessage.",
            )
        operation = OPERATIONS.get(name)
        if operation is None:
            raise SqsError("InvalidAction", f"The operation {name[:100]} is unknown, or not served here.")
        require_size(text(headers.get(b"content-length")), MAX_BODY_BYTES)
        caller, region, body = await self._authenticated(headers, scope, receive)
        caller.require(operation.scope)
        if operation.scope != "use":
            caller = with_origin(caller, scope)
        call = Call(self._core, caller, region, _base_url(scope, headers), _gone(receive), trace_of(headers))
        given = await operation.run(call, read_input(body, operation.input))
        return Answer(200, b"" if given is None else msgspec.json.encode(given))

    async def _authenticated(
        self, headers: dict[bytes, bytes], scope: Scope, receive: Receive
    ) -> tuple[Caller, str, bytes]:
        """Return the caller, the region of its credential, and the body."""
        if self._edge.anonymous is None:
            raise SqsError("InvalidClientTokenId", "The security token included in the request is invalid.")
        caller = await self._edge.anonymous()
        _enter(scope, caller)
        return caller, DEFAULT_REGION, await read_body(scope, receive, MAX_BODY_BYTES)


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
