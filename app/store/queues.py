"""Queues: definitions, and what enqueue and dispatch need of them.

Every change first takes the exclusive lock and reads the row in a later statement. Claims and enqueues hold the same advisory
lock shared, so from the commit on they use what was written under it.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Select, Update, bindparam, delete, func, null, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from app.domain.backoff import RetryPolicy
from app.domain.callbacks import Callbacks, callbacks_to_dict
from app.domain.confinement import like_patterns
from app.domain.handlers import Targets
from app.domain.limits import LimitRule, QueueRules
from app.domain.queues import QueueDefinition, QueueView, Retention, queue_etag
from app.domain.retries import DEFAULT_RETRY, effective_retry, retry_to_dict
from app.domain.sqs import ELSEWHERE, QueueAttributes, attempts_allowed, decode_attributes, encode_attributes, is_fifo
from app.store import flows, limits, locks, queue_names
from app.store.db import Reader
from app.store.numbers import Lock
from app.store.statements import Query, bound, sql
from app.store.tables import callback_uses, handlers, lanes, queues, tenants

_NOW = func.clock_timestamp()
_ALIVE = queues.c.deleted_at.is_(None)
_THIS = queues.c.id == bindparam("queue_id")
_OF_TENANT = queues.c.tenant_id == bindparam("tenant_id")
_NAMED = queues.c.name == bindparam("name")
_THESE = queues.c.id == func.any(bindparam("ids"))
_TO_HANDLER = queues.c.handler_id == bindparam("handler_id")
_BY_NAME = queues.c.name.collate("C")
_WITH_HANDLER = queues.outerjoin(handlers, handlers.c.id == queues.c.handler_id)
_KEYS, _OF_KEYS = limits.owned("queue_key", queues.c.id)
_RATE, _OF_RATE = limits.owned("queue_rate", queues.c.id)
_DEFINED = (
    "handler_id",
    "max_concurrency",
    "max_depth",
    "timeout_seconds",
    "retry",
    "max_attempts",
    "idempotency_seconds",
    "payload_schema",
    "limits",
    "callbacks",
    "succeeded_days",
    "cancelled_days",
    "dead_days",
    "encrypt",
    "sqs",
    "description",
    "etag",
)
"""The columns of a definition, and of what SQS has beside it."""


def _shown() -> Select[Any]:
    return (
        select(queues, handlers.c.name.label("handler"), *limits.shown(_KEYS), *limits.shown(_RATE))
        .select_from(_WITH_HANDLER.outerjoin(_KEYS, _OF_KEYS).outerjoin(_RATE, _OF_RATE))
        .where(_ALIVE)
    )


def _change() -> Update:
    return update(queues).where(_THIS).values(version=queues.c.version + 1)


def _locked(which: ColumnElement[bool]) -> Query:
    """In the order of ids, like enqueues, so that they cannot deadlock."""
    return Query(select(queues.c.id).where(which, _ALIVE).order_by(queues.c.id).with_for_update(key_share=True))


_POLICY = Query(
    select(
        *queues.c["id", "version", "tenant_id", "name", "handler_id", "timeout_seconds", "retry", "limits"],
        tenants.c.name.label("tenant"),
        func.coalesce(
            queues.c.max_concurrency,
            handlers.c.max_concurrency,
            tenants.c.max_concurrency,
            tenants.c.granted_max_concurrency,
        )
        .is_not(None)
        .label("limited"),
    )
    .select_from(_WITH_HANDLER.join(tenants, tenants.c.id == queues.c.tenant_id))
    .where(_THIS)
)
_FIND = Query(
    select(
        *queues.c["id", "version", "tenant_id", "name", "handler_id", "retry", "idempotency_seconds"],
        *queues.c["max_attempts", "timeout_seconds", "payload_schema", "encrypt", "sqs"],
        handlers.c.name.label("handler"),
        handlers.c.timeout_seconds.label("handler_timeout_seconds"),
        handlers.c.url.label("handler_url"),
        handlers.c.targets.label("handler_targets"),
        queues.c.limits,
        handlers.c.limits.label("handler_limits"),
        *limits.shown(_KEYS),
    )
    .select_from(_WITH_HANDLER.outerjoin(_KEYS, _OF_KEYS))
    .where(_OF_TENANT, _NAMED, _ALIVE)
)
_ID = Query(select(queues.c.id).where(_OF_TENANT, _NAMED, _ALIVE))
_TENANTS = Query(select(queues.c.id, queues.c.tenant_id).where(_THESE, _ALIVE))
_RULES_TO = Query(
    select(*queues.c["name", "limits"], null().label("handler_limits"), *limits.shown(_KEYS))
    .select_from(queues.outerjoin(_KEYS, _OF_KEYS))
    .where(_TO_HANDLER, _ALIVE)
)
_SCHEMAS = Query(
    select(queues.c.payload_schema)
    .where(_TO_HANDLER, _ALIVE, queues.c.payload_schema.is_not(None))
    .order_by(queues.c.name)
    .limit(20)
)
_READ = Query(_shown().where(_THIS))
_ROWS_BY_NAME = _shown().where(_OF_TENANT, bindparam("after") < _BY_NAME).order_by(_BY_NAME).limit(bindparam("most"))
_PAGE = Query(_ROWS_BY_NAME)
_PAGE_WITHIN = Query(_ROWS_BY_NAME.where(queue_names.WITHIN))
_INSERT = Query(
    insert(queues)
    .values(**bound("tenant_id", "name", "owner", *_DEFINED))
    .on_conflict_do_nothing(index_elements=["tenant_id", "name"], index_where=_ALIVE)
    .returning(queues.c.id)
)
_REPLACE = Query(_change().values(updated_at=_NOW, **bound(*_DEFINED)))
_SET_OWNER = Query(update(queues).where(_THIS).values(**bound("owner")))
_PAUSE = Query(update(queues).where(_THIS).values(paused=True, paused_at=_NOW))
_RESUME = Query(update(queues).where(_THIS).values(paused=False, paused_at=null()))
_FLOWS = Query(update(queues).where(_THIS).values(flows=True))
_DELETE = Query(_change().values(deleted_at=_NOW))
_ADD_LANE = Query(insert(lanes).values(**bound("queue_id", "handler_id")).on_conflict_do_nothing())
_REMOVE_LANES = Query(delete(lanes).where(lanes.c.queue_id == bindparam("queue_id")))
_REMOVE_USES = Query(
    delete(callback_uses).where(bindparam("queue_id").in_((callback_uses.c.queue_id, callback_uses.c.by_queue_id)))
)
_LOCK_OF_TENANT = _locked(_OF_TENANT)
_LOCK_OF_HANDLER = _locked(_TO_HANDLER)
_LOCK_OF_LIMIT = Query(
    select(queues.c.id)
    .select_from(_WITH_HANDLER)
    .where(
        _OF_TENANT,
        _ALIVE,
        or_(queues.c.limits.contains(bindparam("use")), handlers.c.limits.contains(bindparam("use"))),
    )
    .order_by(queues.c.id)
    .with_for_update(key_share=True, of=queues)
)
_OUTDATE = Query(update(queues).where(_THESE).values(version=queues.c.version + 1))
_IS_USED = sql("find_queue_use")
_CALLBACKS = msgspec.json.Decoder(Callbacks)


@dataclass(frozen=True, slots=True)
class Policy:
    """What the dispatcher needs to settle a task of this queue."""

    id: int
    version: int
    tenant_id: int
    tenant: str
    name: str
    handler_id: int | None
    timeout_seconds: float | None
    """None: the handler's."""
    retry: RetryPolicy
    limits: tuple[str, ...]
    """Named ones that all its tasks take."""
    limited: bool
    """The queue, its handler or its tenant has a limit, so others may be waiting for a slot that comes free."""


