"""One HTTP/1.1 connection: a request out, a reply in, within limits.

`send` sends one request, and its callback gets one reply, once the bytes that ended it have been read to their end. The first of
these ends it: the end of the reply; as much of its body as is kept; a limit on its head, interim replies or framing; invalid
bytes; the end of the connection; the deadline. All but the first leave the connection closed; so does `cancel`, which tells
nobody. `max_reply_bytes` of the body are kept. If the head announces follow-up work, the limit is that of its document plus one
byte, which reveals one that is too large. An answer to HEAD ends with its head, whatever length that announces. The parser does not
know of HEAD, so its connection is closed afterwards.

A connection is reused only if the reply ended by its own framing, both sides keep it alive, the request was sent completely, and
not a byte has arrived since: an unexpected byte would be read as the next call's answer. Nothing is ever sent twice. Whether the
peer has closed an idle connection is known from the event loop or, if the loop has not polled yet, from asking the kernel right
before the next request is written.

Handlers send the same head again and again. Once the parser has accepted one in front of a whole reply, the same bytes need not be
parsed again (`Heads`).
"""

import asyncio
import os
import select
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple, cast

import httptools

from app.delivery.webhook.deadlines import Deadline, Deadlines
from app.delivery.webhook.errors import DeliveryError
from app.domain.answers import MAX_FOLLOWUP_BYTES, Answer, NoAnswer, NoAnswerOutcome, heads_followups

MAX_HEAD_BYTES = 65_536
MAX_HEADERS = 256
MAX_INTERIM = 16
ONE_WRITE_BYTES = 65_536
KEPT_OF_FOLLOWUPS = MAX_FOLLOWUP_BYTES + 1
FRAMING_FACTOR = 8
"""Raw bytes allowed per byte of body that is kept: a chunk of one byte takes six."""


MAX_KNOWN_HEADS = 1024
MAX_KNOWN_HEAD_BYTES = 1024

Reply = Answer | NoAnswer


class Head(NamedTuple):
    """What the parser read in a head."""

    status: int
    headers: Mapping[str, str]
    body_bytes: int
    keep_alive: bool
    keep_seconds: float


class Heads:
    """Heads that the parser has accepted, by their bytes."""

    def __init__(self) -> None:
        self.known: dict[bytes, Head] = {}

    def keep(self, data: bytes, head: Head) -> None:
        if len(data) <= MAX_KNOWN_HEAD_BYTES:
            if len(self.known) >= MAX_KNOWN_HEADS:
                self.known.clear()
            self.known[data] = head


