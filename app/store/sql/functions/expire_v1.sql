-- End waiting tasks at their expires_at, or after an attempt that outlasted it, as dead with reason expired,
-- or pushed_back_too_long if that was its last attempt. Returns how many per
-- queue, and in the last row (no queue) when the next one is due, and what call_back_v1 says. Tenants share the limit, as in promote_v1.
create function sluice.expire_v1(p_limit integer)
returns table (queue_id bigint, ended bigint, next_at timestamptz, at timestamptz, callbacks jsonb[]) language plpgsql volatile
as $$
#variable_conflict use_column
declare
  v_tenants bigint[]; v_each integer; v_ids uuid[]; v_some uuid[]; v_reason text; v_at timestamptz[]; v_next timestamptz;
  v_callbacks jsonb[];
begin
  for v_look in 1..2 loop
    with recursive firsts(tenant_id, expires_at) as (
      (select t.tenant_id, t.expires_at from sluice.tasks t where t.state <> :state_running and t.expires_at is not null
       order by t.tenant_id, t.expires_at limit 1)
      union all
      select n.tenant_id, n.expires_at from firsts f cross join lateral (
        select t.tenant_id, t.expires_at from sluice.tasks t
        where t.state <> :state_running and t.expires_at is not null and t.tenant_id > f.tenant_id
        order by t.tenant_id, t.expires_at limit 1) n)
    select array_agg(f.tenant_id) filter (where f.expires_at <= statement_timestamp()), min(f.expires_at)
      into v_tenants, v_next from firsts f;
    exit when v_look = 2 or v_tenants is null;
    v_each := greatest(1, p_limit / cardinality(v_tenants));
    select array_agg(l.id), array_agg(l.ended_at) into v_ids, v_at
    from unnest(v_tenants) w(id) cross join lateral (
      select t.id, greatest(t.expires_at, t.last_ended_at) as ended_at from sluice.tasks t
      where t.state <> :state_running and t.expires_at is not null and t.tenant_id = w.id and t.expires_at <= statement_timestamp()
      order by t.expires_at limit v_each for update skip locked) l;
    exit when v_ids is null;
    return query select t.queue_id, count(*), null::timestamptz, null::timestamptz, null::jsonb[]
      from sluice.tasks t where t.id = any(v_ids) group by 1;
    for v_reason, v_some, v_at in
      select case when t.last_outcome = 'pushed_back' then 'pushed_back_too_long' else 'expired' end,
             array_agg(i.id), array_agg(i.at)
      from unnest(v_ids, v_at) i(id, at) join sluice.tasks t on t.id = i.id group by 1 loop
      v_callbacks := v_callbacks || sluice.bury_v1(v_some, :state_dead::smallint, v_reason, v_at);
    end loop;
  end loop;
  queue_id := null; ended := coalesce(cardinality(v_ids), 0); next_at := v_next; at := clock_timestamp();
  callbacks := v_callbacks;
  return next;
end $$;
