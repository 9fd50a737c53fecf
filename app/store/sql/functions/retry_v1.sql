-- Revive one task: dead or cancelled -> ready with all attempts available, scheduled -> ready now, ready stays. Verdicts:
-- moved · unchanged · running · ended (succeeded) · gone (unknown or past retention) · orphaned (its queue, or the handler it
-- named for itself, has been deleted) · held (another unfinished task has its unique key).
-- The row in history is locked before it moves, so that of two simultaneous retries only one moves it.
create function sluice.retry_v1(p_tenant bigint, p_id uuid) returns text language plpgsql volatile
as $$
declare v_state smallint; v_queue bigint; v_handler bigint; v_now timestamptz;
begin
  select k.queue_id, k.handler_id into v_queue, v_handler
  from (select t.queue_id, t.handler_id from sluice.tasks t where t.id = p_id and t.tenant_id = p_tenant
        union all
        select t.queue_id, t.handler_id from sluice.task_history t where t.id = p_id and t.tenant_id = p_tenant) k
  limit 1;
  if not found then return 'gone'; end if;
  if v_handler <> 0 then perform pg_advisory_xact_lock_shared(:lock_handler, v_handler::integer); end if;
  perform pg_advisory_xact_lock_shared(:lock_queue, v_queue::integer);
  -- a transaction of others may hold the row, or its unique key, and go on: behind the queue's lock, everything would wait for it
  perform set_config('lock_timeout', '500', true);
  for v_try in 1..5 loop  -- in neither place: it moved between the two lookups
    select t.state into v_state from sluice.tasks t where t.id = p_id and t.tenant_id = p_tenant for update;
    v_now := clock_timestamp();
    if found then
      if v_state = :state_running then return 'running'; end if;
      update sluice.tasks t set state = :state_ready, run_at = case when t.state = :state_scheduled then v_now else t.run_at end,
        expires_at = case when t.expires_at > v_now then t.expires_at end
      where t.id = p_id and (t.state = :state_scheduled or t.expires_at <= v_now);
      if not found then return 'unchanged'; end if;
      perform sluice.signal_flows_v1(array[p_id]);
      return 'moved';
    end if;
    select t.state into v_state from sluice.task_history t
      where t.id = p_id and t.tenant_id = p_tenant and t.kept_until > v_now for update;
    exit when found;
    if v_try = 5 then return 'gone'; end if;
  end loop;
  if v_state = :state_succeeded then return 'ended'; end if;
  if not exists (select from sluice.queues q where q.id = v_queue and q.deleted_at is null)
     or v_handler <> 0 and not exists (select from sluice.handlers h where h.id = v_handler and h.deleted_at is null) then
    return 'orphaned';
  end if;
  return case when sluice.revive_v1(array[p_id], v_now) = '{}' then 'held' else 'moved' end;
end $$;
