"""Handlers: definitions, their encrypted parts, and what a dispatcher needs for a call.

Every change first takes the exclusive lock and reads the row in a later statement. Claims and enqueues hold the same advisory
lock shared, so from the commit on they use what was written under it.
"""

import json
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Update, bindparam, case, func, null, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from app.domain.breakers import Adaptive, Breaker, Park
from app.domain.bridges import Address
from app.domain.callers import Act
from app.domain.handlers import Grouping, HandlerDefinition, HandlerView, Kind, Targets, handler_etag
from app.domain.limits import LimitUse
from app.domain.queues import MAX_RETENTION_DAYS
from app.store import audit, limits, locks
from app.store.db import Database, Reader
from app.store.numbers import Lock
from app.store.sealed_handlers import (
    open_address,
    open_headers_and_secret,
    seal_address,
    seal_headers,
    secret_context,
)
from app.store.statements import Query, bound, sql
from app.store.tables import handlers, queues
from app.store.vault import Vault, VaultError

REMEMBERED_DAYS = 2 * MAX_RETENTION_DAYS
"""Longer than tasks of a deleted handler or queue stay readable in history."""

_NOW = func.clock_timestamp()
_ALIVE = handlers.c.deleted_at.is_(None)
_THIS = handlers.c.id == bindparam("handler_id")
_NAMED = (handlers.c.tenant_id == bindparam("tenant_id"), handlers.c.name == bindparam("name"))
_BY_NAME = handlers.c.name.collate("C")
_RATE, _OF_RATE = limits.owned("handler_rate", handlers.c.id)
_SHOWN = select(handlers, *limits.shown(_RATE)).select_from(handlers.outerjoin(_RATE, _OF_RATE)).where(_ALIVE)
_PLAIN = (
    *(
        "kind",
        "url",
        "address",
        "timeout_seconds",
        "max_concurrency",
        "fatal_statuses",
        "limits",
        "description",
        "etag",
    ),
    *("group_max_tasks", "group_wait_seconds", "targets", "breaker", "adaptive", "park_on_retry_after"),
)
"""The parts of a definition that are not encrypted."""
_ADDRESS = ("queue_url", "region", "endpoint_url", "group_id_from", "stream", "maxlen")
"""What is stored as a bridge's `address`."""


_UNTIL = _NOW + func.make_interval(0, 0, 0, 0, 0, 0, bindparam("seconds"))


def _change() -> Update:
    return update(handlers).where(_THIS).values(version=handlers.c.version + 1)


_TARGET = Query(
    select(
        handlers,
        or_(handlers.c.max_concurrency.is_not(None), handlers.c.breaker.is_not(None)).label("limited"),
        or_(handlers.c.breaker.is_not(None), handlers.c.adaptive.is_not(None)).label("guarded"),
        case((handlers.c.previous_secret_until > _NOW, handlers.c.sealed_previous_secret)).label("previous"),
        case((handlers.c.previous_secret_until > _NOW, handlers.c.previous_secret_until)).label("previous_until"),
    ).where(_THIS)
)
_ID = Query(select(handlers.c.id).where(*_NAMED, _ALIVE))
_OWN = Query(select(*handlers.c["id", "timeout_seconds", "enabled", "url", "targets", "limits"]).where(*_NAMED, _ALIVE))
_REMEMBERED = Query(
    select(handlers.c.id).where(
        *_NAMED, or_(_ALIVE, handlers.c.deleted_at > _NOW - func.make_interval(0, 0, 0, bindparam("days")))
    )
)
_READ = Query(_SHOWN.where(_THIS))
_PAGE = Query(
    _SHOWN.where(handlers.c.tenant_id == bindparam("tenant_id"), bindparam("after") < _BY_NAME)
    .order_by(_BY_NAME)
    .limit(bindparam("most"))
)
_USES = Query(select(handlers.c.limits).where(_THIS))
_INSERT = Query(
    insert(handlers)
    .values(sealed_headers=b"", sealed_secret=b"", **bound("tenant_id", "name", "owner", *_PLAIN))
    .on_conflict_do_nothing(index_elements=["tenant_id", "name"], index_where=_ALIVE)
    .returning(handlers.c.id)
)
_SEAL = Query(update(handlers).where(_THIS).values(**bound("sealed_headers", "sealed_secret", "sealed_address")))
_REPLACE = Query(_change().values(updated_at=_NOW, **bound("sealed_headers", "sealed_address", *_PLAIN)))
_ROTATE = Query(
    _change().values(
        updated_at=_NOW,
        sealed_secret=bindparam("sealed_secret"),
        sealed_previous_secret=handlers.c.sealed_secret,
        previous_secret_until=_NOW + func.make_interval(0, 0, 0, 0, 0, 0, bindparam("overlap_seconds")),
    )
)
_REPLACE_SECRET = Query(
    _change().values(
        updated_at=_NOW,
        sealed_secret=bindparam("sealed_secret"),
        sealed_previous_secret=null(),
        previous_secret_until=null(),
    )
)
_SET_OWNER = Query(update(handlers).where(_THIS).values(**bound("owner")))
_ENABLE = Query(_change().values(enabled=True, disabled_at=null(), disabled_reason=null(), parked_until=null()))
_DISABLE = Query(_change().values(enabled=False, disabled_at=_NOW, **bound("disabled_reason")))
_DISABLE_GONE = Query(
    _change()
    .where(handlers.c.enabled, _ALIVE)
    .values(enabled=False, disabled_at=_NOW, **bound("disabled_reason"))
    .returning(handlers.c.tenant_id, handlers.c.name)
)
_PARK = Query(
    update(handlers)
    .where(_THIS, or_(handlers.c.parked_until.is_(None), handlers.c.parked_until < _UNTIL))
    .values(parked_until=_UNTIL)
    .returning(handlers.c.name)
)
_FLOWS = Query(update(handlers).where(_THIS).values(flows=True))
_DELETE = Query(_change().values(deleted_at=_NOW))
_QUEUES_NAMING = Query(
    select(queues.c.name)
    .where(queues.c.handler_id == bindparam("handler_id"), queues.c.deleted_at.is_(None))
    .order_by(queues.c.name)
    .limit(3)
)
_HAS_OWN_TASKS = sql("find_handler_use")


