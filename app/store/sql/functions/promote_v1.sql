-- Turn due scheduled tasks into ready ones; answers their lanes, and in the last row (no queue) when the next one is due.
create function sluice.promote_v1(p_limit integer)
returns table (queue_id bigint, lane bigint, moved bigint, next_at timestamptz, at timestamptz) language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_sort = off
set enable_bitmapscan = off set jit = off
as $$
#variable_conflict use_column
declare v_ids uuid[];
begin
  select array_agg(l.id) into v_ids
  from (select t.id from sluice.tasks t where t.state = 2 and t.claims >= 0 and t.run_at <= statement_timestamp()
        order by t.run_at limit p_limit for update skip locked) l;
  if v_ids is not null then
    return query
      with due as (update sluice.tasks t set state = 0 where t.id = any(v_ids) returning t.queue_id, t.handler_id)
      select d.queue_id, d.handler_id, count(*), null::timestamptz, null::timestamptz from due d group by 1, 2;
  end if;
  queue_id := null; lane := null; moved := coalesce(cardinality(v_ids), 0); at := clock_timestamp();
  select t.run_at into next_at from sluice.tasks t where t.state = 2 and t.claims >= 0 order by t.run_at limit 1;
  return next;
end $$;
