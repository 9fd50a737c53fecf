-- Admit no task of a key until p_seconds from now: its handler has asked for that. The queue's limit of keys has a bucket for it; without
-- one nothing happens. Whoever claims such tasks decides under the tenant's gate, which this waits for, so that nothing is admitted
-- after it has committed. Returns whether the key is parked for longer than before.
create function sluice.park_key_v1(p_tenant bigint, p_queue bigint, p_key text, p_seconds double precision) returns boolean
language plpgsql volatile
as $$
declare v_now timestamptz;
begin
  perform pg_advisory_xact_lock(:lock_gate, p_tenant::integer);
  v_now := clock_timestamp();
  -- opens: as many flows as there may be
  insert into sluice.rate_clocks as r (bucket_id, tenant_id, limit_id, tat, unit_seconds, open_at, opens)
  select sluice.bucket_v1(l.id, p_key), p_tenant, l.id, v_now, coalesce(l.rate_period_seconds / l.rate_limit, 1),
         v_now + make_interval(secs => p_seconds), 1000
  from sluice.limits l where l.owner_id = p_queue and l.kind = 'queue_key'
  on conflict (bucket_id) do update set open_at = excluded.open_at, opens = excluded.opens
  where r.open_at is null or r.open_at < excluded.open_at;
  return found;
end $$;