@dataclass(frozen=True, slots=True)
class Target:
    """What a call to a handler needs. Secrets: the current one first, then the previous one while both sign."""

    id: int
    version: int
    name: str
    kind: Kind
    url: str
    """Empty, unless its kind is webhook."""
    address: Address | None
    """Where a bridge leads; None for a webhook."""
    timeout_seconds: float
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    fatal_statuses: frozenset[int]
    secrets: tuple[str, ...] = field(repr=False)
    previous_until: datetime | None
    """When the second secret stops signing."""
    limited: bool
    """It has a limit, or may get one from its breaker."""
    group: Grouping | None
    targets: Targets
    guarded: bool
    """It has a breaker or an adaptive limit."""
    limits: tuple[str, ...]
    """Named ones that all its tasks take."""
    park: Park
    """What waits when it asks for that."""
    secrets_lost: bool
    """Its encrypted parts cannot be decrypted, so nothing may be sent."""


@dataclass(frozen=True, slots=True)
class OwnHandler:
    """What an enqueue needs of a task's own handler."""

    id: int
    timeout_seconds: float
    enabled: bool
    url: str
    targets: Targets
    limits: tuple[LimitUse, ...]
    """What its tasks take."""


@dataclass(frozen=True, slots=True)
class HandlerRow:
    """A stored handler with its parts decrypted: for the service, never for a caller."""

    id: int
    etag: str
    view: HandlerView
    secret: str | None = field(repr=False)
    """None if it cannot be decrypted."""


async def load_target(db: Reader, vault: Vault, handler_id: int) -> Target | None:
    """Return a handler, even a deleted one: a task claimed before the deletion is still delivered."""
    row = await _TARGET.fetchrow(db, handler_id=handler_id)
    if row is None:
        return None
    headers, secret = open_headers_and_secret(vault, handler_id, row["sealed_headers"], row["sealed_secret"])
    address = open_address(vault, row)
    secrets = [secret] if secret is not None else []
    if secret is not None and row["previous"] is not None:
        with suppress(VaultError):  # the current one is enough
            secrets.append(vault.open(row["previous"], secret_context(handler_id)))
    return Target(
        id=row["id"],
        version=row["version"],
        name=row["name"],
        kind=row["kind"],
        url=row["url"],
        address=HandlerDefinition(kind=row["kind"], **address.fields).address,
        timeout_seconds=row["timeout_seconds"],
        headers=tuple(headers.items()),
        fatal_statuses=frozenset(row["fatal_statuses"]),
        secrets=tuple(secrets),
        previous_until=row["previous_until"],
        limited=row["limited"],
        group=_grouping(row),
        targets=row["targets"],
        guarded=row["guarded"],
        limits=limits.names(row["limits"]),
        park=row["park_on_retry_after"],
        secrets_lost=secret is None or address.lost,
    )


async def id_of(reader: Reader, tenant_id: int, name: str) -> int | None:
    handler_id: int | None = await _ID.fetchval(reader, tenant_id=tenant_id, name=name)
    return handler_id


