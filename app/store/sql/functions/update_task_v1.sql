-- Change a waiting task. p_patch holds the changes to its columns, p_options those to what it carries, null for a default; retry is
-- merged. p_payload and p_handler (0: the queue's) are null if they stay. p_options_were is what the caller merged with or judged by,
-- null for an absent option. Verdicts: done · running · ended · gone · again (it moved, or those are no longer so) · changed (the
-- queue has changed since the caller read it, or the handler or a limit was deleted) · key_full (its new key has no room in the
-- queue). Takes locks in the order of an enqueue: handler, queue, limits, depth, task.
create function sluice.update_task_v1(
  p_tenant bigint, p_id uuid, p_version bigint, p_patch jsonb, p_options jsonb, p_payload bytea, p_handler bigint,
  p_options_were jsonb)
returns text language plpgsql volatile
as $$
declare v_queue bigint; v_task record; v_now timestamptz; v_options jsonb; v_deep integer;
begin
  select t.queue_id into v_queue from sluice.tasks t where t.id = p_id and t.tenant_id = p_tenant;
  if not found then
    return case when exists (select from sluice.task_history t where t.id = p_id and t.tenant_id = p_tenant
                             and t.kept_until > clock_timestamp()) then 'ended' else 'gone' end;
  end if;
  if p_handler <> 0 then perform pg_advisory_xact_lock_shared(:lock_handler, p_handler::integer); end if;
  perform pg_advisory_xact_lock_shared(:lock_queue, v_queue::integer);
  if not exists (select from sluice.queues q where q.id = v_queue and q.version = p_version)
     or p_handler <> 0 and not exists (select from sluice.handlers h where h.id = p_handler and h.deleted_at is null) then
    return 'changed';
  end if;
  if jsonb_typeof(p_options -> 'limits') = 'array' then
    perform pg_advisory_xact_lock_shared(:lock_limits, p_tenant::integer);
    if exists (select from jsonb_array_elements(p_options -> 'limits') u
               where not exists (select from sluice.limits l where l.tenant_id = p_tenant and l.name = u ->> 'name')) then
      return 'changed';
    end if;
  end if;
  if jsonb_typeof(p_options -> 'key') = 'string' then
    select l.max_depth into v_deep from sluice.limits l
    where l.owner_id = v_queue and l.kind = 'queue_key' and l.max_depth is not null;
    if found then
      perform pg_advisory_xact_lock(:lock_depth, v_queue::integer);
      if v_deep <= (select count(*) from (
                      select from sluice.tasks t
                      where t.queue_id = v_queue and t.options ->> 'key' = p_options ->> 'key' and t.flow_id is not null
                        and t.claims >= 0 and t.state <> :state_running and t.id <> p_id
                      limit v_deep) w) then
        return 'key_full';
      end if;
    end if;
  end if;
  perform set_config('lock_timeout', '500', true);  -- as in retry_v1
  select t.state, coalesce(t.options, '{}') as options into v_task from sluice.tasks t where t.id = p_id and t.tenant_id = p_tenant for update;
  if not found or exists (select from jsonb_each(p_options_were) w
                          where coalesce(v_task.options -> w.key, 'null') <> w.value) then
    return 'again';
  end if;
  if v_task.state = :state_running then return 'running'; end if;
  v_now := clock_timestamp();
  v_options := v_task.options || p_options;
  if jsonb_typeof(p_options -> 'retry') = 'object' then
    v_options := v_options || jsonb_build_object('retry', nullif(
      jsonb_strip_nulls(coalesce(v_task.options -> 'retry', '{}') || (p_options -> 'retry')), '{}'));
  end if;
  v_options := jsonb_strip_nulls(v_options - 'callbacks')  -- null there means that a callback of the queue does not apply
    || case when v_options ? 'callbacks' then jsonb_build_object('callbacks', v_options -> 'callbacks') else '{}' end;
  perform sluice.signal_flows_v1(array[p_id]);  -- of the flow it may leave
  update sluice.tasks t set
    payload = coalesce(p_payload, t.payload),
    options = nullif(v_options, '{}'), max_attempts = (v_options -> 'retry' ->> 'max_attempts')::integer,
    priority = case when p_patch ? 'priority' then coalesce((p_patch ->> 'priority')::smallint, 0) else t.priority end,
    expires_at = case when p_patch ? 'expires_at' then (p_patch ->> 'expires_at')::timestamptz else t.expires_at end,
    handler_id = coalesce(p_handler, t.handler_id),
    flow_id = sluice.flow_id_v1(t.queue_id, coalesce(p_handler, t.handler_id), v_options),
    run_at = case when p_patch ?| array['run_at', 'delay_seconds'] then r.run_at else t.run_at end,
    state = case when not p_patch ?| array['run_at', 'delay_seconds'] then t.state
                 when r.run_at > v_now then :state_scheduled else :state_ready end
  from (select greatest((p_patch ->> 'run_at')::timestamptz,
          v_now + make_interval(secs => (p_patch ->> 'delay_seconds')::double precision), v_now) as run_at) r
  where t.id = p_id;
  perform sluice.signal_flows_v1(array[p_id]);
  if p_handler <> 0 then
    insert into sluice.lanes (queue_id, handler_id) values (v_queue, p_handler) on conflict do nothing;
  end if;
  return 'done';
end $$;
