"""Reads of tasks and attempts: live and history in one statement, so that a task that ends meanwhile is never missed."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from app.domain.instants import format_instant
from app.domain.tasks import NO_WORKER_SECONDS
from app.domain.views import AttemptView, Lease, TaskView, shown_result
from app.store.db import Reader
from app.store.replicas import ENGINE_LIVES, ENGINES

PAGE_BYTES = 8_388_608
"""After so much of payloads, results and progress a page of tasks ends: a caller may have 200 of the largest."""

_RUNNING = "({0}.state = 1 and ({0}.lease_expires_at <= clock_timestamp()) is not true)"  # one that ran out is none, reaped or not
RUNNING, OTHERS_RUNNING = _RUNNING.format("t"), _RUNNING.format("r")
# state: what is stored, except that a scheduled task reads as ready from its run_at on, a running one from the end of its lease on.
# waiting_for names the first of the things a claim would stop at, in the claim's order: what is shut, who would make the claim,
# what is full, whether anybody has a place for it. What runs is counted only where there is a limit: it would else be read again
# for each row of a page.
_LIVE = f"""
select t.id, q.name as queue, h.name as handler, t.type,
  case when {RUNNING} then 'running' when t.state = 2 and t.run_at > clock_timestamp() then 'scheduled'
    else 'ready' end as state,
  null::text as reason, t.priority, {{payload}} as payload, t.headers, t.tags, t.correlation_id, t.idempotency_key, t.unique_key,
  t.created_at, t.run_at, t.last_started_at as started_at, null::timestamptz as ended_at, t.expires_at, t.attempt,
  coalesce(t.max_attempts, q.max_attempts) as max_attempts,
  coalesce(t.timeout_seconds, q.timeout_seconds, h.timeout_seconds) as timeout_seconds,
  t.last_error, null::bytea as result, null::text as result_format, false as result_truncated, t.progress,
  case when {RUNNING} then t.lease_expires_at end as lease_expires_at, t.last_replica as replica, t.schedule,
  t.scheduled_for, t.batch_id, t.parent_id,
  case
    when {RUNNING} then null
    when t.state = 2 and t.run_at > clock_timestamp() then 'run_at'
    when q.paused then 'queue_paused'
    when h.id is null then case
      when t.state = 2 and not {ENGINE_LIVES} then 'no_engine'
      when greatest(q.updated_at, (select w.asked_at from sluice.queue_workers w where w.queue_id = q.id))
             > clock_timestamp() - make_interval(secs => {NO_WORKER_SECONDS})
           or (select true from sluice.tasks r
               where {OTHERS_RUNNING} and r.tenant_id = t.tenant_id and r.queue_id = q.id limit 1)
        then 'worker'
      else 'no_worker' end
    when not h.enabled then 'handler_disabled'
    when not {ENGINE_LIVES} then 'no_engine'
    when least(n.max_concurrency, n.granted_max_concurrency) is not null
         and least(n.max_concurrency, n.granted_max_concurrency) <= (select count(*) from sluice.tasks r
                                                                     where {OTHERS_RUNNING} and r.tenant_id = t.tenant_id)
      then 'global_limit'
    when h.max_concurrency is not null and h.max_concurrency <= (select count(*) from sluice.tasks r
                               where {OTHERS_RUNNING} and r.tenant_id = t.tenant_id and r.lease_handler_id = h.id)
      then 'handler_limit'
    when q.max_concurrency is not null and q.max_concurrency <= (select count(*) from sluice.tasks r
                               where {OTHERS_RUNNING} and r.tenant_id = t.tenant_id and r.queue_id = q.id)
      then 'queue_limit'
    when (select bool_and(t.tenant_id = any(e.short_tenants) or q.id = any(e.short_queues)) {ENGINES}) then 'replicas_busy'
  end as waiting_for
