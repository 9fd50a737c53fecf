"""The ledger of schedules as rows: every nominal time is in exactly one that is not extra. apply_schedules_v1 writes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from app.store.db import Reader
from app.store.windows import Windows


@dataclass(frozen=True, slots=True)
class Finished:
    """A run whose batch has completed, and whose end is not in the ledger yet. One that a redrive reopened before its end was
    written goes on."""

    schedule_id: int
    run_id: str
    task_id: str
    cause: str
    outcome: str


_FINISHED = """
-- Tenants share the limit, by one index probe each: thousands of runs of one that end at once hold up nobody else's.
with recursive owners(id) as (
  (select b.tenant_id from sluice.batches b where b.run_open and b.completed_at is not null order by b.tenant_id limit 1)
  union all
  select n.tenant_id from owners o cross join lateral (
    select b.tenant_id from sluice.batches b
    where b.run_open and b.completed_at is not null and b.tenant_id > o.id order by b.tenant_id limit 1) n)
select r.schedule_id, r.id as run_id, b.id as task_id, r.cause,
  case when b.dead > 0 then 'ran_failed' when b.cancelled > 0 or b.cancelled_at is not null then 'cancelled'
       else 'ran_ok' end as outcome
from (select p.* from owners o cross join lateral (
        select w.*, row_number() over (order by w.id) as turn from (
          select b.* from sluice.batches b
          where b.run_open and b.completed_at is not null and b.tenant_id = o.id and b.succeeded + b.dead + b.cancelled >= b.total
          order by b.id limit 4 * greatest(1, $1 / (select count(*) from owners))) w) p
      order by p.turn limit $1) b
join sluice.schedule_runs r on r.task_id = b.id
order by r.schedule_id, b.completed_at
"""
_WAITING = """
select w.id as schedule_id, r.id::text, coalesce(r.overlap, '') as overlap
from unnest($1::bigint[]) w(id)
cross join lateral (
  select r.id, r.overlap from sluice.schedule_runs r
  where r.schedule_id = w.id and r.outcome = 'waiting' order by r.nominal_at, r.id limit 1) r
"""


async def running(db: Reader, run_ids: Sequence[str]) -> set[str]:
    """Those of them whose end is not written."""
    sql = "select id::text from sluice.schedule_runs where id = any($1::uuid[]) and outcome = 'running'"
    return {row[0] for row in await db.fetch(sql, run_ids)}


async def finished(db: Reader, limit: int) -> list[Finished]:
    """In the order in which they ended."""
    return [
        Finished(row["schedule_id"], str(row["run_id"]), str(row["task_id"]), row["cause"], row["outcome"])
        for row in await db.fetch(_FINISHED, limit)
    ]


@dataclass(frozen=True, slots=True)
class WaitingStart:
    run_id: str
    overlap: str
    """Its own; empty: the schedule's."""


async def first_waiting(reader: Reader, ids: Sequence[int]) -> dict[int, WaitingStart]:
    """By schedule, the oldest start that waits."""
    return {
        row["schedule_id"]: WaitingStart(row["id"], row["overlap"]) for row in await reader.fetch(_WAITING, list(ids))
    }


@dataclass(frozen=True, slots=True)
class LedgerRow:
    id: str
    nominal_at: datetime
    nominal_until: datetime
    count: int
    cause: str
    extra: bool
    outcome: str
    jitter_seconds: float
    fired_at: datetime | None
    started_at: datetime | None
    completed_at: datetime | None
    task_id: str | None
    replica: str | None


_LEDGER = """
select r.id::text, r.nominal_at, r.nominal_until, r.count, r.cause, r.extra, r.outcome, r.jitter_seconds, r.fired_at,
  case when r.outcome <> 'running' then r.started_at else coalesce(
    (select t.last_started_at from sluice.tasks t where t.id = r.task_id),
    (select t.last_started_at from sluice.task_history t where t.id = r.task_id limit 1)) end as started_at,
  r.completed_at, r.task_id::text, r.replica
from sluice.schedule_runs r
"""


Position = tuple[datetime, str]
"""(nominal_at, id) of a row."""


