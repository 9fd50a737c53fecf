"""Checks of the database, and of the route to it, before anything relies on them.

A transaction pooler is recognised by its behaviour: a session that answers from a different server process than before, or from
one that another session holds, is not a real session. This is checked before anything is set, because a setting would leak to
other clients there.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from app.store.connecting import connected
from app.store.failures import Unsuitable, translated
from app.store.migrations import GRANT
from app.store.session import SEARCH_PATH, BorrowedConnection
from app.store.statements import sql

OLDEST_MAJOR = 15
LOOKS = 3
"""How often a session is asked again; a pooler that rotates server processes has reached another one by then."""
PROBE_CHANNEL = "sluice_probe"
HEARD_SECONDS = 5.0

DECISIVE = {
    "transaction_isolation": "read committed",
    "transaction_read_only": "off",
    "search_path": SEARCH_PATH,
    "synchronous_commit": "on",
    "standard_conforming_strings": "on",
}
"""Settings without which guarantees break."""

_PROCESS = "select pg_catalog.pg_backend_pid()"
_LACKING = sql("find_lacking_rights")
_NOTIFY = sql("send_notification")


async def examine_sessions(dsn: str, *, given_as: str) -> None:
    """Check that a connection there is a session of its own that can be configured, in a database that can store any text.

    Raises Unsuitable, Unavailable. `given_as` is the name of the setting with `dsn`.
    """
    # neither session is configured: the checks do not depend on settings
    async with (
        _explained(given_as),
        connected(dsn, BorrowedConnection) as one,
        connected(dsn, BorrowedConnection) as other,
    ):
        _examine_server(one)
        shared = await _share(one, other)
    if shared and given_as == "SLUICE_DATABASE_URL":
        raise Unsuitable(
            "SLUICE_DATABASE_URL leads through a transaction pooler, which keeps no sessions: leave it, and set "
            "SLUICE_DATABASE_DIRECT_URL to the server itself, or to the pooler in session mode"
        )
    if shared:
        raise Unsuitable(
            f"{given_as} leads through a transaction pooler, which keeps no sessions: set it to the server itself, or to "
            "the pooler in session mode"
        )
    async with _explained(given_as), connected(dsn) as own:
        await _examine_settings(own, given_as)


@asynccontextmanager
async def _explained(given_as: str) -> AsyncIterator[None]:
    async with translated():
        try:
            yield
        except asyncpg.ClientConfigurationError as error:
            raise Unsuitable(f"{given_as} cannot be used: {error}") from error
        except asyncpg.PostgresConnectionError as error:
            refusal = next((e for e in (error, error.__cause__) if isinstance(e, asyncpg.ProtocolViolationError)), None)
            if refusal is None:
                raise
            if "startup parameter" in str(refusal):
                raise Unsuitable(
                    f"the pooler of {given_as} rejects a parameter in the address ({refusal}): remove it"
                ) from error
            raise Unsuitable(
                f"{given_as} leads through a pooler that rejects what Sluice needs ({refusal}): switch it to session mode; "
                "transaction mode also needs SLUICE_DATABASE_DIRECT_URL"
            ) from error


def _examine_server(connection: asyncpg.Connection) -> None:
    version, encoding = connection.get_server_version(), connection.get_settings().server_encoding
    if version.major < OLDEST_MAJOR:
        raise Unsuitable(f"the server runs PostgreSQL {version.major}; Sluice needs {OLDEST_MAJOR} or newer")
    if encoding != "UTF8":
        raise Unsuitable(
            f"the database's encoding is {encoding}, which cannot store every text: give Sluice a database of its own, "
            "created with `create database sluice encoding 'UTF8' template template0`"
        )


async def _examine_settings(connection: asyncpg.Connection, given_as: str) -> None:
    """Check that settings take effect there."""
    asked = ", ".join(f"current_setting('{name}')" for name in DECISIVE)
    found = dict(zip(DECISIVE, await connection.fetchrow(f"select {asked}"), strict=True))
    foreign = [f"{name} is {found[name]!r}" for name, ours in DECISIVE.items() if found[name] != ours]
    if foreign:
        raise Unsuitable(
            f"{given_as} leads through something that does not pass SET on ({', '.join(foreign)}): set it to the server "
            "itself, or to a pooler that does"
        )


async def _share(one: asyncpg.Connection, other: asyncpg.Connection) -> bool:
    process = await one.fetchval(_PROCESS)
    async with other.transaction():
        if await other.fetchval(_PROCESS) == process or await one.fetchval(_PROCESS) != process:
            return True
    for _ in range(LOOKS):
        if await one.fetchval(_PROCESS) != process:
            return True
    return False


async def examine_pooler(dsn: str, direct_dsn: str) -> None:
    """Check that `dsn` offers transactions, and that NOTIFY sent there reaches `direct_dsn`. Raises Unsuitable, Unavailable."""
    heard, token = asyncio.Event(), str(uuid.uuid4())
    async with translated(), connected(direct_dsn) as listener:
        await listener.add_listener(PROBE_CHANNEL, lambda *said: heard.set() if said[3] == token else None)
        async with (
            _explained("SLUICE_DATABASE_URL"),
            connected(dsn, BorrowedConnection) as borrower,
            borrower.transaction(),
        ):
            await _examine_settings(borrower, "SLUICE_DATABASE_URL")
            await borrower.fetch(_NOTIFY, PROBE_CHANNEL, token)
        try:
            async with asyncio.timeout(HEARD_SECONDS):
                await heard.wait()
        except TimeoutError:
            raise Unsuitable(
                "a NOTIFY sent to SLUICE_DATABASE_URL does not reach SLUICE_DATABASE_DIRECT_URL: both must lead to the same "
                "database of the same server"
            ) from None


async def examine_rights(dsn: str) -> None:
    """Check that this role may use everything in the migrated schema. Raises Unsuitable, Unavailable."""
    async with translated(), connected(dsn, BorrowedConnection) as connection, connection.transaction():
        lacking = await connection.fetchrow(_LACKING)
    if lacking["names"] is not None:
        raise Unsuitable(f"role {lacking['role']} lacks rights in the schema sluice ({lacking['names']}): {GRANT}")
