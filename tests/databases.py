"""The Postgres that tests share, and the clean database each test starts from.

One server serves the whole run: the first process of the run starts it, workers find it in the environment. Each worker
has a migrated database of its own, and before each test all rows in it are deleted, which takes a fraction of the time of
a truncate or of a copied database.
"""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from app.embedded.postgres import EmbeddedPostgres
from tests.support import pg_bin

T = TypeVar("T")

SERVER_VARIABLE = "SLUICE_TEST_SERVER_URL"
MEMORY = Path("/dev/shm")
MEMORY_MIN_BYTES = 2**31
# What tests on this server lose in a power cut, nobody misses. Tests of durability start their own.
FAST = {"fsync": "off", "full_page_writes": "off", "max_connections": "300"}


class SharedServer:
    """A server without durability, in memory where there is enough."""

    def __init__(self) -> None:
        roomy = MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > MEMORY_MIN_BYTES
        self._folder = Path(tempfile.mkdtemp(prefix="sluice-tests-", dir=MEMORY if roomy else None))
        self._postgres = EmbeddedPostgres(self._folder, bin_dir=pg_bin(), options=FAST)

    def start(self) -> str:
        url = asyncio.run(self._postgres.start())
        # Roles that a test makes may enter, and a pooler, which does not run as root either.
        self._folder.chmod(0o711)
        (self._folder / "pg" / "pg_hba.conf").write_text("local all all trust\n")
        assert self._postgres.pid is not None
        os.kill(self._postgres.pid, signal.SIGHUP)
        return url

    def stop(self) -> None:
        asyncio.run(self._postgres.stop())
        shutil.rmtree(self._folder, ignore_errors=True)


class WorkerDatabase:
    """A migrated database that is put back into its first state by deleting rows."""

    def __init__(self, server_url: str, name: str) -> None:
        self.url = with_database(server_url, name)
        self._loop = asyncio.new_event_loop()
        self._connection: asyncpg.Connection[Any] | None = None
        self._run(create_database(server_url, name))
        from app.store import migrations  # tests that need no database do not wait for SQLAlchemy

        self._run(migrations.migrate(self.url))
        self._reset_sql = self._run(self._build_reset())

    def reset(self) -> None:
        self._run(self._reset())

    def close(self) -> None:
        if self._connection is not None and not self._connection.is_closed():
            self._run(self._connection.close())
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)

    async def _reset(self) -> None:
        connection = await self._connected()
        try:
            await connection.execute(self._reset_sql)
        except asyncpg.LockNotAvailableError:
            raise AssertionError("an earlier test left something that still holds locks in the database") from None

    async def _connected(self) -> "asyncpg.Connection[Any]":
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(self.url)
        return self._connection

    async def _build_reset(self) -> str:
        """Delete all, then put back the rows that the migrations wrote. Foreign keys rest: all goes at once."""
        connection = await self._connected()
        names = await connection.fetch(
            "select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace"
            " where n.nspname = 'sluice' and c.relkind in ('r', 'p') and not c.relispartition"
            " and c.relname <> 'alembic_version' order by 1"
        )
        steps = ["begin", "set local session_replication_role = replica", "set local lock_timeout = '5s'"]
        for (name,) in names:
            rows = await connection.fetchval(f"select json_agg(t)::text from sluice.{name} t")
            steps.append(f"delete from sluice.{name}")
            if rows is not None:
                quoted = rows.replace("'", "''")
                steps.append(
                    f"insert into sluice.{name} overriding system value"
                    f" select * from json_populate_recordset(null::sluice.{name}, '{quoted}')"
                )
        return "; ".join([*steps, "commit"])


async def create_database(server_url: str, name: str) -> str:
    connection = await asyncpg.connect(server_url)
    try:
        await connection.execute(f'drop database if exists "{name}" with (force)')
        await connection.execute(f'create database "{name}"')
    finally:
        await connection.close()
    return with_database(server_url, name)


async def drop_database(server_url: str, name: str) -> None:
    connection = await asyncpg.connect(server_url)
    try:
        await connection.execute(f'drop database if exists "{name}" with (force)')
    finally:
        await connection.close()


def with_database(url: str, name: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=f"/{name}", netloc=parts.netloc))
