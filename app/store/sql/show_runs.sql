-- Rows of the ledger as shown. An unfinished run has started when its task has, which is looked up live or in history.
select r.id::text, r.nominal_at, r.nominal_until, r.count, r.cause, r.extra, r.outcome, r.jitter_seconds, r.fired_at,
  case when r.outcome <> 'running' then r.started_at else coalesce(
    (select t.last_started_at from sluice.tasks t where t.id = r.task_id),
    (select t.last_started_at from sluice.task_history t where t.id = r.task_id limit 1)) end as started_at,
  r.completed_at, r.task_id::text, r.replica
from sluice.schedule_runs r
where {where}
