"""Flows: the tasks of one lane that limits admit or block together."""

from app.store import locks
from app.store.db import Reader
from app.store.numbers import Lock
from app.store.statements import sql

_REOPEN = sql("reopen_flows")


async def reopen(connection: Reader, tenant_id: int) -> None:
    """Take the tenant's gate, and have each of its flows looked at again under the limits as they are now.

    Call it last, with the changes of limits in the same transaction: once that has committed, nothing is admitted under the old
    ones, because claims admit under the gate alone, and read limits after they have got it.
    """
    await locks.take(connection, Lock.GATE, tenant_id)
    await connection.fetch(_REOPEN, tenant_id)
