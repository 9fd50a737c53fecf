-- Ended tasks as shown: the columns of show_live_tasks, in the same order. `offset 0` looks queues and handlers up by id, task by task:
-- they may be very many more than the tasks.
select t.id, q.name as queue, h.name as handler,
  case t.state when :state_succeeded then 'succeeded' when :state_dead then 'dead' else 'cancelled' end as state, t.reason, t.priority,
  {payload} as payload, t.options, t.idempotency_key, t.unique_key, t.created_at, t.run_at,
  t.last_started_at as started_at, t.ended_at, t.expires_at, t.attempt, coalesce(t.max_attempts, q.max_attempts) as max_attempts,
  coalesce((t.options ->> 'timeout_seconds')::double precision, q.timeout_seconds, h.timeout_seconds) as timeout_seconds,
  t.last_error, t.result, t.result_format, t.result_truncated, t.progress,
  null::timestamptz as lease_expires_at, t.last_replica as replica, t.batch_id, t.parent_id,
  null::text as waits, null::timestamptz as renewed_at, t.tenant_id
from {source} t
cross join lateral (select * from sluice.queues d where d.id = t.queue_id offset 0) q
left join lateral (
  select * from sluice.handlers d where d.id = coalesce(nullif(t.handler_id, 0), t.lease_handler_id, q.handler_id) offset 0) h on true
where {where}
