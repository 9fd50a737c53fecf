-- A row of history as the live task that it becomes again: ready at p_now with a fresh allowance, without a lease, and without an
-- expiry that has passed. The inverse of ended_v1.
create function sluice.revived_v1(p_ended sluice.task_history, p_now timestamptz)
returns setof sluice.tasks language sql stable rows 1
begin atomic
  select
    p_ended.id, p_ended.tenant_id, p_ended.queue_id, p_ended.handler_id, :state_ready::smallint, p_ended.priority, p_now,
    p_ended.created_at, case when p_ended.expires_at > p_now then p_ended.expires_at end, p_ended.payload, p_ended.options - 'pushed_back',
    p_ended.idempotency_key, p_ended.idempotency_until, p_ended.unique_key, p_ended.max_attempts, p_ended.root_id,
    p_ended.parent_id, p_ended.batch_id, p_ended.completes, p_ended.progress, 0, p_ended.claims, p_ended.last_error,
    null::uuid, null::uuid, null::uuid, p_ended.lease_handler_id, null::timestamptz,
    p_ended.last_token, p_ended.last_counted, p_ended.last_replica, p_ended.last_started_at, p_ended.last_ended_at,
    p_ended.last_outcome, p_ended.last_status, p_ended.last_message, p_ended.last_excerpt, p_ended.last_trace_id;
end;
