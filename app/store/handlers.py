"""Handlers as rows: definitions, their sealed parts, and what a dispatcher needs to call one.

Every change locks first (`lock`, exclusive) and reads the row in a later statement: claims and enqueues hold the same
advisory lock shared, so what was read under it is what they go by from the commit on.
"""

import json
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.handlers import HandlerDefinition, HandlerView, handler_etag
from app.domain.queues import MAX_RETENTION_DAYS
from app.store.db import Database, Reader
from app.store.numbers import Lock, named
from app.store.tables import handlers, queues
from app.store.vault import Vault, VaultError

REMEMBERED_DAYS = 2 * MAX_RETENTION_DAYS
"""Longer than anything of a deleted handler or queue can be read in history."""

_LOCK = text(named("select pg_advisory_xact_lock(:lock_handler, (:id)::integer)"))
_LOCK_SHARED = text(named("select pg_advisory_xact_lock_shared(:lock_handler, (:id)::integer)"))
_HAS_OWN_TASKS = text(
    """
    select exists (
      select from sluice.lanes l where l.handler_id = :id and (
        exists (select from sluice.tasks t where t.queue_id = l.queue_id and t.handler_id = :id and t.state = 0)
        or exists (select from sluice.tasks t where t.queue_id = l.queue_id and t.handler_id = :id and t.state = 1)
        or exists (select from sluice.tasks t where t.queue_id = l.queue_id and t.handler_id = :id and t.state = 2)
        or exists (select from sluice.schedules s where s.queue_id = l.queue_id and s.handler_id = :id and s.deleted_at is null)))
    """
)
_NOW = func.clock_timestamp()


@dataclass(frozen=True, slots=True)
class Target:
    """What one call to a handler needs. Secrets: the current one first, then the one it replaced, while both sign."""

    id: int
    version: int
    name: str
    url: str
    timeout_seconds: float
    headers: dict[str, str] = field(repr=False)
    fatal_statuses: frozenset[int]
    secrets: tuple[str, ...] = field(repr=False)
    previous_until: datetime | None
    """The instant after which the second secret signs no longer."""
    limited: bool
    secrets_lost: bool
    """Its sealed parts do not open: without headers and secrets nothing is to be sent."""


@dataclass(frozen=True, slots=True)
class OwnHandler:
    """What the answer to an enqueue shows of a handler that the task named for itself."""

    id: int
    timeout_seconds: float
    enabled: bool


@dataclass(frozen=True, slots=True)
class HandlerRow:
    """A handler as it is stored, its sealed parts open: for the service room, never for a caller."""

    id: int
    etag: str
    view: HandlerView
    secret: str | None = field(repr=False)
    """None: it does not open."""


async def load_target(db: Reader, vault: Vault, handler_id: int) -> Target | None:
    """Deleted handlers too: a task claimed before is still delivered to where it was claimed for."""
    rows = await db.fetch(
        """
        select id, version, name, url, timeout_seconds, sealed_headers, fatal_statuses, sealed_secret,
               max_concurrency is not null as limited,
               case when previous_secret_until > clock_timestamp() then sealed_previous_secret end as previous,
               case when previous_secret_until > clock_timestamp() then previous_secret_until end as previous_until
        from sluice.handlers where id = $1
        """,
        handler_id,
    )
    if not rows:
        return None
    (row,) = rows
    headers, secret = _open(vault, handler_id, row["sealed_headers"], row["sealed_secret"])
    secrets = [secret] if secret is not None else []
    if secret is not None and row["previous"] is not None:
        with suppress(VaultError):  # the present one is enough
            secrets.append(vault.open(row["previous"], _secret_context(handler_id)))
    return Target(
        id=row["id"],
        version=row["version"],
        name=row["name"],
        url=row["url"],
        timeout_seconds=row["timeout_seconds"],
        headers=headers,
        fatal_statuses=frozenset(row["fatal_statuses"]),
        secrets=tuple(secrets),
        previous_until=row["previous_until"],
        limited=row["limited"],
        secrets_lost=secret is None,
    )


async def find_id(db: Reader, tenant_id: int, name: str) -> int | None:
    found = await db.fetchval(
        "select id from sluice.handlers where tenant_id = $1 and name = $2 and deleted_at is null", tenant_id, name
    )
    return None if found is None else int(found)


