"""Advisory locks, held until the transaction ends. numbers.py lists them, who takes them, and in which order."""

from app.store.db import Reader
from app.store.numbers import Lock
from app.store.statements import sql

_LOCK = sql("take_lock")
_SHARE = sql("share_lock")
_TRY = sql("try_lock")


async def take(connection: Reader, lock: Lock, key: int) -> None:
    """Take a lock exclusively, to change what it guards. Read what the change depends on in later statements."""
    await connection.fetch(_LOCK, lock, key)


async def share(connection: Reader, lock: Lock, key: int) -> None:
    """Take a lock shared: what it guards cannot change."""
    await connection.fetch(_SHARE, lock, key)


async def free_of_callers(connection: Reader, name: str) -> bool:
    """Try to take the lock that transactions with sluice.enqueue hold shared on what their tasks use: "queue 7", say. False:
    one is open. Read in later statements what those that have ended left."""
    taken: bool = await connection.fetchval(_TRY, Lock.CALLER, name)
    return taken
