"""Limits: named ones, what holds for the keys of queues, and the rates of queues, handlers and tenants: one table for all.

A change takes LIMITS exclusively, so that nobody names a limit that goes, then the tenant's gate: once it is committed, nothing is
admitted above it. Whoever names limits holds LIMITS shared.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from sqlalchemy import ColumnElement, bindparam, delete, exists, func, null, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.sql.selectable import NamedFromClause

from app.domain.limits import (
    KeyOverride,
    LimitDefinition,
    LimitRule,
    LimitUse,
    LimitView,
    QueueKey,
    Rate,
    limit_etag,
)
from app.store import flows, locks
from app.store.db import Reader
from app.store.numbers import Lock
from app.store.statements import Query, bound, sql
from app.store.tables import limit_keys, limits

Kind = Literal["queue_key", "queue_rate", "handler_rate", "tenant_rate"]

_NOW = func.clock_timestamp()
_NAMED = limits.c.kind == "named"
_OF_TENANT = limits.c.tenant_id == bindparam("tenant_id")
_THIS = limits.c.id == bindparam("limit_id")
_OF_OWNER = (limits.c.kind == bindparam("kind"), limits.c.owner_id == bindparam("owner_id"))
_BY_NAME = limits.c.name.collate("C")
_RATE = ("rate_limit", "rate_period_seconds", "rate_burst")
_DEFINED = ("max_concurrency", *_RATE, "keyed", "description", "etag")
_OWNED = ("max_concurrency", *_RATE, "max_depth", "ordered", "required")
_THIS_KEY = (limit_keys.c.limit_id == bindparam("limit_id"), limit_keys.c.key == bindparam("key"))
_VALUES = ("max_concurrency", *_RATE, "weight")
_OVERRIDDEN = exists().where(
    limit_keys.c.limit_id == limits.c.id,
    (limit_keys.c.max_concurrency.is_not(None)) | (limit_keys.c.rate_limit.is_not(None)),
)
_SHOWN = select(limits, _OVERRIDDEN.label("overridden")).where(_NAMED)

_ID = Query(select(limits.c.id).where(_NAMED, _OF_TENANT, limits.c.name == bindparam("name")))
_READ = Query(_SHOWN.where(_THIS))
_PAGE = Query(_SHOWN.where(_OF_TENANT, bindparam("after") < _BY_NAME).order_by(_BY_NAME).limit(bindparam("most")))
_RULES = Query(
    select(*limits.c["name", "keyed", *_RATE]).where(_NAMED, _OF_TENANT, limits.c.name == func.any(bindparam("names")))
)
_INSERT = Query(
    insert(limits)
    .values(kind="named", **bound("tenant_id", "name", "owner", *_DEFINED))
    .on_conflict_do_nothing()
    .returning(limits.c.id)
)
_REPLACE = Query(update(limits).where(_THIS).values(version=limits.c.version + 1, updated_at=_NOW, **bound(*_DEFINED)))
_SET_OWNER = Query(update(limits).where(_THIS).values(**bound("owner")))
_PAUSE = Query(update(limits).where(_THIS).values(paused=True, paused_at=_NOW))
_RESUME = Query(update(limits).where(_THIS).values(paused=False, paused_at=null()))
_DELETE = Query(delete(limits).where(_THIS))
_SET_OWNED = Query(
    insert(limits)
    .values(**bound("tenant_id", "kind", "owner_id", *_OWNED))
    .on_conflict_do_update(
        index_elements=["owner_id", "kind"],
        index_where=limits.c.owner_id.is_not(None),
        set_={"version": limits.c.version + 1, "updated_at": _NOW, **bound(*_OWNED)},
    )
    .returning(limits.c.id)
)
_FIND_OWNED = Query(select(limits.c.id).where(*_OF_OWNER))
_DELETE_OWNED = Query(delete(limits).where(*_OF_OWNER))
_PUT_KEY = Query(
    insert(limit_keys)
    .values(
        bucket_id=func.sluice.bucket_v1(bindparam("limit_id"), bindparam("key")),
        **bound("limit_id", "key", *_VALUES),
    )
    .on_conflict_do_update(constraint="limit_keys_pkey", set_={"updated_at": _NOW, **bound(*_VALUES)})
)
_REMOVE_KEY = Query(delete(limit_keys).where(*_THIS_KEY))
_PAUSE_KEY = Query(update(limit_keys).where(*_THIS_KEY).values(paused=True, paused_at=_NOW))
_RESUME_KEY = Query(update(limit_keys).where(*_THIS_KEY).values(paused=False, paused_at=null()))
_ADD_KEY = Query(
    insert(limit_keys)
    .values(bucket_id=func.sluice.bucket_v1(bindparam("limit_id"), bindparam("key")), **bound("limit_id", "key"))
    .on_conflict_do_nothing()
)
_USERS = sql("find_limit_users")
_USES = msgspec.json.Decoder(tuple[LimitUse, ...])


@dataclass(frozen=True, slots=True)
class StoredLimit:
    id: int
    etag: str
    view: LimitView


async def share(connection: Reader, tenant_id: int) -> None:
    """Hold the tenant's named limits: until the transaction ends, none of them changes or goes."""
    await locks.share(connection, Lock.LIMITS, tenant_id)


