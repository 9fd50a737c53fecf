"""A minimal HTTP/1.1 client for deliveries: one request, one deadline, limits on raw bytes, pinned addresses, and nothing else.

No redirects, proxies, cookies, decompression or retries: an attempt is one request, and the queue decides whether there is another.
A call asks the egress policy for addresses, takes an idle connection to one of them or opens a new one, and exchanges request and
reply. The deadline covers all of it. Only a call that must look up a name or open a connection gets a task of its own.

Idle connections are kept per (scheme, host, port, address), last in, first out, for less time than servers commonly wait before
they close. Expired ones are closed at the next use of the pool, so no background task is needed.
"""

import asyncio
import ssl
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, NamedTuple

from app.delivery.kinds import Sending
from app.delivery.webhook.connection import Connection, Heads, Reply, reason
from app.delivery.webhook.deadlines import Deadlines
from app.delivery.webhook.egress import EgressPolicy
from app.delivery.webhook.errors import DeliveryError
from app.delivery.webhook.urls import ParsedUrl
from app.domain.answers import MAX_RESULT_BYTES, NoAnswer

MAX_TRIED_ADDRESSES = 6
CONNECT_SHARE_SECONDS = 3.0
"""How long to try one address at most while there is another."""


class Request(NamedTuple):
    """One request, rendered."""

    url: ParsedUrl
    head: bytes
    body: bytes
    tenant: str
    """Who is charged for the DNS lookup."""
    timeout_seconds: float
    max_reply_bytes: int = MAX_RESULT_BYTES


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
        self._deadlines = Deadlines()
        self._heads = Heads()
        self._closed = False

    def send(self, request: Request, ended: Callable[[Reply | Exception], None]) -> Sending:
        """Send the request and tell `ended` later, once, what came of it: an exception if it met a fault of ours."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + request.timeout_seconds
        try:
            addresses = None if self._closed else self._egress.known(request.url, request.tenant)
            connection = self._take(request.url, addresses, loop.time()) if addresses else None
        except DeliveryError:
            connection = None  # raised again, and told, where it is opened
        if connection is None:
            return Starting(partial(self._open_and_exchange, request, deadline, ended), ended)
        return self._exchange(connection, request, deadline, ended)

    async def _open_and_exchange(self, request: Request, deadline: float, ended: Callable[[Reply], None]) -> Connection:
        return self._exchange(await self._connection(request, deadline), request, deadline, ended)

    def _exchange(
        self, connection: Connection, request: Request, deadline: float, ended: Callable[[Reply], None]
    ) -> Connection:
        """Send the request on this connection. Raises DeliveryError if the peer has just closed it; then nothing was sent."""
        connection.send(
            request.head,
            request.body,
            deadline=deadline,
            timeout_seconds=request.timeout_seconds,
            max_reply_bytes=request.max_reply_bytes,
            ended=ended,
        )
        self._busy.add(connection)
        return connection

    async def aclose(self) -> None:
        """Close every connection; calls in flight fail as unreachable."""
        self._closed = True
        idle = [connection for stack in self._idle.values() for connection in stack]
        self._idle.clear()
        self._idle_count = 0
        for connection in (*idle, *self._busy):
            connection.abort()
        await asyncio.sleep(0)  # the loop closes the sockets in its next iteration

    async def _connection(self, request: Request, deadline: float) -> Connection:
        """Return an idle connection, or open one. Raises DeliveryError."""
        if self._closed:
            raise DeliveryError("unreachable", "the client has been closed")
        loop, url = asyncio.get_running_loop(), request.url
        try:
            async with asyncio.timeout_at(deadline):
                addresses = await self._egress.vet(url, request.tenant)
                return self._take(url, addresses, loop.time()) or await self._open(url, addresses, loop, deadline)
        except TimeoutError:
            raise DeliveryError(
                "timeout", f"could not connect to {url.authority} within {request.timeout_seconds:g} s"
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

    def _release(self, connection: Connection) -> None:
        self._busy.discard(connection)
        now = asyncio.get_running_loop().time()
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
        def connected() -> Connection:
            key = (url.scheme, url.host, url.port, address)
            return Connection(key, self._deadlines, self._heads, self._release)

        if url.scheme == "http":
            _, connection = await loop.create_connection(connected, address, url.port)
        else:
            _, connection = await loop.create_connection(
                connected, address, url.port, ssl=self._tls(), server_hostname=url.host
            )
        return connection

    def _tls(self) -> ssl.SSLContext:
        if self._ssl_context is None:
            self._ssl_context = ssl.create_default_context()
            self._ssl_context.set_alpn_protocols(["http/1.1"])
        return self._ssl_context


class Starting:
    """A call that must wait for something before it can be sent. `start` sends it; it may raise DeliveryError."""

    def __init__(
        self, start: Callable[[], Coroutine[Any, Any, Sending]], ended: Callable[[NoAnswer | Exception], None]
    ) -> None:
        self._sending: Sending | None = None
        self._task = asyncio.get_running_loop().create_task(self._run(start, ended))

    async def _run(
        self, start: Callable[[], Coroutine[Any, Any, Sending]], ended: Callable[[NoAnswer | Exception], None]
    ) -> None:
        try:
            self._sending = await start()
        except DeliveryError as error:
            ended(NoAnswer(error.outcome, error.detail))
        except Exception as error:
            # otherwise nobody would ever hear of this call, and its lease would be renewed for good
            ended(error)

    def cancel(self) -> None:
        if self._sending is not None:
            self._sending.cancel()
        else:
            self._task.cancel()
