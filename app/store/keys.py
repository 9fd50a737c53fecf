"""API keys: only ids and digests; the keys themselves are not stored.

The secret of an access key is, sealed: verifying a signature needs it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from msgspec import structs
from sqlalchemy import Text, any_, bindparam, exists, func, or_, select, tuple_, update
from sqlalchemy.dialects.postgresql import ARRAY, insert

from app.domain.confinement import like_patterns
from app.domain.ids import ApiKey
from app.domain.keys import Grant, KeyKind
from app.store import locks
from app.store.db import Reader
from app.store.numbers import Lock
from app.store.statements import Query, bound, sql
from app.store.tables import api_keys, tenants
from app.store.vault import Vault


@dataclass(frozen=True, slots=True)
class KeyRow:
    id: str
    tenant_id: int
    tenant: str
    scope: str
    queues: tuple[str, ...] | None
    payloads: bool
    description: str | None
    kind: KeyKind
    digest: bytes = field(repr=False)
    previous_digest: bytes | None = field(repr=False)
    sealed_secret: bytes | None = field(repr=False)
    """Of kind aws."""
    previous_sealed_secret: bytes | None = field(repr=False)
    previous_until: datetime | None
    """Until when the previous secret is accepted."""
    bootstrap: bool
    """It is or was the bootstrap key."""
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    now: datetime
    """When it was read, by the database's clock."""

    @property
    def grant(self) -> Grant:
        return Grant(self.scope, self.queues, self.payloads, self.expires_at, self.description, self.kind)

    @property
    def in_force(self) -> bool:
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > self.now)


_NOW = func.clock_timestamp()
_ROWS = select(api_keys, tenants.c.name.label("tenant"), _NOW.label("now")).join(tenants)
_THIS = api_keys.c.id == bindparam("key_id")
_NOT_REVOKED = api_keys.c.revoked_at.is_(None)
_IN_FORCE = _NOT_REVOKED & or_(api_keys.c.expires_at.is_(None), api_keys.c.expires_at > _NOW)

_FIND = Query(_ROWS.where(_THIS))
_LOCK = Query(select(api_keys.c.id).where(_THIS).with_for_update(key_share=True))
_ALL = Query(_ROWS.order_by(tenants.c.name, api_keys.c.created_at, api_keys.c.id))
_PAGE = (
    _ROWS.where(
        tuple_(api_keys.c.created_at, api_keys.c.id) < tuple_(bindparam("before_at"), bindparam("before_id")),
    )
    .order_by(api_keys.c.created_at.desc(), api_keys.c.id.desc())
    .limit(bindparam("most"))
)
_OF_TENANT = api_keys.c.tenant_id == bindparam("tenant_id")
_PAGE_OF_ALL = Query(_PAGE)
_PAGE_OF_TENANT = Query(_PAGE.where(_OF_TENANT))
_PATTERN = func.unnest(api_keys.c.queues).column_valued("pattern")
_WITHIN = api_keys.c.queues.is_not(None) & ~exists(
    select(_PATTERN).where(~_PATTERN.like(any_(bindparam("patterns", type_=ARRAY(Text)))))
)
_PAGE_OF_CONFINED = Query(_PAGE.where(_OF_TENANT, _WITHIN))
_COUNT = Query(select(func.count()).select_from(select(api_keys.c.id).where(_OF_TENANT, _IN_FORCE).subquery()))
_ANY_IN_FORCE = Query(select(exists().where(_IN_FORCE)))
_BOOTSTRAP_IN_FORCE = Query(select(api_keys.c.id).where(api_keys.c.bootstrap, _NOT_REVOKED))
_INSERT = Query(
    insert(api_keys)
    .values(
        **bound(
            "id",
            "tenant_id",
            "scope",
            "queues",
            "payloads",
            "expires_at",
            "description",
            "kind",
            "digest",
            "sealed_secret",
        )
    )
    .on_conflict_do_nothing(index_elements=["id"])
)
_ROTATE = Query(
    update(api_keys)
    .where(_THIS)
    .values(
        previous_digest=api_keys.c.digest,
        previous_until=_NOW + func.make_interval(0, 0, 0, 0, 0, 0, bindparam("overlap_seconds")),
        previous_sealed_secret=api_keys.c.sealed_secret,
        digest=bindparam("new_digest"),
        sealed_secret=bindparam("new_sealed_secret"),
    )
)
_REVOKE = Query(update(api_keys).where(_THIS, _NOT_REVOKED).values(revoked_at=_NOW).returning(api_keys.c.id))
_REVOKE_OTHER_BOOTSTRAPS = Query(
    update(api_keys)
    .where(api_keys.c.bootstrap, api_keys.c.id != bindparam("key_id"), _NOT_REVOKED)
    .values(revoked_at=_NOW)
    .returning(api_keys.c.id)
)
_MARK_BOOTSTRAP = Query(update(api_keys).where(_THIS).values(bootstrap=True))
NOTE_USES = sql("note_key_uses")
NEWEST = datetime.max.replace(tzinfo=UTC), ""
"""Before the first page."""