from {{source}} t
join sluice.queues q on q.id = t.queue_id
join sluice.tenants n on n.id = t.tenant_id
left join sluice.handlers h on h.id = coalesce(nullif(t.handler_id, 0), q.handler_id)
"""  # noqa: S608  # every part is ours

_ENDED = """
select t.id, q.name as queue, h.name as handler, t.type,
  case t.state when 3 then 'succeeded' when 4 then 'dead' else 'cancelled' end as state, t.reason, t.priority,
  {payload} as payload, t.headers, t.tags, t.correlation_id, t.idempotency_key, t.unique_key, t.created_at, t.run_at,
  t.last_started_at as started_at, t.ended_at, t.expires_at, t.attempt, coalesce(t.max_attempts, q.max_attempts) as max_attempts,
  coalesce(t.timeout_seconds, q.timeout_seconds, h.timeout_seconds) as timeout_seconds,
  t.last_error, t.result, t.result_format, t.result_truncated, t.progress,
  null::timestamptz as lease_expires_at, t.last_replica as replica, t.schedule, t.scheduled_for, t.batch_id, t.parent_id,
  null::text as waiting_for
from {source} t
join sluice.queues q on q.id = t.queue_id
left join sluice.handlers h on h.id = coalesce(nullif(t.handler_id, 0), t.lease_handler_id, q.handler_id)
"""

ONE_TASK = (
    _LIVE.format(payload="t.payload", source="sluice.tasks")
    + "where t.id = $1 and ($2::bigint is null or t.tenant_id = $2)\nunion all\n"
    + _ENDED.format(payload="t.payload", source="sluice.task_history")
    + "where t.id = $1 and ($2::bigint is null or t.tenant_id = $2) and (t.kept_until > clock_timestamp() or $3)"
)


async def find_task(db: Reader, tenant_id: int, task_id: str, *, even_past: bool = False) -> TaskView | None:
    """even_past: also a task whose retention has run out, for the answer of the request that ended it."""
    rows = await db.fetch(ONE_TASK, task_id, tenant_id, even_past)
    return task_view(rows[0]) if rows else None


async def find_any(db: Reader, task_id: str) -> TaskView | None:
    """A task of whichever tenant, for the holder of its lease token."""
    rows = await db.fetch(ONE_TASK, task_id, None, True)
    return task_view(rows[0]) if rows else None


LIVE_TASKS = (
    _LIVE.format(payload="t.payload", source="sluice.tasks") + "where t.id = any($1::uuid[]) and t.tenant_id = $2"
)


async def find_tasks(db: Reader, tenant_id: int, task_ids: Sequence[str]) -> dict[str, TaskView]:
    """Those of these tasks that are live, by id."""
    if not task_ids:
        return {}
    rows = await db.fetch(LIVE_TASKS, list(task_ids), tenant_id)
    return {str(row["id"]): task_view(row) for row in rows}


# A scalar subquery, and not `not exists`: that may be planned as a join over the whole table.
NOT_LIVE = """
select w.id from unnest($1::uuid[]) w(id) where (select t.id from sluice.tasks t where t.id = w.id) is null
"""


async def not_live(db: Reader, task_ids: Sequence[str]) -> list[str]:
    """Those of these tasks that have ended, or never were."""
    return [str(row[0]) for row in await db.fetch(NOT_LIVE, task_ids)]


# The size of what is out of line is known without reading it.
_SIZED = f"""
select * from (
  select f.*, sum(coalesce(octet_length(f.payload), 0) + coalesce(octet_length(f.result), 0)
                  + coalesce(octet_length(f.progress::text), 0))
                over (order by f.id desc rows between unbounded preceding and 1 preceding) as bytes_before
  from ({{found}}) f) s
