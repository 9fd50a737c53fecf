-- Move live tasks, locked by the caller, to history with their attempts, as p_state with p_reason, and enqueue their callbacks. Returns
-- what call_back_v1 says of these, null if there are none.
create function sluice.bury_v1(p_ids uuid[], p_state smallint, p_reason text, p_ended_at timestamptz[])
returns jsonb language plpgsql volatile
as $$
declare v_now timestamptz := clock_timestamp(); v_called uuid[]; v_kept_until timestamptz[];
begin
  perform sluice.signal_flows_v1(p_ids);
  with kept as (
    insert into sluice.task_history
    select h.*
    from unnest(p_ids, p_ended_at) e(id, ended_at)
    join sluice.tasks t on t.id = e.id
    join sluice.queues q on q.id = t.queue_id
    cross join lateral sluice.ended_v1(t, q, p_state, p_reason, v_now, e.ended_at, null) h
    returning id, kept_until, claims, tenant_id, batch_id, callback),
  gone as (delete from sluice.tasks t using kept k where t.id = k.id),
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
  select array_agg(k.id), array_agg(k.kept_until) into v_called, v_kept_until from kept k where k.callback is not null;
  return case when v_called is not null then sluice.call_back_v1(v_called, v_kept_until) end;
end $$;
