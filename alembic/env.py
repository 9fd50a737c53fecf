"""Runs migrations on the connection `app.store.migrations` hands over, or, from alembic's own command line, on
SLUICE_DATABASE_URL, or the direct one."""

import asyncio
import os

from alembic import context

from app.store.connecting import connect
from app.store.migrations import create_engine


def _run(connection) -> None:
    context.configure(connection=connection, version_table_schema="sluice")
    with context.begin_transaction():
        context.run_migrations()


async def _run_alone() -> None:
    dsn = os.environ.get("SLUICE_DATABASE_DIRECT_URL") or os.environ["SLUICE_DATABASE_URL"]
    engine = create_engine(lambda: connect(dsn))
    async with engine.connect() as connection:
        await connection.run_sync(_run)
    await engine.dispose()


if (given := context.config.attributes.get("connection")) is not None:
    _run(given)
else:
    asyncio.run(_run_alone())
