"""Connections to the database, each set as all are (session.py), by whatever address was given (addresses.py)."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

from app.store.addresses import Address, read_address
from app.store.failures import REFUSED, Refused, Unavailable, told
from app.store.session import COMMAND_SECONDS, BorrowedConnection, set_session
from app.store.sockets import AnsweringConnection, keep_alive

CONNECT_SECONDS = 5.0
OVERTIME_SECONDS = 2.0
"""How much longer a statement is waited for than the server gives it: a server that is there says itself that time is over."""

NEXT_HOST = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,  # starting up, shutting down
    asyncpg.TargetServerAttributeNotMatched,
)
"""What one of several hosts may say while another will do."""


class PooledConnection(AnsweringConnection):
    """Is given back as it is: the hot statements leave no state in a session, and a reset is a round trip a statement."""

    def get_reset_query(self) -> str:
        return ""


async def connect(
    dsn: str, connection_class: type[AnsweringConnection] = AnsweringConnection, **settings: str
) -> AnsweringConnection:
    """A connection of its own, set as all are; `settings` come beside the usual ones, or instead. Of several hosts it is the
    first that answers and will do.

    Raises Refused, Unavailable (too slow), the driver's errors.
    """
    address = read_address(dsn)
    seconds = address.connect_seconds or CONNECT_SECONDS
    lost: Exception = Unavailable("there is no host to connect to")
    for host in address.dsns:
        try:
            # over all addresses of the host, and each way of TLS
            async with asyncio.timeout(seconds):
                return await _connect(_arguments(host, address, connection_class), settings)
        except REFUSED as error:
            raise Refused(told(error)) from error
        except TimeoutError as error:
            lost = Unavailable(f"no connection within {seconds:g} s")
            lost.__cause__ = error
        except NEXT_HOST as error:
            lost = error
    raise lost


def _arguments(dsn: str, address: Address, connection_class: type[AnsweringConnection]) -> dict[str, Any]:
    """How asyncpg is to connect. Of startup parameters only the name is sent: poolers refuse others, or drop them."""
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
    """A connection of its own, for as long as the block; one that does not close in time is dropped."""
    connection = await connect(dsn, connection_class, **settings)
    try:
        yield connection
    finally:
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await connection.close()
