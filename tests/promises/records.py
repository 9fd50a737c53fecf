"""What is on record of attempts, and what can be told from it afterwards, exactly.

An attempt's start is read from the database's clock by the claim that was admitted, after it had counted; its end by the
statement that freed the slot, before its commit. So whoever overlaps on record held a slot at the same time.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from app.store.db import Database, Reader

_ATTEMPTS = """
with every as (
  select id as task_id, claims as number, last_token as token, last_counted as counted, last_started_at as started_at,
         last_ended_at as ended_at, last_outcome as outcome, last_status as status, last_excerpt as excerpt
  from sluice.tasks where claims > 0
  union all
  select task_id, number, token, counted, started_at, ended_at, outcome, status, excerpt from sluice.attempts
  union all
  select id, claims, last_token, last_counted, last_started_at, last_ended_at, last_outcome, last_status, last_excerpt
  from sluice.task_history where claims > 0
  union all
  select task_id, number, token, counted, started_at, ended_at, outcome, status, excerpt from sluice.attempt_history)
select e.*, q.name as queue from every e
join (select id, queue_id from sluice.tasks union all select id, queue_id from sluice.task_history) t on t.id = e.task_id
join sluice.queues q on q.id = t.queue_id
order by e.task_id, e.number
"""

# xmin tells a row written again, even with the values it had; a lock changes only xmax
_WRITTEN = """
select t::text || xmin::text from sluice.tasks t union all select a::text || xmin::text from sluice.attempts a
union all select h::text || xmin::text from sluice.task_history h
union all select b::text || xmin::text from sluice.attempt_history b order by 1
"""


@dataclass(frozen=True, slots=True)
class Attempt:
    task_id: str
    number: int
    token: str
    counted: bool
    started_at: datetime
    ended_at: datetime | None
    outcome: str | None
    status: int | None
    excerpt: str | None
    queue: str


async def attempts(db: Reader, *task_ids: str) -> list[Attempt]:
    """Of these tasks, or of all; live or ended, by task and number."""
    found = [
        Attempt(str(row[0]), row[1], str(row[2]), row[3], row[4], row[5], row[6], row[7], row[8], row[9])
        for row in await db.fetch(_ATTEMPTS)
    ]
    return [attempt for attempt in found if not task_ids or attempt.task_id in task_ids]


async def outcomes(db: Database, task_id: str) -> list[str | None]:
    return [attempt.outcome for attempt in await attempts(db, task_id)]


async def written(db: Database) -> list[str]:
    """Every row of tasks and attempts and which transaction wrote it."""
    return [row[0] for row in await db.fetch(_WRITTEN)]


async def now(db: Database) -> datetime:
    at: datetime = await db.fetchval("select clock_timestamp()")
    return at


async def started(db: Database, since: datetime) -> int:
    """How many attempts of tasks that have not ended began after that."""
    return int(
        await db.fetchval(
            "select (select count(*) from sluice.tasks where last_started_at > $1)"
            " + (select count(*) from sluice.attempts where started_at > $1)",
            since,
        )
    )


async def running(db: Database) -> int:
    return int(await db.fetchval("select count(*) from sluice.tasks where state = 1"))


async def lose_leases(db: Reader, task_ids: Sequence[str] | None = None) -> None:
    """As if the time of these leases (of all) had passed; none before its attempt has begun, for an attempt ends with its lease."""
    await db.fetch(
        "update sluice.tasks t"
        " set lease_expires_at = greatest(t.last_started_at, clock_timestamp() - interval '1 millisecond')"
        # replicas at work lock tasks in this order, too
        " from (select id from sluice.tasks where state = 1 and ($1::uuid[] is null or id = any($1))"
        " order by id for update) l where t.id = l.id and t.state = 1",
        task_ids,
    )


def at_each_start(
    found: Iterable[Attempt], started: Callable[[Attempt], bool] = lambda attempt: True
) -> list[tuple[Attempt, int]]:
    """For each of these attempts, how many were running when it had been admitted, itself among them."""
    found = list(found)
    starts = sorted(attempt.started_at for attempt in found)
    ends = sorted(attempt.ended_at for attempt in found if attempt.ended_at is not None)
    return [
        (one, bisect_right(starts, one.started_at) - bisect_right(ends, one.started_at))
        for one in found
        if started(one)
    ]


def most_at_once(found: Iterable[Attempt]) -> int:
    return max((count for _, count in at_each_start(found)), default=0)


def most_above(starts: list[tuple[datetime, int]], burst: float, per_second: float) -> float:
    """By how many units the most any window admits exceeds its bound; at most 0 where it is kept."""
    starts = sorted(starts)
    worst = -burst
    for first in range(len(starts)):
        units = 0
        for at, cost in starts[first:]:
            units += cost
            worst = max(worst, units - burst - per_second * (at - starts[first][0]).total_seconds())
    return worst