async def history(
    reader: Reader,
    schedule_id: int,
    *,
    outcome: str | None,
    from_: datetime | None,
    to: datetime | None,
    before: Position | None,
    limit: int,
) -> tuple[list[LedgerRow], Position | None]:
    """Newest first, before a position; rows that have a time in [from, to). And where to go on, None after the last.

    A schedule may have millions of rows, few of them with the outcome: they are looked for in windows, as pages of tasks are
    (task_lists), and so there may be fewer than `limit` although there are more.
    """
    windows = Windows(limit + 1)
    found: list[Position] = []
    position = before
    while True:
        rows = windows.rows if outcome else limit + 1
        fits, position = await _look(reader, schedule_id, outcome, (from_, to), position, rows, limit + 1 - len(found))
        found += fits
        if len(found) > limit or position is None or not windows.looked():
            break
    if len(found) > limit:
        del found[limit:]
        position = found[-1]
    shown = await reader.fetch(
        _LEDGER
        + "where r.id = any($1::uuid[]) and ($2::text is null or r.outcome = $2) order by r.nominal_at desc, r.id desc",
        [row_id for _, row_id in found],
        outcome,
    )
    return [LedgerRow(**dict(row.items())) for row in shown], position


async def _look(
    reader: Reader,
    schedule_id: int,
    outcome: str | None,
    span: tuple[datetime | None, datetime | None],
    before: Position | None,
    rows: int,
    limit: int,
) -> tuple[list[Position], Position | None]:
    """Of so many of the newest rows those with the outcome, and the last that was looked at; None: there are no more."""
    args: list[Any] = [schedule_id]

    def given(value: object, kind: str) -> str:
        args.append(value)
        return f"${len(args)}::{kind}"

    within = ["r.schedule_id = $1"]
    if before is not None:
        within.append(f"(r.nominal_at, r.id) < ({given(before[0], 'timestamptz')}, {given(before[1], 'uuid')})")
    if span[0] is not None:
        from_ = given(span[0], "timestamptz")
        # one row of times without a run can reach into the span: the newest that begins before it
        begins = f"not l.extra and l.nominal_at <= {from_} order by l.nominal_at desc limit 1"
        begins = f"select l.nominal_at from sluice.schedule_runs l where l.schedule_id = $1 and {begins}"  # noqa: S608
        within.append(f"r.nominal_until >= {from_} and r.nominal_at >= coalesce(({begins}), {from_})")
    if span[1] is not None:
        within.append(f"r.nominal_at < {given(span[1], 'timestamptz')}")
    fits = "true" if outcome is None else f"r.outcome = {given(outcome, 'text')}"
    # every part is a text or a number of ours
    sql = f"""
with seen as materialized (
  select r.id, r.nominal_at, {fits} as fits from sluice.schedule_runs r where {" and ".join(within)}
  order by r.nominal_at desc, r.id desc limit {rows}),
fitting as (select s.id, s.nominal_at from seen s where s.fits order by s.nominal_at desc, s.id desc limit {limit})
select (select count(*) from seen) as looked_at, l.nominal_at, l.id::text,
       array(select f.nominal_at from fitting f order by f.nominal_at desc, f.id desc) as instants,
       array(select f.id::text from fitting f order by f.nominal_at desc, f.id desc) as ids
from (values (true)) v left join lateral (select s.nominal_at, s.id from seen s order by s.nominal_at, s.id limit 1) l on true
"""  # noqa: S608
    [row] = await reader.fetch(sql, *args)
    last = (row["nominal_at"], row["id"]) if row["looked_at"] >= rows else None
    return list(zip(row["instants"], row["ids"], strict=True)), last


async def overlapping(reader: Reader, schedule_id: int, from_: datetime, to: datetime, limit: int) -> list[LedgerRow]:
    """The rows of the nominal line that have a time in [from, to), oldest first."""
    rows = await reader.fetch(
        _LEDGER
        + """
        where not r.extra and int8range(r.schedule_id, r.schedule_id, '[]') && int8range($1, $1, '[]')
          and tstzrange(r.nominal_at, r.nominal_until, '[]') && tstzrange($2, $3)
        order by r.nominal_at limit $4
        """,
        schedule_id,
        from_,
        to,
        limit,
    )
    return [LedgerRow(**dict(row.items())) for row in rows]


async def take_out(connection: Reader, row_ids: Sequence[str]) -> None:
    """Rows that are written anew in the same transaction, in pieces."""
    await connection.fetch("delete from sluice.schedule_runs where id = any($1::uuid[]) and task_id is null", row_ids)
