-- How many of a lane's ready tasks fill whole groups, and for how many seconds the group of those behind them may still wait for more:
-- null if there are none, or if the first of them has waited long enough. Looks at as many tasks as are wanted, at least one group.
-- Nothing is claimed before, so a group that forms holds no lease and no slot, on any replica, and nothing is lost with one.
-- Tasks with a key or limits of their own are not counted.
create function sluice.forming_v1(p_queue bigint, p_lane bigint, p_tasks integer, p_wait double precision, p_want integer,
                                  out filled integer, out forms_in double precision)
language plpgsql stable
as $$
declare v_runs timestamptz[];
begin
  select array_agg(k.run_at) into v_runs
  from (select t.run_at from sluice.tasks t
        where t.queue_id = p_queue and t.handler_id = p_lane and t.state = :state_ready and t.flow_id is null
          and (t.expires_at is null or t.expires_at > clock_timestamp())
        order by t.priority desc, t.run_at, t.id limit greatest(p_want, p_tasks)) k;
  filled := coalesce(cardinality(v_runs), 0) / p_tasks * p_tasks;
  select extract(epoch from min(r.run_at) - clock_timestamp()) + p_wait into forms_in from unnest(v_runs[filled + 1:]) r(run_at);
  if forms_in <= 0 then
    forms_in := null;
  end if;
end $$;
