"""Schedules and their ledger as rows: what a decision goes by is read here, and what was decided is written."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from app.domain.schedules.firing import Runs
from app.store.db import Reader
from app.store.numbers import Lock
from app.store.views import PAGE_BYTES


@dataclass(frozen=True, slots=True)
class ScheduleState:
    """What a schedule is judged by. `version` and `seq` say whether it still is so."""

    id: int
    tenant_id: int
    tenant: str
    name: str
    version: int
    seq: int
    paused: bool
    deleted: bool
    next_nominal_at: datetime | None
    runs_made: int
    failures: int
    queue_id: int
    handler_id: int
    now: datetime
    """The database's, when this was read."""
    runs: Runs
    newest_id: str | None
    """The ledger's newest row, if it is of times without a run under this definition."""
    newest_outcome: str | None
    newest_until: datetime | None
    """The last nominal time in the ledger: ahead of `now` where the database's clock went back, as a failover may do."""

    @property
    def settled_until(self) -> datetime:
        """Nominal times up to here are past, or in the ledger."""
        return self.now if self.newest_until is None else max(self.now, self.newest_until)

    @classmethod
    def new(cls, tenant_id: int, tenant: str, name: str, now: datetime) -> "ScheduleState":
        """One that has no row yet."""
        return cls(0, tenant_id, tenant, name, 1, 0, False, False, None, 0, 0, 0, 0, now, Runs(), None, None, None)


_STATES = """
select s.id, s.tenant_id, n.name as tenant, s.name, s.version, s.seq, s.paused, s.deleted_at is not null as deleted,
  s.next_nominal_at, s.runs as runs_made, s.failures, s.queue_id, s.handler_id, clock_timestamp() as now,
  o.running, o.catching_up, o.waiting,
  case when l.task_id is null and l.outcome <> 'waiting' and l.nominal_at > s.updated_at then l.id::text end as newest_id,
  l.outcome as newest_outcome, l.nominal_until as newest_until
from sluice.schedules s join sluice.tenants n on n.id = s.tenant_id
cross join lateral (
  select count(*) filter (where r.outcome = 'running') as running,
         count(*) filter (where r.outcome = 'running' and r.cause = 'catch_up') as catching_up,
         count(*) filter (where r.outcome = 'waiting') as waiting
  from sluice.schedule_runs r where r.schedule_id = s.id and r.outcome in ('running', 'waiting')) o
left join lateral (
  select r.id, r.outcome, r.task_id, r.nominal_at, r.nominal_until from sluice.schedule_runs r
  where r.schedule_id = s.id and not r.extra order by r.nominal_at desc, r.id desc limit 1) l on true
where s.id = any($1::bigint[])
"""

# The first of each tenant, by one index probe each: tenants share a look, so that ten thousand due schedules of one hold up nobody
# else's. Of each, a window wider than its part of the page, drawn from at random: replicas that look at once seldom take the same.
# By the statement's instant: with one that moves, each look would go through all schedules, due or not.
_FIRSTS = """
with recursive firsts(tenant_id, look_at) as (
  (select s.tenant_id, s.look_at from sluice.schedules s where s.look_at is not null order by s.tenant_id, s.look_at limit 1)
  union all
  select n.tenant_id, n.look_at from firsts f cross join lateral (
    select s.tenant_id, s.look_at from sluice.schedules s where s.look_at is not null and s.tenant_id > f.tenant_id
    order by s.tenant_id, s.look_at limit 1) n)
"""
_DUE = f"""
{_FIRSTS},
part as (select greatest(1, $1 / greatest(1, count(*))) as size from firsts where look_at <= statement_timestamp())
select p.id from firsts f cross join lateral (
  select w.id, row_number() over (order by random()) as turn from (
    select s.id from sluice.schedules s
    where s.look_at is not null and s.tenant_id = f.tenant_id and s.look_at <= statement_timestamp()
    order by s.look_at limit 4 * (select size from part)) w) p
where f.look_at <= statement_timestamp()
order by p.turn, random() limit $1
"""  # noqa: S608  # every part is ours
_NEXT_LOOK = _FIRSTS + "select extract(epoch from min(f.look_at) - clock_timestamp())::float8 from firsts f"  # noqa: S608


async def due(db: Reader, limit: int) -> list[int]:
    """Schedules that a replica has something to do for: one of each tenant, then another of each."""
    return [row[0] for row in await db.fetch(_DUE, limit)]


async def next_look_seconds(db: Reader) -> float | None:
    seconds: float | None = await db.fetchval(_NEXT_LOOK)
    return seconds


async def states(reader: Reader, ids: Sequence[int]) -> list[ScheduleState]:
    return [_state(row) for row in await reader.fetch(_STATES, list(ids))]


def _state(row: Any) -> ScheduleState:
    given = dict(row.items())
    runs = Runs(given.pop("running"), given.pop("catching_up"), given.pop("waiting"))
    return ScheduleState(runs=runs, **given)


