-- End waiting tasks at their expires_at, or at the end of an attempt that outlasted it: dead, expired. Answers how many of which queue, and in the last row (no queue) when
-- the next one is due.
create function sluice.expire_v1(p_limit integer)
returns table (queue_id bigint, ended bigint, next_at timestamptz, at timestamptz) language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set enable_sort = off
set enable_bitmapscan = off set jit = off
as $$
#variable_conflict use_column
declare v_ids uuid[]; v_at timestamptz[];
begin
  select array_agg(l.id), array_agg(l.ended_at) into v_ids, v_at
  from (select t.id, greatest(t.expires_at, t.last_ended_at) as ended_at from sluice.tasks t
        where t.state <> 1 and t.expires_at is not null and t.expires_at <= statement_timestamp()
        order by t.expires_at limit p_limit for update skip locked) l;
  if v_ids is not null then
    return query select t.queue_id, count(*), null::timestamptz, null::timestamptz
      from sluice.tasks t where t.id = any(v_ids) group by 1;
    perform sluice.bury_v1(v_ids, 4::smallint, 'expired', v_at);
  end if;
  queue_id := null; ended := coalesce(cardinality(v_ids), 0); at := clock_timestamp();
  select t.expires_at into next_at from sluice.tasks t
    where t.state <> 1 and t.expires_at is not null order by t.expires_at limit 1;
  return next;
end $$;