class Connection(asyncio.Protocol):
    """A connection of the pool; `released` is called when a call has ended, before its callback."""

    def __init__(
        self,
        key: tuple[str, str, int, str],
        deadlines: Deadlines,
        heads: Heads,
        released: Callable[["Connection"], None],
    ) -> None:
        self.key = key
        self.idle_since = 0.0
        self._deadlines = deadlines
        self._heads = heads
        self._released = released
        self._transport: asyncio.Transport | None = None
        self._poll = select.poll()
        self._parser = httptools.HttpResponseParser(self)
        self._ended: Callable[[Reply], None] | None = None
        """The callback of the call under way."""
        self._reply: Reply | None = None
        """What it will get, once the bytes in hand have been read to their end."""
        self._reading = False
        self._deadline: Deadline | None = None
        self._spoiled = False
        self._keep_alive = False
        self._keep_seconds = float("inf")
        self._head_only = False
        self._begin(0.0, 0)

    def _begin(self, timeout_seconds: float, max_reply_bytes: int) -> None:
        self._timeout_seconds = timeout_seconds
        self._max_reply_bytes = max_reply_bytes
        self._raw_bytes = 0
        self._head_bytes = 0
        self._header_count = 0
        self._interim_count = 0
        self._headers: dict[str, str] = {}
        self._status = 0
        self._until_close = False
        self._body = bytearray()

    # what the pool asks

    def reusable(self) -> bool:
        transport = self._transport
        return (
            not self._spoiled
            and self._ended is None
            and transport is not None
            and not transport.is_closing()
            and transport.get_write_buffer_size() == 0
        )

    def fresh(self, now: float, idle_seconds: float) -> bool:
        """Return whether it has been idle briefly, is still open, and has nothing to read: neither an end nor stray bytes."""
        if now - self.idle_since >= min(idle_seconds, self._keep_seconds) or not self.reusable():
            return False
        return not self._poll.poll(0)

    def abort(self) -> None:
        self._spoiled = True
        if self._transport is not None:
            self._transport.abort()

    def cancel(self) -> None:
        """End the call under way by closing the connection. Nobody is told."""
        self._ended = None
        self.abort()
        self._release()

    def send(
        self,
        head: bytes,
        body: bytes,
        *,
        deadline: float,
        timeout_seconds: float,
        max_reply_bytes: int,
        ended: Callable[[Reply], None],
    ) -> None:
        """Raises DeliveryError if the connection has been closed; then nothing was sent."""
        transport = self._transport
        if transport is None or transport.is_closing():
            raise DeliveryError("unreachable", "the connection was closed before the request was sent")
        self._begin(timeout_seconds, max_reply_bytes)
        self._ended = ended
        self._head_only = head.startswith(b"HEAD ")
        self._deadline = self._deadlines.add(deadline, self._expire)
        if len(body) <= ONE_WRITE_BYTES:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)

    def _expire(self) -> None:
        self._fail("timeout", f"no complete answer within {self._timeout_seconds:g} s")

    # what the event loop says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        if self._ended is None:
            self.abort()
        elif not (self._raw_bytes == 0 and self._read_known(data)):
            self._raw_bytes += len(data)
            self._reading = True
            self._parse(data)
            self._reading = False
        if self._reply is not None:
            self._tell()

    def _read_known(self, data: bytes) -> bool:
        """Read a whole reply whose head is known; return whether it was one."""
        body_at = data.find(b"\r\n\r\n") + 4
        head = self._heads.known.get(data[:body_at])
        if head is None or not len(data) - body_at == head.body_bytes <= self._max_reply_bytes:
            return False
        if not head.keep_alive:
            self._spoiled = True
        self._keep_seconds = head.keep_seconds
        self._reply = Answer(head.status, head.headers, data[body_at:])
        return True

    def _parse(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._spoiled = True
            if self._reply is None:
                self._fail("unreachable", f"the answer is not valid HTTP/1.1: {error}")
            return
        if self._reply is not None:
            if not self._head_only:
                self._remember(data)
        elif self._status and len(self._body) >= self._max_reply_bytes:
            self._finish(truncated=True)
        elif not self._status and self._raw_bytes > MAX_HEAD_BYTES:
            self._fail("too_large", f"the head of the answer is larger than {MAX_HEAD_BYTES} bytes")
        elif self._raw_bytes > 2 * MAX_HEAD_BYTES + FRAMING_FACTOR * self._max_reply_bytes:
            self._fail("too_large", "the answer has more chunk framing than is accepted")

    def _remember(self, data: bytes) -> None:
        """Remember the head of a reply that came whole, alone and with its length."""
        reply, headers = self._reply, self._headers
        if len(data) != self._raw_bytes or not isinstance(reply, Answer):
            return
        body_at = data.find(b"\r\n\r\n") + 4
        body_bytes = len(data) - body_at
        if headers.get("content-length") == str(body_bytes) and body_bytes == len(reply.body) and not reply.truncated:
            head = Head(reply.status, headers, body_bytes, self._keep_alive, self._keep_seconds)
            self._heads.keep(data[:body_at], head)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._ended is not None:
            if self._until_close and exc is None:
                self._finish(truncated=False)
            else:
                where = "in the middle of the answer" if self._raw_bytes else "without an answer"
                why = f" ({reason(exc)})" if exc is not None else ""
                self._fail("unreachable", f"the connection was closed {where}{why}")
        self._spoiled = True
        self._transport = None
        del self._parser  # the parser and this object refer to each other

    # what the parser says

    def on_message_begin(self) -> None:
        if self._reply is not None:
            self._spoiled = True

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_count += 1
        self._head_bytes += len(name) + len(value) + 4
        if self._header_count > MAX_HEADERS:
            self._stop("too_large", f"the answer has more than {MAX_HEADERS} headers")
        if self._head_bytes > MAX_HEAD_BYTES:
            self._stop("too_large", f"the head of the answer is larger than {MAX_HEAD_BYTES} bytes")
        if self._status:
            return  # a trailer: counted, but not kept
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1").strip(" \t")
        earlier = self._headers.get(key)
        self._headers[key] = text if earlier is None else f"{earlier}, {text}"

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            self._interim(status)
            return
        version = self._parser.get_http_version()
        if version not in ("1.1", "1.0"):
            self._stop("unreachable", f"the answer uses HTTP {version}, which was not requested")
        coding = self._headers.get("transfer-encoding")
        if coding is not None and coding.lower() != "chunked":
            self._stop("unreachable", f"the answer has the transfer encoding {coding[:100]!r}, which was not requested")
        self._until_close = coding is None and "content-length" not in self._headers and status not in (204, 304)
        if heads_followups(status, self._headers):
            self._max_reply_bytes = max(self._max_reply_bytes, KEPT_OF_FOLLOWUPS)
        self._status = status
        if self._head_only:
            self._finish(truncated=False)

    def _interim(self, status: int) -> None:
        if status == 101 or status < 100:
            self._stop("unreachable", f"the answer has the status {status}, which was not requested")
        self._interim_count += 1
        if self._interim_count > MAX_INTERIM:
            self._stop("too_large", f"more than {MAX_INTERIM} interim answers (1xx) came before the answer")
        self._headers = {}

    def on_body(self, body: bytes) -> None:
        if self._reply is not None:
            return
        self._body += body
        if len(self._body) > self._max_reply_bytes:
            self._finish(truncated=True)

    def on_message_complete(self) -> None:
        if self._status and self._reply is None:
            self._keep_alive = self._parser.should_keep_alive()  # known only here
            if not self._keep_alive:
                self._spoiled = True
            self._keep_seconds = _announced_seconds(self._headers.get("keep-alive", ""))
            self._settle(Answer(self._status, self._headers, bytes(self._body)))

    # how the call ends

    def _finish(self, *, truncated: bool) -> None:
        body = bytes(self._body[: self._max_reply_bytes])
        self.abort()
        self._settle(Answer(self._status, self._headers, body, truncated))

    def _fail(self, outcome: NoAnswerOutcome, detail: str) -> None:
        self.abort()
        self._settle(NoAnswer(outcome, detail))

    def _stop(self, outcome: NoAnswerOutcome, detail: str) -> None:
        """Fail from inside the parser, and stop it."""
        self._fail(outcome, detail)
        raise DeliveryError(outcome, detail)

    def _settle(self, reply: Reply) -> None:
        if self._reply is None:
            self._reply = reply
            if not self._reading:
                self._tell()

    def _tell(self) -> None:
        """End the call. Not before the bytes in hand have been read to their end: the callback may send the next request."""
        reply, ended = self._reply, self._ended
        self._reply = self._ended = None
        self._release()
        if ended is not None and reply is not None:
            ended(reply)

    def _release(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._released(self)


def _announced_seconds(keep_alive: str) -> float:
    """Return how long the peer keeps idle connections (`Keep-Alive: timeout=5`), less a second for the way there."""
    for part in keep_alive.split(","):
        name, _, seconds = part.strip().partition("=")
        if name.lower() == "timeout":
            with suppress(ValueError):
                return float(seconds) - 1
    return float("inf")


def reason(error: BaseException) -> str:
    """Return one line on why a connection failed."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate was rejected: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or error}"
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__