async def find_own(db: Reader, tenant_id: int, name: str) -> OwnHandler | None:
    rows = await db.fetch(
        "select id, timeout_seconds, enabled from sluice.handlers where tenant_id = $1 and name = $2 and deleted_at is null",
        tenant_id,
        name,
    )
    return OwnHandler(**rows[0]) if rows else None


async def ids(db: Reader, tenant_id: int, name: str) -> list[int]:
    """Every handler that has borne this name and that a task of history may still name."""
    rows = await db.fetch(
        "select id from sluice.handlers where tenant_id = $1 and name = $2 "
        "and (deleted_at is null or deleted_at > clock_timestamp() - make_interval(days => $3))",
        tenant_id,
        name,
        REMEMBERED_DAYS,
    )
    return [row["id"] for row in rows]


async def lock(connection: AsyncConnection, handler_id: int) -> None:
    """Until the transaction ends nothing is claimed for this handler and no task may newly name it."""
    await connection.execute(_LOCK, {"id": handler_id})


async def lock_shared(connection: AsyncConnection, handler_id: int) -> None:
    """Until the transaction ends this handler does not change, and is not deleted."""
    await connection.execute(_LOCK_SHARED, {"id": handler_id})


async def id_of(connection: AsyncConnection, tenant_id: int, name: str) -> int | None:
    return await connection.scalar(
        select(handlers.c.id).where(
            handlers.c.tenant_id == tenant_id, handlers.c.name == name, handlers.c.deleted_at.is_(None)
        )
    )


async def is_there(connection: AsyncConnection, handler_id: int) -> bool:
    found = await connection.scalar(
        select(handlers.c.id).where(handlers.c.id == handler_id, handlers.c.deleted_at.is_(None))
    )
    return found is not None


async def read(connection: AsyncConnection, vault: Vault, handler_id: int) -> HandlerRow | None:
    """None when it has been deleted meanwhile."""
    rows = await connection.execute(
        select(handlers).where(handlers.c.id == handler_id, handlers.c.deleted_at.is_(None))
    )
    row = rows.first()
    return None if row is None else _stored(vault, row)


async def list_page(
    connection: AsyncConnection, vault: Vault, tenant_id: int, after: str | None, limit: int
) -> list[HandlerRow]:
    """By name, ascending in the order of bytes, as every list of names."""
    name = handlers.c.name.collate("C")
    wanted = select(handlers).where(handlers.c.tenant_id == tenant_id, handlers.c.deleted_at.is_(None))
    if after is not None:
        wanted = wanted.where(name > after)
    return [_stored(vault, row) for row in await connection.execute(wanted.order_by(name).limit(limit))]


async def insert_new(
    connection: AsyncConnection,
    vault: Vault,
    tenant_id: int,
    name: str,
    definition: HandlerDefinition,
    secret: str,
    owner: str | None,
) -> HandlerRow | None:
    """None when another transaction has made a handler of this name first."""
    handler_id = await connection.scalar(
        insert(handlers)
        .values(
            tenant_id=tenant_id,
            name=name,
            owner=owner,
            sealed_headers=b"",
            sealed_secret=b"",
            **_plain_columns(definition),
        )
        .on_conflict_do_nothing(index_elements=["tenant_id", "name"], index_where=handlers.c.deleted_at.is_(None))
        .returning(handlers.c.id)
    )
    if handler_id is None:
        return None
    # What is sealed is bound to the row's id, which is known only now.
    await connection.execute(
        update(handlers)
        .where(handlers.c.id == handler_id)
        .values(
            sealed_headers=_seal_headers(vault, handler_id, definition.headers),
            sealed_secret=vault.seal(secret, _secret_context(handler_id)),
        )
    )
    return await read(connection, vault, handler_id)


async def replace_definition(
    connection: AsyncConnection, vault: Vault, handler_id: int, definition: HandlerDefinition
) -> None:
    await _change(
        connection,
        handler_id,
        **_plain_columns(definition),
        sealed_headers=_seal_headers(vault, handler_id, definition.headers),
        updated_at=_NOW,
    )


async def replace_secret(
    connection: AsyncConnection, vault: Vault, handler_id: int, secret: str, overlap_seconds: float
) -> None:
    """The present secret goes on signing beside the new one for `overlap_seconds`; 0 ends it at once."""
    kept = overlap_seconds > 0
    await _change(
        connection,
        handler_id,
        sealed_secret=vault.seal(secret, _secret_context(handler_id)),
        sealed_previous_secret=handlers.c.sealed_secret if kept else None,
        previous_secret_until=_NOW + timedelta(seconds=overlap_seconds) if kept else None,
        updated_at=_NOW,
    )