async def find_own(db: Reader, tenant_id: int, name: str) -> OwnHandler | None:
    row = await _OWN.fetchrow(db, tenant_id=tenant_id, name=name)
    return OwnHandler(**{**row, "limits": limits.decode_uses(row["limits"])}) if row else None


async def ids(db: Reader, tenant_id: int, name: str) -> list[int]:
    """Return all handlers that have had this name and that tasks in history may still refer to."""
    return [row[0] for row in await _REMEMBERED.fetch(db, tenant_id=tenant_id, name=name, days=REMEMBERED_DAYS)]


async def lock(connection: Reader, handler_id: int) -> None:
    """Lock a handler: until the transaction ends, nothing is claimed for it and no new task can name it."""
    await locks.take(connection, Lock.HANDLER, handler_id)


async def lock_shared(connection: Reader, handler_id: int) -> None:
    """Lock a handler shared: until the transaction ends, it cannot be changed or deleted."""
    await locks.share(connection, Lock.HANDLER, handler_id)


async def uses_of(reader: Reader, handler_id: int) -> tuple[LimitUse, ...]:
    """Return the limits that all tasks of a handler take."""
    return limits.decode_uses(await _USES.fetchval(reader, handler_id=handler_id))


async def is_there(reader: Reader, handler_id: int) -> bool:
    return await _READ.fetchrow(reader, handler_id=handler_id) is not None


async def read(reader: Reader, vault: Vault, handler_id: int) -> HandlerRow | None:
    """Return the row; None if it has been deleted in the meantime."""
    row = await _READ.fetchrow(reader, handler_id=handler_id)
    return None if row is None else _stored(vault, row)


async def list_page(reader: Reader, vault: Vault, tenant_id: int, after: str | None, limit: int) -> list[HandlerRow]:
    """Return rows by name in byte order, like every list of names."""
    rows = await _PAGE.fetch(reader, tenant_id=tenant_id, after=after or "", most=limit)
    return [_stored(vault, row) for row in rows]


async def insert_new(
    connection: Reader,
    vault: Vault,
    tenant_id: int,
    name: str,
    definition: HandlerDefinition,
    secret: str,
    owner: str | None,
) -> HandlerRow | None:
    """Insert a handler; return None if another transaction has created one with this name first."""
    handler_id = await _INSERT.fetchval(
        connection, tenant_id=tenant_id, name=name, owner=owner, **_plain_columns(vault, definition)
    )
    if handler_id is None:
        return None
    # Encrypted values are bound to the row's id, which is known only now.
    await _SEAL.fetch(
        connection,
        handler_id=handler_id,
        sealed_headers=seal_headers(vault, handler_id, definition.headers),
        sealed_secret=vault.seal(secret, secret_context(handler_id)),
        sealed_address=seal_address(vault, handler_id, definition),
    )
    await _set_limits(connection, tenant_id, handler_id, definition)
    return await read(connection, vault, handler_id)


async def _set_limits(connection: Reader, tenant_id: int, handler_id: int, definition: HandlerDefinition) -> None:
    await limits.set_rate(connection, tenant_id, "handler_rate", handler_id, definition.rate)
    if definition.rate or definition.limits:
        await _FLOWS.fetch(connection, handler_id=handler_id)


async def replace_definition(
    connection: Reader, vault: Vault, tenant_id: int, handler_id: int, definition: HandlerDefinition
) -> None:
    await _REPLACE.fetch(
        connection,
        handler_id=handler_id,
        sealed_headers=seal_headers(vault, handler_id, definition.headers),
        sealed_address=seal_address(vault, handler_id, definition),
        **_plain_columns(vault, definition),
    )
    await _set_limits(connection, tenant_id, handler_id, definition)


async def replace_secret(
    connection: Reader, vault: Vault, handler_id: int, secret: str, overlap_seconds: float
) -> None:
    """Replace the secret. The old one keeps signing too for `overlap_seconds`; with 0 it stops at once."""
    sealed = vault.seal(secret, secret_context(handler_id))
    if overlap_seconds > 0:
        await _ROTATE.fetch(
            connection, handler_id=handler_id, sealed_secret=sealed, overlap_seconds=float(overlap_seconds)
        )
    else:
        await _REPLACE_SECRET.fetch(connection, handler_id=handler_id, sealed_secret=sealed)


async def set_owner(connection: Reader, handler_id: int, owner: str) -> None:
    await _SET_OWNER.fetch(connection, handler_id=handler_id, owner=owner)


async def enable(connection: Reader, handler_id: int) -> None:
    await _ENABLE.fetch(connection, handler_id=handler_id)


