-- A live task as the row of history that it becomes at p_now: the one list of what moves. revive_v1 has its inverse.
-- p_outcome is that of the attempt that ended the task. Its fields are null where none did: then the newest attempt stays as it was
-- recorded. kept_until picks the partition: the queue's retention from now on, and never before the idempotency key expires.
-- callback: what is enqueued because it ended so (call_back_v1), null for nothing. A task's callbacks replace its queue's state by state.
-- A message of SQS that has expired is gone: a RedrivePolicy is for those that were received too often.
-- Postgres inlines a set-returning function of one query, so no row is built and taken apart again (docs/decisions/0039).
create function sluice.ended_v1(
  p_task sluice.tasks, p_queue sluice.queues, p_state smallint, p_reason text, p_now timestamptz, p_ended_at timestamptz,
  p_outcome sluice.outcome_v1)
returns setof sluice.task_history language sql stable rows 1
begin atomic
  select
    p_task.id,
    greatest(p_now + make_interval(secs => 86400 * case p_state
      when :state_succeeded then p_queue.succeeded_days when :state_dead then p_queue.dead_days else p_queue.cancelled_days end),
      p_task.idempotency_until),
    p_task.tenant_id, p_task.queue_id, p_task.handler_id, p_state, p_reason, p_ended_at, p_task.priority, p_task.run_at,
    p_task.created_at, p_task.expires_at, p_task.payload, p_task.options, p_task.idempotency_key, p_task.idempotency_until,
    p_task.unique_key, p_task.max_attempts, p_task.root_id, p_task.parent_id, p_task.batch_id, p_task.completes, p_task.progress,
    case when p_outcome.outcome = 'pushed_back' then p_task.attempt - 1 else p_task.attempt end, p_task.claims, coalesce(p_outcome.message, p_task.last_error), p_outcome.result, p_outcome.result_format,
    coalesce(p_outcome.result_truncated, false), p_task.lease_handler_id, p_task.last_token,
    case when p_outcome.token is null then p_task.last_counted else p_outcome.outcome <> 'pushed_back' end, p_task.last_replica, p_task.last_started_at,
    case when p_outcome.token is null then p_task.last_ended_at else p_ended_at end,
    case when p_outcome.token is null then p_task.last_outcome else p_outcome.outcome end,
    case when p_outcome.token is null then p_task.last_status else p_outcome.status end,
    case when p_outcome.token is null then p_task.last_message else p_outcome.message end,
    case when p_outcome.token is null then p_task.last_excerpt else p_outcome.excerpt end,
    case when p_outcome.token is null then p_task.last_trace_id else p_outcome.trace_id end,
    case when p_reason = 'expired' and p_queue.sqs is not null and p_queue.callbacks #>> '{dead,body}' = 'payload'
        and not coalesce(p_task.options -> 'callbacks' ? 'dead', false) then null
      when p_queue.callbacks is not null or p_task.options ? 'callbacks' then
      nullif((coalesce(p_queue.callbacks, '{}') || coalesce(p_task.options -> 'callbacks', '{}')) -> case p_state
        when :state_succeeded then 'succeeded' when :state_dead then 'dead' else 'cancelled' end, 'null') end;
end;
