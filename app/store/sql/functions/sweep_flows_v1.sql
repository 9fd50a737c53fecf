-- Look after the flows of tenants in case nobody claims: fold what was signalled and what is due, and check that nothing waits
-- beside free room. Returns the lanes that were opened, [[queue, handler], …], and how many flows were rescued: parked on a bucket
-- with room although nothing was signalled and no open flow of their lane would find it. There should never be one.
-- Tenants whose gate is taken are left to whoever has it. It holds the gates of those it has looked after until it ends, and a dispatcher
-- waits for it, so after a moment it leaves the others to the next sweep: those with signals or timers come first.
create function sluice.sweep_flows_v1(p_tenants integer, p_flows integer, out opened jsonb, out rescued integer)
language plpgsql volatile
as $$
declare v_tenant bigint; v_fold record; v_now timestamptz; v_ids bigint[]; v_more jsonb; v_until timestamptz;
begin
  opened := '[]'; rescued := 0;
  for v_tenant in
    with recursive signalled(id) as (
      (select s.tenant_id from sluice.flow_signals s order by s.tenant_id limit 1)
      union all
      select (select s.tenant_id from sluice.flow_signals s where s.tenant_id > o.id order by s.tenant_id limit 1)
      from signalled o where o.id is not null),
    timed(id) as (
      (select r.tenant_id from sluice.rate_clocks r where r.open_at is not null order by r.tenant_id limit 1)
      union all
      select (select r.tenant_id from sluice.rate_clocks r where r.open_at is not null and r.tenant_id > o.id order by r.tenant_id limit 1)
      from timed o where o.id is not null),
    laned(id) as (
      (select f.tenant_id from sluice.flows f where f.plain order by f.tenant_id limit 1)
      union all
      select (select f.tenant_id from sluice.flows f where f.plain and f.tenant_id > o.id order by f.tenant_id limit 1)
      from laned o where o.id is not null)
    select u.id
    from (select id, 1 as turn from signalled union all select id, 1 from timed union all select id, 2 from laned) u
    where u.id is not null group by u.id order by min(u.turn), random() limit p_tenants
  loop
    v_until := coalesce(v_until, clock_timestamp() + interval '20 milliseconds');
    exit when clock_timestamp() > v_until;
    select * into v_fold from sluice.fold_flows_v1(v_tenant);
    opened := opened || v_fold.opened;
    continue when not v_fold.got or v_fold.more;
    v_now := clock_timestamp();
    select array_agg(k.id) into v_ids
    from (
      select f.id, f.parked_on, f.parked_limit, f.costs, f.plain, f.queue_id, f.handler_id
      from sluice.flows p cross join lateral (
        select f.* from sluice.flows f where f.queue_id = p.queue_id and f.handler_id = p.handler_id and f.parked_on is not null
        limit p_flows) f
      where p.tenant_id = v_tenant and p.plain limit p_flows) k
    left join lateral sluice.bucket_states_v1(array[k.parked_on], array[k.parked_limit], v_now, '{}') s on true
    where (s.bucket_id is null or not s.ordered and coalesce(s.room, 1) > 0 and s.open_at is null
           and coalesce(s.tokens >= least(s.burst, (select max(c) from unnest(k.costs) c)), true))
      -- by the same snapshot: what freed the room since the fold has signalled it
      and not exists (select from sluice.flow_signals s where s.tenant_id = v_tenant)
      and not exists (select from sluice.flows f where f.queue_id = k.queue_id and f.handler_id = k.handler_id
                        and f.parked_on is null and not f.plain)
      and (not k.plain or exists (select from sluice.tasks t where t.queue_id = k.queue_id and t.handler_id = k.handler_id
                                    and t.flow_id is null and t.state = :state_ready));
    continue when v_ids is null;
    with found as (
      update sluice.flows f set parked_on = null, parked_limit = null where f.id = any(v_ids) returning f.queue_id, f.handler_id, f.plain)
    select rescued + count(*), jsonb_agg(distinct jsonb_build_array(f.queue_id, f.handler_id)) into rescued, v_more from found f;
    opened := opened || v_more;
  end loop;
end $$;