async def disable(connection: Reader, handler_id: int, reason: str) -> None:
    await _DISABLE.fetch(connection, handler_id=handler_id, disabled_reason=reason)


async def disable_gone(db: Database, handler_id: int, reason: str, replica: str) -> str | None:
    """Disable a handler; return its name if it was enabled. Not on the connections for definitions, because deliveries wait."""
    async with db.transaction() as connection:
        await lock(connection, handler_id)
        row = await _DISABLE_GONE.fetchrow(connection, handler_id=handler_id, disabled_reason=reason)
        if row is None:
            return None
        before, after = {"enabled": True, "disabled_reason": None}, {"enabled": False, "disabled_reason": reason}
        act = Act("disable", "handler", row["name"], replica)
        await audit.record_by("system", connection, row["tenant_id"], act, before, after)
    name: str = row["name"]
    return name


async def park(db: Database, handler_id: int, seconds: float) -> str | None:
    """Admit nothing for a handler for so many seconds; return its name, or None if it is parked for longer already."""
    async with db.transaction() as connection:
        await lock(connection, handler_id)
        name: str | None = await _PARK.fetchval(connection, handler_id=handler_id, seconds=seconds)
    return name


async def mark_deleted(connection: Reader, handler_id: int) -> None:
    await _DELETE.fetch(connection, handler_id=handler_id)
    await limits.remove_owned(connection, ("handler_rate",), handler_id)


async def queues_naming(reader: Reader, handler_id: int) -> list[str]:
    """Return a few names of queues that deliver to this handler."""
    return [row[0] for row in await _QUEUES_NAMING.fetch(reader, handler_id=handler_id)]


async def has_own_tasks(reader: Reader, handler_id: int) -> bool:
    """Return whether an unfinished task or a schedule names this handler itself, or a transaction in progress has enqueued such
    a task."""
    if not await locks.free_of_callers(reader, f"handler {handler_id}"):
        return True
    return bool(await reader.fetchval(_HAS_OWN_TASKS, handler_id))


def _plain_columns(vault: Vault, definition: HandlerDefinition) -> dict[str, Any]:
    bridge = definition.kind != "webhook"
    return {
        "kind": definition.kind,
        "url": "" if bridge else definition.url,
        "address": json.dumps({name: getattr(definition, name) for name in _ADDRESS}) if bridge else None,
        "timeout_seconds": definition.timeout_seconds,
        "max_concurrency": definition.max_concurrency,
        "fatal_statuses": list(definition.fatal_statuses),
        "breaker": _encoded(definition.breaker),
        "adaptive": _encoded(definition.adaptive),
        "park_on_retry_after": definition.park_on_retry_after,
        "limits": limits.encode_uses(definition.limits),
        "description": definition.description,
        "group_max_tasks": definition.group and definition.group.max_tasks,
        "group_wait_seconds": definition.group and definition.group.wait_seconds,
        "targets": definition.targets,
        "etag": handler_etag(definition, vault.fingerprint_key),
    }


def _grouping(row: Any) -> Grouping | None:
    return None if row["group_max_tasks"] is None else Grouping(row["group_max_tasks"], row["group_wait_seconds"])


def _encoded(part: Breaker | Adaptive | None) -> str | None:
    return None if part is None else msgspec.json.encode(part).decode()


def _stored(vault: Vault, row: Any) -> HandlerRow:
    headers, secret = open_headers_and_secret(vault, row["id"], row["sealed_headers"], row["sealed_secret"])
    address = open_address(vault, row)
    where = address.fields or {"url": row["url"]}
    definition = HandlerDefinition(
        kind=row["kind"],
        **where,
        timeout_seconds=row["timeout_seconds"],
        headers=headers,
        max_concurrency=row["max_concurrency"],
        fatal_statuses=tuple(row["fatal_statuses"]),
        breaker=row["breaker"] and msgspec.json.decode(row["breaker"], type=Breaker),
        adaptive=row["adaptive"] and msgspec.json.decode(row["adaptive"], type=Adaptive),
        park_on_retry_after=row["park_on_retry_after"],
        description=row["description"],
        group=_grouping(row),
        targets=row["targets"],
        rate=limits.rate_in(row, "handler_rate"),
        limits=limits.decode_uses(row["limits"]),
    )
    view = HandlerView(
        name=row["name"],
        definition=definition,
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        enabled=row["enabled"],
        disabled_at=row["disabled_at"],
        disabled_reason=row["disabled_reason"],
        parked_until=row["parked_until"],
        secrets_lost=secret is None or address.lost,
        owner=row["owner"],
    )
    return HandlerRow(row["id"], row["etag"], view, secret)
