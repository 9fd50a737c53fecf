-- Which entries, by their ordinals from 1, have an idempotency key or a unique key that a transaction still in progress has taken. Each is
-- tried on its own, waits for a millisecond, and is taken back: all that is written here is rolled back.
create function sluice.held_keys_v1(p_entries sluice.entry_v1[]) returns integer[] language plpgsql volatile
as $$
declare v_held integer[] := '{}'; v_entry record;
begin
  perform set_config('lock_timeout', '1', true);
  for v_entry in
    select e.queue_id, e.key, e.unique_key, e.on_duplicate, e.ordinality::integer as n from unnest(p_entries) with ordinality e
    where e.key is not null or e.unique_key is not null
  loop
    begin
      insert into sluice.idempotency_keys (queue_id, key, fingerprint, task_id, expires_at)
      select v_entry.queue_id, v_entry.key, '', gen_random_uuid(), 'epoch' where v_entry.key is not null on conflict do nothing;
      perform 1 from sluice.idempotency_keys k
      where k.queue_id = v_entry.queue_id and k.key = v_entry.key and k.expires_at <= statement_timestamp() for update;
      insert into sluice.tasks (id, tenant_id, queue_id, state, priority, run_at, created_at, payload, unique_key)
      select gen_random_uuid(), 0, v_entry.queue_id, :state_scheduled, 0, 'epoch', 'epoch', '', v_entry.unique_key
      where v_entry.unique_key is not null on conflict do nothing;
      perform 1 from sluice.tasks t
      where t.queue_id = v_entry.queue_id and t.unique_key = v_entry.unique_key and v_entry.on_duplicate is not null for update;
      raise exception using errcode = 'SL001', message = 'taken back';
    exception
      when sqlstate 'SL001' then null;
      when lock_not_available then v_held := v_held || v_entry.n;
    end;
  end loop;
  perform set_config('lock_timeout', '0', true);
  return v_held;
end $$;
