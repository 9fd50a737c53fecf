-- Make a change of limits exact: the last call of the transaction that made it. It waits for the claim that has the tenant's gate, and
-- what is admitted after the transaction is admitted by the new values. Returns the lanes that may go on, [[queue, handler], …].
-- p_limit: only the numbers, pauses or overrides of this limit have changed; p_key: only those of this key, so that the others are not
-- looked at. Without p_limit, it may be which limits tasks take.
--
-- A rate keeps what it owes in units: reckoned at the new pace, what an old one admitted at once would be forgotten, or would block
-- for hours. A timer beyond what a rate owes is of park_key_v1: that key stays parked.
-- Running tasks hold what they take from now on, also those that were admitted before there was anything to hold. Only those are
-- locked. Whoever ends another one signals it, and its hold goes with the signal, also one that is written here meanwhile.
create function sluice.limits_changed_v1(p_tenant bigint, p_limit bigint default null, p_key text default null)
returns jsonb language plpgsql volatile
as $$
declare
  c_rounding constant interval := '1 millisecond';
  v_bucket bigint := case when p_key is not null then sluice.bucket_v1(p_limit, p_key) end;
  v_now timestamptz; v_running uuid[]; v_flows bigint[]; v_opened jsonb;
begin
  perform pg_advisory_xact_lock(:lock_gate, p_tenant::integer);
  v_now := clock_timestamp();
  delete from sluice.rate_clocks r
  where r.tenant_id = p_tenant and (p_limit is null or r.limit_id = p_limit) and (v_bucket is null or r.bucket_id = v_bucket)
    and not exists (select from sluice.bucket_states_v1(array[r.bucket_id], array[r.limit_id], v_now, '{}') s
                    where s.unit_seconds is not null or r.open_at > greatest(r.tat, v_now) + c_rounding);
  update sluice.rate_clocks r set unit_seconds = coalesce(s.unit_seconds, r.unit_seconds),
    open_at = case when r.open_at > greatest(r.tat, v_now) + c_rounding then r.open_at end,
    tat = coalesce(v_now + least(greatest(0, extract(epoch from r.tat - v_now)) / r.unit_seconds, s.burst) * s.unit_seconds
                     * interval '1 second', r.tat)
  from sluice.rate_clocks c
  cross join lateral sluice.bucket_states_v1(array[c.bucket_id], array[c.limit_id], v_now, '{}') s
  where c.tenant_id = p_tenant and (p_limit is null or c.limit_id = p_limit) and (v_bucket is null or c.bucket_id = v_bucket)
    and r.bucket_id = c.bucket_id;

  if p_limit is null then
    update sluice.queues q set flows = true
    where q.tenant_id = p_tenant and not q.flows and q.deleted_at is null
      and (q.limits <> '[]' or exists (select from sluice.limits l where l.owner_id = q.id and l.kind = 'queue_rate'));
    update sluice.handlers h set flows = not h.flows
    where h.tenant_id = p_tenant and h.deleted_at is null
      and h.flows <> (h.limits <> '[]' or exists (select from sluice.limits l where l.owner_id = h.id and l.kind = 'handler_rate'));
    update sluice.tenants n set flows = not n.flows
    where n.id = p_tenant
      and n.flows <> exists (select from sluice.limits l where l.owner_id = n.id and l.kind = 'tenant_rate');
    select array_agg(l.id) into v_running
    from (select t.id from sluice.tasks t
          join sluice.queues q on q.id = t.queue_id join sluice.tenants n on n.id = t.tenant_id
          left join sluice.handlers h on h.id = t.lease_handler_id
          where t.state = :state_running and t.tenant_id = p_tenant and not t.gated and (q.flows or n.flows or coalesce(h.flows, false))
          order by t.id for update of t) l;
    update sluice.tasks t set gated = true where t.id = any(v_running);
    insert into sluice.holds as o (bucket_id, task_id, claims, limit_id)
    select b.bucket_id, t.id, t.claims, b.limit_id
    from sluice.tasks t
    cross join lateral sluice.flow_buckets_v1(p_tenant, t.queue_id, t.lease_handler_id, t.options ->> 'key', t.options -> 'limits') b
    where t.state = :state_running and t.tenant_id = p_tenant and t.gated and b.kind in ('named', 'queue_key')
    on conflict (bucket_id, task_id) do update set claims = excluded.claims where o.claims < excluded.claims;
  end if;

  select array_agg(f.id) into v_flows
  from sluice.flows p cross join lateral (
    select f.id from sluice.flows f where f.queue_id = p.queue_id and f.handler_id = p.handler_id and f.parked_on is null and not f.plain
    union all
    select f.id from sluice.flows f where f.queue_id = p.queue_id and f.handler_id = p.handler_id and f.parked_on is not null
    union all select p.id) f
  where p.tenant_id = p_tenant and p.plain;
  update sluice.flows f set weight = w.weight
  from (select g.id, coalesce(k.weight, 1) as weight
        from sluice.flows g join sluice.limits l on l.owner_id = g.queue_id and l.kind = 'queue_key'
        left join sluice.limit_keys k on k.limit_id = l.id and k.key = g.key
        where g.id = any(v_flows) and (p_limit is null or l.id = p_limit) and (p_key is null or g.key = p_key)) w
  where f.id = w.id and f.weight <> w.weight;
  with opened as (
    update sluice.flows f set parked_on = null, parked_limit = null,
      buckets = case when p_limit is not null then f.buckets end, limit_ids = case when p_limit is not null then f.limit_ids end,
      costs = case when p_limit is not null then f.costs end,
      vt = greatest(f.vt, (
        select p.clock from sluice.flows p where p.id = sluice.hash_v1('plain ' || f.queue_id::text || ' ' || f.handler_id::text)))
    where f.id = any(v_flows) and (p_limit is null or f.parked_limit = p_limit) and (v_bucket is null or f.parked_on = v_bucket)
    returning f.queue_id, f.handler_id)
  select jsonb_agg(jsonb_build_array(o.queue_id, o.handler_id)) into v_opened
  from (select distinct o.queue_id, o.handler_id from opened o) o;
  return coalesce(v_opened, '[]');
end $$;