@dataclass(frozen=True, slots=True)
class QueueRow:
    """What an enqueue needs of a queue."""

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
    handler_url: str | None
    handler_targets: Targets | None
    payload_schema: str | None
    """Its JSON text."""
    encrypt: bool
    sqs: QueueAttributes
    fifo: bool
    """It is a FIFO queue to SQS."""
    rules: QueueRules
    """What its tasks must observe because of limits."""
    known: Mapping[str, LimitRule]
    """The limits that `rules` name."""


@dataclass(frozen=True, slots=True)
class StoredQueue:
    id: int
    etag: str
    view: QueueView
    sqs: QueueAttributes | None
    """None: it was made elsewhere, and has been given none."""


async def load_policy(db: Reader, queue_id: int) -> Policy | None:
    """Return a queue's policy, even of a deleted queue, because history still refers to it."""
    row = await _POLICY.fetchrow(db, queue_id=queue_id)
    return Policy(**{**row, "retry": _policy(row["retry"]), "limits": limits.names(row["limits"])}) if row else None


async def find(db: Reader, tenant_id: int, name: str) -> QueueRow | None:
    row = await _FIND.fetchrow(db, tenant_id=tenant_id, name=name)
    if row is None:
        return None
    rules = _rules(row)
    known = await limits.rules(db, tenant_id, {use.name for use in (*rules.uses, *rules.handler_uses)})
    given = {column.name: row[column.name] for column in fields(QueueRow) if column.name in row}
    as_sqs = {"sqs": decode_attributes(row["sqs"]) or ELSEWHERE, "fifo": is_fifo(name, limits.key_in(row))}
    return QueueRow(**given | as_sqs | {"retry": _policy(row["retry"]), "rules": rules, "known": known})


