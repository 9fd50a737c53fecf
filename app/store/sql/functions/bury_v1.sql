-- Move live tasks, locked by the caller, to history with their attempts, as p_state with p_reason. Returns how many.
-- kept_until is the day's partition: the queue's retention now, and never before the idempotency key expires.
create function sluice.bury_v1(p_ids uuid[], p_state smallint, p_reason text, p_ended_at timestamptz[])
returns integer language plpgsql volatile
as $$
declare v_count integer;
begin
  with gone as (
    delete from sluice.tasks t using unnest(p_ids, p_ended_at) e(id, ended_at)
    where t.id = e.id returning t.*, e.ended_at),
  kept as (
    insert into sluice.task_history (
      id, kept_until, tenant_id, queue_id, handler_id, state, reason, ended_at, priority, run_at, created_at, expires_at,
      payload, type, headers, tags, correlation_id, idempotency_key, idempotency_until, unique_key, retry, max_attempts,
      timeout_seconds, traceparent, tracestate, root_id, parent_id, batch_id, completes, cursor, schedule, scheduled_for,
      schedule_timezone, progress, attempt, claims, last_error, lease_handler_id, last_token, last_counted,
      last_replica, last_started_at, last_ended_at,
      last_outcome, last_status, last_message, last_excerpt, last_trace_id)
    select
      t.id, greatest(clock_timestamp() + make_interval(secs => 86400 * case p_state
        when :state_succeeded then q.succeeded_days when :state_dead then q.dead_days else q.cancelled_days end), t.idempotency_until),
      t.tenant_id, t.queue_id, t.handler_id, p_state, p_reason, t.ended_at, t.priority, t.run_at, t.created_at, t.expires_at,
      t.payload, t.type, t.headers, t.tags, t.correlation_id, t.idempotency_key, t.idempotency_until, t.unique_key, t.retry,
      t.max_attempts, t.timeout_seconds, t.traceparent, t.tracestate, t.root_id, t.parent_id, t.batch_id, t.completes, t.cursor,
      t.schedule, t.scheduled_for, t.schedule_timezone, t.progress, t.attempt, t.claims, t.last_error,
      t.lease_handler_id, t.last_token,
      t.last_counted, t.last_replica, t.last_started_at, t.last_ended_at, t.last_outcome, t.last_status, t.last_message,
      t.last_excerpt, t.last_trace_id
    from gone t join sluice.queues q on q.id = t.queue_id
    returning id, kept_until, claims, tenant_id, batch_id),
  counted as (
    insert into sluice.batch_deltas (tenant_id, batch_id, succeeded, dead, cancelled)
    select k.tenant_id, k.batch_id, case when p_state = :state_succeeded then count(*) else 0 end,
           case when p_state = :state_dead then count(*) else 0 end,
           case when p_state = :state_cancelled then count(*) else 0 end
    from kept k where k.batch_id is not null group by 1, 2),
  earlier as (
    delete from sluice.attempts a using kept k where a.task_id = k.id and k.claims > 1
    returning a.*, k.kept_until),
  moved as (
    insert into sluice.attempt_history (task_id, number, kept_until, token, counted, replica, started_at, ended_at, outcome,
                                        status, message, excerpt, trace_id)
    select task_id, number, kept_until, token, counted, replica, started_at, ended_at, outcome, status, message, excerpt,
           trace_id
    from earlier)
  select count(*) into v_count from kept;
  return v_count;
end $$;
