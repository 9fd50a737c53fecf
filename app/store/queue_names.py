"""Which queues there are under a name or under patterns of names, and what they name."""

from collections.abc import Sequence

from sqlalchemy import Text, any_, bindparam, func, or_, select
from sqlalchemy.dialects.postgresql import ARRAY

from app.domain.confinement import like_patterns
from app.store import limits
from app.store.db import Reader
from app.store.handlers import REMEMBERED_DAYS
from app.store.statements import Query
from app.store.tables import handlers, queues

WITHIN = queues.c.name.like(any_(bindparam("patterns", type_=ARRAY(Text))))
_OF_TENANT = queues.c.tenant_id == bindparam("tenant_id")
_ALIVE = queues.c.deleted_at.is_(None)
_LATELY = queues.c.deleted_at > func.clock_timestamp() - func.make_interval(0, 0, 0, bindparam("days"))
_REMEMBERED = select(queues.c.id).where(_OF_TENANT, or_(_ALIVE, _LATELY)).limit(bindparam("most"))
_ALL = Query(_REMEMBERED)
_BY_NAME = Query(_REMEMBERED.where(queues.c.name == bindparam("name")))
_BY_PATTERN = Query(_REMEMBERED.where(WITHIN))
_NAMED_WITHIN = Query(
    select(handlers.c.name, queues.c.limits, handlers.c.limits.label("handler_limits"))
    .distinct()
    .select_from(queues.outerjoin(handlers, handlers.c.id == queues.c.handler_id))
    .where(_OF_TENANT, WITHIN, _ALIVE)
)


async def remembered(db: Reader, tenant_id: int, name: str | None, limit: int) -> list[int]:
    """Return up to `limit` queues of the tenant whose tasks may still exist, deleted ones included: those that have or had a
    name, or all."""
    if name is None:
        rows = await _ALL.fetch(db, tenant_id=tenant_id, days=REMEMBERED_DAYS, most=limit)
    else:
        rows = await _BY_NAME.fetch(db, tenant_id=tenant_id, days=REMEMBERED_DAYS, name=name, most=None)
    return [row[0] for row in rows]


async def remembered_within(db: Reader, tenant_id: int, patterns: Sequence[str]) -> list[int]:
    """Return the queues whose names match a pattern, and whose tasks may still exist."""
    given = {"patterns": like_patterns(patterns), "days": REMEMBERED_DAYS, "most": None}
    return [row[0] for row in await _BY_PATTERN.fetch(db, tenant_id=tenant_id, **given)]


async def named_within(db: Reader, tenant_id: int, patterns: Sequence[str]) -> tuple[set[str], set[str]]:
    """Return the handlers and the limits that queues name whose names match a pattern, and the limits of these handlers."""
    rows = await _NAMED_WITHIN.fetch(db, tenant_id=tenant_id, patterns=like_patterns(patterns))
    documents = {row[column] for row in rows for column in ("limits", "handler_limits") if row[column]}
    uses = {use.name for document in documents for use in limits.decode_uses(document)}
    return {row["name"] for row in rows if row["name"] is not None}, uses
