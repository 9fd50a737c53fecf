"""A pool of the driver's connections, for one use."""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg

from app.store.connecting import CONNECT_SECONDS, OVERTIME_SECONDS, PooledConnection
from app.store.failures import Busy, translated
from app.store.outage import Outage
from app.store.sockets import AnsweringConnection

ACQUIRE_SECONDS = 10.0
"""How long a statement waits for a connection, so that waiters do not pile up while the database is black-holed."""
SHORT_PAUSE_SECONDS = 0.05
"""Pause between attempts to open a connection while the server has none left and ours are in use."""


class Pool:
    """The connections of one use; each statement may take `seconds`."""

    def __init__(self, size: int, seconds: float, outage: Outage) -> None:
        self._size = size
        self._seconds = seconds
        self._outage = outage
        self._pool: asyncpg.Pool | None = None
        self._borrows = False
        self._kept: list[Any] = []
        """Connections at rest that the driver's pool counts as used, the one used last at the end. To give one back and to acquire
        it again costs 0.1 ms of an idle service, because the driver starts a task for it."""
        self._waiting = 0
        """How many acquire a connection from the driver's pool."""
        self._closing = False

    async def open(
        self,
        connecting: Callable[..., Awaitable[AnsweringConnection]],
        settings: Mapping[str, str],
        *,
        borrows: bool,
        hold: bool,
    ) -> None:
        """Open all connections now and keep them; without `hold`, open each when it is first needed."""

        async def connect(*_args: Any, **_kwargs: Any) -> AnsweringConnection:
            """Ignore the arguments, with which the pool repeats its own."""
            return await connecting(statement_timeout=_milliseconds(self._seconds), **settings)

        self._borrows = borrows
        self._pool = await asyncpg.create_pool(
            init_size=self._size if hold else 0,
            min_size=0,
            max_size=self._size,
            max_inactive_connection_lifetime=0,
            # a connection that is closed when it is given back, because of its age, is opened again just when somebody waits
            max_queries=sys.maxsize,
            connection_class=PooledConnection,
            connect=connect,
        )

    async def fetch(self, sql: str, args: Sequence[Any]) -> list[Any]:
        """Run one statement, autocommitted: one round trip, no transaction left open.

        Behind a transaction pooler it runs in a transaction, because each configures itself.
        """
        if self._borrows:
            async with self.transaction(sql) as connection:
                return list(await connection.fetch(sql, *args, timeout=self._seconds + OVERTIME_SECONDS))
        async with translated(self._outage, sql):
            connection = await self._acquire()
            try:
                rows: list[Any] = await connection.fetch(sql, *args, timeout=self._seconds + OVERTIME_SECONDS)
            except BaseException:
                await self._give_back(connection)
                raise
            await self._release(connection)
            return rows

    @asynccontextmanager
    async def transaction(
        self, statement: str = "a transaction", *, seconds: float | None = None
    ) -> AsyncIterator[asyncpg.Connection]:
        """Begin a transaction; with `seconds`, each of its statements may take that long."""
        async with translated(self._outage, statement):
            connection = await self._acquire()
            try:
                async with connection.transaction():
                    if seconds is not None:
                        await connection.execute(f"set local statement_timeout = {_milliseconds(seconds)}")
                    yield connection
            except BaseException:
                await self._give_back(connection)
                raise
            await self._release(connection)

    async def _acquire(self) -> Any:
        """Acquire a connection. If the server has none left, wait for one of this pool's."""
        assert self._pool is not None
        while self._kept:
            if _is_open(kept := self._kept.pop()):
                return kept
            await self._give_back(kept)
        self._waiting += 1
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
        finally:
            self._waiting -= 1

    async def _release(self, connection: Any) -> None:
        """Release a connection whose last statement was answered: for whoever waits, or for the next to come."""
        if self._waiting or self._closing:
            await self._give_back(connection)
        else:
            self._kept.append(connection)

    async def _give_back(self, connection: Any) -> None:
        """Give a connection to the driver's pool, which waits for the end of a statement that was cancelled."""
        if self._pool is not None:  # otherwise it has been closed meanwhile
            await self._pool.release(connection)

    @property
    def _resting(self) -> int:
        assert self._pool is not None
        return int(self._pool.get_idle_size()) + sum(map(_is_open, self._kept))

    async def on_each(self, work: Callable[[asyncpg.Connection], Awaitable[None]]) -> None:
        """Run `work` on each connection that is idle, one at a time; the others stay available."""
        assert self._pool is not None
        done: set[int] = set()
        while len(done) < self._pool.get_size():
            held: list[Any] = []
            try:
                # the pool hands out the connection used last, so those that are done are held until another comes
                while self._resting and (not held or held[-1].get_server_pid() in done):
                    held.append(await self._acquire())
                if not held or held[-1].get_server_pid() in done:
                    return
                connection = held.pop()
            finally:
                for passed_over in held:
                    await self._release(passed_over)
            done.add(connection.get_server_pid())
            try:
                async with translated(self._outage, "a rehearsal"):
                    await work(connection)
            finally:
                # whatever the work left open ends here
                await self._give_back(connection)

    @property
    def checked_out(self) -> int:
        assert self._pool is not None
        return int(self._pool.get_size()) - self._resting

    async def close(self) -> None:
        if self._pool is None or self._closing:
            return
        self._closing = True
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(CONNECT_SECONDS):
                    while self._kept:
                        await self._give_back(self._kept.pop())
                    await self._pool.close()
        finally:
            self._pool.terminate()  # whatever is still open
            self._pool = None


def _is_open(connection: Any) -> bool:
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:
        # it has been closed, and is not the pool's any more
        return False


def _milliseconds(seconds: float) -> str:
    return str(int(seconds * 1000))
