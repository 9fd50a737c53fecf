-- Make due scheduled tasks ready; returns their lanes, and in the last row (no queue) when the next one is due.
-- Tenants share the limit, so that a million due tasks of one do not delay the others: one index probe finds each tenant's first
-- task, and the same number is taken from each tenant that has due tasks.
create function sluice.promote_v1(p_limit integer)
returns table (queue_id bigint, lane bigint, moved bigint, next_at timestamptz, at timestamptz) language plpgsql volatile
as $$
#variable_conflict use_column
declare v_tenants bigint[]; v_each integer; v_ids uuid[]; v_next timestamptz;
begin
  for v_look in 1..2 loop
    with recursive firsts(tenant_id, run_at) as (
      (select t.tenant_id, t.run_at from sluice.tasks t where t.state = :state_scheduled and t.claims >= 0
       order by t.tenant_id, t.run_at limit 1)
      union all
      select n.tenant_id, n.run_at from firsts f cross join lateral (
        select t.tenant_id, t.run_at from sluice.tasks t where t.state = :state_scheduled and t.claims >= 0 and t.tenant_id > f.tenant_id
        order by t.tenant_id, t.run_at limit 1) n)
    select array_agg(f.tenant_id) filter (where f.run_at <= statement_timestamp()), min(f.run_at) into v_tenants, v_next
    from firsts f;
    exit when v_look = 2 or v_tenants is null;
    v_each := greatest(1, p_limit / cardinality(v_tenants));
    select array_agg(l.id) into v_ids
    from unnest(v_tenants) w(id) cross join lateral (
      select t.id from sluice.tasks t
      where t.state = :state_scheduled and t.claims >= 0 and t.tenant_id = w.id and t.run_at <= statement_timestamp()
      order by t.run_at limit v_each for update skip locked) l;
    exit when v_ids is null;
    return query
      with due as (update sluice.tasks t set state = :state_ready where t.id = any(v_ids) returning t.queue_id, t.handler_id)
      select d.queue_id, d.handler_id, count(*), null::timestamptz, null::timestamptz from due d group by 1, 2;
    perform sluice.signal_flows_v1(v_ids);
  end loop;
  queue_id := null; lane := null; moved := coalesce(cardinality(v_ids), 0); next_at := v_next; at := clock_timestamp();
  return next;
end $$;
