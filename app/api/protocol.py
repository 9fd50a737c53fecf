"""HTTP/1.1 with limits that uvicorn lacks: how long a request may take to arrive, and how large its head may be.

A connection is in one of three phases: between requests (uvicorn's keep-alive time-out), in a head, in a body. Head
and body each have one total deadline: bytes that trickle in do not move it. While the application itself does not
read, the clock stands still. Past a deadline a request that has had no answer gets 408 and the connection is closed.
"""

import asyncio
from enum import Enum
from typing import Any, cast

import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.api.errors import MEDIA_TYPE, STATUS, problem_dict, problem_headers
from app.domain.errors import Refusal

HEAD_SECONDS = 10.0
BODY_SECONDS = 30.0
MAX_HEADERS = 100
ON_ALL = [("x-content-type-options", "nosniff")]
"""On every answer: a browser must not take what a tenant has stored for a page or a script."""
MAX_HEAD_BYTES = 65_536


class EdgeServerConfig(Config):
    """uvicorn's configuration with the limits of this protocol."""

    def __init__(
        self,
        app: Any,
        *,
        head_seconds: float = HEAD_SECONDS,
        body_seconds: float = BODY_SECONDS,
        max_headers: int = MAX_HEADERS,
        max_head_bytes: int = MAX_HEAD_BYTES,
        max_connections: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            app, http=EdgeProtocol, ws="none", lifespan="off", server_header=False, headers=ON_ALL, **kwargs
        )
        self.head_seconds = head_seconds
        self.body_seconds = body_seconds
        self.max_headers = max_headers
        self.max_head_bytes = max_head_bytes
        self.max_connections = max_connections


class Corked:
    """A transport that sends what is written in one turn of the loop as one: uvicorn writes head and body apart, and each
    write is a system call."""

    __slots__ = ("_loop", "_parts", "_transport")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)

    def _flush(self) -> None:
        if self._parts:
            data = b"".join(self._parts)
            self._parts.clear()
            self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class _Phase(Enum):
    BETWEEN = "between"
    HEAD = "head"
    BODY = "body"


class EdgeProtocol(HttpToolsProtocol):
    config: EdgeServerConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._phase = _Phase.BETWEEN
        self._request = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timed: tuple[int, _Phase] | None = None
        self._head_bytes = 0
        self._header_count = 0
        self._unaccounted = 0
        self._refusal: Refusal | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast(asyncio.Transport, Corked(transport, self.loop)))
        limit = self.config.max_connections
        if limit is not None and len(self.connections) > limit:
            self._refuse(Refusal("unavailable", f"the service has {limit} connections already"))
            return
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._unaccounted += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._unaccounted > self.config.max_head_bytes:
            # The parser holds a piece of a header or of chunk framing that never ends.
            self._refuse(Refusal("headers_too_large", f"the head is larger than {self.config.max_head_bytes} bytes"))
        elif self._timed != (self._request, self._phase) or (self._timer is None and self._is_idle()):
            self._arm()

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._refusal or Refusal("malformed", "this is not an HTTP request that can be read"))

    # What the parser finds

    def on_message_begin(self) -> None:
        self._phase = _Phase.HEAD
        self._request += 1
        self._head_bytes = self._header_count = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._account(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_count += 1
        if self._header_count > self.config.max_headers:
            self._fail(f"the request has more than {self.config.max_headers} headers")
        self._account(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._phase = _Phase.BODY
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unaccounted = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._phase = _Phase.BETWEEN
        self._unaccounted = 0
        super().on_message_complete()

    def _account(self, size: int) -> None:
        self._unaccounted = 0
        self._head_bytes += size
        if self._head_bytes > self.config.max_head_bytes:
            self._fail(f"the head is larger than {self.config.max_head_bytes} bytes")

    def _fail(self, detail: str) -> None:
        """Raising is how a callback stops the parser; uvicorn then calls send_400_response."""
        self._refusal = Refusal("headers_too_large", detail)
        raise self._refusal

    # Deadlines

    def _arm(self) -> None:
        self._disarm()
        self._timed = (self._request, self._phase)
        if self._phase is _Phase.BODY:
            self._timer = self.loop.call_later(self.config.body_seconds, self._on_deadline)
        elif self._phase is _Phase.HEAD or self._is_idle():
            self._timer = self.loop.call_later(self.config.head_seconds, self._on_deadline)

    def _is_idle(self) -> bool:
        """No answer is due and no keep-alive watches: a new connection, or blank lines between requests."""
        return self.timeout_keep_alive_task is None and (self.cycle is None or self.cycle.response_complete)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_deadline(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        if self.flow.read_paused:
            self._arm()
        elif self._phase is _Phase.BETWEEN or (self.cycle is not None and self.cycle.response_started):
            self.transport.close()
        else:
            seconds = self.config.head_seconds if self._phase is _Phase.HEAD else self.config.body_seconds
            self._refuse(Refusal("request_timeout", f"the {self._phase.value} did not arrive within {seconds:g} s"))

    # Answers without an application

    def _may_answer(self) -> bool:
        """Whether what is written now would be read as the answer to the request at fault, not to one before it."""
        if self._phase is _Phase.BODY and self.cycle is not None:
            return not self.cycle.response_started and not self.pipeline
        return self.cycle is None or self.cycle.response_complete

    def _refuse(self, refusal: Refusal) -> None:
        self._disarm()
        if self._may_answer():
            body = msgspec.json.encode(problem_dict(refusal))
            headers = {
                "content-type": MEDIA_TYPE,
                "content-length": str(len(body)),
                "connection": "close",
                **dict(ON_ALL),
                **problem_headers(refusal),
            }
            lines = [f"{name}: {value}\r\n".encode() for name, value in headers.items()]
            self.transport.write(b"".join([STATUS_LINE[STATUS[refusal.code]], *lines, b"\r\n", body]))
        self.transport.close()
