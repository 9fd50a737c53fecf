"""Roles of the database that enqueue in SQL, beside a replica that is asked over HTTP."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest

from app.service import roles
from app.store.db import Database
from tests.wire.conftest import api, shared, shared_url  # noqa: F401  # fixtures

Connect = Callable[..., Awaitable["asyncpg.Connection[asyncpg.Record]"]]


def address_as(url: str, role: str) -> str:
    """The address of a database for another role."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{role}@{parts.netloc.rpartition('@')[2]}"))


async def made_role(url: str, *, options: str = "login") -> str:
    name = f"caller_{uuid4().hex[:12]}"
    owner = await asyncpg.connect(url)
    await owner.execute(f"create role {name} {options}")
    await owner.close()
    return name


async def admit(url: str, role: str, tenant: str = "default", queues: Sequence[str] | None = None) -> None:
    db = Database(url)
    await db.open(hold=False)
    try:
        await roles.grant(db, role, tenant, queues)
    finally:
        await db.close()


async def drop_role(url: str, role: str) -> None:
    owner = await asyncpg.connect(url)
    await owner.execute(f"drop owned by {role}; drop role {role}")
    await owner.close()


@pytest.fixture(scope="session")
async def shared_role(shared_url: str) -> AsyncIterator[str]:  # noqa: F811
    """A role that may enqueue on every queue of the shared database's tenant."""
    role = await made_role(shared_url)
    await admit(shared_url, role)
    yield role
    await drop_role(shared_url, role)


@pytest.fixture
async def connect(shared_url: str, shared_role: str) -> AsyncIterator[Connect]:  # noqa: F811
    """Opens connections as that role, or another."""
    async with AsyncExitStack() as stack:

        async def connect(role: str = shared_role) -> "asyncpg.Connection[asyncpg.Record]":
            connection = await asyncpg.connect(address_as(shared_url, role))
            stack.callback(connection.terminate)
            return connection

        yield connect


@pytest.fixture
async def session(connect: Connect) -> "asyncpg.Connection[asyncpg.Record]":
    return await connect()
