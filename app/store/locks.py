"""Advisory locks, until the transaction ends. Which there are, who takes them and in what order: numbers.py."""

from app.store.db import Reader
from app.store.numbers import Lock
from app.store.statements import sql

_LOCK = sql("take_lock")
_SHARE = sql("share_lock")


async def take(connection: Reader, lock: Lock, key: int) -> None:
    """Alone: to change what the lock guards. What was judged by is read in later statements."""
    await connection.fetch(_LOCK, lock, key)


async def share(connection: Reader, lock: Lock, key: int) -> None:
    """With others who share it: what the lock guards stays as it is."""
    await connection.fetch(_SHARE, lock, key)
