"""A minimal HTTP/1.1 client for deliveries: POST, one deadline, limits on raw bytes, pinned addresses, and nothing else.

No redirects, proxies, cookies, decompression or retries: an attempt is one request, and the queue decides whether there is another.
A call parses the URL, builds and checks the head, asks the egress policy for addresses, takes an idle connection to one of them or
opens a new one, and exchanges request and answer. The deadline covers all of it.

Idle connections are kept per (scheme, host, port, address), last in, first out, for less time than servers commonly wait before
they close. Expired ones are closed at the next use of the pool, so no background task is needed.
"""

import asyncio
import ssl
from collections.abc import Sequence
from functools import lru_cache

from app.delivery.webhook.connection import Connection, reason
from app.delivery.webhook.egress import EgressPolicy
from app.delivery.webhook.errors import DeliveryError
from app.delivery.webhook.urls import ParsedUrl, UrlError, check_url
from app.domain.answers import MAX_RESULT_BYTES, Answer
from app.domain.headers import is_token

MAX_TRIED_ADDRESSES = 6
CONNECT_SHARE_SECONDS = 3.0
"""How long to try one address at most while there is another."""

_FRAMING = frozenset(
    {"host", "content-length", "transfer-encoding", "connection", "accept-encoding", "keep-alive", "te", "trailer"}
    | {"upgrade", "expect", "proxy-connection"}
)
_CONTROLS = bytes(code for code in (*range(32), 127) if code != ord("\t"))


