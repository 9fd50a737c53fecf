"""Settings of every connection, whatever the defaults of the database, the role or a pooler.

The SQL depends on them: a snapshot older than a lock breaks every limit, a foreign search_path runs someone else's function with
Sluice's rights, and a commit that is not waited for loses acknowledged work.

A dedicated connection is configured once, by a statement after it is opened: poolers would reject these as startup parameters, or
silently drop them. Behind a transaction pooler sessions are shared, so each transaction starts by configuring itself
(BorrowedConnection) and leaves nothing behind.
"""

from collections.abc import Mapping
from typing import Any

import asyncpg

from app.store.sockets import AnsweringConnection

SEARCH_PATH = "pg_catalog, pg_temp"
"""Sluice's own objects are schema-qualified; Postgres's are found here, and nothing else is searched."""
COMMAND_SECONDS = 15.0
BORROWED_IDLE_MS = 5000
"""How long a replica cut off in the middle of a transaction of several round trips may keep its locks."""

SETTINGS = {
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "search_path": SEARCH_PATH,
    "synchronous_commit": "on",
    # a row security policy would silently break limits; with this it is an error
    "row_security": "off",
    # statement_timeout ends what the client has given up on; the tcp settings end what a black-holed network keeps alive
    "statement_timeout": str(int(COMMAND_SECONDS * 1000)),
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "30000",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    "tcp_keepalives_idle": "15",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "15000",
    # how text is converted to values, and values to text
    "standard_conforming_strings": "on",
    "timezone": "UTC",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "array_nulls": "on",
    "client_min_messages": "warning",
    "exit_on_error": "off",
    # Without bitmap scans, a page is read in the order of its index. Otherwise, while statistics have not noticed a burst of tasks,
    # the planner would collect and sort a whole queue for each page.
    "enable_bitmapscan": "off",
    "enable_seqscan": "on",
    "enable_indexscan": "on",
    "enable_indexonlyscan": "on",
    "enable_nestloop": "on",
    "enable_hashjoin": "on",
    "enable_mergejoin": "on",
    "enable_sort": "on",
    "enable_hashagg": "on",
    "enable_material": "on",
    "enable_memoize": "on",
    "enable_partition_pruning": "on",
    "plan_cache_mode": "auto",
    "from_collapse_limit": "8",
    "join_collapse_limit": "8",
    "constraint_exclusion": "partition",
    "jit": "off",
}
SINCE = {"transaction_timeout": 17}
"""The release that introduced a setting."""
OF_SESSIONS = ("default_transaction_", "idle_session_timeout", "tcp_")
"""Prefixes of settings that have no effect within one transaction."""


def known_settings(version: int) -> dict[str, str]:
    """Return the settings that a server of this major version knows."""
    return {name: value for name, value in SETTINGS.items() if SINCE.get(name, 0) <= version}


async def set_session(connection: asyncpg.Connection, settings: Mapping[str, str]) -> None:
    """Configure a new connection, in one round trip; `settings` are added to the usual ones or override them."""
    if issubclass(type(connection), BorrowedConnection):  # isinstance accepts every asyncpg connection as any class
        connection.settings = settings
    else:
        wanted = {**known_settings(connection.get_server_version().major), **settings}
        await connection.execute(_set(wanted, "session"))


def _set(settings: Mapping[str, str], scope: str) -> str:
    # the values are constants; SET costs a fifth of set_config(), and a quoted search_path would be a single name
    return "".join(
        f"set {scope} {name} = {value}; " if name == "search_path" else f"set {scope} {name} = '{value}'; "
        for name, value in settings.items()
    )


class BorrowedConnection(AnsweringConnection):
    """A connection behind a transaction pooler: each transaction configures itself, in the round trip that begins it.

    Nothing may run outside a transaction, where it would use the settings of the session's previous client.
    """

    settings: Mapping[str, str] = {}
    """Added to the usual ones, or overriding them."""

    async def execute(self, query: str, *args: Any, timeout: float | None = None) -> str:
        if not args and query.startswith("BEGIN"):
            query = self._begin()
        status: str = await super().execute(query, *args, timeout=timeout)
        return status

    def get_reset_query(self) -> str:
        return ""

    def _begin(self) -> str:
        settings = {
            **known_settings(self.get_server_version().major),
            "idle_in_transaction_session_timeout": str(BORROWED_IDLE_MS),
            **self.settings,
        }
        local = {name: value for name, value in settings.items() if not name.startswith(OF_SESSIONS)}
        return "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE NOT DEFERRABLE; " + _set(local, "local")
