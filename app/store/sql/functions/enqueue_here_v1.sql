-- Enqueue one task in the caller's transaction, for a tenant and with the queues that caller_v1 found. Returns the id of the task that the
-- idempotency key or the unique key stands for, or of the new one. p_payload: JSON; null: the document has payload_base64.
--
-- The transaction may last, so it holds nothing that others wait for, except its own keys: no lock of QUEUE or DEPTH, no row of a
-- definition, a lane or a count (insert_task_v1). What a deletion would take from under it is held by locks that only deletions try for
-- (hold_queue_v1). Its tasks are seen when it commits, whatever was claimed in the meantime: claims look at everything each second.
create function sluice.enqueue_here_v1(
  p_tenant bigint, p_visible text[], p_queue text, p_task jsonb, p_payload text, p_where text)
returns uuid language plpgsql volatile
as $$
declare
  v_queue sluice.queues; v_entry sluice.entry_v1; v_now timestamptz := clock_timestamp(); v_known uuid; v_called bigint[] := '{}'; v_task uuid;
begin
  if jsonb_typeof(p_task) <> 'object' then perform sluice.refuse_v1('invalid', p_where, 'expected an object'); end if;
  select q.* into v_queue from sluice.queues q
  where q.id = case when p_visible is null or p_queue like any(p_visible) then sluice.hold_queue_v1(p_tenant, p_queue) end;
  if v_queue.id is null then
    perform sluice.refuse_v1('queue_not_found', '', format('there is no queue %s', p_queue), 'PUT /queues/{name} creates one');
  elsif v_queue.encrypt then
    perform sluice.refuse_v1('needs_service', '', format('queue %s encrypts payloads, and only the service has the key', p_queue),
                             'enqueue over HTTP');
  elsif v_queue.payload_schema is not null then
    perform sluice.refuse_v1('needs_service', '', format('queue %s has a payload_schema, which only the service can check', p_queue),
                             'enqueue over HTTP');
  elsif p_payload is not null and p_task ? 'payload_base64' and p_task -> 'payload_base64' <> 'null' then
    perform sluice.refuse_v1('invalid', p_where || '/payload_base64', 'cannot be combined with payload; send one of them');
  end if;
  v_entry := sluice.read_task_v1(p_task, case when p_payload is null and jsonb_typeof(p_task -> 'payload_base64') <> 'null'
    then sluice.read_base64_v1(p_task -> 'payload_base64', p_where || '/payload_base64')
    else sluice.read_payload_v1(p_payload, p_where || '/payload') end, p_where);
  v_entry.task_id := sluice.uuid7_v1(); v_entry.queue_id := v_queue.id; v_entry.queue_version := v_queue.version;
  v_entry.handler_id := sluice.own_handler_v1(
    p_tenant, sluice.read_name_v1(nullif(p_task -> 'handler', 'null'), p_where || '/handler'), v_queue, p_visible, p_where || '/handler');
  -- a replay is answered before these rules apply
  select k.task_id into v_known from sluice.idempotency_keys k
  where k.queue_id = v_queue.id and k.key = v_entry.key and k.expires_at > v_now;
  if v_known is null then
    if v_entry.run_at > v_now + interval '366 days' then
      perform sluice.refuse_v1('invalid', p_where || '/run_at', 'is more than 366 days in the future');
    elsif v_entry.expires_at <= v_now then
      perform sluice.refuse_v1('invalid', p_where || '/expires_at', 'has passed: the task could never start');
    end if;
    perform sluice.check_target_v1(v_entry.options -> 'target', coalesce(nullif(v_entry.handler_id, 0), v_queue.handler_id), p_queue,
                                   p_where || '/target');
    perform sluice.hold_limits_v1(p_tenant, v_entry.options -> 'limits', p_visible, p_where);
    perform sluice.check_limits_v1(v_queue.id, coalesce(nullif(v_entry.handler_id, 0), v_queue.handler_id), v_entry, p_where);
    v_called := sluice.check_callbacks_v1(v_entry.options -> 'callbacks', p_tenant, p_visible, p_where || '/callbacks');
  end if;
  for v_try in 1..10 loop
    v_task := sluice.insert_task_v1(v_entry, v_queue, v_called);
    exit when v_task is not null;
  end loop;
  if v_task is null then
    perform sluice.refuse_v1('unavailable', '', 'too many transactions use the same key', 'try again');
  end if;
  return v_task;
end $$;
