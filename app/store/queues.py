"""Queues as rows: definitions, and what enqueue and dispatch need of them.

Every change locks first (`lock`, exclusive) and reads the row in a later statement: claims and enqueues hold the same
advisory lock shared, so what was read under it is what they go by from the commit on.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.backoff import RetryPolicy
from app.domain.queues import QueueDefinition, QueueView, Retention, queue_etag
from app.domain.retries import DEFAULT_RETRY, merged, retry_to_dict
from app.store.db import Reader
from app.store.numbers import named
from app.store.tables import handlers, lanes, queues

_LOCK = text(named("select pg_advisory_xact_lock(:lock_queue, (:id)::integer)"))
_HAS_TASKS = text(
    "select exists (select from sluice.tasks where queue_id = :id)"
    " or exists (select from sluice.batch_completions where queue_id = :id and task_id is null)"
    " or exists (select from sluice.schedules where :id in (queue_id, then_queue_id) and deleted_at is null)"
)
_NOW = func.clock_timestamp()


@dataclass(frozen=True, slots=True)
class Policy:
    """What the dispatcher goes by when it settles a task of this queue."""

    id: int
    version: int
    tenant_id: int
    tenant: str
    name: str
    handler_id: int | None
    timeout_seconds: float | None
    """None: the handler's."""
    retry: RetryPolicy
    limited: bool
    """The queue, its handler or its tenant has a limit: a slot that comes free may be waited for elsewhere."""


@dataclass(frozen=True, slots=True)
class QueueRow:
    """What an enqueue goes by."""

    id: int
    version: int
    tenant_id: int
    name: str
    handler_id: int | None
    handler: str | None
    retry: RetryPolicy
    idempotency_seconds: float
    max_attempts: int
    timeout_seconds: float | None
    """None: the handler's."""
    handler_timeout_seconds: float | None
    payload_schema: str | None
    """Its JSON text."""


@dataclass(frozen=True, slots=True)
class StoredQueue:
    id: int
    etag: str
    view: QueueView


async def load_policy(db: Reader, queue_id: int) -> Policy | None:
    """Deleted queues too: history still names them."""
    rows = await db.fetch(
        """
        select q.id, q.version, q.tenant_id, n.name as tenant, q.name, q.handler_id, q.timeout_seconds, q.retry,
               coalesce(q.max_concurrency, h.max_concurrency, n.max_concurrency, n.granted_max_concurrency) is not null as limited
        from sluice.queues q join sluice.tenants n on n.id = q.tenant_id
        left join sluice.handlers h on h.id = q.handler_id
        where q.id = $1
        """,
        queue_id,
    )
    return Policy(**{**rows[0], "retry": _policy(rows[0]["retry"])}) if rows else None


async def find(db: Reader, tenant_id: int, name: str) -> QueueRow | None:
    rows = await db.fetch(
        """
        select q.id, q.version, q.tenant_id, q.name, q.handler_id, h.name as handler, q.retry, q.idempotency_seconds,
               q.max_attempts, q.timeout_seconds, h.timeout_seconds as handler_timeout_seconds,
               q.payload_schema
        from sluice.queues q left join sluice.handlers h on h.id = q.handler_id
        where q.tenant_id = $1 and q.name = $2 and q.deleted_at is null
        """,
        tenant_id,
        name,
    )
    return QueueRow(**{**rows[0], "retry": _policy(rows[0]["retry"])}) if rows else None


async def tenants_of(db: Reader, queue_ids: Iterable[int]) -> dict[int, int]:
    """The tenant of each of these queues that is there."""
    rows = await db.fetch(
        "select id, tenant_id from sluice.queues where id = any($1::bigint[]) and deleted_at is null", list(queue_ids)
    )
    return {row[0]: row[1] for row in rows}


async def schemas_to(db: Reader, handler_id: int) -> list[str]:
    """The payload schemas of queues that deliver to a handler, by the queues' names; a few are enough."""
    rows = await db.fetch(
        "select payload_schema from sluice.queues where handler_id = $1 and deleted_at is null and payload_schema is not null"
        " order by name limit 20",
        handler_id,
    )
    return [row[0] for row in rows]


async def lock(connection: AsyncConnection, queue_id: int) -> None:
    """Until the transaction ends nothing enters this queue and nothing is claimed from it."""
    await connection.execute(_LOCK, {"id": queue_id})


async def id_of(connection: AsyncConnection, tenant_id: int, name: str) -> int | None:
    return await connection.scalar(
        select(queues.c.id).where(queues.c.tenant_id == tenant_id, queues.c.name == name, queues.c.deleted_at.is_(None))
    )


async def read(connection: AsyncConnection, queue_id: int) -> StoredQueue | None:
    """None when it has been deleted meanwhile."""
    rows = await connection.execute(_alive().where(queues.c.id == queue_id))
    row = rows.first()
    return None if row is None else _stored(row)


async def list_page(connection: AsyncConnection, tenant_id: int, after: str | None, limit: int) -> list[StoredQueue]:
    """By name, ascending in the order of bytes, as every list of names."""
    name = queues.c.name.collate("C")
    wanted = _alive().where(queues.c.tenant_id == tenant_id)
    if after is not None:
        wanted = wanted.where(name > after)
    return [_stored(row) for row in await connection.execute(wanted.order_by(name).limit(limit))]


