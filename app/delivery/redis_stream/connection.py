"""One connection to a Redis server: to addresses that the egress policy allows, with several commands at a time.

redis-py speaks the protocol. The socket is opened here, because a name is resolved and judged once and the connection leads to
what was judged; and replies are bounded, because a server that a tenant names may send anything. Nothing is repeated here: whoever
sends the commands decides whether that is harmless.
"""

import asyncio
import socket
import ssl
from collections.abc import Sequence
from typing import Any

from redis.asyncio.connection import Connection
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from app.delivery.redis_stream.addresses import RedisAddress, RedisFailure
from app.delivery.webhook.connection import reason
from app.delivery.webhook.egress import EgressPolicy
from app.delivery.webhook.errors import DeliveryError
from app.delivery.webhook.transport import CONNECT_SHARE_SECONDS, MAX_TRIED_ADDRESSES
from app.domain.handlers import HIDDEN

MAX_ERROR = 300
"""Characters of a server's error that are told."""
CODES = frozenset({"BUSYGROUP", "NOGROUP", "UNBLOCKED", "WRONGTYPE"})
"""First words of error replies that somebody here goes by. redis-py tells others by the class of its exception."""

Command = Sequence[bytes | str | int]


class RedisConnection:
    """A connection that opens when it is first used, and again after a failure. One caller at a time."""

    def __init__(self, egress: EgressPolicy, tenant: str, address: RedisAddress, *, max_reply_bytes: int) -> None:
        self._egress = egress
        self._tenant = tenant
        self._address = address
        self._max_reply_bytes = max_reply_bytes
        self._open: _Dialled | None = None

    async def run(self, commands: Sequence[Command], seconds: float) -> list[Any]:
        """Send commands at once and return their replies in order; that of a refused command is a RedisFailure.

        Raises RedisFailure if there are not all replies within so many seconds; then any of the commands may have been carried
        out.
        """
        try:
            async with asyncio.timeout(seconds):
                connection = await self._opened()
                connection.bounded.allow(self._max_reply_bytes)
                await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
                return [await self._reply(connection) for _ in commands]
        except TimeoutError:
            await self.aclose()
            raise RedisFailure(f"{self._name} did not answer within {seconds:g} s", "timeout") from None
        except (RedisError, OSError, EOFError, ValueError, RecursionError, TooLarge) as error:
            await self.aclose()
            raise self._failure(error) from None
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        connection, self._open = self._open, None
        if connection is not None:
            await connection.disconnect(nowait=True)

    @property
    def _name(self) -> str:
        return self._address.parsed.authority

    async def _reply(self, connection: "_Dialled") -> Any:
        try:
            reply = await connection.read_response()
        except ResponseError as error:
            return self._failure(error)
        if isinstance(reply, list):  # those of a transaction may be errors
            return [self._failure(one) if isinstance(one, Exception) else one for one in reply]
        return reply

    async def _opened(self) -> "_Dialled":
        connection = self._open
        if connection is not None:
            if connection.is_connected and not await connection.can_read():
                return connection
            await self.aclose()  # the server has closed it meanwhile, or has said something that nobody asked for
        connection = self._open = _Dialled(await self._dial(), self._address)
        connection.bounded.allow(self._max_reply_bytes)
        await connection.connect()  # type: ignore[no-untyped-call]
        return connection

    async def _dial(self) -> "_Streams":
        """Try the vetted addresses in order. Raises RedisFailure."""
        try:
            addresses = await self._egress.vet(self._address.parsed, self._tenant)
        except DeliveryError as error:
            raise RedisFailure(error.detail, error.outcome, permanent=error.outcome == "egress_denied") from None
        problem = "no address"
        tried = addresses[:MAX_TRIED_ADDRESSES]
        for place, address in enumerate(tried, 1):
            try:
                async with asyncio.timeout(None if place == len(tried) else CONNECT_SHARE_SECONDS):
                    return await _connect(address, self._address)
            except TimeoutError:
                problem = "it did not answer in time"
            except OSError as error:
                problem = reason(error)
        # Without the address: it may be one of the operator's, and the tenant can read this message.
        raise RedisFailure(f"could not connect to {self._name}: {problem}", "unreachable")

    def _failure(self, error: Exception) -> RedisFailure:
        if isinstance(error, TooLarge):
            return RedisFailure(f"{self._name} sent more than {self._max_reply_bytes} bytes", "too_large")
        text = self._told(str(error))
        if isinstance(error, ResponseError | AuthenticationError):
            code = text.partition(" ")[0]
            denied = isinstance(error, AuthenticationError | NoPermissionError) or code == "WRONGTYPE"
            return RedisFailure(f"{self._name} answered: {text}", code=code if code in CODES else "", permanent=denied)
        return RedisFailure(f"the connection to {self._name} failed: {text}", "unreachable")

    def _told(self, text: str) -> str:
        """Return an error of a server, which may repeat what it was sent, for people."""
        text = text.partition(", with args beginning with:")[0]  # of a command it does not know: payloads and passwords
        if self._address.password:
            text = text.replace(self._address.password, HIDDEN)
        return "".join(char if char.isprintable() else " " for char in text[:MAX_ERROR]) or "it was closed"


class TooLarge(Exception):
    """Raised for replies that have more bytes than are taken."""


class _Bounded(asyncio.StreamReader):
    """A reader that takes so many bytes and no more."""

    _left = 0

    def allow(self, count: int) -> None:
        self._left = count

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]  # a protocol is told of bytes
        self._left -= len(data)
        if self._left >= 0:
            super().feed_data(data)
        elif self.exception() is None:
            self.set_exception(TooLarge())


_Streams = tuple[_Bounded, asyncio.StreamWriter]


async def _connect(host: str, address: RedisAddress) -> _Streams:
    """Open a socket to a literal address. Raises OSError."""
    loop = asyncio.get_running_loop()
    reader = _Bounded()
    protocol = asyncio.StreamReaderProtocol(reader)
    if address.tls:
        transport, _ = await loop.create_connection(
            lambda: protocol,
            host,
            address.parsed.port,
            ssl=ssl.create_default_context(),
            server_hostname=address.parsed.host,
        )
    else:
        transport, _ = await loop.create_connection(lambda: protocol, host, address.parsed.port)
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


class _Dialled(Connection):
    """redis-py's connection, over a socket that is open already."""

    def __init__(self, streams: _Streams, address: RedisAddress) -> None:
        self.bounded = streams[0]
        self._streams = streams
        super().__init__(
            host=address.parsed.host,
            port=address.parsed.port,
            db=address.database,
            username=address.username,
            password=address.password,
            protocol=2,
            socket_timeout=None,  # each exchange has a time of its own
            socket_connect_timeout=None,
            driver_info=None,  # a user with few rights may not say it
        )

    async def _connect(self) -> None:
        self._reader, self._writer = self._streams
