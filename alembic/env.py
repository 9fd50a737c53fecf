"""Runs migrations on the connection `app.store.migrations` hands over, or, from alembic's own command line, on
SLUICE_DATABASE_URL."""

import asyncio
import os

from alembic import context

from app.store.db import create_engine


def _run(connection) -> None:
    context.configure(connection=connection, version_table_schema="sluice")
    with context.begin_transaction():
        context.run_migrations()


async def _run_alone() -> None:
    engine = create_engine(os.environ["SLUICE_DATABASE_URL"])
    async with engine.connect() as connection:
        await connection.run_sync(_run)
    await engine.dispose()


if (given := context.config.attributes.get("connection")) is not None:
    _run(given)
else:
    asyncio.run(_run_alone())
