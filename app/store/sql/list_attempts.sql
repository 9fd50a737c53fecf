-- The newest attempt is in the task's own row, earlier ones are in a table of their own; the same for history.
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
