"""`POST /queues/{name}/tasks`, the hot route, as a plain ASGI callable.

It is in the router like any route, and is called directly if nothing in between is needed. openapi.py adds its operation to the
document.
"""

from starlette.types import Receive, Scope, Send

from app.domain.errors import Refusal, invalid_field
from app.domain.names import NAME_RULE, is_name
from app.domain.tasks import Enqueue, parse_enqueue
from app.edge.auth import caller_of
from app.edge.body import read_body, require_json, require_size
from app.edge.config import EdgeConfig
from app.edge.errors import problem
from app.edge.exchange import Exchange
from app.edge.headers import read_headers, text, trace_of
from app.edge.idempotency import key_of
from app.edge.replies import LINE_END
from app.edge.strict import NO_PARAMETERS, check_query
from app.runtime.core import Core
from app.service import tasks

PATH = "/queues/{name}/tasks"
_CREATED: tuple[int, tuple[tuple[bytes, bytes], ...]] = 201, ()
_HELD = 200, ((b"unique-held", b"true"),)
_REPLAYED = 200, ((b"idempotent-replayed", b"true"),)


class EnqueueEndpoint:
    def __init__(self, core: Core, edge: EdgeConfig) -> None:
        self._core = core
        self._edge = edge
        self._location = edge.public_url.rstrip("/").encode() + b"/tasks/"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.enqueue(scope["path_params"]["name"], read_headers(scope["headers"]), scope, receive, send, None)
        except Refusal as refusal:
            await problem(refusal)(scope, receive, send)

    async def enqueue(
        self,
        queue: str,
        headers: dict[bytes, bytes],
        scope: Scope,
        receive: Receive,
        send: Send,
        exchange: Exchange | None,
    ) -> None:
        """Serve a request; over its exchange, if it has one."""
        caller = await caller_of(self._edge, scope, text(headers.get(b"authorization")))
        caller.require("use")
        check_query(scope["query_string"], NO_PARAMETERS)
        if not is_name(queue):
            raise invalid_field("/name", f"is not a name ({NAME_RULE})")
        content_type = headers.get(b"content-type")
        if content_type != b"application/json":
            require_json(text(content_type))
        limit = self._edge.max_body_bytes
        require_size(text(headers.get(b"content-length")), limit)
        body = None if exchange is None else exchange.arrived(limit)
        if body is None:
            body = await read_body(scope, receive, limit)
        request = parse_enqueue(body, max_payload_bytes=self._edge.max_payload_bytes)
        if b"idempotency-key" in headers:
            request = with_key(request, headers[b"idempotency-key"])
        enqueued = await tasks.enqueue(self._core, caller, queue, request, trace_of(headers))
        status, more = _CREATED if enqueued.created else _HELD if enqueued.held else _REPLAYED
        answer = enqueued.body + LINE_END
        given = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(answer)),
            (b"location", self._location + enqueued.task_id.encode()),
            *more,
        ]
        if exchange is not None:
            await exchange.answer(status, given, answer)
            return
        await send({"type": "http.response.start", "status": status, "headers": given})
        await send({"type": "http.response.body", "body": answer})


def with_key(request: Enqueue, header: bytes) -> Enqueue:
    """Return the request with the key from its `Idempotency-Key` header."""
    key = key_of(header)
    if request.idempotency_key is None:
        return request.with_key(key)
    if request.idempotency_key != key:
        raise Refusal("malformed", "Idempotency-Key and idempotency_key differ; send one of them")
    return request
