"""HTTP/1.1 with limits that uvicorn lacks: on the time in which a request must arrive and an answer be read, on the size of a
head, and on the memory of all connections together.

A connection is in one of three phases: between requests (uvicorn's keep-alive timeout), in a head, or in a body. A head has one
total deadline, which trickling bytes do not extend. A body's deadline is extended by the bytes that arrive, at a minimum rate.
The clock stops while the application is not reading. Past the deadline, an unanswered request gets 408 and the connection is
closed. A client that does not read its answers is disconnected.
"""

import asyncio
import re
from enum import Enum
from types import SimpleNamespace
from typing import Any, cast

import httptools
import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from app.domain.errors import Refusal
from app.edge.admission import Admission, Hold, Share, unavailable
from app.edge.config import OTHER, RequestMeter
from app.edge.corked import Corked
from app.edge.errors import MEDIA_TYPE, STATUS, problem_headers, problem_of
from app.edge.exchange import Exchange
from app.edge.replies import LINE_END
from app.edge.request_ids import HEADER, is_sane, made_ids

HEAD_SECONDS = 10.0
BODY_SECONDS = 30.0
READ_SECONDS = 30.0
LEAST_BYTES_PER_SECOND = 65_536
"""Minimum rate of a body after its first seconds, and of a client reading an answer."""
MAX_HEADERS = 100
MAX_HEAD_BYTES = 65_536
MAX_PIPELINED = 16
MAX_DRAINED_BYTES = 41_943_040
"""How much of a refused body is read and dropped, so that the client can read why: more than the largest body allowed."""
ON_ALL = [("x-content-type-options", "nosniff")]
"""On every answer: browsers must not interpret what a tenant stored as a page or a script."""
_ABSOLUTE = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*://([^/?#]*)")
"""A target with an authority, which overrides Host (RFC 9112, section 3.2.2)."""
_WATCHED = frozenset({b"expect", b"transfer-encoding", b"upgrade", HEADER})


class EdgeServerConfig(Config):
    """uvicorn's configuration with the limits of this protocol."""

    def __init__(
        self,
        app: Any,
        *,
        admission: Admission | None = None,
        head_seconds: float = HEAD_SECONDS,
        body_seconds: float = BODY_SECONDS,
        read_seconds: float = READ_SECONDS,
        least_bytes_per_second: float = LEAST_BYTES_PER_SECOND,
        max_headers: int = MAX_HEADERS,
        max_head_bytes: int = MAX_HEAD_BYTES,
        request_meter: RequestMeter | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            app, http=EdgeProtocol, ws="none", lifespan="off", server_header=False, headers=ON_ALL, **kwargs
        )
        self.admission = admission or Admission()
        self.request_ids = made_ids()
        self.head_seconds = head_seconds
        self.body_seconds = body_seconds
        self.read_seconds = read_seconds
        self.least_bytes_per_second = least_bytes_per_second
        self.max_headers = max_headers
        self.max_head_bytes = max_head_bytes
        self.request_meter = request_meter
        """Counts what is answered without the application, which counts all else."""


class _Phase(Enum):
    BETWEEN = "between"
    HEAD = "head"
    BODY = "body"


