"""Connections: an asyncpg pool for the hot statements, a SQLAlchemy engine over the same driver for the others."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.domain.errors import Refusal
from app.store.addresses import read_address
from app.store.session import COMMAND_SECONDS, BorrowedConnection, set_session

CONNECT_SECONDS = 5.0
CLOSE_SECONDS = 1.0
ACQUIRE_SECONDS = 10.0
"""How long a statement waits for a connection: with the database black-holed, a queue of waiters must not grow for ever."""
POOL_SIZE = 10
ADMIN_POOL_SIZE = 5

PARTITIONED = ("task_history", "attempt_history")

AWAY = (
    OSError,
    asyncio.TimeoutError,
    ssl.SSLError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # an idle connection heard of its end, and is used before its socket closes
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shutting down, starting up, cancelled by statement_timeout, crashed
    asyncpg.InsufficientResourcesError,  # no connection, memory or disk left
    asyncpg.ObjectNotInPrerequisiteStateError,  # the database does not accept connections now
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)


class Unavailable(Refusal):
    """The database did not answer, or cannot serve now; what was under way may or may not have been committed.

    `str()` is for logs and names the cause; a caller is told only that it is so.
    """

    def __init__(self, cause: str) -> None:
        super().__init__("unavailable", "the database does not answer; try again", retry_after_seconds=1)
        self.cause = cause

    def __str__(self) -> str:
        return self.cause


class PartitionMissing(Exception):
    """History has no partition for a day that something is to be kept until."""


class Unsuitable(Exception):
    """The database, or the way to it, cannot carry Sluice as it is set up; the message says what to change."""


class PooledConnection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """Is given back as it is: the hot statements leave no state in a session, and a reset is a round trip a statement."""

    def get_reset_query(self) -> str:
        return ""


def _arguments(dsn: str, connection_class: type[asyncpg.Connection]) -> dict[str, Any]:
    """How asyncpg is to connect. Of startup parameters only the name is sent: poolers refuse others, or drop them."""
    address = read_address(dsn)
    borrowed = {"statement_cache_size": 0} if issubclass(connection_class, BorrowedConnection) else {}
    return {
        "dsn": address.dsn,
        "timeout": address.connect_seconds or CONNECT_SECONDS,
        "command_timeout": COMMAND_SECONDS,
        "server_settings": {"application_name": address.application_name},
        "connection_class": connection_class,
        **borrowed,
    }


async def connect(
    dsn: str, connection_class: type[asyncpg.Connection] = asyncpg.Connection, **settings: str
) -> asyncpg.Connection:
    """A connection of its own, set as all are; `settings` come beside the usual ones, or instead."""
    connection = await asyncpg.connect(**_arguments(dsn, connection_class))
    try:
        await set_session(connection, settings)
    except BaseException:
        connection.terminate()
        raise
    return connection


@asynccontextmanager
async def connected(
    dsn: str, connection_class: type[asyncpg.Connection] = asyncpg.Connection, **settings: str
) -> AsyncIterator[asyncpg.Connection]:
    """A connection of its own, for as long as the block; one that does not close in time is dropped."""
    connection = await connect(dsn, connection_class, **settings)
    try:
        yield connection
    finally:
        try:
            await connection.close(timeout=CLOSE_SECONDS)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            connection.terminate()


def create_engine(dsn: str, connection_class: type[asyncpg.Connection] = asyncpg.Connection) -> AsyncEngine:
    """The dialect rejects sslmode, options and postgres://, so asyncpg makes the connections itself."""
    borrowed = {"prepared_statement_cache_size": 0, "prepared_statement_name_func": lambda: ""}
    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: connect(dsn, connection_class),
        connect_args=borrowed if issubclass(connection_class, BorrowedConnection) else {},
        pool_size=ADMIN_POOL_SIZE,
        max_overflow=0,
        pool_timeout=CONNECT_SECONDS,
        pool_pre_ping=True,
    )


class Reader(Protocol):
    """The database itself, or a connection in a transaction."""

    async def fetch(self, sql: str, *args: Any) -> list[Any]: ...


class Database:
    """Both ways to the one database. Raises Unavailable where the database is away, the driver's error elsewhere.

    With a `direct_dsn` the other is taken for a transaction pooler: what needs a session of its own goes to `direct_dsn`.
    """

    def __init__(self, dsn: str, direct_dsn: str | None = None) -> None:
        self.dsn = dsn
        self.direct_dsn = direct_dsn or dsn
        self.borrows = direct_dsn is not None
        self._pool: asyncpg.Pool | None = None
        self._engine = create_engine(dsn, BorrowedConnection if self.borrows else asyncpg.Connection)

    async def open(self) -> None:
        async with translated():
            self._pool = await asyncpg.create_pool(
                **_arguments(self.dsn, BorrowedConnection if self.borrows else PooledConnection),
                init=lambda connection: set_session(connection, {}),
                min_size=1,
                max_size=POOL_SIZE,
            )

    async def close(self) -> None:
        await self._engine.dispose()
        if self._pool is not None:
            pool, self._pool = self._pool, None
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await pool.close()
            except TimeoutError:
                pool.terminate()

    @property
    def checked_out(self) -> int:
        """Connections of both pools in use now."""
        assert self._pool is not None
        hot: int = self._pool.get_size() - self._pool.get_idle_size()
        admin: int = self._engine.pool.checkedout()  # type: ignore[attr-defined]  # QueuePool has it, its base class not
        return hot + admin

    async def fetch(self, sql: str, *args: Any) -> list[Any]:
        """One statement, autocommit: one round trip, no transaction left open. Behind a transaction pooler it is a transaction
        that sets itself first."""
        if self.borrows:
            async with self.transaction() as connection:
                return list(await connection.fetch(sql, *args))
        assert self._pool is not None
        async with translated(), self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
            rows: list[Any] = await connection.fetch(sql, *args)
            return rows

    async def fetchval(self, sql: str, *args: Any) -> Any:
        rows = await self.fetch(sql, *args)
        return rows[0][0] if rows else None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[asyncpg.Connection]:
        """Several hot statements that are one; nothing but the database is waited for inside."""
        assert self._pool is not None
        async with translated(), self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """A transaction for definitions, on the SQLAlchemy side."""
        async with translated(), self._engine.begin() as connection:
            yield connection


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    try:
        yield
    except asyncpg.CheckViolationError as error:
        # the server's words for it depend on its language
        if error.constraint_name is None and error.table_name in PARTITIONED:
            raise PartitionMissing(str(error)) from error
        raise
    except AWAY as error:
        raise Unavailable(f"{type(error).__name__}: {error}") from error
    except DBAPIError as error:
        cause = getattr(error.orig, "__cause__", None) or error.orig
        if error.connection_invalidated or isinstance(cause, AWAY):
            raise Unavailable(f"{type(cause).__name__}: {cause}") from error
        raise