def _rules(row: Any) -> QueueRules:
    key = limits.key_in(row)
    return QueueRules(
        key_required=key is not None and key.required,
        key_limited=key is not None and key.limited,
        uses=limits.decode_uses(row["limits"]),
        handler_uses=limits.decode_uses(row["handler_limits"] or "[]"),
    )


async def tenants_of(db: Reader, queue_ids: Iterable[int]) -> dict[int, int]:
    """Return the tenant of each of these queues that exists."""
    return {row[0]: row[1] for row in await _TENANTS.fetch(db, ids=list(queue_ids))}


async def schemas_to(db: Reader, handler_id: int) -> list[str]:
    """Return the payload schemas of a few queues that deliver to a handler, by the queues' names."""
    return [row[0] for row in await _SCHEMAS.fetch(db, handler_id=handler_id)]


async def rules_to(db: Reader, handler_id: int) -> dict[str, QueueRules]:
    """Return what the tasks of each queue that delivers to a handler must observe, apart from the handler's own limits."""
    return {row["name"]: _rules(row) for row in await _RULES_TO.fetch(db, handler_id=handler_id)}


async def lock_shared(connection: Reader, queue_id: int) -> None:
    """Lock a queue shared: it cannot be changed or deleted until the transaction ends."""
    await locks.share(connection, Lock.QUEUE, queue_id)


async def lock(connection: Reader, queue_id: int) -> None:
    """Lock a queue: until the transaction ends, nothing enters it and nothing is claimed from it."""
    await locks.take(connection, Lock.QUEUE, queue_id)


async def id_of(reader: Reader, tenant_id: int, name: str) -> int | None:
    queue_id: int | None = await _ID.fetchval(reader, tenant_id=tenant_id, name=name)
    return queue_id


async def read(reader: Reader, queue_id: int) -> StoredQueue | None:
    """Return the row; None if it has been deleted in the meantime."""
    row = await _READ.fetchrow(reader, queue_id=queue_id)
    return None if row is None else _stored(row)


async def list_page(
    reader: Reader, tenant_id: int, after: str | None, limit: int, within: Sequence[str] | None = None
) -> list[StoredQueue]:
    """Return rows by name in byte order, like every list of names; with `within`, those whose names match one of the patterns."""
    page = {"tenant_id": tenant_id, "after": after or "", "most": limit}
    if within is None:
        rows = await _PAGE.fetch(reader, **page)
    else:
        rows = await _PAGE_WITHIN.fetch(reader, **page, patterns=like_patterns(within))
    return [_stored(row) for row in rows]


async def insert_new(
    connection: Reader,
    tenant_id: int,
    name: str,
    definition: QueueDefinition,
    handler_id: int | None,
    owner: str | None,
    sqs: QueueAttributes | None,
) -> StoredQueue | None:
    """Insert a queue with its lane; return None if another transaction has created one with this name first."""
    queue_id = await _INSERT.fetchval(
        connection, tenant_id=tenant_id, name=name, owner=owner, **_columns(definition, handler_id, sqs)
    )
    if queue_id is None:
        return None
    await add_lane(connection, queue_id, 0)
    await _set_limits(connection, tenant_id, queue_id, definition)
    return await read(connection, queue_id)


async def _set_limits(connection: Reader, tenant_id: int, queue_id: int, definition: QueueDefinition) -> None:
    await limits.set_rate(connection, tenant_id, "queue_rate", queue_id, definition.rate)
    await limits.set_queue_key(connection, tenant_id, queue_id, definition.key)
    if definition.rate or definition.key or definition.limits:
        await _FLOWS.fetch(connection, queue_id=queue_id)


async def add_lane(connection: Reader, queue_id: int, handler_id: int) -> None:
    """Add a lane of the queue for tasks that name this handler themselves; 0: the queue's own lane."""
    await _ADD_LANE.fetch(connection, queue_id=queue_id, handler_id=handler_id)


async def replace_definition(
    connection: Reader,
    tenant_id: int,
    queue_id: int,
    definition: QueueDefinition,
    handler_id: int | None,
    sqs: QueueAttributes | None,
) -> None:
    await _REPLACE.fetch(connection, queue_id=queue_id, **_columns(definition, handler_id, sqs))
    await _set_limits(connection, tenant_id, queue_id, definition)