async def find(reader: Reader, key_id: str) -> KeyRow | None:
    row = await _FIND.fetchrow(reader, key_id=key_id)
    return _row(row) if row else None


def _row(row: Any) -> KeyRow:
    found = dict(row.items())
    queues = found.pop("queues")
    return KeyRow(**found, queues=None if queues is None else tuple(queues))


async def lock(connection: Reader, key_id: str) -> KeyRow | None:
    """Return a key whose row is locked until the transaction ends."""
    await _LOCK.fetch(connection, key_id=key_id)
    return await find(connection, key_id)


async def list_all(reader: Reader) -> list[KeyRow]:
    return [_row(row) for row in await _ALL.fetch(reader)]


async def list_page(
    reader: Reader,
    tenant_id: int | None,
    within: Sequence[str] | None,
    before: tuple[datetime, str] | None,
    limit: int,
) -> list[KeyRow]:
    """Return keys, newest first: of a tenant, or of all; and only those confined to queues within these patterns, if given."""
    before_at, before_id = before or NEWEST
    page = {"before_at": before_at, "before_id": before_id, "most": limit}
    if tenant_id is None:
        rows = await _PAGE_OF_ALL.fetch(reader, **page)
    elif within is None:
        rows = await _PAGE_OF_TENANT.fetch(reader, tenant_id=tenant_id, **page)
    else:
        rows = await _PAGE_OF_CONFINED.fetch(reader, tenant_id=tenant_id, patterns=like_patterns(within), **page)
    return [_row(row) for row in rows]


async def insert_new(
    connection: Reader, key: ApiKey, tenant_id: int, grant: Grant, sealed_secret: bytes | None = None
) -> None:
    """Insert a key, unless one with this id exists."""
    granted = structs.asdict(grant)
    await _INSERT.fetch(
        connection, id=key.id, tenant_id=tenant_id, digest=key.digest, sealed_secret=sealed_secret, **granted
    )


async def is_full(connection: Reader, tenant_id: int, most: int) -> bool:
    """Return whether the tenant has this many keys in force. Until the transaction ends, nobody adds one to it here."""
    await locks.take(connection, Lock.DEFINITIONS, tenant_id)
    return int(await _COUNT.fetchval(connection, tenant_id=tenant_id)) >= most


async def rotate(connection: Reader, key: ApiKey, sealed_secret: bytes | None, overlap_seconds: float) -> None:
    """Replace a key's secret. The present one stays accepted for the overlap; one that it had replaced does not."""
    await _ROTATE.fetch(
        connection,
        key_id=key.id,
        new_digest=key.digest,
        new_sealed_secret=sealed_secret,
        overlap_seconds=overlap_seconds,
    )


async def revoke(reader: Reader, key_id: str) -> bool:
    """Revoke a key; return False if no valid key has this id."""
    return await _REVOKE.fetchval(reader, key_id=key_id) is not None


def seal(vault: Vault, key: ApiKey) -> bytes:
    """Return the secret of an access key as it is stored."""
    return vault.seal(key.text, _context(key.id))


def secrets_of(vault: Vault, row: KeyRow) -> list[tuple[str, datetime | None]]:
    """Return the secrets of an access key that are in force, with their ends if they have one. Raises VaultError."""
    if row.sealed_secret is None or not row.in_force:
        return []
    found = [(vault.open(row.sealed_secret, _context(row.id)), row.expires_at)]
    if row.previous_sealed_secret is not None and row.previous_until is not None and row.previous_until > row.now:
        ends = [end for end in (row.previous_until, row.expires_at) if end is not None]
        found.append((vault.open(row.previous_sealed_secret, _context(row.id)), min(ends)))
    return found


def _context(key_id: str) -> str:
    return f"key {key_id} secret"


async def note_uses(db: Reader, uses: Mapping[str, datetime]) -> None:
    """Record when keys were used last, by id."""
    await db.fetch(NOTE_USES, list(uses), list(uses.values()))


async def take_bootstrap(connection: Reader, key_id: str) -> list[str]:
    """Make this the bootstrap key; return the ids of valid ones that it replaced, which are revoked."""
    replaced = await _REVOKE_OTHER_BOOTSTRAPS.fetch(connection, key_id=key_id)
    await _MARK_BOOTSTRAP.fetch(connection, key_id=key_id)
    return [row[0] for row in replaced]


async def bootstrap_in_force(reader: Reader) -> str | None:
    """Return the id of the valid bootstrap key, if any."""
    key_id: str | None = await _BOOTSTRAP_IN_FORCE.fetchval(reader)
    return key_id


async def any_usable(reader: Reader) -> bool:
    return bool(await _ANY_IN_FORCE.fetchval(reader))
