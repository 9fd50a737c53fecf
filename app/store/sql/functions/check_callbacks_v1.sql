-- Check that the queues which a task's callbacks name exist for the caller, and that their handlers allow the callbacks' targets. Returns
-- their ids. They cannot be deleted before the transaction ends.
create function sluice.check_callbacks_v1(p_callbacks jsonb, p_tenant bigint, p_visible text[], p_where text) returns bigint[]
language plpgsql volatile
as $$
declare v_ids bigint[] := '{}'; v_id bigint; v_call record; v_queue record;
begin
  for v_call in
    select c.value ->> 'queue' as queue, nullif(c.value -> 'target', 'null') as target, p_where || '/' || c.key as at
    from jsonb_each(p_callbacks) c where c.value <> 'null' order by c.value ->> 'queue'
  loop
    v_id := case when p_visible is null or v_call.queue like any(p_visible) then sluice.hold_queue_v1(p_tenant, v_call.queue) end;
    if v_id is null then
      perform sluice.refuse_v1('invalid', v_call.at || '/queue', format('there is no queue %s', v_call.queue));
    end if;
    select q.handler_id into v_queue from sluice.queues q where q.id = v_id;
    perform sluice.check_target_v1(v_call.target, v_queue.handler_id, v_call.queue, v_call.at || '/target');
    v_ids := v_ids || v_id;
  end loop;
  return v_ids;
end $$;
