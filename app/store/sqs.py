"""What the SQS wire asks of queues beside their definitions."""

import json
from collections.abc import Sequence

from sqlalchemy import bindparam, func, select, update

from app.domain.confinement import like_patterns
from app.domain.sqs import QueueAttributes, attempts_allowed, encode_attributes
from app.store import queue_names
from app.store.db import Reader
from app.store.queues import StoredQueue
from app.store.statements import Query, bound, sql
from app.store.tables import queues

_BY_NAME = queues.c.name.collate("C")
_ALL_NAMES = (
    select(queues.c.name)
    .where(queues.c.tenant_id == bindparam("tenant_id"), queues.c.deleted_at.is_(None), bindparam("after") < _BY_NAME)
    .order_by(_BY_NAME)
    .limit(bindparam("most"))
)
_SET = Query(
    update(queues)
    .where(queues.c.id == bindparam("queue_id"))
    .values(version=queues.c.version + 1, updated_at=func.clock_timestamp(), **bound("sqs", "max_attempts"))
)
_PREFIXED = _ALL_NAMES.where(func.starts_with(queues.c.name, bindparam("prefix")))
_NAMES = Query(_PREFIXED)
_NAMES_WITHIN = Query(_PREFIXED.where(queue_names.WITHIN))
_DEAD_TO = _ALL_NAMES.where(queues.c.callbacks.contains(bindparam("dead")))
_SOURCES = Query(_DEAD_TO)
_SOURCES_WITHIN = Query(_DEAD_TO.where(queue_names.WITHIN))
_COUNT = sql("count_messages")


async def set_attributes(connection: Reader, row: StoredQueue, attributes: QueueAttributes) -> None:
    """Change what the queue has as an SQS queue, beside its definition."""
    most = attempts_allowed(row.view.definition, attributes)
    await _SET.fetch(connection, queue_id=row.id, sqs=encode_attributes(attributes), max_attempts=most)


async def list_names(
    reader: Reader, tenant_id: int, prefix: str, after: str | None, limit: int, within: Sequence[str] | None
) -> list[str]:
    """Return names that begin with `prefix`, in byte order."""
    page = {"tenant_id": tenant_id, "prefix": prefix, "after": after or "", "most": limit}
    if within is None:
        return [row[0] for row in await _NAMES.fetch(reader, **page)]
    return [row[0] for row in await _NAMES_WITHIN.fetch(reader, **page, patterns=like_patterns(within))]


async def list_sources(
    reader: Reader, tenant_id: int, name: str, after: str | None, limit: int, within: Sequence[str] | None
) -> list[str]:
    """Return the names of the queues that have this one as their dead-letter queue, in byte order."""
    dead = json.dumps({"dead": {"queue": name, "body": "payload"}})
    page = {"tenant_id": tenant_id, "dead": dead, "after": after or "", "most": limit}
    if within is None:
        return [row[0] for row in await _SOURCES.fetch(reader, **page)]
    return [row[0] for row in await _SOURCES_WITHIN.fetch(reader, **page, patterns=like_patterns(within))]


async def count_messages(reader: Reader, queue_id: int) -> dict[str, int]:
    """Return how many unfinished tasks of a queue are ready, scheduled and running, each as it is shown."""
    (row,) = await reader.fetch(_COUNT, queue_id)
    return dict(row)
