"""Connections: an asyncpg pool for the hot statements, a SQLAlchemy engine over the same driver for the others."""

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Protocol

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from app.domain.errors import Refusal

CONNECT_SECONDS = 5.0
COMMAND_SECONDS = 15.0
ACQUIRE_SECONDS = 10.0
"""How long a statement waits for a connection: with the database black-holed, a queue of waiters must not grow for ever."""
POOL_SIZE = 10
ADMIN_POOL_SIZE = 5

# statement_timeout ends what the client has given up on; the tcp settings end what a black-holed network keeps alive.
# Without bitmaps a page of a list is read in the order of its index: where statistics take a burst of tasks for a few rows,
# the planner would else collect and sort a whole queue for each page.
SERVER_SETTINGS = {
    "application_name": "sluice",
    "synchronous_commit": "on",
    "statement_timeout": str(int(COMMAND_SECONDS * 1000)),
    "idle_in_transaction_session_timeout": "30000",
    "tcp_keepalives_idle": "15",
    "tcp_user_timeout": "15000",
    "timezone": "UTC",
    "enable_bitmapscan": "off",
}

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


def normalise(dsn: str) -> str:
    """Any postgres:// or postgresql:// form, with or without a SQLAlchemy driver, as asyncpg takes it."""
    return re.sub(r"^postgres(?:ql)?(?:\+\w+)?://", "postgresql://", dsn)


class PooledConnection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """Is given back as it is: the hot statements leave no state in a session, and a reset is a round trip a statement."""

    def get_reset_query(self) -> str:
        return ""


async def connect(dsn: str, **settings: str) -> asyncpg.Connection:
    return await asyncpg.connect(
        normalise(dsn),
        timeout=CONNECT_SECONDS,
        command_timeout=COMMAND_SECONDS,
        server_settings={**SERVER_SETTINGS, **settings},
    )


def create_engine(dsn: str) -> AsyncEngine:
    """The dialect rejects sslmode, options and postgres://, so asyncpg makes the connections itself."""
    return create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: connect(dsn),
        pool_size=ADMIN_POOL_SIZE,
        max_overflow=0,
        pool_timeout=CONNECT_SECONDS,
        pool_pre_ping=True,
    )


class Reader(Protocol):
    """The database itself, or a connection in a transaction."""

    async def fetch(self, sql: str, *args: Any) -> list[Any]: ...


class Database:
    """Both ways to the one database. Raises Unavailable where the database is away, the driver's error elsewhere."""

    def __init__(self, dsn: str) -> None:
        self.dsn = normalise(dsn)
        self._pool: asyncpg.Pool | None = None
        self._engine = create_engine(self.dsn)

    async def open(self) -> None:
        async with translated():
            self._pool = await asyncpg.create_pool(
                self.dsn,
                min_size=1,
                max_size=POOL_SIZE,
                timeout=CONNECT_SECONDS,
                command_timeout=COMMAND_SECONDS,
                server_settings=SERVER_SETTINGS,
                connection_class=PooledConnection,
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
        """One statement, autocommit: one round trip, no transaction left open."""
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
        if error.constraint_name is None and "no partition" in str(error):
            raise PartitionMissing(str(error)) from error
        raise
    except AWAY as error:
        raise Unavailable(f"{type(error).__name__}: {error}") from error
    except DBAPIError as error:
        cause = getattr(error.orig, "__cause__", None) or error.orig
        if error.connection_invalidated or isinstance(cause, AWAY):
            raise Unavailable(f"{type(cause).__name__}: {cause}") from error
        raise
