"""Sessions of the pages: only digests of the cookies; the cookies themselves are not stored."""

from datetime import timedelta

from sqlalchemy import Interval, bindparam, delete, func, insert, select

from app.domain.ids import ApiKey
from app.store.db import Reader
from app.store.statements import Query, bound
from app.store.tables import sessions

_NOW = func.clock_timestamp()
_THIS = sessions.c.digest == bindparam("digest")

_INSERT = Query(
    insert(sessions).values(
        **bound("digest", "key_id", "key_digest"), expires_at=_NOW + bindparam("lifetime", type_=Interval)
    )
)
_FIND = Query(select(sessions.c.key_id, sessions.c.key_digest).where(_THIS, sessions.c.expires_at > _NOW))
_REMOVE = Query(delete(sessions).where(_THIS))
_PRUNE = Query(delete(sessions).where(sessions.c.expires_at <= _NOW))


async def insert_new(reader: Reader, digest: bytes, key: ApiKey, lifetime: timedelta) -> None:
    await _INSERT.fetch(reader, digest=digest, key_id=key.id, key_digest=key.digest, lifetime=lifetime)


async def key_of(reader: Reader, digest: bytes) -> tuple[str, bytes] | None:
    """Return the id of the key that the session acts as, and the digest of the token that opened it; None if it has ended."""
    row = await _FIND.fetchrow(reader, digest=digest)
    return None if row is None else (row["key_id"], row["key_digest"])


async def remove(reader: Reader, digest: bytes) -> None:
    await _REMOVE.fetch(reader, digest=digest)


async def prune(reader: Reader) -> None:
    """Delete expired sessions."""
    await _PRUNE.fetch(reader)