class EdgeProtocol(HttpToolsProtocol):
    config: EdgeServerConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._admission = self.config.admission
        self._share: Share = self._admission.strangers
        """The share that pays for the answers on this connection."""
        self._hold = Hold(self._admission, self)
        """The hold of the request that is arriving."""
        self._unread: tuple[Share, int] | None = None
        """The share and the number of answer bytes that wait for the client."""
        self._unread_timer: asyncio.TimerHandle | None = None
        self._phase = _Phase.BETWEEN
        self._request = 0
        self._timer: asyncio.TimerHandle | None = None
        self._timed: tuple[int, _Phase] | None = None
        self._armed_at = 0.0
        self._parted: tuple[int, float] = (0, 0.0)
        """The last request that arrived in parts, and when its first part did."""
        self._head_bytes = self._body_bytes = self._drained_bytes = 0
        self._header_count = 0
        self._unaccounted = 0
        self._request_id = b""
        """Of the request that is arriving, once it is known."""
        self._upgrading = False
        """The head asks to switch protocols."""
        self._ignoring = False
        """Nothing more is read: requests in progress are answered, then the connection is closed."""
        self._lingering = False
        """The last answer has been written, so a close is not delayed again."""
        self._refusal: Refusal | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(
            cast(asyncio.Transport, Corked(transport, self.loop, reading=self.start_clock, lingers=self.lingers))
        )
        self._admission.connections += 1
        limit = self._admission.max_connections
        if self._admission.connections > limit and not self._admission.make_room():
            self._refuse(unavailable(f"the service already has {limit} connections; try again later"))
            return
        self._admission.waits(self, known=False)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._admission.connections -= 1
        self._admission.serves(self)
        self._forget_unread()
        if self.cycle is None or self.cycle.scope["hold"] is not self._hold:  # type: ignore[typeddict-item]
            self._hold.release()  # no application will do it
        for cycle, _ in self.pipeline:
            cycle.scope["hold"].release()  # type: ignore[typeddict-item]
        super().connection_lost(exc)

    def give_way(self) -> None:
        """Close at once; what the connection held is free when this returns."""
        self._hold.release()
        if self.cycle is not None:
            self.cycle.body.clear()
        if self._phase is _Phase.BETWEEN:
            self._disarm()
            self._close()
        else:
            self._refuse(unavailable("too many connections are waiting for the rest of a request"), at_once=True)

    def shutdown(self) -> None:
        self._lingering = True
        super().shutdown()

    def _close(self) -> None:
        """Close without waiting for a client that is still sending."""
        self._lingering = True
        self.transport.close()

    def belongs_to(self, share: Share) -> None:
        self._share = share
        if self._phase is not _Phase.BETWEEN:
            self._admission.serves(self)

    def data_received(self, data: bytes) -> None:
        if self._ignoring or self.transport.is_closing():
            return
        self._unaccounted += len(data)
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        try:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                self._serve_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            if not self._ignoring:
                self._refuse(self._refusal or Refusal("malformed", "the request is not valid HTTP/1.1"))
            return
        if self._phase is not _Phase.BETWEEN:
            self._note_part(len(data))
        if self._timer is None and self._phase is _Phase.BETWEEN and not self._is_idle():
            return  # a whole request is being served
        if self.transport.is_closing():
            return
        if self._unaccounted > self.config.max_head_bytes:
            # The parser is buffering a header or chunk framing that never ends.
            self._refuse(Refusal("headers_too_large", f"the head is larger than {self.config.max_head_bytes} bytes"))
        elif self._timed != (self._request, self._phase) or self._timer is None:
            self._arm()

    def _note_part(self, size: int) -> None:
        """Note that a request has arrived only in part."""
        if self._phase is _Phase.HEAD:
            self._hold.add(size)
        elif self.cycle.response_complete:
            self._drained_bytes += size
            if self._drained_bytes > MAX_DRAINED_BYTES:
                self._close()
        if self._hold.size and self._hold.share is self._admission.strangers:
            self._admission.holds_part(self)

    # What the parser finds

    def on_message_begin(self) -> None:
        self._phase = _Phase.HEAD
        self._request += 1
        self._head_bytes = self._body_bytes = self._drained_bytes = self._header_count = 0
        self._hold = Hold(self._admission, self)
        self._request_id = b""
        super().on_message_begin()
        self.scope["hold"] = self._hold  # type: ignore[typeddict-unknown-key]

    def on_url(self, url: bytes) -> None:
        self._account(len(url))
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_count += 1
        if self._header_count > self.config.max_headers:
            self._fail("headers_too_large", f"the request has more than {self.config.max_headers} headers")
        self._account(len(name) + len(value))
        if self._phase is _Phase.BODY:
            return  # a trailer, which must not be taken for a header
        name = name.lower()
        if name in _WATCHED:
            self._note_header(name, value)
        self.headers.append((name, value))

    def _note_header(self, name: bytes, value: bytes) -> None:
        if name == b"transfer-encoding" and value.strip().lower() != b"chunked":
            self._fail("not_implemented", "`chunked` is the only transfer coding supported")
        elif name == b"upgrade":
            self._upgrading = True
        elif name == HEADER:
            if is_sane(value):
                self._request_id = value
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = self._hold.expects = True

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            self._ignoring = True
            self.pipeline[0][0].keep_alive = False  # the last one to be answered; the client resends the others
            self._hold.release()
            raise _Enough
        self._request_id = self._request_id or next(self.config.request_ids)
        self.scope["request_id"] = self._request_id  # type: ignore[typeddict-unknown-key]
        if not self.url.startswith(b"/") and (absolute := _ABSOLUTE.match(self.url)) is not None:
            self.headers[:] = [(name, absolute[1] if name == b"host" else value) for name, value in self.headers]
        super().on_headers_complete()
        self.cycle.default_headers = [*self.cycle.default_headers, (HEADER, self._request_id)]
        self.scope["exchange"] = Exchange(self.cycle, self._hold)  # type: ignore[typeddict-unknown-key]
        self._phase = _Phase.BODY

    def on_body(self, body: bytes) -> None:
        self._unaccounted = 0
        cycle = self.cycle
        if cycle.response_complete:
            return
        self._body_bytes += len(body)
        if not self._hold.add(len(body)):
            cycle.body.clear()
        else:
            cycle.body += body
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        self._unaccounted = 0
        if not (self._upgrading and self.parser.should_upgrade()):  # otherwise the parser stops before the body
            self._complete()

    def _complete(self) -> None:
        self._phase = _Phase.BETWEEN
        cycle = self.cycle
        if not cycle.response_complete:
            self._admission.serves(self)
            cycle.more_body = False
            cycle.message_event.set()
        elif self._lingering:
            self.transport.close()

    def on_rest_complete(self) -> None:
        self._ignoring = True
        self._complete()

    def lingers(self) -> bool:
        """Return whether to delay a close, once. Closing on a client that is still sending its body would reset the connection and
        lose the answer that says why, so it is closed when the body has arrived or its deadline has passed."""
        if self._lingering or self._phase is not _Phase.BODY or not self.cycle.response_complete:
            return False
        self._lingering = True
        return True

    def on_response_complete(self) -> None:
        last = not self.pipeline
        super().on_response_complete()
        if self._ignoring and last:
            self._close()
        if self.cycle.response_complete:
            self.cycle.body.clear()
            if not self.transport.is_closing():
                self._admission.waits(self, known=self._share is not self._admission.strangers)

    def _account(self, size: int) -> None:
        self._unaccounted = 0
        self._head_bytes += size
        if self._head_bytes > self.config.max_head_bytes:
            self._fail("headers_too_large", f"the head is larger than {self.config.max_head_bytes} bytes")

    def _fail(self, code: str, detail: str) -> None:
        """Raise, which is how a callback stops the parser."""
        self._refusal = Refusal(code, detail)
        raise self._refusal

    def _serve_without_upgrade(self, rest: bytes) -> None:
        """Ignore an upgrade, as a server may. The parser takes the bytes after the head for another protocol; here they are read as
        the body that they are, and this is the connection's last request."""
        cycle = self.cycle
        cycle.keep_alive = False
        framing = [
            b"%s: %s\r\n" % found for found in self.headers if found[0] in (b"content-length", b"transfer-encoding")
        ]
        self.parser = httptools.HttpRequestParser(
            SimpleNamespace(on_body=self.on_body, on_message_complete=self.on_rest_complete)
        )
        self.parser.feed_data(b"POST / HTTP/1.1\r\n" + b"".join(framing) + b"\r\n")
        if rest and self._phase is _Phase.BODY:
            self.parser.feed_data(rest)

    # Deadlines

    def _arm(self) -> None:
        self._disarm()
        self._timed = (self._request, self._phase)
        if self._parted[0] != self._request:
            self._parted = self._request, self.loop.time()
        if self._phase is _Phase.BODY:
            self.start_clock()
            self._timer = self.loop.call_later(self.config.body_seconds, self._on_deadline)
        elif self._phase is _Phase.HEAD or self._is_idle():
            self._timer = self.loop.call_later(self.config.head_seconds, self._on_deadline)

    def start_clock(self) -> None:
        """Start the deadline of a body that the application begins to read."""
        self._armed_at = self.loop.time()
        self._body_bytes = 0

    def _is_idle(self) -> bool:
        """No answer is due and no keep-alive timer runs: a new connection, or blank lines between requests."""
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
            self._close()
        elif self._phase is _Phase.HEAD:
            self._refuse(Refusal("request_timeout", f"the head did not arrive within {self.config.head_seconds:g} s"))
        else:
            self._demand_rate()

    def _demand_rate(self) -> None:
        config = self.config
        allowed = config.body_seconds + self._body_bytes / config.least_bytes_per_second
        left = self._armed_at + allowed - self.loop.time()
        if left > 0:
            self._timer = self.loop.call_later(left, self._on_deadline)
            return
        rate = f"{config.body_seconds:g} s, or at {config.least_bytes_per_second:g} bytes per second after that"
        self._refuse(Refusal("request_timeout", f"the body did not arrive within {rate}"))

    # Answers that wait for their reader

    def pause_writing(self) -> None:
        super().pause_writing()
        size = self.transport.get_write_buffer_size()
        if not self._admission.take_answer(self._share, size):
            self.loop.call_soon(self.transport.abort)
            return
        self._unread = self._share, size
        self._unread_timer = self.loop.call_later(self.config.read_seconds, self._demand_reading, size)

    def resume_writing(self) -> None:
        self._forget_unread()
        super().resume_writing()

    def _demand_reading(self, before: int) -> None:
        left = self.transport.get_write_buffer_size()
        if before - left < self.config.read_seconds * self.config.least_bytes_per_second:
            self.transport.abort()
        else:
            self._unread_timer = self.loop.call_later(self.config.read_seconds, self._demand_reading, left)

    def _forget_unread(self) -> None:
        if self._unread_timer is not None:
            self._unread_timer.cancel()
            self._unread_timer = None
        if self._unread is not None:
            self._admission.give_back(*self._unread)
            self._unread = None

    # Answers without an application

    def _may_answer(self) -> bool:
        """Return whether a client would read what is written now as the answer to the faulty request, not to an earlier one."""
        if self._phase is _Phase.BODY and self.cycle is not None:
            return not self.cycle.response_started and not self.pipeline
        return self.cycle is None or self.cycle.response_complete

    def _leave_answers(self) -> bool:
        """Read nothing more, and close once the requests before the faulty one have been answered; return whether there are any.

        What became of them would otherwise remain unknown.
        """
        if self._phase is _Phase.BODY:
            if not self.pipeline:
                return False
            self.pipeline.popleft()
        if self._phase is not _Phase.BETWEEN:
            self._hold.release()
        self._admission.serves(self)
        self._ignoring = True
        if self.pipeline:
            self.pipeline[0][0].keep_alive = False
        elif self._phase is not _Phase.BODY:
            self.cycle.keep_alive = False
        return True

    def _refuse(self, refusal: Refusal, *, at_once: bool = False) -> None:
        """Answer the faulty request, if a client would read that as its answer, and close. Unless `at_once`, requests before it are
        answered first."""
        self._disarm()
        if self._may_answer():
            body = msgspec.json.encode(problem_of(refusal)) + LINE_END
            headers = {
                "content-type": MEDIA_TYPE,
                "content-length": str(len(body)),
                "connection": "close",
                **dict(ON_ALL),
                HEADER.decode(): (self._request_id or next(self.config.request_ids)).decode(),
                **problem_headers(refusal),
            }
            lines = [f"{name}: {value}\r\n".encode() for name, value in headers.items()]
            self.transport.write(b"".join([STATUS_LINE[STATUS[refusal.code]], *lines, b"\r\n", body]))
            if self.config.request_meter is not None:
                seconds = self.loop.time() - self._parted[1] if self._parted[0] == self._request else 0.0
                self.config.request_meter(OTHER, OTHER, STATUS[refusal.code])(seconds)
        elif not at_once and self._leave_answers():
            return
        self._close()


class _Enough(Exception):
    """Stops the parser: more pipelined requests have arrived than may wait."""
