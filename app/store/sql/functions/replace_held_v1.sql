-- Give waiting tasks, locked by enqueue_v1, what entries with the verdict 'replaced' say, in the order of the entries: payload and
-- options, and to postpone one, its run_at too, which moves later only, and at most debounce_max_seconds after its creation. A task
-- that waits to retry keeps its attempts. Returns the verdicts: a repeat of such an entry within the group refers to the same task.
-- The entries' idempotency keys refer to the tasks they replaced, which stay as long as the keys.
create function sluice.replace_held_v1(p_entries sluice.entry_v1[], p_verdicts jsonb, p_now timestamptz, p_keyed boolean)
returns jsonb language plpgsql volatile
as $$
declare v_item record; v_verdicts jsonb := p_verdicts;
begin
  for v_item in
    select e.*, (p_verdicts -> e.ordinality::text ->> 1)::uuid as holder, q.idempotency_seconds
    from unnest(p_entries) with ordinality e join sluice.queues q on q.id = e.queue_id
    where p_verdicts -> e.ordinality::text ->> 0 = 'replaced' order by e.ordinality
  loop
    perform sluice.signal_flows_v1(array[v_item.holder]);  -- of the flow it may leave
    update sluice.tasks t set
      payload = v_item.payload, options = case when v_item.options ? 'sealed'
        then v_item.options || jsonb_build_object('sealed_for', v_item.task_id) else v_item.options end,
      priority = v_item.priority, handler_id = v_item.handler_id,
      max_attempts = v_item.max_attempts, flow_id = sluice.flow_id_v1(t.queue_id, v_item.handler_id, v_item.options),
      expires_at = coalesce(v_item.expires_at, p_now + make_interval(secs => v_item.ttl_seconds)),
      idempotency_until = case when p_keyed and v_item.key is not null
        then greatest(t.idempotency_until, p_now + make_interval(secs => v_item.idempotency_seconds)) else t.idempotency_until end,
      run_at = r.run_at,
      state = case when v_item.on_duplicate = 'replace' then t.state
                   when r.run_at > clock_timestamp() then :state_scheduled else :state_ready end
    from (
      select h.id, case when v_item.on_duplicate = 'replace' then h.run_at else greatest(h.run_at, least(
          greatest(v_item.run_at, p_now + make_interval(secs => v_item.delay_seconds), p_now),
          h.created_at + make_interval(secs => v_item.debounce_max_seconds))) end as run_at
      from sluice.tasks h where h.id = v_item.holder) r
    where t.id = r.id;
    perform sluice.signal_flows_v1(array[v_item.holder]);
    if p_keyed and v_item.key is not null then
      update sluice.idempotency_keys k set task_id = v_item.holder
      where k.queue_id = v_item.queue_id and k.key = v_item.key and k.task_id = v_item.task_id;
      select v_verdicts || coalesce(jsonb_object_agg(v.key, jsonb_build_array('replayed', v_item.holder)), '{}') into v_verdicts
      from jsonb_each(p_verdicts) v where v.value = jsonb_build_array('replayed', v_item.task_id);
    end if;
  end loop;
  return v_verdicts;
end $$;
