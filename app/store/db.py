"""Database connections by use: moving tasks, reads of tenants, changes by tenants, and definitions.

`fetch` and `transaction` keep tasks moving: enqueues, claims, settles, renewals, the loops. Tenants' requests use these
connections only through group writers, for verifying keys and lease tokens, for pulling (in turns of its own), and through
`lookups` and `changes`, which may use a third of them each. `reads` and `begin` (definitions) have connections of their own.
Tenants share these places in turns (app.domain.turns), so a tenant whose statements hang delays only itself.
"""

import asyncio
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Protocol

import asyncpg

from app.domain.connections import DEFAULT_CONNECTIONS, Connections, share, split
from app.domain.turns import Turns
from app.store.connecting import PooledConnection, connect
from app.store.failures import Busy, TooSlow, translated
from app.store.outage import Outage
from app.store.pool import Pool
from app.store.session import COMMAND_SECONDS, BorrowedConnection
from app.store.sockets import AnsweringConnection

READ_SECONDS = 5.0
"""How long a read may run. Anything longer uses pages, filters or a timeout of its own."""
READING = {"enable_seqscan": "off", "enable_sort": "off"}
"""Lists stop early because an index has their order. With outdated statistics, the planner would read and sort the whole
table."""
TURN_SECONDS = 5.0
"""How long a read or a change waits for its turn."""
MAX_WAITING = 2000
"""How many reads, changes or definition requests of one tenant may wait for their turn."""


class Reader(Protocol):
    """Whatever runs statements: the database itself, one of its gates, or a connection in a transaction."""

    async def fetch(self, sql: str, *args: Any) -> list[Any]: ...

    async def fetchval(self, sql: str, *args: Any) -> Any: ...


class Database:
    """All connections to the database. Raises Unavailable if the database is unavailable, otherwise the driver's errors.

    With a `direct_dsn`, `dsn` is a transaction pooler, and whatever needs a real session uses `direct_dsn`.
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
        """Open all connections, so that nobody else can take them; without `hold`, open each when it is first needed.

        Raises Unavailable, also if the server has fewer left.
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

    async def on_each_connection(self, work: Callable[[asyncpg.Connection], Awaitable[None]]) -> None:
        """Run `work` on each connection that `fetch` may use, one at a time."""
        await self._work.on_each(work)

    def end_silent(self, since: float) -> int:
        """Close every connection older than `since` (monotonic seconds) that has not answered since then, even if someone waits on
        it; return how many. Its socket is dead, which would otherwise be noticed only after COMMAND_SECONDS."""
        silent = [c for c in self._open if not c.is_closed() and c.answered_at < since]
        for connection in silent:
            connection.terminate()
        return len(silent)

    async def close(self) -> None:
        await asyncio.gather(*(pool.close() for pool in (self._work, self._reads, self._definitions)))

    @property
    def checked_out(self) -> int:
        """How many connections of all pools are in use."""
        return sum(pool.checked_out for pool in (self._work, self._reads, self._definitions))

    async def fetch(self, sql: str, *args: Any) -> list[Any]:
        """Run one statement, autocommitted."""
        return await self._work.fetch(sql, args)

    async def fetchval(self, sql: str, *args: Any) -> Any:
        rows = await self.fetch(sql, *args)
        return rows[0][0] if rows else None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[asyncpg.Connection]:
        """Run several hot statements in one transaction; nothing but the database may be awaited inside."""
        async with self._work.transaction() as connection:
            yield connection

    @asynccontextmanager
    async def begin(self, tenant: Hashable) -> AsyncIterator[asyncpg.Connection]:
        """Begin a transaction for definitions. Raises Refusal (unavailable), also if no turn comes."""
        async with (
            self._definition_turns.turn(tenant, patience_seconds=TURN_SECONDS),
            self._definitions.transaction("a definition") as connection,
        ):
            yield connection

    def reads(self, tenant: Hashable) -> "Reads":
        """Return the reader for a tenant."""
        return Reads(self._reads, self._read_turns, tenant)

    @asynccontextmanager
    async def read_together(self, tenant: Hashable, seconds: float) -> AsyncIterator[Reader]:
        """Read several things in one turn and one transaction, each for at most `seconds`. Raises as Reads does."""
        async with self._read_turns.turn(tenant, patience_seconds=TURN_SECONDS):
            with _slow(seconds):
                async with self._reads.transaction("reads", seconds=seconds) as connection:
                    yield connection

    def lookups(self, tenant: Hashable) -> "Gate":
        """Return the gate for lookups before a tenant's enqueue or pull: short statements by key, never behind long ones."""
        return Gate(self, self._lookup_turns, tenant)

    def changes(self, tenant: Hashable) -> "Gate":
        """Return the gate for a tenant's changes outside the group writers, one statement or transaction at a time."""
        return Gate(self, self._change_turns, tenant)


def _turns(what: str, places: int) -> Turns:
    return Turns(what, places=places, share=share(places), max_waiting=MAX_WAITING)


@contextmanager
def _slow(seconds: float) -> Iterator[None]:
    """Say of a read that was cancelled how long it may take."""
    try:
        yield
    except Busy as busy:
        if isinstance(busy.__cause__, asyncpg.QueryCanceledError):
            raise TooSlow(seconds) from busy
        raise


class Reads:
    """One tenant's reads. Raises Refusal (unavailable): no turn came, it took too long, or the database is unavailable."""

    def __init__(self, pool: Pool, turns: Turns, tenant: Hashable) -> None:
        self._pool = pool
        self._turns = turns
        self._tenant = tenant

    async def fetch(self, sql: str, *args: Any) -> list[Any]:
        async with self._turns.turn(self._tenant, patience_seconds=TURN_SECONDS):
            with _slow(READ_SECONDS):
                return await self._pool.fetch(sql, args)

    async def fetchval(self, sql: str, *args: Any) -> Any:
        rows = await self.fetch(sql, *args)
        return rows[0][0] if rows else None


class Gate:
    """One tenant's statements and transactions on a share of the work connections."""

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
