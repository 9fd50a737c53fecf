-- How many of a lane's ready tasks fill whole groups, and for how many seconds the group of those behind them may still wait for more:
-- null if there are none, or if the first of them has waited long enough. Looks at as many tasks as are wanted, at least one group.
-- Nothing is claimed before, so a group that forms holds no lease and no slot, on any replica, and nothing is lost with one.
-- In a lane that is claimed through its tenant's gate, the tasks of open flows count as well, whatever their limits admit: a group is
-- then sent with those that they do.
create function sluice.forming_v1(
  p_queue bigint, p_lane bigint, p_gated boolean, p_tasks integer, p_wait double precision, p_want integer,
  out filled integer, out forms_in double precision)
language plpgsql stable
as $$
declare v_most integer := greatest(p_want, p_tasks); v_runs timestamptz[];
begin
  v_runs := array(
    select t.run_at from sluice.tasks t
    where t.queue_id = p_queue and t.handler_id = p_lane and t.state = :state_ready and t.flow_id is null
      and (t.expires_at is null or t.expires_at > clock_timestamp())
    order by t.priority desc, t.run_at, t.id limit v_most);
  if p_gated and cardinality(v_runs) < v_most then
    v_runs := v_runs || array(
      select k.run_at
      from (select f.id from sluice.flows f
            where f.queue_id = p_queue and f.handler_id = p_lane and f.parked_on is null and not f.plain
            order by f.priority desc, f.vt, f.id limit v_most) f
      cross join lateral (
        select t.run_at from sluice.tasks t
        where t.queue_id = p_queue and t.flow_id = f.id and t.state = :state_ready
          and (t.expires_at is null or t.expires_at > clock_timestamp())
        order by t.priority desc, t.run_at, t.id limit v_most) k
      limit v_most - cardinality(v_runs));
  end if;
  filled := cardinality(v_runs) / p_tasks * p_tasks;
  select extract(epoch from min(r.run_at) - clock_timestamp()) + p_wait into forms_in from unnest(v_runs[filled + 1:]) r(run_at);
  if forms_in <= 0 then
    forms_in := null;
  end if;
end $$;
