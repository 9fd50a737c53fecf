"""Who uses which connections: what keeps tasks moving, what tenants read, what they change by hand, their definitions.

`fetch` and `transaction` are for what keeps tasks moving: enqueues, claims, settles, renewals, the loops. Nothing that a tenant
asks for takes those connections but by a group writer, by the token of a key or lease, as a worker that pulls (in turns of their
own), or by way of `lookups` and `changes`, which have places for a third of them each. `reads` and `begin` (definitions) have
connections of their own. Tenants share the places of these by turns (app.domain.turns), so a tenant whose statements hang holds
up itself and nobody else.
"""

import asyncio
import re
import ssl
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Protocol

import asyncpg

from app.domain.connections import DEFAULT_CONNECTIONS, Connections, share, split
from app.domain.errors import Refusal
from app.domain.turns import Turns
from app.store.addresses import Address, read_address
from app.store.outage import Outage
from app.store.session import COMMAND_SECONDS, BorrowedConnection, set_session
from app.store.sockets import AnsweringConnection, keep_alive

CONNECT_SECONDS = 5.0
OVERTIME_SECONDS = 2.0
"""How much longer a statement is waited for than the server gives it: a server that is there says itself that time is over."""
ACQUIRE_SECONDS = 10.0
"""How long a statement waits for a connection: with the database black-holed, a queue of waiters must not grow for ever."""
SHORT_PAUSE_SECONDS = 0.05
"""Between two tries for a connection while the server has none for us and ours are in use."""
READ_SECONDS = 5.0
"""How long a read may run. What takes longer has a page, a filter or a time-out of its own."""
READING = {"enable_seqscan": "off", "enable_sort": "off"}
"""Lists stop early because an index has their order. With statistics from before a table grew, the planner would rather read all
of it and sort."""
TURN_SECONDS = 5.0
"""How long a read or a change waits for its turn."""
MAX_WAITING = 2000
"""Reads, changes or requests for definitions of one tenant that may wait for their turn."""
FULL = "raise max_connections, or lower SLUICE_DATABASE_CONNECTIONS on the replicas"

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
MISUSE = (asyncpg.InterfaceError, ValueError)
"""What is both of these is an argument that the driver cannot encode: no fault of the database."""
REFUSED = (
    asyncpg.InvalidAuthorizationSpecificationError,  # no such role, a wrong password, nothing in pg_hba.conf
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
)
"""How a server turns a connection away for who asks, or for what."""


NEXT_HOST = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.CannotConnectNowError,  # starting up, shutting down
    asyncpg.TargetServerAttributeNotMatched,
)
"""What one of several hosts may say while another will do."""


class Unavailable(Refusal):
    """The database did not answer, or cannot serve now; what was under way may or may not have been committed.

    `str()` is for logs and names the cause; a caller is told only that it is so.
    """

    def __init__(self, cause: str) -> None:
        super().__init__("unavailable", "the database does not answer; try again", retry_after_seconds=1)
        self.cause = cause

    def __str__(self) -> str:
        return self.cause


class Busy(Unavailable):
    """The database is there, and had no time or no connection for this statement."""


