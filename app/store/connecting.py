"""Opening configured connections (session.py) to any kind of address (addresses.py)."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

from app.store.addresses import Address, read_address
from app.store.failures import REFUSED, Refused, Unavailable, message_of
from app.store.session import COMMAND_SECONDS, BorrowedConnection, set_session
from app.store.sockets import AnsweringConnection, keep_alive

CONNECT_SECONDS = 5.0
OVERTIME_SECONDS = 2.0
"""How much longer to wait for a statement than the server's limit: a live server reports the timeout itself."""

NEXT_HOST = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,  # starting up, shutting down
    asyncpg.TargetServerAttributeNotMatched,
)
"""Errors of one host after which the next one is tried."""


class PooledConnection(AnsweringConnection):
    """A connection released without a reset: the hot statements leave no session state, and a reset costs a round trip."""

    def get_reset_query(self) -> str:
        return ""


async def connect(
    dsn: str, connection_class: type[AnsweringConnection] = AnsweringConnection, **settings: str
) -> AnsweringConnection:
    """Open a dedicated, configured connection; `settings` are added to the usual ones or override them. Of several hosts, it is the
    first suitable one that answers.

    Raises Refused, Unavailable (too slow), the driver's errors.
    """
    address = read_address(dsn)
    seconds = address.connect_seconds or CONNECT_SECONDS
    lost: Exception = Unavailable("there is no host to connect to")
    for host in address.dsns:
        try:
            # over all addresses of the host, and each TLS mode
            async with asyncio.timeout(seconds):
                return await _connect(_arguments(host, address, connection_class), settings)
        except REFUSED as error:
            raise Refused(message_of(error)) from error
        except TimeoutError as error:
            lost = Unavailable(f"no connection within {seconds:g} s")
            lost.__cause__ = error
        except NEXT_HOST as error:
            lost = error
    raise lost


def _arguments(dsn: str, address: Address, connection_class: type[AnsweringConnection]) -> dict[str, Any]:
    """Return asyncpg's arguments. The only startup parameter is the application name: poolers reject or drop others."""
    borrowed = {"statement_cache_size": 0} if issubclass(connection_class, BorrowedConnection) else {}
    return {
        "dsn": dsn,
        "timeout": None,
        "command_timeout": COMMAND_SECONDS + OVERTIME_SECONDS,
        "server_settings": {"application_name": address.application_name},
        "connection_class": connection_class,
        **borrowed,
    }


async def _connect(arguments: dict[str, Any], settings: Mapping[str, str]) -> AnsweringConnection:
    connection: AnsweringConnection = await asyncpg.connect(**arguments)
    try:
        keep_alive(connection)
        await set_session(connection, settings)
    except BaseException:
        connection.terminate()
        raise
    return connection


@asynccontextmanager
async def connected(
    dsn: str, connection_class: type[AnsweringConnection] = AnsweringConnection, **settings: str
) -> AsyncIterator[asyncpg.Connection]:
    """Open a dedicated connection for the block; one that does not close in time is dropped."""
    connection = await connect(dsn, connection_class, **settings)
    try:
        yield connection
    finally:
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await connection.close()