async def definitions(reader: Reader, ids: Sequence[int]) -> list[tuple[int, int, str]]:
    """(id, version, definition without its payload)."""
    rows = await reader.fetch("select id, version, definition from sluice.schedules where id = any($1::bigint[])", ids)
    return [(row[0], row[1], row[2]) for row in rows]


async def apply(reader: Reader, changes: Sequence[dict[str, Any]], replica: str, *, wait: bool) -> set[int]:
    """Write what was decided; the schedules for which it still held."""
    told = msgspec.json.encode(changes).decode()
    return {row[0] for row in await reader.fetch("select sluice.apply_schedules_v1($1, $2, $3)", told, replica, wait)}


@dataclass(frozen=True, slots=True)
class ScheduleRow:
    """A schedule as it is shown. `definition` is JSON without the payload."""

    id: int
    name: str
    definition: str
    payload: bytes
    etag: str
    owner: str | None
    paused: bool
    paused_at: datetime | None
    paused_reason: str | None
    next_nominal_at: datetime | None
    runs: int
    """Starts that have counted against max_runs."""
    created_at: datetime
    updated_at: datetime


_ROW = """
select id, name, definition, payload, etag, owner, paused, paused_at, paused_reason, next_nominal_at, runs, created_at, updated_at
from sluice.schedules
"""


async def find(reader: Reader, tenant_id: int, name: str) -> ScheduleRow | None:
    rows = await reader.fetch(_ROW + "where tenant_id = $1 and name = $2 and deleted_at is null", tenant_id, name)
    return ScheduleRow(**dict(rows[0].items())) if rows else None


_PAGE = f"""
select s.* from (
  select f.*, count(*) over () as found, sum(octet_length(f.payload)) over before_it as bytes_before
  from ({_ROW} where tenant_id = $1 and deleted_at is null and name > $2 order by name collate "C" limit $3) f
  window before_it as (order by f.name collate "C" rows between unbounded preceding and 1 preceding)) s
where coalesce(s.bytes_before, 0) < {PAGE_BYTES} order by s.name collate "C"
"""  # noqa: S608  # ours


async def list_page(db: Reader, tenant_id: int, after: str | None, limit: int) -> tuple[list[ScheduleRow], bool]:
    """By name, after the name `after`, until they have PAGE_BYTES; and whether there are more."""
    rows = [dict(row.items()) for row in await db.fetch(_PAGE, tenant_id, after or "", limit + 1)]
    found = rows[0]["found"] if rows else 0
    for row in rows:
        del row["found"], row["bytes_before"]
    shown = [ScheduleRow(**row) for row in rows[:limit]]
    return shown, found > len(shown)


async def is_full(connection: Reader, tenant_id: int, most: int) -> bool:
    """As tenants.is_full, for schedules."""
    await connection.fetch("select pg_advisory_xact_lock($1, $2)", Lock.DEFINITIONS, tenant_id)
    counted = await connection.fetchval(
        "select count(*) from (select from sluice.schedules where tenant_id = $1 and deleted_at is null limit $2) d",
        tenant_id,
        most,
    )
    return int(counted) >= most


async def lock(connection: Reader, tenant_id: int, name: str) -> int | None:
    """Held until the transaction ends; whatever is judged by is read in later statements."""
    rows = await connection.fetch(
        "select id from sluice.schedules where tenant_id = $1 and name = $2 and deleted_at is null for no key update",
        tenant_id,
        name,
    )
    return rows[0][0] if rows else None


async def lock_state(connection: Reader, state: ScheduleState) -> bool:
    """Whether the schedule is as it was read; it stays so until the transaction ends."""
    return bool(
        await connection.fetch(
            "select 1 from sluice.schedules where id = $1 and version = $2 and seq = $3 for no key update",
            state.id,
            state.version,
            state.seq,
        )
    )


async def now(reader: Reader) -> datetime:
    rows = await reader.fetch("select clock_timestamp()")
    found: datetime = rows[0][0]
    return found


async def hold_named(connection: Reader, queues: Sequence[tuple[int, int]], handler_id: int) -> bool:
    """Whether queues, as (id, version), and handler (0: none) are what the caller has judged by; they stay so until the end."""
    if handler_id:
        await connection.fetch("select pg_advisory_xact_lock_shared($1, $2)", Lock.HANDLER, handler_id)
    for queue_id, _ in sorted(queues):
        await connection.fetch("select pg_advisory_xact_lock_shared($1, $2)", Lock.QUEUE, queue_id)
    held = await connection.fetch(
        """
        select not exists (
            select from unnest($1::bigint[], $2::bigint[]) w(id, version)
            where not exists (select from sluice.queues q where q.id = w.id and q.version = w.version and q.deleted_at is null))
          and ($3 = 0 or exists (select from sluice.handlers h where h.id = $3 and h.deleted_at is null))
        """,
        [queue_id for queue_id, _ in queues],
        [version for _, version in queues],
        handler_id,
    )
    return bool(held[0][0])