class TooSlow(Busy):
    """A statement of a reader that took longer than it may."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"a read took longer than {seconds:g} s")
        self.detail = f"reading this took longer than {seconds:g} seconds; request less at once, or try again later"


class Refused(Unavailable):
    """The server is there and does not let this user in, or has no such database. To a replica that runs it is away; a start
    has nothing to wait for."""


class PartitionMissing(Exception):
    """History has no partition for a day that something is to be kept until."""


class Unsuitable(Exception):
    """The database, or the way to it, cannot carry Sluice as it is set up; the message says what to change."""


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
            raise Refused(_told(error)) from error
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


class Reader(Protocol):
    """What statements are sent by: the database itself, one of its gates, or a connection in a transaction."""

    async def fetch(self, sql: str, *args: Any) -> list[Any]: ...

    async def fetchval(self, sql: str, *args: Any) -> Any: ...


class Pool:
    """The connections of one use, of which each statement may take `seconds`."""

    def __init__(self, size: int, seconds: float, outage: Outage) -> None:
        self._size = size
        self._seconds = seconds
        self._outage = outage
        self._pool: asyncpg.Pool | None = None
        self._borrows = False

    async def open(
        self,
        connecting: Callable[..., Awaitable[AnsweringConnection]],
        settings: Mapping[str, str],
        *,
        borrows: bool,
        hold: bool,
    ) -> None:
        """Make all connections now and keep them; without `hold`, each when it is first needed."""

        async def connect(*_args: Any, **_kwargs: Any) -> AnsweringConnection:
            """The pool repeats to it what it was made with."""
            return await connecting(statement_timeout=_milliseconds(self._seconds), **settings)

        self._borrows = borrows
        self._pool = await asyncpg.create_pool(
            init_size=self._size if hold else 0,
            min_size=0,
            max_size=self._size,
            max_inactive_connection_lifetime=0,
            connection_class=PooledConnection,
            connect=connect,
        )

    async def fetch(self, sql: str, args: Sequence[Any], *, seconds: float | None = None) -> list[Any]:
        """One statement, autocommit: one round trip, no transaction left open.

        One that is given more `seconds` than others is a transaction that sets its time-out first; so is every one behind a
        transaction pooler, where each transaction sets itself.
        """
        if self._borrows or seconds is not None:
            async with self.transaction(sql) as connection:
                if seconds is not None:
                    await connection.execute(f"set local statement_timeout = {_milliseconds(seconds)}")
                return list(await connection.fetch(sql, *args, timeout=(seconds or self._seconds) + OVERTIME_SECONDS))
        async with translated(self._outage, sql):
            connection = await self._acquire()
            try:
                rows: list[Any] = await connection.fetch(sql, *args, timeout=self._seconds + OVERTIME_SECONDS)
            finally:
                await self._release(connection)
            return rows

    @asynccontextmanager
    async def transaction(self, statement: str = "a transaction") -> AsyncIterator[asyncpg.Connection]:
        async with translated(self._outage, statement):
            connection = await self._acquire()
            try:
                async with connection.transaction():
                    yield connection
            finally:
                await self._release(connection)

    async def _acquire(self) -> Any:
        """A connection. Where the server has none for us, one that comes back from another use."""
        assert self._pool is not None
        try:
            async with asyncio.timeout(ACQUIRE_SECONDS):
                while True:
                    try:
                        return await self._pool.acquire()
                    except asyncpg.TooManyConnectionsError:
                        if self._pool.get_size() == 0:
                            raise
                    await asyncio.sleep(SHORT_PAUSE_SECONDS)
        except TimeoutError as error:
            raise Busy(f"no connection came free within {ACQUIRE_SECONDS:g} s") from error

    async def _release(self, connection: Any) -> None:
        assert self._pool is not None
        await self._pool.release(connection)

    @property
    def checked_out(self) -> int:
        assert self._pool is not None
        return int(self._pool.get_size() - self._pool.get_idle_size())

    async def close(self) -> None:
        if self._pool is not None:
            pool, self._pool = self._pool, None
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    await pool.close()
            except TimeoutError:
                pool.terminate()


def _milliseconds(seconds: float) -> str:
    return str(int(seconds * 1000))


class Database:
    """All ways to the one database. Raises Unavailable where the database is away, the driver's error elsewhere.

    With a `direct_dsn` the other is taken for a transaction pooler: what needs a session of its own goes to `direct_dsn`.
    """

    def __init__(self, dsn: str, direct_dsn: str | None = None, connections: Connections | None = None) -> None:
        self.dsn = dsn
        self.direct_dsn = direct_dsn or dsn
        self.borrows = direct_dsn is not None
        self.connections = connections or split(DEFAULT_CONNECTIONS)
        self.outage = Outage()
        self._work = Pool(self.connections.work, COMMAND_SECONDS, self.outage)
        self._reads = Pool(self.connections.reads, READ_SECONDS, self.outage)
        self._definitions = Pool(self.connections.definitions, COMMAND_SECONDS, self.outage)
        self._open: weakref.WeakSet[AnsweringConnection] = weakref.WeakSet()
        self._read_turns = _turns("reading", self.connections.reads)
        self._lookup_turns = _turns("looking up", self.connections.lookups)
        self._change_turns = _turns("changing tasks", self.connections.changes)
        self._definition_turns = _turns("definitions", self.connections.definitions)

    async def open(self, *, hold: bool = True) -> None:
        """Take all connections, so that nobody else can; without `hold` each is made when it is first needed.

        Raises Unavailable, also where the server has fewer left.
        """
        try:
            async with translated():
                await self._work.open(self._connect, {}, borrows=self.borrows, hold=hold)
                await self._reads.open(self._connect, READING, borrows=self.borrows, hold=hold)
                await self._definitions.open(self._connect, {}, borrows=self.borrows, hold=hold)
        except BaseException:
            await self.close()
            raise

    async def _connect(self, **settings: str) -> AnsweringConnection:
        connection = await connect(self.dsn, BorrowedConnection if self.borrows else PooledConnection, **settings)
        self._open.add(connection)
        return connection

    def end_silent(self, since: float) -> int:
        """End every connection older than `since` (monotonic seconds) that has answered nothing from then on, whether or
        not somebody waits on it: its socket leads nowhere, and would be found out only after COMMAND_SECONDS. How many."""
        silent = [c for c in self._open if not c.is_closed() and c.answered_at < since]
        for connection in silent:
            connection.terminate()
        return len(silent)

    async def close(self) -> None:
        await asyncio.gather(*(pool.close() for pool in (self._work, self._reads, self._definitions)))

    @property
    def checked_out(self) -> int:
        """Connections of all pools in use now."""
        return sum(pool.checked_out for pool in (self._work, self._reads, self._definitions))

    async def fetch(self, sql: str, *args: Any) -> list[Any]:
        """One statement, autocommit."""
        return await self._work.fetch(sql, args)

    async def fetchval(self, sql: str, *args: Any) -> Any:
        rows = await self.fetch(sql, *args)
        return rows[0][0] if rows else None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[asyncpg.Connection]:
        """Several hot statements that are one; nothing but the database is waited for inside."""
        async with self._work.transaction() as connection:
            yield connection

    @asynccontextmanager
    async def begin(self, tenant: Hashable) -> AsyncIterator[asyncpg.Connection]:
        """A transaction for definitions. Raises Refusal (unavailable) also when no turn comes."""
        async with (
            self._definition_turns.turn(tenant, patience_seconds=TURN_SECONDS),
            self._definitions.transaction("a definition") as connection,
        ):
            yield connection

    def reads(self, tenant: Hashable, seconds: float | None = None) -> "Reads":
        """What a tenant reads; its statements may run for READ_SECONDS, or for so many."""
        return Reads(self._reads, self._read_turns, tenant, seconds)

    def lookups(self, tenant: Hashable) -> "Gate":
        """What a tenant's enqueue or pull has to know first: short statements by a key, which wait behind nothing long."""
        return Gate(self, self._lookup_turns, tenant)

    def changes(self, tenant: Hashable) -> "Gate":
        """What a tenant changes beside the group writers, one statement or transaction at a time."""
        return Gate(self, self._change_turns, tenant)