async def set_owner(connection: Reader, queue_id: int, owner: str) -> None:
    await _SET_OWNER.fetch(connection, queue_id=queue_id, owner=owner)


async def pause(connection: Reader, queue_id: int) -> None:
    await _PAUSE.fetch(connection, queue_id=queue_id)


async def resume(connection: Reader, queue_id: int) -> None:
    await _RESUME.fetch(connection, queue_id=queue_id)


async def is_used(reader: Reader, queue_id: int, *, tasks: bool = True) -> bool:
    """Return whether an unfinished task is in this queue, or may be: a schedule, batch, callback or open transaction enqueues
    there. Without `tasks`, neither tasks nor callbacks count."""
    if not await locks.free_of_callers(reader, f"queue {queue_id}"):
        return True
    return bool(await reader.fetchval(_IS_USED, queue_id, tasks))


async def mark_deleted(connection: Reader, tenant_id: int, queue_id: int) -> None:
    await _DELETE.fetch(connection, queue_id=queue_id)
    await _REMOVE_LANES.fetch(connection, queue_id=queue_id)
    await limits.remove_owned(connection, ("queue_key", "queue_rate"), queue_id)
    await _REMOVE_USES.fetch(connection, queue_id=queue_id)
    await flows.forget(connection, tenant_id, queue_id)


async def outdate_of_tenant(connection: Reader, tenant_id: int) -> None:
    await _outdate(connection, await _LOCK_OF_TENANT.fetch(connection, tenant_id=tenant_id))


async def outdate_of_handler(connection: Reader, handler_id: int) -> None:
    await _outdate(connection, await _LOCK_OF_HANDLER.fetch(connection, handler_id=handler_id))


async def outdate_of_limit(connection: Reader, tenant_id: int, name: str) -> None:
    use = json.dumps([{"name": name}])
    await _outdate(connection, await _LOCK_OF_LIMIT.fetch(connection, tenant_id=tenant_id, use=use))


async def _outdate(connection: Reader, locked: Iterable[Any]) -> None:
    """Increase versions, so that replicas reload these queues: they cache more than the queue's row (`limited`, the handler's
    timeout)."""
    await _OUTDATE.fetch(connection, ids=[row[0] for row in locked])


def _columns(definition: QueueDefinition, handler_id: int | None, sqs: QueueAttributes | None) -> dict[str, Any]:
    return {
        "handler_id": handler_id,
        "max_concurrency": definition.max_concurrency,
        "max_depth": definition.max_depth,
        "timeout_seconds": definition.timeout_seconds,
        "retry": json.dumps(retry_to_dict(definition.retry)),
        "max_attempts": attempts_allowed(definition, sqs),
        "idempotency_seconds": definition.idempotency_seconds,
        "payload_schema": definition.payload_schema,
        "limits": limits.encode_uses(definition.limits),
        "callbacks": _callbacks(definition.callbacks),
        "succeeded_days": definition.retention.succeeded_days,
        "cancelled_days": definition.retention.cancelled_days,
        "dead_days": definition.retention.dead_days,
        "encrypt": definition.encrypt,
        "sqs": None if sqs is None else encode_attributes(sqs),
        "description": definition.description,
        "etag": queue_etag(definition),
    }


def _callbacks(callbacks: Callbacks) -> str | None:
    """Return those there are, as the statements read them; None for none."""
    given = {state: callback for state, callback in callbacks_to_dict(callbacks).items() if callback is not None}
    return json.dumps(given) if given else None


def _stored(row: Any) -> StoredQueue:
    definition = QueueDefinition(
        handler=row["handler"],
        max_concurrency=row["max_concurrency"],
        max_depth=row["max_depth"],
        timeout_seconds=row["timeout_seconds"],
        retry=_policy(row["retry"]),
        idempotency_seconds=row["idempotency_seconds"],
        payload_schema=row["payload_schema"],
        callbacks=Callbacks() if row["callbacks"] is None else _CALLBACKS.decode(row["callbacks"]),
        retention=Retention(int(row["succeeded_days"]), int(row["cancelled_days"]), int(row["dead_days"])),
        encrypt=row["encrypt"],
        description=row["description"],
        rate=limits.rate_in(row, "queue_rate"),
        key=limits.key_in(row),
        limits=limits.decode_uses(row["limits"]),
    )
    view = QueueView(
        name=row["name"],
        definition=definition,
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        paused=row["paused"],
        paused_at=row["paused_at"],
        owner=row["owner"],
    )
    return StoredQueue(row["id"], row["etag"], view, decode_attributes(row["sqs"]))


def _policy(stored: str) -> RetryPolicy:
    return effective_retry(DEFAULT_RETRY, json.loads(stored))
