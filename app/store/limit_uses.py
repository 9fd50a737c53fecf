"""What is taken of limits: of named ones, of their keys, and of the keys of queues, each at one instant."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any

from msgspec import structs
from sqlalchemy import bindparam, func, select

from app.domain.limits import MAX_HOLDERS, Holder, KeyState, KeyView, QueueKey, Rate, Use
from app.store.db import Reader
from app.store.limits import StoredLimit, rate_of
from app.store.statements import Query, part, sql
from app.store.tables import limit_keys, limits

_KEYS = Query(
    select(limit_keys).where(
        limit_keys.c.limit_id == bindparam("limit_id"), limit_keys.c.key == func.any(bindparam("keys"))
    )
)
_RATE_OF = Query(select(limits).where(limits.c.id == bindparam("limit_id")))
_QUEUE_KEY = sql("show_queue_key")
_OVERVIEW = sql("show_limits")
_USE = sql(
    "show_limit_use",
    taken_by_task=part("limits_taken", own="t.options -> 'limits'", key="t.options ->> 'key'", which="l.id = any($2)"),
    taken_by_flow=part("limits_taken", own="f.own_limits", key="f.key", which="l.id = any($2)"),
)


@dataclass(frozen=True, slots=True)
class LimitOverview:
    """A named limit of any tenant: the columns of show_limits."""

    tenant: str
    name: str
    max_concurrency: int | None
    keyed: bool
    used: int
    """Running tasks, over all keys."""
    waiting_keys: int


async def overview(db: Reader, limit: int) -> list[LimitOverview]:
    """Return the named limits of all tenants, up to so many."""
    return [LimitOverview(**row) for row in await db.fetch(_OVERVIEW, limit)]


async def use_of(reader: Reader, tenant_id: int, rows: Sequence[StoredLimit]) -> list[Use]:
    """Return what is taken of each of these limits now, over all keys."""
    found = await reader.fetch(_USE, tenant_id, [row.id for row in rows], False, MAX_HOLDERS, None, None, None, None)
    by_id = {limit_id: list(entries) for limit_id, entries in groupby(found, itemgetter("limit_id"))}
    return [_use(by_id[row.id], keys=row.view.definition.keyed) for row in rows]


async def list_keys(
    reader: Reader, tenant_id: int, row: StoredLimit, state: KeyState | None, after: str | None, limit: int
) -> list[tuple[KeyView, Use]]:
    """Return keys of a limit that are held, waited for or overridden, in byte order, with what is taken of each now."""
    return await _keys(reader, tenant_id, row, None, after, limit, state)


async def show_key(reader: Reader, tenant_id: int, row: StoredLimit, key: str) -> tuple[KeyView, Use]:
    """Return one key of a limit, whatever it is, with what is taken of it now."""
    [found] = await _keys(reader, tenant_id, row, key, None, 1, None)
    return found


async def _keys(reader: Reader, tenant_id: int, row: StoredLimit, *which: Any) -> list[tuple[KeyView, Use]]:
    definition = row.view.definition
    found = await reader.fetch(_USE, tenant_id, [row.id], True, MAX_HOLDERS, *which)
    overrides = await _overrides(reader, row.id, {entry["bucket_key"] for entry in found})
    keys = []
    for name, entries in groupby(found, itemgetter("bucket_key")):
        view = _key_view(name, overrides.get(name), definition.max_concurrency, definition.rate)
        keys.append((view, _use(list(entries))))
    return keys


async def show_queue_key(
    reader: Reader, tenant_id: int, queue_id: int, key: str, shared: QueueKey | None
) -> tuple[KeyView, Use, int]:
    """Return a key of a queue, what it holds now, and how many of its tasks wait. `shared`: what holds for all its keys."""
    found = await reader.fetch(_QUEUE_KEY, tenant_id, queue_id, key, MAX_HOLDERS)
    values = shared or QueueKey()
    limit_id = found[0]["limit_id"]
    override = None if limit_id is None else (await _overrides(reader, limit_id, [key])).get(key)
    most = 1 if values.ordered else values.max_concurrency
    view = _key_view(key, override, most, values.rate)
    return view, _use(found), found[0]["waiting"]


async def override_of(reader: Reader, limit_id: int, key: str, *, weighs: bool) -> dict[str, Any]:
    """Return what is set for a key of a limit, as JSON values, with the rate in force. `weighs`: it is a key of a queue."""
    found = (await _overrides(reader, limit_id, [key])).get(key)
    (shared,) = await _RATE_OF.fetch(reader, limit_id=limit_id)
    rate = (None if found is None else rate_of(found)) or rate_of(shared)
    values = {
        "max_concurrency": None if found is None else found["max_concurrency"],
        "rate": None if rate is None else structs.asdict(rate),
    }
    return values | ({"weight": 1 if found is None else int(found["weight"])} if weighs else {})


async def _overrides(reader: Reader, limit_id: int, keys: Collection[str]) -> dict[str, Any]:
    """Return what is set for these keys of a limit, by key."""
    return {one["key"]: one for one in await _KEYS.fetch(reader, limit_id=limit_id, keys=list(keys))}


def _key_view(key: str, override: Any | None, max_concurrency: int | None, rate: Rate | None) -> KeyView:
    """Return a key with the values in force for it: its own where it has some, else the limit's."""
    if override is None:
        return KeyView(key, max_concurrency, rate, overridden=False, paused_at=None, weight=1)
    own_rate = rate_of(override)
    return KeyView(
        key,
        override["max_concurrency"] or max_concurrency,
        own_rate or rate,
        overridden=override["max_concurrency"] is not None or own_rate is not None or override["weight"] != 1,
        paused_at=override["paused_at"],
        weight=int(override["weight"]),
    )


def _use(entries: Sequence[Any], *, keys: bool = False) -> Use:
    """Return what is taken of one bucket, or, with `keys`, of all keys of a limit together, which have no tokens in common."""
    first = entries[0]
    tokens = None if keys else first["tokens"]
    next_at = None
    if tokens is not None and tokens < 1 and not first["paused"]:
        paid_at = first["now"] + timedelta(seconds=(1 - tokens) * first["unit_seconds"])
        next_at = paid_at if first["open_at"] is None else max(first["now"], first["open_at"])
    return Use(
        holding=first["holding"],
        waiting_keys=first["waiting_keys"],
        holders=tuple(
            Holder(str(one["id"]), one["queue"], one["key"], one["started_at"])
            for one in entries
            if one["id"] is not None
        ),
        effective_max_concurrency=first["effective_max_concurrency"],
        tokens=tokens,
        next_at=next_at,
    )
