"""Counts of tasks by state, and the minute histograms that rates and percentiles come from.

Live states are counted over partial indexes, one for each state; a scheduled task counts as ready from its run_at on, as it
reads. Ended ones are counted in history as long as they can be read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from app.domain.histograms import trimmed
from app.store.db import Reader

KEPT_HOURS = 24


@dataclass(slots=True)
class Minute:
    """What happened to one queue in one minute; `wait` and `run` are histograms of seconds."""

    queue_id: int
    enqueued: int
    started: int
    succeeded: int
    dead: int
    cancelled: int
    wait: list[int]
    run: list[int]


@dataclass(frozen=True, slots=True)
class Counts:
    now: datetime
    scheduled: int
    ready: int
    running: int
    succeeded: int
    dead: int
    cancelled: int
    oldest_ready_age_seconds: float | None


@dataclass(frozen=True, slots=True)
class QueueOverview:
    """A queue of any tenant at a glance."""

    tenant: str
    queue: str
    paused: bool
    handler: str | None
    handler_enabled: bool | None
    disabled_reason: str | None
    scheduled: int
    ready: int
    running: int
    dead: int
    oldest_ready_age_seconds: float | None
    dead_lately: int
    """Tasks that died in the last quarter of an hour."""
    tenant_limit: int | None
    """The lesser of its own and what an operator grants."""
    tenant_grant: int | None
    worker_silent_seconds: float
    """Since a worker last asked for its tasks, or since it was defined."""


@dataclass(frozen=True, slots=True)
class DatabaseHealth:
    server_version: str
    schema_version: int
    size_bytes: int
    connections: int
    max_connections: int
    oldest_xmin_age_transactions: int | None
    oldest_xmin_age_seconds: float | None
    """How long the oldest open transaction that holds a snapshot has been open."""


# Sorted by key: two replicas that flush the same queues wait for each other and never deadlock.
_ADD = """
insert into sluice.queue_minutes as m (queue_id, minute, enqueued, started, succeeded, dead, cancelled, wait, run)
select i.queue_id, date_trunc('minute', statement_timestamp()), i.enqueued, i.started, i.succeeded, i.dead, i.cancelled,
       i.wait::bigint[], i.run::bigint[]
from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::text[], $8::text[])
  i(queue_id, enqueued, started, succeeded, dead, cancelled, wait, run)
order by i.queue_id
on conflict (queue_id, minute) do update set
  enqueued = m.enqueued + excluded.enqueued, started = m.started + excluded.started,
  succeeded = m.succeeded + excluded.succeeded, dead = m.dead + excluded.dead, cancelled = m.cancelled + excluded.cancelled,
  wait = array(select coalesce(a.n, 0) + coalesce(a.more, 0) from unnest(m.wait, excluded.wait) with ordinality a(n, more, place)
               order by a.place),
  run = array(select coalesce(a.n, 0) + coalesce(a.more, 0) from unnest(m.run, excluded.run) with ordinality a(n, more, place)
              order by a.place)
"""

# The limit on due tasks keeps their plan on the index by tenant and run_at whatever the statistics say; promotion leaves few of
# them. A task whose lease has run out counts as ready, reaped or not.
_COUNTS = """
select statement_timestamp() as now, scheduled.n - due.n as scheduled, ready.n + due.n + running.lapsed as ready,
       running.n - running.lapsed as running,
       ended.succeeded, ended.dead, ended.cancelled,
       extract(epoch from statement_timestamp() - least(ready.oldest, due.oldest))::double precision as oldest_ready_age_seconds
from
  (select count(*) as n, min(run_at) as oldest from sluice.tasks where queue_id = $1 and state = 0) ready,
  (select count(*) as n, min(run_at) as oldest
   from (select queue_id, run_at from sluice.tasks
         where state = 2 and claims >= 0 and tenant_id = (select tenant_id from sluice.queues where id = $1)
           and run_at <= statement_timestamp() order by run_at limit 1000) d
   where queue_id = $1) due,
  (select count(*) as n from sluice.tasks where queue_id = $1 and state = 2) scheduled,
  (select count(*) as n, count(*) filter (where lease_expires_at <= statement_timestamp()) as lapsed
   from sluice.tasks where queue_id = $1 and state = 1) running,
  (select count(*) filter (where state = 3) as succeeded, count(*) filter (where state = 4) as dead,
          count(*) filter (where state = 5) as cancelled
   from sluice.task_history where queue_id = $1 and kept_until > statement_timestamp()) ended
"""

# Each state's index is read once for all queues, so that the cost follows the tasks and not the number of queues. The dead that
# still can be read are all the dead, from the index alone, less the forgotten, who are in the oldest partitions alone.
_OVERVIEW = """
with ready as (select queue_id, count(*) as n, min(run_at) as oldest from sluice.tasks where state = 0 group by queue_id),
due as (select queue_id, count(*) as n, min(run_at) as oldest
        from sluice.tenants n cross join lateral (
          select queue_id, run_at from sluice.tasks
          where state = 2 and claims >= 0 and tenant_id = n.id and run_at <= statement_timestamp() order by run_at limit 1000) d
        group by queue_id),
