"""Who uses which connections: what keeps tasks moving, what tenants read, what they change by hand, their definitions.

`fetch` and `transaction` are for what keeps tasks moving: enqueues, claims, settles, renewals, the loops. Nothing that a tenant
asks for takes those connections but by a group writer, by the token of a key or lease, as a worker that pulls (in turns of their
own), or by way of `lookups` and `changes`, which have places for a third of them each. `reads` and `begin` (definitions) have
connections of their own. Tenants share the places of these by turns (app.domain.turns), so a tenant whose statements hang holds
up itself and nobody else.
"""

import asyncio
import weakref
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
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
"""How long a read may run. What takes longer has a page, a filter or a time-out of its own."""
READING = {"enable_seqscan": "off", "enable_sort": "off"}
"""Lists stop early because an index has their order. With statistics from before a table grew, the planner would rather read all
of it and sort."""
TURN_SECONDS = 5.0
"""How long a read or a change waits for its turn."""
MAX_WAITING = 2000
"""Reads, changes or requests for definitions of one tenant that may wait for their turn."""


class Reader(Protocol):
    """What statements are sent by: the database itself, one of its gates, or a connection in a transaction."""

    async def fetch(self, sql: str, *args: Any) -> list[Any]: ...

    async def fetchval(self, sql: str, *args: Any) -> Any: ...


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