where coalesce(s.bytes_before, 0) < {PAGE_BYTES} order by s.id desc
"""  # noqa: S608  # ours


async def show_tasks(
    db: Reader, args: Sequence[Any], live: Sequence[str], ended: Sequence[str], *, payloads: bool
) -> list[TaskView]:
    """Of the tasks whose ids are $2 those that fit, newest first, until they have PAGE_BYTES; a side without conditions has none.

    In a page of a list, what has changed since it was found is shown only if it still fits.
    """
    # `offset 0` keeps the conditions out of the look-up by id: a partial index that fits one of them seems cheaper to the planner
    sides = [
        select.format(  # noqa: S608  # every part is ours
            payload="t.payload" if payloads else "null::bytea",
            source=f"(select * from sluice.{table} where id = any($2::uuid[]) offset 0)",  # noqa: S608  # ours
        )
        + f"where {' and '.join(conditions)}"
        for select, table, conditions in ((_LIVE, "tasks", live), (_ENDED, "task_history", ended))
        if conditions
    ]
    sized = _SIZED.format(found="\nunion all\n".join(sides))
    return [task_view(row) for row in await db.fetch(sized, *args)]


ATTEMPTS = """
-- The newest attempt stands in the task's own row, the earlier ones in a table of their own; then the same for history.
select * from (
  select claims as number, last_counted as counted, last_replica as replica, last_started_at as started_at,
         last_ended_at as ended_at, last_outcome as outcome, last_status as status, last_message as message,
         last_excerpt as excerpt, last_trace_id as trace_id
  from sluice.tasks where id = $1 and tenant_id = $2 and claims > 0
  union all
  select a.number, a.counted, a.replica, a.started_at, a.ended_at, a.outcome, a.status, a.message, a.excerpt, a.trace_id
  from sluice.attempts a join sluice.tasks t on t.id = a.task_id where a.task_id = $1 and t.tenant_id = $2
  union all
  select claims, last_counted, last_replica, last_started_at, last_ended_at, last_outcome, last_status, last_message,
         last_excerpt, last_trace_id
  from sluice.task_history where id = $1 and tenant_id = $2 and claims > 0 and kept_until > clock_timestamp()
  union all
  select a.number, a.counted, a.replica, a.started_at, a.ended_at, a.outcome, a.status, a.message, a.excerpt, a.trace_id
  from sluice.attempt_history a join sluice.task_history t on t.id = a.task_id and t.kept_until = a.kept_until
  where a.task_id = $1 and t.tenant_id = $2 and t.kept_until > clock_timestamp()) a
where number < $3 order by number desc limit $4
"""


async def list_attempts(db: Reader, tenant_id: int, task_id: str, before: int, limit: int) -> list[AttemptView]:
    """Newest first, those numbered below `before`."""
    return [
        AttemptView(r[0], r[1], r[2], _at(r[3]) or "", _at(r[4]), r[5], r[6], r[7], r[8], r[9])
        for r in await db.fetch(ATTEMPTS, task_id, tenant_id, before, limit)
    ]


def _at(instant: datetime | None) -> str | None:
    return None if instant is None else format_instant(instant)


def _decoded(text: str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)


def task_view(row: Any) -> TaskView:
    result, encoding = shown_result(row["result"], row["result_format"])
    lease = row["lease_expires_at"]
    return TaskView(
        id=str(row["id"]),
        queue=row["queue"],
        handler=row["handler"],
        type=row["type"],
        state=row["state"],
        reason=row["reason"],
        priority=row["priority"],
        payload=msgspec.UNSET if row["payload"] is None else msgspec.Raw(row["payload"]),
        content_type="application/json",
        headers=_decoded(row["headers"]) or {},
        tags=row["tags"] or [],
        correlation_id=row["correlation_id"],
        idempotency_key=row["idempotency_key"],
        unique_key=row["unique_key"],
        created_at=_at(row["created_at"]) or "",
        run_at=_at(row["run_at"]) or "",
        started_at=_at(row["started_at"]),
        ended_at=_at(row["ended_at"]),
        expires_at=_at(row["expires_at"]),
        attempt=row["attempt"],
        max_attempts=row["max_attempts"],
        timeout_seconds=row["timeout_seconds"],
        last_error=row["last_error"],
        result=result,
        result_encoding=encoding or msgspec.UNSET,
        result_truncated=row["result_truncated"],
        progress=_decoded(row["progress"]),
        lease=None if lease is None else Lease(_at(lease) or ""),
        replica=row["replica"],
        schedule=row["schedule"],
        scheduled_for=_at(row["scheduled_for"]),
        batch=None if row["batch_id"] is None else str(row["batch_id"]),
        parent=None if row["parent_id"] is None else str(row["parent_id"]),
        waiting_for=row["waiting_for"],
    )