scheduled as (select queue_id, count(*) as n from sluice.tasks where state = 2 group by queue_id),
running as (select queue_id, count(*) as n, count(*) filter (where lease_expires_at <= statement_timestamp()) as lapsed
            from sluice.tasks where state = 1 group by queue_id),
dead as (select queue_id, count(*) as n from sluice.task_history where state = 4 group by queue_id),
forgotten as (select queue_id, count(*) as n from sluice.task_history
              where state = 4 and kept_until <= statement_timestamp() group by queue_id)
select n.name as tenant, q.name as queue, q.paused, h.name as handler, h.enabled as handler_enabled, h.disabled_reason,
       coalesce(scheduled.n, 0) - coalesce(due.n, 0) as scheduled,
       coalesce(ready.n, 0) + coalesce(due.n, 0) + coalesce(running.lapsed, 0) as ready,
       coalesce(running.n - running.lapsed, 0) as running, coalesce(dead.n, 0) - coalesce(forgotten.n, 0) as dead,
       extract(epoch from statement_timestamp() - least(ready.oldest, due.oldest))::double precision as oldest_ready_age_seconds,
       coalesce((select sum(m.dead) from sluice.queue_minutes m
                 where m.queue_id = q.id and m.minute > statement_timestamp() - interval '15 minutes'), 0)::bigint as dead_lately,
       least(n.max_concurrency, n.granted_max_concurrency) as tenant_limit, n.granted_max_concurrency as tenant_grant,
       extract(epoch from statement_timestamp() - greatest(q.updated_at, w.asked_at))::double precision as worker_silent_seconds
from sluice.queues q join sluice.tenants n on n.id = q.tenant_id
left join sluice.handlers h on h.id = q.handler_id
left join sluice.queue_workers w on w.queue_id = q.id
left join ready on ready.queue_id = q.id left join due on due.queue_id = q.id
left join scheduled on scheduled.queue_id = q.id left join running on running.queue_id = q.id
left join dead on dead.queue_id = q.id left join forgotten on forgotten.queue_id = q.id
where q.deleted_at is null order by n.name, q.name
"""


# Sessions of other roles show nothing of themselves to an unprivileged one; they are missing here, never an error.
_HEALTH = """
select current_setting('server_version') as server_version, (select schema_version from sluice.meta) as schema_version,
       pg_database_size(current_database()) as size_bytes, a.connections,
       current_setting('max_connections')::integer as max_connections,
       greatest(a.age, (select max(age(transaction)) from pg_prepared_xacts),
                (select max(greatest(age(xmin), age(catalog_xmin))) from pg_replication_slots)) as oldest_xmin_age_transactions,
       a.seconds as oldest_xmin_age_seconds
from (select count(*) filter (where usesysid is not null and datid is not null) as connections,
             max(age(backend_xmin)) filter (where pid <> pg_backend_pid()) as age,
             extract(epoch from clock_timestamp() - min(xact_start) filter (
               where backend_xmin is not null and pid <> pg_backend_pid()))::double precision as seconds
      from pg_stat_activity) a
"""


async def add_minutes(db: Reader, minutes: Sequence[Minute]) -> None:
    """Add to the present minute, by the database's clock; each queue once."""
    rows = sorted(minutes, key=lambda minute: minute.queue_id)
    await db.fetch(
        _ADD,
        *([getattr(row, name) for row in rows] for name in Minute.__slots__[:6]),
        *([_array(getattr(row, name)) for row in rows] for name in ("wait", "run")),
    )


def _array(histogram: Sequence[int]) -> str:
    return "{" + ",".join(map(str, trimmed(histogram))) + "}"


async def count(db: Reader, queue_id: int) -> Counts:
    (row,) = await db.fetch(_COUNTS, queue_id)
    return Counts(**row)


async def read_minutes(db: Reader, queue_id: int, since: datetime) -> list[tuple[datetime, Minute]]:
    rows = await db.fetch(
        "select minute, queue_id, enqueued, started, succeeded, dead, cancelled, wait, run "
        "from sluice.queue_minutes where queue_id = $1 and minute >= $2",
        queue_id,
        since,
    )
    return [(row[0], Minute(*row[1:])) for row in rows]


async def overview(db: Reader) -> list[QueueOverview]:
    """Every queue of every tenant, in one statement."""
    return [QueueOverview(**row) for row in await db.fetch(_OVERVIEW)]


async def database_health(db: Reader) -> DatabaseHealth:
    (row,) = await db.fetch(_HEALTH)
    return DatabaseHealth(**row)


async def prune(db: Reader) -> None:
    await db.fetch(
        "delete from sluice.queue_minutes where minute < statement_timestamp() - make_interval(hours => $1)", KEPT_HOURS
    )
