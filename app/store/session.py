"""What every connection is set to, whatever the database, the role or a pooler have for a default.

Our SQL rests on these: a snapshot that is older than a lock breaks every limit, a foreign search_path runs a stranger's
function as Sluice, a commit that is not waited for loses what was acknowledged.

A connection of its own is set once, by a statement after it was made: as startup parameters these would be refused, or dropped in
silence, by poolers. Behind a transaction pooler a session belongs to nobody, so each transaction begins by setting itself
(BorrowedConnection), and leaves nothing behind.
"""

from collections.abc import Mapping
from typing import Any

import asyncpg

from app.store.sockets import AnsweringConnection

SEARCH_PATH = "pg_catalog, pg_temp"
"""All that is ours is named with its schema; what comes with Postgres is found there, and nothing else is looked for."""
COMMAND_SECONDS = 15.0
BORROWED_IDLE_MS = 5000
"""How long a replica that is cut off amid a transaction may keep its locks, where transactions take several round trips."""

SETTINGS = {
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
    "search_path": SEARCH_PATH,
    "synchronous_commit": "on",
    # a policy that hides rows would break limits without a word: with this it is an error
    "row_security": "off",
    # statement_timeout ends what the client has given up on, the tcp settings end what a black-holed network keeps alive
    "statement_timeout": str(int(COMMAND_SECONDS * 1000)),
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "30000",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    "tcp_keepalives_idle": "15",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "15000",
    # how text becomes a value, and a value text
    "standard_conforming_strings": "on",
    "timezone": "UTC",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "array_nulls": "on",
    "client_min_messages": "warning",
    "exit_on_error": "off",
    # Without bitmaps a page of a list is read in the order of its index: where statistics take a burst of tasks for a few rows,
    # the planner would else collect and sort a whole queue for each page.
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
"""The release that brought a setting which older ones do not know."""
OF_SESSIONS = ("default_transaction_", "idle_session_timeout", "tcp_")
"""What begins so means nothing within one transaction."""


def known_settings(version: int) -> dict[str, str]:
    """The settings that a server of this major version knows."""
    return {name: value for name, value in SETTINGS.items() if SINCE.get(name, 0) <= version}


async def set_session(connection: asyncpg.Connection, settings: Mapping[str, str]) -> None:
    """Set a new connection, in one round trip; `settings` come beside the usual ones, or instead."""
    if issubclass(type(connection), BorrowedConnection):  # to isinstance every connection of asyncpg is of every class
        connection.settings = settings
    else:
        wanted = {**known_settings(connection.get_server_version().major), **settings}
        await connection.execute(_set(wanted, "session"))


def _set(settings: Mapping[str, str], scope: str) -> str:
    # the values are ours; SET costs a fifth of what set_config() does, and in quotes a search_path would be one name
    return "".join(
        f"set {scope} {name} = {value}; " if name == "search_path" else f"set {scope} {name} = '{value}'; "
        for name, value in settings.items()
    )


class BorrowedConnection(AnsweringConnection):
    """A connection behind a transaction pooler: each of its transactions sets itself, in the round trip that begins it.

    Nothing may be asked outside a transaction: it would run under the defaults of whoever had the server's session before.
    """

    settings: Mapping[str, str] = {}
    """Beside or instead of the usual ones."""

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
