-- Insert an entry that sluice.enqueue has checked; the rules of keys are those of enqueue_v1. Returns the task's id, or that of the task
-- for which its idempotency key or unique key stands; null: another transaction was first, so look again. Waits for a transaction that
-- has the same key, until that ends, and for nothing else.
-- Where enqueue_v1 would lock a row that others need, or wait for one, this writes a row of the transaction's own: of its lane, of the
-- callbacks' queues, and of what has arrived, by which a replica counts the task and looks for it (take_arrivals).
create function sluice.insert_task_v1(p_entry sluice.entry_v1, p_queue sluice.queues, p_called bigint[]) returns uuid
language plpgsql volatile
as $$
declare
  e sluice.entry_v1 := p_entry; v_now timestamptz := clock_timestamp(); v_key record; v_holder uuid; v_state smallint; v_before text; v_at timestamptz; v_ends timestamptz;
  v_task uuid := p_entry.task_id; v_until timestamptz := v_now + make_interval(secs => p_queue.idempotency_seconds);
begin
  if e.key is not null then
    insert into sluice.idempotency_keys (queue_id, key, fingerprint, task_id, expires_at)
    values (e.queue_id, e.key, e.fingerprint, e.task_id, v_until) on conflict do nothing;
    if not found then
      delete from sluice.idempotency_keys k where k.queue_id = e.queue_id and k.key = e.key and k.expires_at <= v_now;
      if found then return null; end if;
      select k.fingerprint, k.task_id into v_key from sluice.idempotency_keys k where k.queue_id = e.queue_id and k.key = e.key;
      if not found then return null; end if;
      if substr(v_key.fingerprint, 33) <> substr(e.fingerprint, 33) then
        perform sluice.refuse_v1('idempotency_mismatch', '', format(
          'idempotency key %s was already used with a different payload or options', quote_literal(e.key)), 'use a new key');
      end if;
      return v_key.task_id;
    end if;
  end if;
  if e.unique_key is not null then
    select t.id, t.state, t.options ->> 'key' into v_holder, v_state, v_before
    from sluice.tasks t where t.queue_id = e.queue_id and t.unique_key = e.unique_key;
    if e.on_duplicate is not null and v_state <> :state_running then
      begin
        select t.id, t.state, t.options ->> 'key' into v_holder, v_state, v_before
        from sluice.tasks t where t.queue_id = e.queue_id and t.unique_key = e.unique_key for update;
        -- a claim was first: the inner block gives the row back, because the task's outcome would wait for it
        if v_state = :state_running then raise exception using errcode = 'SL001', message = 'given back'; end if;
      exception when sqlstate 'SL001' then null;
      end;
    end if;
  end if;
  if v_holder is not null and (e.on_duplicate is null or v_state = :state_running) then
    delete from sluice.idempotency_keys k where k.queue_id = e.queue_id and k.key = e.key and k.task_id = e.task_id;
    return v_holder;
  end if;
  perform sluice.check_depth_v1(p_queue, e.options ->> 'key', v_holder is null, v_before);
  v_at := greatest(e.run_at, v_now + make_interval(secs => e.delay_seconds), v_now);
  v_ends := coalesce(e.expires_at, v_now + make_interval(secs => e.ttl_seconds));
  if v_holder is not null then
    perform sluice.replace_held_v1(array[e], jsonb_build_object('1', jsonb_build_array('replaced', v_holder)), v_now, e.key is not null);
    v_task := v_holder;
  else
    insert into sluice.tasks (id, tenant_id, queue_id, handler_id, state, priority, run_at, created_at, flow_id, expires_at, payload,
                              options, idempotency_key, idempotency_until, unique_key, max_attempts)
    values (e.task_id, p_queue.tenant_id, e.queue_id, e.handler_id, case when v_at > v_now then :state_scheduled else :state_ready end,
            e.priority, v_at, v_now, sluice.flow_id_v1(e.queue_id, e.handler_id, e.options), v_ends, e.payload, e.options, e.key,
            case when e.key is not null then v_until end, e.unique_key, e.max_attempts)
    on conflict (queue_id, unique_key) where unique_key is not null do nothing;
    if not found then
      delete from sluice.idempotency_keys k where k.queue_id = e.queue_id and k.key = e.key and k.task_id = e.task_id;
      return null;
    end if;
    perform sluice.signal_flows_v1(array[e.task_id]);
  end if;
  insert into sluice.lanes (queue_id, handler_id, transaction)
  select e.queue_id, e.handler_id, pg_current_xact_id()
  where not exists (select from sluice.lanes l where l.queue_id = e.queue_id and l.handler_id = e.handler_id);
  insert into sluice.callback_uses (queue_id, by_queue_id, transaction)
  select distinct c.id, e.queue_id, pg_current_xact_id() from unnest(p_called) c(id)
  where c.id <> e.queue_id
    and not exists (select from sluice.callback_uses u where u.queue_id = c.id and u.by_queue_id = e.queue_id);
  insert into sluice.arrivals (queue_id, handler_id, created, due_at)
  values (e.queue_id, e.handler_id, v_holder is null, least(case when v_at > v_now then v_at end, v_ends));
  perform pg_notify('sluice', '{"replica":"","arrived":true}');  -- the same each time, so it is sent once per transaction
  return v_task;
end $$;