async def hold(connection: Reader, tenant_id: int, names: Collection[str]) -> bool:
    """Hold the tenant's named limits, if any are named; return whether these exist."""
    if not names:
        return True
    await share(connection, tenant_id)
    return len(await rules(connection, tenant_id, names)) == len(names)


async def lock(connection: Reader, tenant_id: int) -> None:
    """Lock the tenant's named limits: until the transaction ends, nothing new names one."""
    await locks.take(connection, Lock.LIMITS, tenant_id)


async def id_of(reader: Reader, tenant_id: int, name: str) -> int | None:
    limit_id: int | None = await _ID.fetchval(reader, tenant_id=tenant_id, name=name)
    return limit_id


async def read(reader: Reader, limit_id: int) -> StoredLimit | None:
    row = await _READ.fetchrow(reader, limit_id=limit_id)
    return None if row is None else _stored(row)


async def list_page(reader: Reader, tenant_id: int, after: str | None, limit: int) -> list[StoredLimit]:
    """Return rows by name in byte order, like every list of names."""
    return [_stored(row) for row in await _PAGE.fetch(reader, tenant_id=tenant_id, after=after or "", most=limit)]


async def rules(reader: Reader, tenant_id: int, names: Collection[str]) -> dict[str, LimitRule]:
    """Return what tasks must observe of those of these limits that exist."""
    if not names:
        return {}
    found = await _RULES.fetch(reader, tenant_id=tenant_id, names=sorted(names))
    return {
        row["name"]: LimitRule(row["keyed"], None if (rate := rate_of(row)) is None else rate.capacity) for row in found
    }


async def insert_new(
    connection: Reader, tenant_id: int, name: str, definition: LimitDefinition, owner: str | None
) -> StoredLimit | None:
    """Insert a limit; return None if another transaction has created one with this name first."""
    limit_id = await _INSERT.fetchval(connection, tenant_id=tenant_id, name=name, owner=owner, **_defined(definition))
    return None if limit_id is None else await read(connection, limit_id)


async def replace_definition(connection: Reader, limit_id: int, definition: LimitDefinition) -> None:
    await _REPLACE.fetch(connection, limit_id=limit_id, **_defined(definition))


async def set_owner(connection: Reader, limit_id: int, owner: str) -> None:
    await _SET_OWNER.fetch(connection, limit_id=limit_id, owner=owner)


async def set_paused(connection: Reader, limit_id: int, *, paused: bool) -> None:
    await (_PAUSE if paused else _RESUME).fetch(connection, limit_id=limit_id)


async def remove(connection: Reader, limit_id: int) -> None:
    await _DELETE.fetch(connection, limit_id=limit_id)


async def user_of(reader: Reader, tenant_id: int, name: str) -> str | None:
    """Return something that names the limit, in words; None if nothing does."""
    if not await locks.free_of_callers(reader, f"limit {tenant_id} {name}"):
        return "a task that a transaction in progress has enqueued"
    user: str | None = await reader.fetchval(_USERS, tenant_id, name)
    return user


def owned(kind: Kind, owner: ColumnElement[Any]) -> tuple[NamedFromClause, ColumnElement[bool]]:
    """Return the limits of a kind, and the condition that joins them to their owners, for the definitions that show them."""
    these = limits.alias(kind)
    return these, (these.c.kind == kind) & (these.c.owner_id == owner)


def shown(these: NamedFromClause) -> list[ColumnElement[Any]]:
    """Return the columns that `key_in` and `rate_in` read."""
    return [these.c[name].label(f"{these.name}_{name}") for name in _OWNED]


def rate_in(row: Any, kind: str) -> Rate | None:
    return rate_of({name: row[f"{kind}_{name}"] for name in _RATE})


def key_in(row: Any) -> QueueKey | None:
    """Return what holds for the keys of a queue; None if nothing does."""
    found = QueueKey(
        max_concurrency=row["queue_key_max_concurrency"],
        rate=rate_in(row, "queue_key"),
        max_depth=row["queue_key_max_depth"],
        ordered=bool(row["queue_key_ordered"]),
        required=bool(row["queue_key_required"]),
    )
    return None if found == QueueKey() else found