async def set_owner(connection: AsyncConnection, handler_id: int, owner: str) -> None:
    await connection.execute(update(handlers).where(handlers.c.id == handler_id).values(owner=owner))


async def enable(connection: AsyncConnection, handler_id: int) -> None:
    await _change(connection, handler_id, enabled=True, disabled_at=None, disabled_reason=None)


async def disable(connection: AsyncConnection, handler_id: int, reason: str) -> None:
    await _change(connection, handler_id, enabled=False, disabled_at=_NOW, disabled_reason=reason)


async def disable_gone(db: Database, handler_id: int, reason: str) -> str | None:
    """Its name, if it was enabled. Not by way of the connections for definitions: deliveries wait for it."""
    async with db.transaction() as connection:
        await connection.fetch("select pg_advisory_xact_lock($1, $2)", Lock.HANDLER, handler_id)
        name: str | None = await connection.fetchval(
            """
            update sluice.handlers set version = version + 1, enabled = false, disabled_at = clock_timestamp(), disabled_reason = $2
            where id = $1 and enabled and deleted_at is null returning name
            """,
            handler_id,
            reason,
        )
    return name


async def mark_deleted(connection: AsyncConnection, handler_id: int) -> None:
    await _change(connection, handler_id, deleted_at=_NOW)


async def queues_naming(connection: AsyncConnection, handler_id: int) -> list[str]:
    """A few names of queues that deliver to this handler."""
    found = await connection.scalars(
        select(queues.c.name)
        .where(queues.c.handler_id == handler_id, queues.c.deleted_at.is_(None))
        .order_by(queues.c.name)
        .limit(3)
    )
    return list(found)


async def has_own_tasks(connection: AsyncConnection, handler_id: int) -> bool:
    """Whether an unfinished task, or a schedule, has named this handler for itself. Lanes say in which queues to look; each
    state has an index of its own."""
    return bool(await connection.scalar(_HAS_OWN_TASKS, {"id": handler_id}))


async def _change(connection: AsyncConnection, handler_id: int, **columns: Any) -> None:
    await connection.execute(
        update(handlers).where(handlers.c.id == handler_id).values(version=handlers.c.version + 1, **columns)
    )


def _plain_columns(definition: HandlerDefinition) -> dict[str, Any]:
    return {
        "url": definition.url,
        "timeout_seconds": definition.timeout_seconds,
        "max_concurrency": definition.max_concurrency,
        "fatal_statuses": list(definition.fatal_statuses),
        "description": definition.description,
        "etag": handler_etag(definition),
    }


def _stored(vault: Vault, row: Row[Any]) -> HandlerRow:
    headers, secret = _open(vault, row.id, row.sealed_headers, row.sealed_secret)
    definition = HandlerDefinition(
        url=row.url,
        timeout_seconds=row.timeout_seconds,
        headers=headers,
        max_concurrency=row.max_concurrency,
        fatal_statuses=tuple(row.fatal_statuses),
        description=row.description,
    )
    view = HandlerView(
        name=row.name,
        definition=definition,
        created_at=row.created_at,
        updated_at=row.updated_at,
        enabled=row.enabled,
        disabled_at=row.disabled_at,
        disabled_reason=row.disabled_reason,
        secrets_lost=secret is None,
        owner=row.owner,
    )
    return HandlerRow(row.id, row.etag, view, secret)


def _secret_context(handler_id: int) -> str:
    # The same for the previous secret, so that a rotation moves the sealed bytes as they are.
    return f"handler:{handler_id}:secret"


def _headers_context(handler_id: int) -> str:
    return f"handler:{handler_id}:headers"


def _seal_headers(vault: Vault, handler_id: int, headers: dict[str, str]) -> bytes:
    return vault.seal(json.dumps(headers), _headers_context(handler_id))


def _open(vault: Vault, handler_id: int, headers: bytes, secret: bytes) -> tuple[dict[str, str], str | None]:
    """Without headers and secret where one of them does not open: one handler that is damaged, or was restored from a database
    with another key, is in no other's way."""
    try:
        opened: dict[str, str] = json.loads(vault.open(headers, _headers_context(handler_id)))
        return opened, vault.open(secret, _secret_context(handler_id))
    except VaultError:
        return {}, None
