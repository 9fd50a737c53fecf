-- What the loops have to do, in one statement: seconds until the first task is due, the first one expires, the first lease ends and
-- the first schedule is due (null: none will be), and whether runs of schedules have ended, batches have something to fold, and
-- cancelled batches have tasks left; health: seconds until time changes that of a handler; act: until an action may go on;
-- flows: whether flows have to be looked after (sweep_flows_v1); arrive: whether sluice.enqueue has added tasks; receive: whether there
-- are sources. One index probe per tenant for each, and per queue with running tasks for the leases, however much there is.
create function sluice.poll_v1()
returns table (promote double precision, expire double precision, reap double precision, fire double precision,
               finish boolean, fold boolean, sweep boolean, health double precision, act double precision, flows boolean,
               arrive boolean, receive boolean)
language plpgsql stable
as $$
begin
  return query
    with recursive due(tenant_id, at) as (
      (select t.tenant_id, t.run_at from sluice.tasks t where t.state = :state_scheduled and t.claims >= 0
       order by t.tenant_id, t.run_at limit 1)
      union all
      select n.tenant_id, n.run_at from due f cross join lateral (
        select t.tenant_id, t.run_at from sluice.tasks t
        where t.state = :state_scheduled and t.claims >= 0 and t.tenant_id > f.tenant_id order by t.tenant_id, t.run_at limit 1) n),
    expiring(tenant_id, at) as (
      (select t.tenant_id, t.expires_at from sluice.tasks t where t.state <> :state_running and t.expires_at is not null
       order by t.tenant_id, t.expires_at limit 1)
      union all
      select n.tenant_id, n.expires_at from expiring f cross join lateral (
        select t.tenant_id, t.expires_at from sluice.tasks t
        where t.state <> :state_running and t.expires_at is not null and t.tenant_id > f.tenant_id
        order by t.tenant_id, t.expires_at limit 1) n),
    leased(tenant_id, queue_id, at) as (
      (select t.tenant_id, t.queue_id, t.lease_expires_at from sluice.tasks t where t.state = :state_running
       order by t.tenant_id, t.queue_id, t.lease_expires_at limit 1)
      union all
      select n.tenant_id, n.queue_id, n.lease_expires_at from leased f cross join lateral (
        select t.tenant_id, t.queue_id, t.lease_expires_at from sluice.tasks t
        where t.state = :state_running and (t.tenant_id, t.queue_id) > (f.tenant_id, f.queue_id)
        order by t.tenant_id, t.queue_id, t.lease_expires_at limit 1) n),
    looks(tenant_id, at) as (
      (select s.tenant_id, s.look_at from sluice.schedules s where s.look_at is not null order by s.tenant_id, s.look_at limit 1)
      union all
      select n.tenant_id, n.look_at from looks f cross join lateral (
        select s.tenant_id, s.look_at from sluice.schedules s where s.look_at is not null and s.tenant_id > f.tenant_id
        order by s.tenant_id, s.look_at limit 1) n)
    select (select extract(epoch from min(d.at) - clock_timestamp()) from due d)::double precision,
           (select extract(epoch from min(e.at) - clock_timestamp()) from expiring e)::double precision,
           (select extract(epoch from min(l.at) - clock_timestamp()) from leased l)::double precision,
           (select extract(epoch from min(k.at) - clock_timestamp()) from looks k)::double precision,
           exists (select from sluice.batches b where b.run_open and b.completed_at is not null
                     and b.succeeded + b.dead + b.cancelled >= b.total),
           exists (select from sluice.batch_deltas),
           exists (select from sluice.batches b where b.cancelled_at is not null and not b.swept),
           (select extract(epoch from min(x.look_at) - clock_timestamp()) from sluice.handler_health x
            where x.look_at is not null)::double precision,
           (select extract(epoch from min(c.next_at) - clock_timestamp()) from sluice.actions c
            where c.state = 'running')::double precision,
           exists (select from sluice.flow_signals) or exists (select from sluice.rate_clocks r where r.open_at is not null)
             or exists (select from sluice.flows w where w.plain),
           exists (select from sluice.arrivals),
           exists (select from sluice.sources s where not s.paused);
end $$;
