-- Move tasks back from history with their attempts: ready at p_now with all attempts available. The caller has locked their rows
-- there, and the queue, shared. Returns those that moved: a task whose unique key an unfinished task has stays where it is.
-- In the order of unique keys, like enqueues.
create function sluice.revive_v1(p_ids uuid[], p_now timestamptz) returns uuid[] language plpgsql volatile
as $$
declare v_moved uuid[];
begin
  with live as (
    insert into sluice.tasks
    select r.*
    from sluice.task_history h cross join lateral sluice.revived_v1(h, p_now) r
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