async def owned_id(reader: Reader, kind: Kind, owner_id: int) -> int | None:
    limit_id: int | None = await _FIND_OWNED.fetchval(reader, kind=kind, owner_id=owner_id)
    return limit_id


async def set_owned(connection: Reader, tenant_id: int, kind: Kind, owner_id: int, values: QueueKey) -> int:
    """Set what holds for a queue, a handler or a tenant; return its id."""
    limit_id: int = await _SET_OWNED.fetchval(
        connection,
        tenant_id=tenant_id,
        kind=kind,
        owner_id=owner_id,
        max_concurrency=values.max_concurrency,
        **_rate_columns(values.rate),
        max_depth=values.max_depth,
        ordered=values.ordered,
        required=values.required,
    )
    return limit_id


async def remove_owned(connection: Reader, kinds: Iterable[Kind], owner_id: int) -> None:
    """Remove what held for a queue or handler that is deleted."""
    for kind in kinds:
        await _DELETE_OWNED.fetch(connection, kind=kind, owner_id=owner_id)


async def set_rate(connection: Reader, tenant_id: int, kind: Kind, owner_id: int, rate: Rate | None) -> None:
    """Set the rate of a queue, a handler or a tenant."""
    if rate is None:
        await _DELETE_OWNED.fetch(connection, kind=kind, owner_id=owner_id)
    else:
        await set_owned(connection, tenant_id, kind, owner_id, QueueKey(rate=rate))


async def set_queue_key(connection: Reader, tenant_id: int, queue_id: int, key: QueueKey | None) -> None:
    """Set what holds for each key of a queue. What was set or paused for single keys stays."""
    if key is not None or await owned_id(connection, "queue_key", queue_id) is not None:
        await set_owned(connection, tenant_id, "queue_key", queue_id, key or QueueKey())


async def of_queue_keys(connection: Reader, tenant_id: int, queue_id: int) -> int:
    """Return the id of what holds for the keys of a queue, which is locked. If nothing did yet, its tasks take it from now on."""
    known = await owned_id(connection, "queue_key", queue_id)
    if known is not None:
        return known
    added = await set_owned(connection, tenant_id, "queue_key", queue_id, QueueKey())
    await flows.reopen(connection, tenant_id)
    return added


async def put_key(connection: Reader, limit_id: int, key: str, values: KeyOverride, weight: float = 1) -> None:
    """Set what holds for one key in place of the limit's own values; a pause is kept."""
    await _PUT_KEY.fetch(
        connection,
        limit_id=limit_id,
        key=key,
        max_concurrency=values.max_concurrency,
        **_rate_columns(values.rate),
        weight=float(weight),
    )


async def remove_key(connection: Reader, limit_id: int, key: str) -> None:
    await _REMOVE_KEY.fetch(connection, limit_id=limit_id, key=key)


async def set_key_paused(connection: Reader, limit_id: int, key: str, *, paused: bool) -> None:
    if paused:
        await _ADD_KEY.fetch(connection, limit_id=limit_id, key=key)
    await (_PAUSE_KEY if paused else _RESUME_KEY).fetch(connection, limit_id=limit_id, key=key)


def _defined(definition: LimitDefinition) -> dict[str, Any]:
    return {
        "max_concurrency": definition.max_concurrency,
        **_rate_columns(definition.rate),
        "keyed": definition.keyed,
        "description": definition.description,
        "etag": limit_etag(definition),
    }


def _rate_columns(rate: Rate | None) -> dict[str, Any]:
    return {
        "rate_limit": None if rate is None else rate.limit,
        "rate_period_seconds": 1.0 if rate is None else rate.period_seconds,
        "rate_burst": None if rate is None else rate.burst,
    }


def rate_of(row: Any) -> Rate | None:
    """Return the rate in the columns of a limit or of one of its keys."""
    if row["rate_limit"] is None:
        return None
    return Rate(row["rate_limit"], row["rate_period_seconds"], row["rate_burst"])


def _stored(row: Any) -> StoredLimit:
    definition = LimitDefinition(
        max_concurrency=row["max_concurrency"], rate=rate_of(row), keyed=row["keyed"], description=row["description"]
    )
    view = LimitView(
        name=row["name"],
        definition=definition,
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        paused_at=row["paused_at"],
        owner=row["owner"],
        overridden=row["overridden"],
    )
    return StoredLimit(row["id"], row["etag"], view)


def encode_uses(uses: Iterable[LimitUse]) -> str:
    """Return what a queue or handler makes its tasks take as it is stored."""
    return msgspec.json.encode(list(uses)).decode()


def decode_uses(text: str) -> tuple[LimitUse, ...]:
    return _USES.decode(text)


def names(uses: str) -> tuple[str, ...]:
    """Return the limits named by what a queue or handler makes its tasks take."""
    return tuple(use.name for use in decode_uses(uses))