class Transport:
    """A client for one event loop. `ssl_context` replaces the default one (system CAs, host name verified)."""

    def __init__(
        self,
        egress: EgressPolicy,
        *,
        ssl_context: ssl.SSLContext | None = None,
        idle_seconds: float = 1.5,
        max_idle: int = 1024,
    ) -> None:
        self._egress = egress
        self._ssl_context = ssl_context
        self._idle_seconds = idle_seconds
        self._max_idle = max_idle
        self._idle: dict[tuple[str, str, int, str], list[Connection]] = {}
        self._idle_count = 0
        self._next_sweep = 0.0
        self._busy: set[Connection] = set()
        self._closed = False

    async def post(
        self,
        url: str,
        headers: Sequence[tuple[str, str]],
        body: bytes,
        *,
        tenant: str,
        timeout_seconds: float,
        max_reply_bytes: int = MAX_RESULT_BYTES,
    ) -> Answer:
        """Return the complete answer to one POST. Raises DeliveryError. Cancelling it closes the connection.

        `tenant` is charged for the DNS lookup.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_seconds
        try:
            parsed = check_url(url)
        except UrlError as error:
            raise DeliveryError("unreachable", f"the URL {error}") from None
        head = _request_head(parsed, headers, len(body))
        connection = await self._acquire(parsed, tenant, loop, deadline, timeout_seconds)
        self._busy.add(connection)
        try:
            return await connection.exchange(
                head, body, deadline=deadline, timeout_seconds=timeout_seconds, max_reply_bytes=max_reply_bytes
            )
        finally:
            self._busy.discard(connection)
            self._release(connection, loop.time())

    async def aclose(self) -> None:
        """Close every connection; calls in flight fail as unreachable."""
        self._closed = True
        idle = [connection for stack in self._idle.values() for connection in stack]
        self._idle.clear()
        self._idle_count = 0
        for connection in (*idle, *self._busy):
            connection.abort()
        await asyncio.sleep(0)  # the loop closes the sockets in its next iteration

    async def _acquire(
        self, url: ParsedUrl, tenant: str, loop: asyncio.AbstractEventLoop, deadline: float, timeout_seconds: float
    ) -> Connection:
        if self._closed:
            raise DeliveryError("unreachable", "the client has been closed")
        addresses = self._egress.known(url, tenant)
        connection = self._take(url, addresses, loop.time()) if addresses else None
        if connection is not None:
            return connection
        try:
            async with asyncio.timeout_at(deadline):
                if addresses is None:
                    addresses = await self._egress.vet(url, tenant)
                    connection = self._take(url, addresses, loop.time())
                return connection or await self._open(url, addresses, loop, deadline)
        except TimeoutError:
            raise DeliveryError(
                "timeout", f"could not connect to {url.authority} within {timeout_seconds:g} s"
            ) from None

    def _take(self, url: ParsedUrl, addresses: Sequence[str], now: float) -> Connection | None:
        for address in addresses:
            stack = self._idle.get((url.scheme, url.host, url.port, address))
            while stack:
                connection = stack.pop()
                self._idle_count -= 1
                if connection.fresh(now, self._idle_seconds):
                    return connection
                connection.abort()
        return None

    def _release(self, connection: Connection, now: float) -> None:
        if now >= self._next_sweep:
            self._sweep(now)
        if self._closed or self._idle_count >= self._max_idle or not connection.reusable():
            connection.abort()
            return
        connection.idle_since = now
        self._idle.setdefault(connection.key, []).append(connection)
        self._idle_count += 1

    def _sweep(self, now: float) -> None:
        self._next_sweep = now + self._idle_seconds
        for key, stack in list(self._idle.items()):
            kept = [connection for connection in stack if connection.fresh(now, self._idle_seconds)]
            if len(kept) < len(stack):
                for connection in set(stack).difference(kept):
                    connection.abort()
                self._idle_count -= len(stack) - len(kept)
            if kept:
                self._idle[key] = kept
            else:
                del self._idle[key]

    async def _open(
        self, url: ParsedUrl, addresses: Sequence[str], loop: asyncio.AbstractEventLoop, deadline: float
    ) -> Connection:
        """Try the vetted addresses in order. Nothing has been sent yet, so trying the next one repeats nothing."""
        problem = "no address"
        tried = addresses[:MAX_TRIED_ADDRESSES]
        for place, address in enumerate(tried, 1):
            until = deadline if place == len(tried) else min(deadline, loop.time() + CONNECT_SHARE_SECONDS)
            try:
                async with asyncio.timeout_at(until):
                    return await self._connect(url, address, loop)
            except TimeoutError:
                problem = "it did not answer in time"
            except OSError as error:
                problem = reason(error)
        # Without the address: it may be one of the operator's, and the tenant can read this message.
        raise DeliveryError("unreachable", f"could not connect to {url.authority}: {problem}")

    async def _connect(self, url: ParsedUrl, address: str, loop: asyncio.AbstractEventLoop) -> Connection:
        key = (url.scheme, url.host, url.port, address)
        if url.scheme == "http":
            _, connection = await loop.create_connection(lambda: Connection(loop, key), address, url.port)
        else:
            _, connection = await loop.create_connection(
                lambda: Connection(loop, key), address, url.port, ssl=self._tls(), server_hostname=url.host
            )
        return connection

    def _tls(self) -> ssl.SSLContext:
        if self._ssl_context is None:
            self._ssl_context = ssl.create_default_context()
            self._ssl_context.set_alpn_protocols(["http/1.1"])
        return self._ssl_context


def _request_head(url: ParsedUrl, headers: Sequence[tuple[str, str]], body_bytes: int) -> bytes:
    lines = [f"POST {url.target} HTTP/1.1\r\nhost: {url.authority}\r\naccept-encoding: identity\r\n"]
    for name, value in headers:
        if not _may_be_sent(name):
            raise DeliveryError("unreachable", f"the header {name!r} cannot be sent")
        lines.append(f"{name}: {value}\r\n")
    lines.append(f"content-length: {body_bytes}\r\n\r\n")
    try:
        head = "".join(lines).encode("latin-1")
    except UnicodeEncodeError:
        raise DeliveryError("unreachable", "a header contains characters that cannot be sent") from None
    # Counts all control characters except tabs in one pass: there must be no more than those added above.
    if len(head) - len(head.translate(None, _CONTROLS)) != 2 * (len(headers) + 5):
        raise DeliveryError("unreachable", "a header contains control characters")
    return head


@lru_cache(maxsize=4096)
def _may_be_sent(name: str) -> bool:
    return is_token(name) and name.lower() not in _FRAMING
