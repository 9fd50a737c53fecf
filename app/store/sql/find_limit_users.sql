-- Something that names limit $2 of tenant $1, in words: a queue, a handler, a schedule or an unfinished task; null if nothing does.
-- Tasks name few different lists of limits, so tasks_limits is read list by list: each is one probe beyond the one before it.
with recursive wanted as (select jsonb_build_array(jsonb_build_object('name', $2::text)) as use),
lists as (
  (select t.options -> 'limits' as list from sluice.tasks t
   where t.tenant_id = $1 and t.flow_id is not null and t.options ? 'limits' order by t.options -> 'limits' limit 1)
  union all
  select (select t.options -> 'limits' from sluice.tasks t
          where t.tenant_id = $1 and t.flow_id is not null and t.options ? 'limits' and t.options -> 'limits' > l.list
          order by t.options -> 'limits' limit 1)
  from lists l where l.list is not null)
select coalesce(
  (select 'queue ' || q.name from sluice.queues q, wanted w
   where q.tenant_id = $1 and q.deleted_at is null and q.limits @> w.use limit 1),
  (select 'handler ' || h.name from sluice.handlers h, wanted w
   where h.tenant_id = $1 and h.deleted_at is null and h.limits @> w.use limit 1),
  (select 'schedule ' || s.name from sluice.schedules s, wanted w
   where s.tenant_id = $1 and s.deleted_at is null and s.options -> 'limits' @> w.use limit 1),
  (select 'an unfinished task' from lists l, wanted w where l.list @> w.use limit 1))
