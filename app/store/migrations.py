"""Schema migrations that all replicas can start at the same time.

Without a lock, three of four replicas crash; a blocking advisory lock deadlocks with CREATE INDEX CONCURRENTLY. So the lock is
polled, and skipped if the schema already has this release's version.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from functools import cache
from pathlib import Path

import asyncpg
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from app.store.connecting import connect, connected
from app.store.failures import Unsuitable, translated
from app.store.functions import FUNCTIONS
from app.store.numbers import Lock
from app.store.sockets import AnsweringConnection

SCHEMA_VERSION = 1
"""The schema version of this release."""
POLL_SECONDS = 0.1
LOCK_SECONDS = 120.0
HERE = Path(__file__).parent
SCRIPTS = (HERE / "alembic", HERE.parents[1] / "alembic")
"""Where the migrations are: in the wheel, or beside app/ in a checkout."""


GUIDE = "docs/guides/postgres.md has the lines"
GRANT = (
    "as its owner, grant usage on it, select, insert, update, delete on all its tables, and execute on all its functions "
    f"({GUIDE})"
)


class SchemaMismatch(Exception):
    """Raised if this release cannot run on the database's schema."""


@cache
def digest() -> str:
    """Return what distinguishes this build's schema from that of another build with the same version.

    It is the SHA-256 of the statements that make tables and functions. They are frozen once released, but not before. A
    migration that changes them also writes the new digest, with the new version.
    """
    files = [scripts() / "versions" / "baseline.sql", *sorted(FUNCTIONS.glob("*.sql"))]
    lines = [line for file in files for line in file.read_text().splitlines() if not line.lstrip().startswith("--")]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


async def schema_version(connection: asyncpg.Connection) -> int:
    """Return the version of the database's schema; 0 without one.

    Raises SchemaMismatch if a newer release has made the schema incompatible with this one, or another build of an unreleased
    version has made it.
    """
    if await connection.fetchval("select to_regclass('sluice.meta')") is None:
        return 0
    version, oldest, made_by = await connection.fetchrow(
        "select schema_version, min_compatible, to_jsonb(m) ->> 'digest' from sluice.meta m"
    )
    if oldest > SCHEMA_VERSION:
        raise SchemaMismatch(
            f"the database has schema {version}, which needs a release for schema {oldest} or newer; this release has "
            f"schema {SCHEMA_VERSION}: start a newer sluice"
        )
    if version == SCHEMA_VERSION and made_by != digest():
        raise SchemaMismatch(
            f"the database has schema {version} of another build, and no build migrates from another of the same version: start "
            "the build that made it, or drop the schema `sluice` with everything in it (an embedded database: delete its data "
            "directory)"
        )
    return int(version)


def create_engine(connecting: Callable[[], Awaitable[AnsweringConnection]]) -> AsyncEngine:
    """Return the engine for alembic. SQLAlchemy rejects sslmode, options and postgres://, so asyncpg opens the connections."""
    return create_async_engine("postgresql+asyncpg://", async_creator=connecting, poolclass=NullPool)


async def migrate(dsn: str) -> bool:
    """Migrate the schema to this release's version; return whether there was anything to do. Needs a real session, not a
    transaction pooler.

    Raises Unavailable (also if another replica has been migrating for two minutes), SchemaMismatch, Unsuitable (rights).
    """
    version = None
    try:
        async with translated(), connected(dsn, statement_timeout="0") as connection:
            if (version := await schema_version(connection)) >= SCHEMA_VERSION:
                return False
            async with asyncio.timeout(LOCK_SECONDS):
                while not await connection.fetchval("select pg_try_advisory_lock($1)", Lock.MIGRATION):
                    await asyncio.sleep(POLL_SECONDS)
            if await schema_version(connection) >= SCHEMA_VERSION:
                return False
            # not `if not exists`, which needs the right to create schemas even if the schema exists
            if await connection.fetchval("select to_regnamespace('sluice')") is None:
                await connection.execute("create schema sluice")
            await _upgrade(dsn)
            return True
    except asyncpg.InsufficientPrivilegeError as error:
        raise Unsuitable(
            f"this role may not use the schema sluice ({error}): {GRANT}"
            if version is None
            else f"this role may not migrate the schema sluice from version {version} to {SCHEMA_VERSION} ({error}): run "
            f"`sluice migrate` as the role that owns it, or let this one own it ({GUIDE})"
        ) from error


def scripts() -> Path:
    """Return the folder of the migrations.

    It is recognised by the first migration, not by its name, because the library alembic is beside an installed app/.
    Raises RuntimeError when the installation lacks them.
    """
    for folder in SCRIPTS:
        if (folder / "versions" / "0001_baseline.py").is_file():
            return folder
    raise RuntimeError(f"the migrations are not at {' or '.join(map(str, SCRIPTS))}: install sluice again")


async def _upgrade(dsn: str) -> None:
    # alembic takes half a second to import, so only a start that migrates does
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(scripts()))
    engine = create_engine(lambda: connect(dsn))
    try:
        async with engine.connect() as connection:

            def upgrade(sync: object) -> None:
                config.attributes["connection"] = sync
                command.upgrade(config, "head")

            await connection.run_sync(upgrade)
            await connection.commit()
    except DBAPIError as error:
        driver_error = error.orig and error.orig.__cause__
        if driver_error is None:
            raise
        raise driver_error from None
    finally:
        await engine.dispose()
