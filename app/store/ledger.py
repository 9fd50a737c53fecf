"""The ledger of schedules as rows: every nominal time is in exactly one that is not extra. apply_schedules_v1 writes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from app.store.db import Reader


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
select r.schedule_id, r.id as run_id, b.id as task_id, r.cause,
  case when b.dead > 0 then 'ran_failed' when b.cancelled > 0 or b.cancelled_at is not null then 'cancelled'
       else 'ran_ok' end as outcome
from (select b.* from sluice.batches b
      where b.run_open and b.completed_at is not null and b.succeeded + b.dead + b.cancelled >= b.total limit $1) b
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


async def history(
    reader: Reader,
    schedule_id: int,
    *,
    outcome: str | None,
    from_: datetime | None,
    to: datetime | None,
    before: tuple[datetime, str] | None,
    limit: int,
) -> list[LedgerRow]:
    """Newest first, before (nominal_at, id); rows that have a time in [from, to)."""
    at, row_id = before or (None, None)
    # one row of times without a run can reach into the window: the newest that begins before it
    rows = await reader.fetch(
        _LEDGER  # noqa: S608  # ours
        + """
        where r.schedule_id = $1 and ($2::text is null or r.outcome = $2)
          and ($3::timestamptz is null or r.nominal_until >= $3
               and r.nominal_at >= coalesce((select l.nominal_at from sluice.schedule_runs l
                 where l.schedule_id = $1 and not l.extra and l.nominal_at <= $3 order by l.nominal_at desc limit 1), $3))
          and ($4::timestamptz is null or r.nominal_at < $4)
          and ($5::timestamptz is null or (r.nominal_at, r.id) < ($5, $6::uuid))
        order by r.nominal_at desc, r.id desc limit $7
        """,
        schedule_id,
        outcome,
        from_,
        to,
        at,
        row_id,
        limit,
    )
    return [LedgerRow(**dict(row.items())) for row in rows]


async def overlapping(reader: Reader, schedule_id: int, from_: datetime, to: datetime) -> list[LedgerRow]:
    """The rows of the nominal line that have a time in [from, to), oldest first."""
    rows = await reader.fetch(
        _LEDGER
        + """
        where not r.extra and int8range(r.schedule_id, r.schedule_id, '[]') && int8range($1, $1, '[]')
          and tstzrange(r.nominal_at, r.nominal_until, '[]') && tstzrange($2, $3)
        order by r.nominal_at
        """,
        schedule_id,
        from_,
        to,
    )
    return [LedgerRow(**dict(row.items())) for row in rows]


async def take_out(connection: Reader, row_ids: Sequence[str]) -> None:
    """Rows that are written anew in the same transaction, in pieces."""
    await connection.fetch("delete from sluice.schedule_runs where id = any($1::uuid[]) and task_id is null", row_ids)