@dataclass(frozen=True, slots=True)
class Columns:
    """What a definition is written as."""

    queue_id: int
    handler_id: int
    definition: str
    payload: bytes
    priority: int
    type: str | None
    headers: str | None
    tags: list[str] | None
    retry: str | None
    max_attempts: int | None
    timeout_seconds: float | None
    then_queue_id: int | None
    then_payload: bytes | None
    etag: str

    def values(self) -> list[Any]:
        return [getattr(self, name) for name in _COLUMNS]


_COLUMNS = tuple(Columns.__dataclass_fields__)


async def insert(
    connection: Reader,
    tenant_id: int,
    name: str,
    columns: Columns,
    at: datetime,
    next_nominal_at: datetime | None,
    look_at: datetime | None,
) -> bool:
    """Whether it is new: one of this name was not there."""
    places = ", ".join(f"${n}" for n in range(6, 6 + len(_COLUMNS)))
    rows = await connection.fetch(
        # the names are ours
        "insert into sluice.schedules"  # noqa: S608
        f" (tenant_id, name, created_at, updated_at, next_nominal_at, look_at, {', '.join(_COLUMNS)})"
        f" values ($1, $2, $3, $3, $4, $5, {places})"
        " on conflict (tenant_id, name) where deleted_at is null do nothing returning id",
        tenant_id,
        name,
        at,
        next_nominal_at,
        look_at,
        *columns.values(),
    )
    await _lane(connection, columns)
    return bool(rows)


async def replace(connection: Reader, schedule_id: int, columns: Columns, at: datetime) -> None:
    sets = ", ".join(f"{name} = ${n}" for n, name in enumerate(_COLUMNS, 3))
    await connection.fetch(
        f"update sluice.schedules set {sets}, updated_at = $2, version = version + 1 where id = $1",  # noqa: S608  # ours
        schedule_id,
        at,
        *columns.values(),
    )
    await _lane(connection, columns)


async def set_owner(connection: Reader, tenant_id: int, name: str, owner: str) -> None:
    await connection.fetch(
        "update sluice.schedules set owner = $3 where tenant_id = $1 and name = $2 and deleted_at is null",
        tenant_id,
        name,
        owner,
    )


async def _lane(connection: Reader, columns: Columns) -> None:
    if columns.handler_id:
        await connection.fetch(
            "insert into sluice.lanes (queue_id, handler_id) values ($1, $2) on conflict do nothing",
            columns.queue_id,
            columns.handler_id,
        )


async def set_paused(connection: Reader, schedule_id: int, reason: str | None, *, paused: bool) -> None:
    await connection.fetch(
        """
        update sluice.schedules set paused = $2, paused_at = case when $2 then clock_timestamp() end, paused_reason = $3,
          failures = 0, version = version + 1 where id = $1
        """,
        schedule_id,
        paused,
        reason,
    )


async def mark_deleted(connection: Reader, schedule_id: int) -> None:
    await connection.fetch(
        """
        update sluice.schedules set deleted_at = clock_timestamp(), next_nominal_at = null, look_at = null,
          version = version + 1 where id = $1
        """,
        schedule_id,
    )


@dataclass(frozen=True, slots=True)
class ScheduleHealth:
    tenant: str
    name: str
    paused: bool
    overdue_seconds: float
    missed: int
    next_nominal_at: datetime | None


_HEALTH = """
select n.name as tenant, s.name, s.paused, s.missed, s.next_nominal_at,
  case when s.paused then 0 else greatest(0, coalesce(extract(epoch from clock_timestamp() - s.look_at), 0)) end::float8
    as overdue_seconds
from {source} s join sluice.tenants n on n.id = s.tenant_id
"""
_ALL = _HEALTH.format(source="sluice.schedules") + "where s.deleted_at is null order by s.tenant_id, s.name limit $1"
_ATTENTION = _HEALTH.format(
    source="""(
  (select d.* from sluice.tenants n cross join lateral (
     select s.* from sluice.schedules s
     where s.tenant_id = n.id and s.look_at < statement_timestamp() - interval '1 second' and not s.paused
     order by s.look_at limit $1) d
   order by d.look_at limit $1)
  union all
  (select m.* from sluice.schedules m where m.missed > 0 and m.deleted_at is null
     and (m.look_at is null or m.look_at >= statement_timestamp() - interval '1 second' or m.paused) order by m.id limit $1))"""
)


async def health(db: Reader, limit: int) -> list[ScheduleHealth]:
    """All schedules; where there are more than `limit`, those that are overdue or have missed times, found by their indexes."""
    rows = await db.fetch(_ALL, limit + 1)
    if len(rows) > limit:
        rows = await db.fetch(_ATTENTION, limit)
    return [ScheduleHealth(**dict(row.items())) for row in rows]