def _turns(what: str, places: int) -> Turns:
    return Turns(what, places=places, share=share(places), max_waiting=MAX_WAITING)


class Reads:
    """Statements that read, for one tenant. Raises Refusal (unavailable): no turn came, it took too long, no database."""

    def __init__(self, pool: Pool, turns: Turns, tenant: Hashable, seconds: float | None) -> None:
        self._pool = pool
        self._turns = turns
        self._tenant = tenant
        self._seconds = seconds

    async def fetch(self, sql: str, *args: Any) -> list[Any]:
        async with self._turns.turn(self._tenant, patience_seconds=TURN_SECONDS):
            try:
                return await self._pool.fetch(sql, args, seconds=self._seconds)
            except Busy as busy:
                if isinstance(busy.__cause__, asyncpg.QueryCanceledError):
                    raise TooSlow(self._seconds or READ_SECONDS) from busy
                raise

    async def fetchval(self, sql: str, *args: Any) -> Any:
        rows = await self.fetch(sql, *args)
        return rows[0][0] if rows else None


class Gate:
    """Statements and transactions of one tenant on some of the connections for work."""

    def __init__(self, db: Database, turns: Turns, tenant: Hashable) -> None:
        self._db = db
        self._turns = turns
        self._tenant = tenant

    async def fetch(self, sql: str, *args: Any) -> list[Any]:
        async with self._turns.turn(self._tenant, patience_seconds=TURN_SECONDS):
            return await self._db.fetch(sql, *args)

    async def fetchval(self, sql: str, *args: Any) -> Any:
        rows = await self.fetch(sql, *args)
        return rows[0][0] if rows else None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[asyncpg.Connection]:
        async with self._turns.turn(self._tenant, patience_seconds=TURN_SECONDS), self._db.transaction() as connection:
            yield connection


class translated:
    """The driver's errors become ours; an outage hears of those that mean it, and of answers while it lasts."""

    __slots__ = ("_failures", "_outage", "_statement")

    def __init__(self, outage: Outage | None = None, statement: str = "") -> None:
        self._outage = outage
        self._statement = statement
        self._failures = 0

    async def __aenter__(self) -> None:
        if self._outage is not None:
            self._failures = self._outage.failures

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        outage = self._outage
        if error is None:
            if outage is not None and outage.on:
                outage.answered(self._failures)
            return
        ours = _translation(error)
        if outage is not None and isinstance(ours, Unavailable) and not isinstance(ours, Busy):
            outage.met(_name_of(self._statement), str(ours))
        if ours is not error:
            raise ours from error


def _translation(error: BaseException) -> BaseException:
    cause: Any = error
    # told by the table: the server's words for it depend on its language
    if isinstance(cause, asyncpg.CheckViolationError) and not cause.constraint_name and cause.table_name in PARTITIONED:
        return PartitionMissing(str(cause))
    if isinstance(cause, asyncpg.TooManyConnectionsError):
        return Busy(f"{_told(cause)} ({FULL})")
    if isinstance(cause, asyncpg.QueryCanceledError):
        return Busy(_told(cause))
    if isinstance(cause, AWAY) and not all(isinstance(cause, kind) for kind in MISUSE):
        return Unavailable(_told(cause))
    return error


def _told(error: Any) -> str:
    return f"{type(error).__name__}: {str(error) or 'no answer in time'}"


def _name_of(statement: str) -> str:
    """The function that a statement calls, or the file it is from, or how it begins: for the log."""
    called = re.search(r"sluice\.(\w+_v\d+)\(", statement) or re.match(r"-- (\w+)\n", statement)
    return called[1] if called else " ".join(statement.split())[:80]
