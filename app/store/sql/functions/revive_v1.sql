-- Move tasks back from history with their attempts: ready at p_now with all attempts available. The caller has locked their rows
-- there, and the queue, shared. Returns those that moved: a task whose unique key an unfinished task has stays where it is.
-- They get a fresh allowance, no lease, and no expiry that has passed: the inverse of ended_v1. In the order of unique keys, like
-- enqueues.
create function sluice.revive_v1(p_ids uuid[], p_now timestamptz) returns uuid[] language plpgsql volatile
as $$
declare v_moved uuid[];
begin
  with live as (
    insert into sluice.tasks (
      id, tenant_id, queue_id, handler_id, state, priority, run_at, created_at, expires_at, payload, options, idempotency_key,
      idempotency_until, unique_key, max_attempts, root_id, parent_id, batch_id, completes, progress, claims, last_error,
      lease_handler_id, last_token, last_counted, last_replica, last_started_at, last_ended_at, last_outcome, last_status,
      last_message, last_excerpt, last_trace_id)
    select
      h.id, h.tenant_id, h.queue_id, h.handler_id, :state_ready, h.priority, p_now, h.created_at,
      case when h.expires_at > p_now then h.expires_at end, h.payload, h.options - 'pushed_back', h.idempotency_key,
      h.idempotency_until, h.unique_key, h.max_attempts, h.root_id, h.parent_id, h.batch_id, h.completes, h.progress, h.claims,
      h.last_error, h.lease_handler_id, h.last_token, h.last_counted, h.last_replica, h.last_started_at, h.last_ended_at,
      h.last_outcome, h.last_status, h.last_message, h.last_excerpt, h.last_trace_id
    from sluice.task_history h
    where h.id = any(p_ids) and h.state in (:state_dead, :state_cancelled) and h.kept_until > p_now
    order by h.queue_id, h.unique_key collate "C" nulls first, h.id
    on conflict (queue_id, unique_key) where unique_key is not null do nothing
    returning id)
  select coalesce(array_agg(id), '{}') into v_moved from live;
  with gone as (delete from sluice.task_history t where t.id = any(v_moved) returning t.tenant_id, t.batch_id, t.state)
  insert into sluice.batch_deltas (tenant_id, batch_id, dead, cancelled)
  select g.tenant_id, g.batch_id, -count(*) filter (where g.state = :state_dead), -count(*) filter (where g.state = :state_cancelled)
  from gone g where g.batch_id is not null group by 1, 2;
  with earlier as (delete from sluice.attempt_history a where a.task_id = any(v_moved) returning a.*)
  insert into sluice.attempts (task_id, number, token, counted, replica, started_at, ended_at, outcome, status, message,
                               excerpt, trace_id)
  select task_id, number, token, counted, replica, started_at, ended_at, outcome, status, message, excerpt, trace_id
  from earlier;
  return v_moved;
end $$;
