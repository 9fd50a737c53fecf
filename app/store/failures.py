"""Database failures: translates the driver's errors to Sluice's, and reports them to the outage."""

import asyncio
import re
import ssl
from types import TracebackType
from typing import Any

import asyncpg

from app.domain.errors import Refusal
from app.store.outage import Outage

FULL = "raise max_connections, or lower SLUICE_DATABASE_CONNECTIONS on the replicas"
PARTITIONED = ("task_history", "attempt_history")

AWAY = (
    OSError,
    asyncio.TimeoutError,
    ssl.SSLError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # an idle connection is used after it was told of its end, before its socket closes
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shutting down, starting up, cancelled by statement_timeout, crashed
    asyncpg.InsufficientResourcesError,  # no connection, memory or disk left
    asyncpg.ObjectNotInPrerequisiteStateError,  # the database does not accept connections now
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.IdleInTransactionSessionTimeoutError,
)
MISUSE = (asyncpg.InterfaceError, ValueError)
"""An exception of both types is an argument that the driver cannot encode, which is not the database's fault."""
REFUSED = (
    asyncpg.InvalidAuthorizationSpecificationError,  # no such role, a wrong password, nothing in pg_hba.conf
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientPrivilegeError,
)
"""Errors by which a server rejects a user, a password or a database."""


class Unavailable(Refusal):
    """Raised if the database does not answer or cannot serve now. The statement may or may not have been committed.

    `str()` names the cause, for logs; callers get only a general message.
    """

    def __init__(self, cause: str) -> None:
        super().__init__("unavailable", "the database does not answer; try again", retry_after_seconds=1)
        self.cause = cause

    def __str__(self) -> str:
        return self.cause


class Busy(Unavailable):
    """Raised if the database is available but had no time or no connection for this statement."""


class Held(Busy):
    """Raised if a transaction that goes on holds a task, or a key, for longer than a statement waits. Nothing was changed."""

    def __init__(self) -> None:
        super().__init__("a transaction in progress holds the task")
        self.detail = "a transaction in progress holds this task, or its unique_key; try again when it has ended"


class TooSlow(Busy):
    """Raised if a read takes longer than allowed."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"a read took longer than {seconds:g} s")
        self.detail = f"reading this took longer than {seconds:g} seconds; request less at once, or try again later"


class Refused(Unavailable):
    """Raised if the server rejects this user or has no such database. A running replica treats that as an outage; a starting one
    does not wait."""


class PartitionMissing(Exception):
    """Raised if history has no partition for a required day."""


class Unsuitable(Exception):
    """Raised if Sluice cannot run on the database, or over the route to it; the message says what to change."""


class translated:
    """Translate the driver's errors, and report failures and, during an outage, answers to `outage`."""

    __slots__ = ("_failures", "_outage", "_statement")

    def __init__(self, outage: Outage | None = None, statement: str = "") -> None:
        self._outage = outage
        self._statement = statement
        self._failures = 0

    async def __aenter__(self) -> None:
        if self._outage is not None:
            self._failures = self._outage.failures

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        outage = self._outage
        if error is None:
            if outage is not None and outage.on:
                outage.answered(self._failures)
            return
        ours = _translation(error)
        if outage is not None and isinstance(ours, Unavailable) and not isinstance(ours, Busy):
            outage.met(_name_of(self._statement), str(ours))
        if ours is not error:
            raise ours from error


def _translation(error: BaseException) -> BaseException:
    cause: Any = error
    # recognised by the table, because the server's message depends on its language
    if isinstance(cause, asyncpg.CheckViolationError) and not cause.constraint_name and cause.table_name in PARTITIONED:
        return PartitionMissing(str(cause))
    if isinstance(cause, asyncpg.TooManyConnectionsError):
        return Busy(f"{message_of(cause)} ({FULL})")
    if isinstance(cause, asyncpg.QueryCanceledError):
        return Busy(message_of(cause))
    if isinstance(cause, asyncpg.LockNotAvailableError):
        return Held()
    if isinstance(cause, AWAY) and not all(isinstance(cause, kind) for kind in MISUSE):
        return Unavailable(message_of(cause))
    return error


def message_of(error: Any) -> str:
    return f"{type(error).__name__}: {str(error) or 'no answer in time'}"


def _name_of(statement: str) -> str:
    """Return a statement's name for the log: the function it calls, its file, or its beginning."""
    called = re.search(r"sluice\.(\w+_v\d+)\(", statement) or re.match(r"-- (\w+)\n", statement)
    return called[1] if called else " ".join(statement.split())[:80]