async def insert_new(
    connection: AsyncConnection,
    tenant_id: int,
    name: str,
    definition: QueueDefinition,
    handler_id: int | None,
    owner: str | None,
) -> StoredQueue | None:
    """With its own lane. None when another transaction has made a queue of this name first."""
    queue_id = await connection.scalar(
        insert(queues)
        .values(tenant_id=tenant_id, name=name, owner=owner, **_columns(definition, handler_id))
        .on_conflict_do_nothing(index_elements=["tenant_id", "name"], index_where=queues.c.deleted_at.is_(None))
        .returning(queues.c.id)
    )
    if queue_id is None:
        return None
    await connection.execute(insert(lanes).values(queue_id=queue_id, handler_id=0))
    return await read(connection, queue_id)


async def replace_definition(
    connection: AsyncConnection, queue_id: int, definition: QueueDefinition, handler_id: int | None
) -> None:
    await connection.execute(
        update(queues)
        .where(queues.c.id == queue_id)
        .values(version=queues.c.version + 1, updated_at=_NOW, **_columns(definition, handler_id))
    )


async def set_owner(connection: AsyncConnection, queue_id: int, owner: str) -> None:
    await connection.execute(update(queues).where(queues.c.id == queue_id).values(owner=owner))


async def pause(connection: AsyncConnection, queue_id: int) -> None:
    await connection.execute(update(queues).where(queues.c.id == queue_id).values(paused=True, paused_at=_NOW))


async def resume(connection: AsyncConnection, queue_id: int) -> None:
    await connection.execute(update(queues).where(queues.c.id == queue_id).values(paused=False, paused_at=None))


async def has_tasks(connection: AsyncConnection, queue_id: int) -> bool:
    """Whether an unfinished task is in this queue, or will be: a schedule or the end of a batch enqueues there."""
    return bool(await connection.scalar(_HAS_TASKS, {"id": queue_id}))


async def mark_deleted(connection: AsyncConnection, queue_id: int) -> None:
    await connection.execute(
        update(queues).where(queues.c.id == queue_id).values(version=queues.c.version + 1, deleted_at=_NOW)
    )
    await connection.execute(delete(lanes).where(lanes.c.queue_id == queue_id))


async def outdate_of_tenant(connection: AsyncConnection, tenant_id: int) -> None:
    await _outdate(connection, queues.c.tenant_id == tenant_id)


async def outdate_of_handler(connection: AsyncConnection, handler_id: int) -> None:
    await _outdate(connection, queues.c.handler_id == handler_id)


async def _outdate(connection: AsyncConnection, which: ColumnElement[bool]) -> None:
    """Raise the versions: replicas shall read these queues anew, for what they keep of them says more than the queue's row
    (`limited`, the handler's timeout). Locked in order of id, as enqueues lock them."""
    locked = select(queues.c.id).where(which, queues.c.deleted_at.is_(None)).order_by(queues.c.id)
    ids = list(await connection.scalars(locked.with_for_update(key_share=True)))
    await connection.execute(update(queues).where(queues.c.id.in_(ids)).values(version=queues.c.version + 1))


def _alive() -> Select[Any]:
    return (
        select(queues, handlers.c.name.label("handler"))
        .outerjoin(handlers, handlers.c.id == queues.c.handler_id)
        .where(queues.c.deleted_at.is_(None))
    )


def _columns(definition: QueueDefinition, handler_id: int | None) -> dict[str, Any]:
    return {
        "handler_id": handler_id,
        "max_concurrency": definition.max_concurrency,
        "max_depth": definition.max_depth,
        "timeout_seconds": definition.timeout_seconds,
        "retry": retry_to_dict(definition.retry),
        "max_attempts": definition.retry.max_attempts,
        "idempotency_seconds": definition.idempotency_seconds,
        "payload_schema": definition.payload_schema,
        "succeeded_days": definition.retention.succeeded_days,
        "cancelled_days": definition.retention.cancelled_days,
        "dead_days": definition.retention.dead_days,
        "description": definition.description,
        "etag": queue_etag(definition),
    }


def _stored(row: Row[Any]) -> StoredQueue:
    definition = QueueDefinition(
        handler=row.handler,
        max_concurrency=row.max_concurrency,
        max_depth=row.max_depth,
        timeout_seconds=row.timeout_seconds,
        retry=merged(DEFAULT_RETRY, row.retry),
        idempotency_seconds=row.idempotency_seconds,
        payload_schema=row.payload_schema,
        retention=Retention(int(row.succeeded_days), int(row.cancelled_days), int(row.dead_days)),
        description=row.description,
    )
    view = QueueView(
        name=row.name,
        definition=definition,
        created_at=row.created_at,
        updated_at=row.updated_at,
        paused=row.paused,
        paused_at=row.paused_at,
        owner=row.owner,
    )
    return StoredQueue(row.id, row.etag, view)


def _policy(stored: str) -> RetryPolicy:
    return merged(DEFAULT_RETRY, json.loads(stored))
